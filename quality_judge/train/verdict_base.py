"""A decoder base made ready to give verdicts on a rubric, and what is measured of it before and after training.

It finds out what the base writes before a verdict, which spellings it has, and how much of its probability falls on
them. It knows nothing of losses, folds or files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from quality_judge.bases import Base
from quality_judge.config import JudgeConfig
from quality_judge.engine.encode import Encoder, Ragged, build_encoding, content_tokenizer
from quality_judge.engine.golden import GOLDEN_TEXTS
from quality_judge.engine.kinds import VerdictModel, at_end, last_hidden_state
from quality_judge.engine.output_layer import OutputLayer, load_generator
from quality_judge.engine.prompts import rubric_prompt
from quality_judge.engine.verdict import Ids, compiled_verdict, first_ids, forced_ids, row_ids, written_codes_of
from quality_judge.engine.weights import load_tokenizer, position_limit
from quality_judge.judge_spec import Encoding, Verdict
from quality_judge.rubric import Rubric

PROBES = 6
MAX_OPENING_TOKENS = 3
COVERAGE_TEXTS = 64
COVERAGE_BATCH = 8
MIN_COVERAGE = 0.9


@dataclass(frozen=True)
class VerdictBase:
    """How rows are encoded for a verdict, how it is read, and the whole output layer of the base.

    writing: how a judge reads it that writes its categories too; None where the prompt does not ask for them.
    """

    encoding: Encoding
    tokenizer_json: str
    verdict: Verdict
    layer: OutputLayer
    writing: Verdict | None = None

    def model(self, body: nn.Module, categories: int, *, verdict: Verdict | None = None) -> VerdictModel:
        """A model that reads the verdict from `body`; its category heads are zero."""
        read = verdict or self.verdict
        return VerdictModel(body, read, *self.layer.rows(row_ids(read)), categories)


def verdict_base(base: Base, rubric: Rubric, config: JudgeConfig, *, with_prompts: bool) -> VerdictBase:
    """The base ready for verdicts. with_prompts: whether rows have prompts. Raises BaseModelError and ConfigError."""
    tokenizer = load_tokenizer(base)
    prompt = rubric_prompt(tokenizer, rubric, style=config.prompt, with_prompts=with_prompts)

    def encoded(forced: Ids) -> tuple[Encoding, str]:
        return build_encoding(
            tokenizer, base.architecture, max_tokens=config.max_tokens, cut_at=config.cut,
            limit=position_limit(base), prompt=prompt, forced=forced,
        )  # fmt: skip

    body, layer = load_generator(base)
    encoding, tokenizer_json = encoded(())
    opening = detected_opening(body, layer, tokenizer, Encoder(tokenizer_json, encoding))
    content = content_tokenizer(tokenizer_json)
    verdict, writing = compiled_verdict(rubric, content, end=prompt.end, opening=opening), None
    if prompt.asks_for_codes and prompt.end is not None:
        writing = verdict.model_copy(update={"written": written_codes_of(rubric, content, end=prompt.end)})
    encoding, tokenizer_json = encoded(forced_ids(verdict))
    return VerdictBase(encoding, tokenizer_json, verdict, layer, writing)


@torch.no_grad()
def detected_opening(body: nn.Module, layer: OutputLayer, tokenizer: Any, encoder: Encoder) -> Ids:
    """The blank tokens, such as a line break, that the base writes before its verdict; () when most probes show none.

    Llama Guard 3 and ChatGLM3 begin with a line break; who reads the first token of their answer reads nothing.
    """
    found: Counter[Ids] = Counter()
    tokens = encoder.encode(GOLDEN_TEXTS[:PROBES]).tokens
    for start, length in zip(tokens.offsets(), tokens.lengths, strict=True):
        ids: list[int] = tokens.ids[start : start + length].tolist()
        written: list[int] = []
        while len(written) < MAX_OPENING_TOKENS:
            state = body(input_ids=torch.tensor([ids + written]), use_cache=False).last_hidden_state[0, -1]
            following = int(layer.logits(state).argmax())
            if not tokenizer.decode([following]).isspace():
                break
            written.append(following)
        found[tuple(written)] += 1
    opening, count = found.most_common(1)[0]
    return opening if count > PROBES / 2 else ()


@torch.no_grad()
def coverage(body: nn.Module, ready: VerdictBase, tokens: Ragged, *, device: str) -> np.ndarray:
    """The probability, over the whole vocabulary, that a verdict begins with one of its spellings, float64 (rows,).

    tokens: encoded rows; at most COVERAGE_TEXTS of them, evenly spread, are looked at.
    """
    rows = np.unique(np.linspace(0, len(tokens.lengths) - 1, COVERAGE_TEXTS).astype(int))
    rows = rows[np.argsort(tokens.lengths[rows], kind="stable")]
    first = torch.tensor(first_ids(ready.verdict))
    found = np.zeros(len(rows))
    for at in range(0, len(rows), COVERAGE_BATCH):
        some = rows[at : at + COVERAGE_BATCH]
        ids, lengths = _padded(tokens, some)
        states = last_hidden_state(body, ids.to(device), lengths.to(device))
        state = at_end(states, lengths.to(device), len(ready.verdict.steps))[:, 0].float().cpu()
        found[at : at + len(some)] = torch.softmax(ready.layer.logits(state), -1)[:, first].sum(-1).double().numpy()
    return found


def _padded(tokens: Ragged, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = tokens.lengths[rows]
    places = np.arange(int(lengths.max()))[None, :]
    at = np.minimum(tokens.offsets()[rows][:, None] + places, len(tokens.ids) - 1)
    ids = np.where(places < lengths[:, None], tokens.ids[at], 0)
    return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(lengths)


def coverage_note(before: Sequence[float] | np.ndarray, after: Sequence[float] | np.ndarray | None) -> dict[str, Any]:
    """What of the coverage stands in a judge: medians before and after training."""
    return {
        "before": float(np.median(before)), "after": None if after is None else float(np.median(after)),
        "rows": len(before), "enough": bool(np.median(before) >= MIN_COVERAGE),
    }  # fmt: skip
