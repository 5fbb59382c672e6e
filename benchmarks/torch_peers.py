"""Peers in plain torch by someone who takes care: rows sorted by length, the best batch, bfloat16.

They compute the judge's weights on the judge's ids; batching, padding and precision are theirs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from contender import Ids, Rows, sorted_and_tuned, torch_model

BATCHES = (8, 32)


def loop_bfloat16(task: Path) -> Rows:
    """The loop with the body in bfloat16, rows sorted by length, its best batch of {8, 32, 64}."""
    model, _ = torch_model(task)
    model.cast(torch.bfloat16)

    @torch.inference_mode()
    def forward(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(ids), torch.from_numpy(lengths))[:, 0].numpy()

    return sorted_and_tuned(task, forward)


def causal_lm(task: Path, dtype: torch.dtype = torch.float32) -> Rows:
    """transformers' AutoModelForCausalLM of the base, the whole prompt in every row, padded on the left.

    Only the last position's logits are computed; the score is log P(good) − log P(bad) over the verdict's words.
    Rows sorted by length, its best batch of {8, 32}.
    """
    from transformers import AutoModelForCausalLM

    from quality_judge.engine.gguf import ready_base

    spec = Ids(task).judge.spec
    if spec.method != "frozen" or spec.verdict is None or len(spec.verdict.steps) != 1:
        raise ValueError("only a verdict of one step on an untouched base can be read from the last position alone")
    good, bad = (list(ids) for ids in (spec.verdict.steps[0].good, spec.verdict.steps[0].bad))
    folder = str(ready_base(spec.base.id).folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()

    @torch.inference_mode()
    def forward(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        seen = np.arange(ids.shape[1])[None, :] >= (ids.shape[1] - lengths)[:, None]
        at_right = np.stack([np.roll(row, len(row) - n) for row, n in zip(ids, lengths, strict=True)])
        mask = torch.from_numpy(seen.astype(np.int64))
        logits = model(
            input_ids=torch.from_numpy(at_right), attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=1, use_cache=False,
        ).logits[:, -1].float()  # fmt: skip
        return (logits[:, good].logsumexp(1) - logits[:, bad].logsumexp(1)).numpy()

    return sorted_and_tuned(task, forward, sizes=BATCHES)


def causal_lm_bfloat16(task: Path) -> Rows:
    """The same in bfloat16."""
    return causal_lm(task, torch.bfloat16)
