"""What a judge computes from hidden states: one raw number for quality, one more for each category.

`ScalarModel` is a pretrained body, a pooling and a linear head; `VerdictModel` reads its first number from the rows of
the output layer that spell a verdict. It knows nothing of tokenizers, files or losses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from quality_judge.engine.precision import narrow
from quality_judge.engine.prefix import begun_with, shared_prefix
from quality_judge.engine.verdict import row_ids
from quality_judge.judge_spec import Verdict

# Means after each third of the layers beat the last layer's by .01-.11 ROC AUC under a linear head on four label sets,
# most on form (grammar, clean sentences): the last layer of a sentence encoder keeps the topic and loses the rest.
# Beside a decoder's last token they add up to .11 (benchmarks/NOTES.md).
POOLED_LAYERS = 3
POOLED_STATES: dict[str, int] = {"layers": POOLED_LAYERS, "layers_last": POOLED_LAYERS + 1, "last": 1}
MOST_SPECIALS = 4
Pooling = Literal["layers", "layers_last", "last"]
Begun: TypeAlias = tuple[Cache, ...]


class ScalarModel(nn.Module):
    """outputs[:, 0] is the raw quality score; outputs[:, 1:] are the categories' raw scores (higher: it applies)."""

    def __init__(self, body: nn.Module, hidden_size: int, outputs: int, pooling: Pooling) -> None:
        super().__init__()
        self.body = body
        self.pooling = pooling
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # a verdict without categories
            self.head = nn.Linear(hidden_size * POOLED_STATES[pooling], outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def outputs(self) -> int:
        """How many numbers a row gets."""
        return self.head.out_features

    @property
    def bodies(self) -> list[nn.Module]:
        """The pretrained models within."""
        return [self.body]

    def cast(self, dtype: torch.dtype, *, map_embedding: bool = False) -> None:
        """Computes in `dtype` from here on; heads stay float32. map_embedding: see `engine.precision.narrow`."""
        for body in self.bodies:
            narrow(body, dtype, map_embedding=map_embedding)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Outputs, float32 (B, outputs). ids: (B, T), padded on the right. lengths: (B,)."""
        pooled = self.pooled(ids, lengths)
        with torch.autocast(ids.device.type, enabled=False):  # a head in bfloat16 ties a tenth of all rows
            return products(pooled, self.head.weight) + self.head.bias

    def begun(self, prefix: Sequence[int]) -> Begun | None:
        """The ids that all rows begin with, computed once for each of `bodies`; None where one cannot go on from them.

        For what reads a row's end alone: `pooled` with the pooling `last`, and a verdict. None for MOST_SPECIALS ids or
        fewer: they are no rubric's prompt, and cost nothing.
        """
        if self.pooling != "last" or len(prefix) <= MOST_SPECIALS:
            return None
        return self._begun_by(lambda body: shared_prefix(body, prefix))

    def _begun_by(self, begin: Callable[[nn.Module], Cache | None]) -> Begun | None:
        found = [begin(body) for body in self.bodies]
        known = tuple(cache for cache in found if cache is not None)
        return known if len(known) == len(found) else None

    def pooled(self, ids: Tensor, lengths: Tensor, begun: Begun | None = None) -> Tensor:
        """Pooled hidden states, float32 (B, W).

        `layers`: the means over the row's tokens after each third of the layers, side by side, the last layer's last;
        `last`: the last token's state. `layers_last`, of causal models: both, that one last, and the means without the
        first token, which sees no other and is where attention goes that wants nothing (Xiao et al. 2024, 2309.17453).
        W is POOLED_STATES times the hidden size.
        begun: what stands before `ids` in every row, which then hold and count only what follows it.
        """
        if self.pooling == "last":
            return at_end(last_hidden_state(self.body, ids, lengths, begun[0] if begun else None), lengths, 1)[:, 0]
        mask = attended(ids, lengths)
        body: Any = self.body
        depth = body.config.num_hidden_layers
        kept = [depth * third // POOLED_LAYERS for third in range(1, POOLED_LAYERS + 1)]  # 0 would be the embeddings
        said = body(input_ids=ids, attention_mask=mask.long(), use_cache=False, output_hidden_states=kept)
        chosen = [said.hidden_states[at] for at in kept]
        skipped = int(self.pooling == "layers_last")
        counted, count = mask[:, skipped:, None], (lengths - skipped).clamp(min=1)[:, None]
        parts = [(state[:, skipped:].float() * counted).sum(1) / count for state in chosen]
        if skipped:
            parts.append(at_end(said.last_hidden_state, lengths, 1)[:, 0])
        return torch.cat(parts, dim=1)


class VerdictModel(ScalarModel):
    """outputs[:, 0] is the verdict's margin log P(good) − log P(bad); outputs[:, 1:] are the categories' raw scores.

    rows: the output layer's rows of `row_ids(verdict)`, float32 (R, H); bias: (R,). Neither is ever trained.
    reference: the untouched base, where the judge's raw score is s + verdict.reference · s0 of the base's own margin.
    shared: how many ids all rows of any batch begin with, for a model that changes from batch to batch: they are
    computed once for a batch. A model that stays as it is does better with `begun`.
    """

    rows: Tensor
    row_bias: Tensor

    def __init__(
        self, body: nn.Module, verdict: Verdict, rows: Tensor, bias: Tensor, categories: int,
        reference: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__(body, rows.shape[1], categories, "last")
        self.verdict = verdict
        self.reference = reference
        self.shared = 0
        self.register_buffer("rows", rows.detach().float().clone())
        self.register_buffer("row_bias", bias.detach().float().clone())
        self.place = place = {token: index for index, token in enumerate(row_ids(verdict))}

        def places(tokens: tuple[int, ...]) -> list[int]:
            return [place[token] for token in tokens]

        self._steps = [
            (places(step.good), places(step.bad), None if step.next is None else place[step.next])
            for step in verdict.steps
        ]

    @property
    def outputs(self) -> int:
        """The margin and the categories."""
        return 1 + self.head.out_features

    @property
    def bodies(self) -> list[nn.Module]:
        """The body, and the reference where there is one."""
        return [self.body] if self.reference is None else [self.body, self.reference]

    def forward(self, ids: Tensor, lengths: Tensor, begun: Begun | None = None) -> Tensor:
        """Outputs, float32 (B, 1 + K). ids: (B, T), padded on the right, the forced tokens at each row's end.

        begun: what stands before `ids` in every row, which then hold and count only what follows it.
        """
        if self.shared and begun is None:
            begun = self._begun_by(lambda body: begun_with(body, ids[:1, : self.shared]))
            if begun is not None:
                return self(ids[:, self.shared :], lengths - self.shared, begun)
        before: Sequence[Cache | None] = begun or [None] * len(self.bodies)
        hidden = at_end(last_hidden_state(self.body, ids, lengths, before[0]), lengths, len(self._steps))
        with torch.autocast(ids.device.type, enabled=False):
            score = self.margin(hidden)
            if self.reference is not None:
                states = last_hidden_state(self.reference, ids, lengths, before[1])
                untouched = at_end(states, lengths, len(self._steps))
                score = score + self.verdict.reference * self.margin(untouched)
            categories = products(hidden[:, -1], self.head.weight) + self.head.bias
        return torch.cat([score[:, None], categories], 1)

    def margin(self, hidden: Tensor) -> Tensor:
        """log P(good) − log P(bad), float32 (B,), of the hidden states (B, steps, H) where the verdict is read.

        P is renormalised at each step over that step's own branches; a word that is decided early counts in full.
        """
        logits = products(hidden, self.rows) + self.row_bias
        good, bad = None, None
        for step in reversed(range(len(self._steps))):
            here, (yes, no, onward) = logits[:, step], self._steps[step]
            ways_good, ways_bad = here[:, yes], here[:, no]
            if onward is not None and good is not None and bad is not None:
                total = torch.logaddexp(good, bad)
                ways_good = torch.cat([ways_good, (here[:, onward] + good - total)[:, None]], 1)
                ways_bad = torch.cat([ways_bad, (here[:, onward] + bad - total)[:, None]], 1)
            good, bad = torch.logsumexp(ways_good, 1), torch.logsumexp(ways_bad, 1)
        if good is None or bad is None:
            raise AssertionError("a verdict has at least one step")
        return good - bad


def last_hidden_state(body: nn.Module, ids: Tensor, lengths: Tensor, begun: Cache | None = None) -> Tensor:
    """The body's last hidden states, (B, T, H). begun: keys and values of what stands before `ids` in every row."""
    seen, past = attended(ids, lengths).long(), {}
    if begun is not None:
        seen, past = F.pad(seen, (begun.get_seq_length(), 0), value=1), {"past_key_values": begun}
    return body(input_ids=ids, attention_mask=seen, use_cache=False, **past).last_hidden_state


def attended(ids: Tensor, lengths: Tensor) -> Tensor:
    """Which ids belong to their row and are no padding, bool (B, T)."""
    return torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]


def at_end(hidden: Tensor, lengths: Tensor, count: int) -> Tensor:
    """The states of the last `count` tokens of each row, float32 (B, count, H)."""
    places = lengths[:, None] - count + torch.arange(count, device=hidden.device)
    return hidden[torch.arange(len(hidden), device=hidden.device)[:, None], places].float()


def products(states: Tensor, rows: Tensor) -> Tensor:
    """The product of each state, (…, H), with each row, (R, H): (…, R).

    Not a matrix product: a matrix-vector kernel adds up a row's products in an order that depends on the row's place
    in the batch, and its score would depend on its neighbours.
    """
    return (states[..., None, :] * rows).sum(-1)
