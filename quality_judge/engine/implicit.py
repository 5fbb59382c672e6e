"""An implicit reward: β · Σ (log π − log π₀) over a completion's tokens, π the tuned policy, π₀ the base it came from.

It is what DPO (Rafailov et al. 2023, arXiv 2305.18290) and KTO (2402.01306) train a generator by. Both models run over
each row, and their whole output layer over each token. It knows nothing of training, tokenizers or files but a judge's.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from quality_judge.bases import Base
from quality_judge.engine.kinds import ScalarModel, at_end, attended, last_hidden_state, products
from quality_judge.engine.output_layer import OutputLayer, load_generator
from quality_judge.errors import JudgeError
from quality_judge.judge_spec import Encoding, Implicit, JudgeSpec

CHUNK = 256  # positions whose logits over the whole vocabulary exist at once


class ImplicitModel(ScalarModel):
    """outputs[:, 0] is the implicit reward; outputs[:, 1:] are the categories' raw scores, read from the reference.

    body: the policy. reference: the untouched base. Both write through `weight`, float32 (V, H), and `bias`, (V,):
    the base's own, which are never trained and are no part of a judge.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, body: nn.Module, reference: nn.Module, layer: OutputLayer, implicit: Implicit, encoding: Encoding,
        categories: int,
    ) -> None:  # fmt: skip
        super().__init__(body, layer.weight.shape[1], categories, "last")
        self.reference = reference
        self.implicit = implicit
        self.prefix, self.mark, self.past = completion_mark(encoding)
        self.register_buffer("weight", layer.weight.detach().float(), persistent=False)
        self.register_buffer("bias", layer.bias.detach().float(), persistent=False)

    @property
    def outputs(self) -> int:
        """The reward and the categories."""
        return 1 + self.head.out_features

    @property
    def bodies(self) -> list[nn.Module]:
        """Policy and base; the output layer stays float32: the reward is a difference of its sums."""
        return [self.body, self.reference]

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Outputs, float32 (B, 1 + K). ids: (B, T), padded on the right. lengths: (B,)."""
        policy = last_hidden_state(self.body, ids, lengths)
        untouched = last_hidden_state(self.reference, ids, lengths)
        with torch.autocast(ids.device.type, enabled=False):
            ratio = self.log_probabilities(policy, ids) - self.log_probabilities(untouched, ids)
            said = attended(ids, lengths) & (self._positions(ids) >= self.starts(ids)[:, None])
            reward = torch.where(said, ratio, 0.0).sum(1)
            if self.implicit.length == "mean":
                reward = reward / said.sum(1)
            categories = products(at_end(untouched, lengths, 1)[:, 0], self.head.weight) + self.head.bias
        return torch.cat([self.implicit.beta * reward[:, None], categories], 1)

    def starts(self, ids: Tensor) -> Tensor:
        """Where each row's completion begins, int64 (B,): behind the first mark that follows the prefix."""
        marked = (ids == self.mark) & (self._positions(ids) >= self.prefix)
        return marked.int().argmax(1) + self.past

    def log_probabilities(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """log P of each id given those before it, float32 (B, T); 0 at the first. hidden: (B, T, H)."""
        following = torch.roll(ids, -1, dims=1).flatten()
        states = hidden.flatten(0, 1)
        found = []
        for at in range(0, len(states), CHUNK):
            logits = nn.functional.linear(states[at : at + CHUNK].float(), self.weight, self.bias)
            chosen = logits.gather(1, following[at : at + CHUNK, None])[:, 0]
            found.append(chosen - logits.logsumexp(1))
        each = torch.cat(found).view(ids.shape)
        return torch.cat([torch.zeros_like(each[:, :1]), each[:, :-1]], 1)

    @staticmethod
    def _positions(ids: Tensor) -> Tensor:
        return torch.arange(ids.shape[1], device=ids.device)[None, :]


def completion_mark(encoding: Encoding) -> tuple[int, int, int]:
    """(length of the prefix, the id that marks a completion's beginning, how far behind that id it begins).

    The id is the first control id between prompt and completion; content can hold none. Raises JudgeError without one.
    """
    control = set(encoding.control_ids)
    at = next((place for place, token in enumerate(encoding.between) if token in control), None)
    if at is None or not encoding.between_always:
        raise JudgeError("no control token stands between prompt and completion; the judge is damaged")
    return len(encoding.prefix), encoding.between[at], len(encoding.between) - at


def load_implicit(spec: JudgeSpec, base: Base) -> ImplicitModel:
    """The model of an implicit judge before its adapter: policy and reference are both the base."""
    if spec.implicit is None:
        raise JudgeError("judge.json does not say how its implicit reward is read; the judge is incomplete")
    body, layer = load_generator(base)
    return ImplicitModel(body, copy.deepcopy(body), layer, spec.implicit, spec.encoding, len(spec.categories))
