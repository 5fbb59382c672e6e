"""From a fitted judge to a judge folder: calibrated on what it said of unseen rows, with golden rows, without a report.

It knows nothing of held-out labels: `evaluation` measures the draft and saves it for good.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from quality_judge.config import JudgeConfig
from quality_judge.engine.devices import default_device, free_memory
from quality_judge.engine.golden import GOLDEN_TEXTS, golden_content
from quality_judge.engine.implicit import ImplicitModel
from quality_judge.engine.kinds import VerdictModel
from quality_judge.engine.precision import precisions_here
from quality_judge.engine.scorer import load_scorer
from quality_judge.engine.weights import HEAD_BIAS, HEAD_WEIGHT, VERDICT_BIAS, VERDICT_ROWS
from quality_judge.judge import (
    ADAPTER_FILE,
    CARD_FILE,
    GOLDEN_FILE,
    HEAD_FILE,
    METRICS_FILE,
    TOKENIZER_FILE,
    Judge,
    save_judge,
)
from quality_judge.judge_spec import MISSING_LABELS, BaseReference, JudgeSpec
from quality_judge.labels import LabelSet
from quality_judge.stats.calibration import fit_calibration, fit_platt, labels_missing
from quality_judge.stats.thresholds import best_threshold
from quality_judge.train.fit import Fitted

MAX_BAND_TEXTS = 200
FLOAT32_BAND = 1e-4
LIBRARIES = ("torch", "transformers", "peft", "numpy", "scipy", "scikit-learn", "quality-judge")


def draft_judge(folder: str | Path, fitted: Fitted, config: JudgeConfig, labels: LabelSet) -> Judge:
    """A judge in `folder` that scores, with no metrics and no card yet. labels: what it was fitted to."""
    missing, calibrations = _calibrations(fitted)
    spec = JudgeSpec(
        name=config.name, kind=config.kind, base=_reference(fitted), rubric=fitted.rubric, encoding=fitted.encoding,
        method=fitted.method, pooling=fitted.model.pooling, lora=fitted.lora, stack=fitted.stack,
        verdict=fitted.model.verdict if isinstance(fitted.model, VerdictModel) else None,
        implicit=fitted.model.implicit if isinstance(fitted.model, ImplicitModel) else None,
        categories=fitted.examples.category_names,
        labels={"sha256": labels.sha256, **labels.counts(), MISSING_LABELS: missing},
        training=fitted.training, created_with=_versions(), files={}, **calibrations,
    )  # fmt: skip
    files: dict[str, bytes | Path] = {
        HEAD_FILE: to_safetensors(_head(fitted)), TOKENIZER_FILE: fitted.tokenizer_json.encode(),
        CARD_FILE: b"", METRICS_FILE: b"{}\n", GOLDEN_FILE: b"{}\n",
    }  # fmt: skip
    if fitted.adapter:
        files[ADAPTER_FILE] = to_safetensors(fitted.adapter)
    unproven = save_judge(Path(folder) / "unproven", spec, files)
    raw, band = _known_answers(unproven, fitted)
    files[GOLDEN_FILE] = (
        json.dumps(golden_content(raw), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()
    spec = spec.model_copy(update={"precision_band": band})
    return save_judge(Path(folder) / "draft", spec, files)


def _reference(fitted: Fitted) -> BaseReference:
    base = fitted.base
    name = str(base.folder) if base.found_in == "folder" else base.id  # a relative path leads elsewhere elsewhere
    return BaseReference(id=name, revision=base.revision, architecture=base.architecture, sha256=base.sha256())


def _head(fitted: Fitted) -> dict[str, Tensor]:
    head = fitted.model.head
    tensors = {
        HEAD_WEIGHT: head.weight.detach().float().cpu().contiguous(),
        HEAD_BIAS: head.bias.detach().float().cpu(),
    }
    if isinstance(fitted.model, VerdictModel):
        tensors |= {VERDICT_ROWS: fitted.model.rows.cpu(), VERDICT_BIAS: fitted.model.row_bias.cpu()}
    if fitted.surface:
        tensors |= {name: torch.from_numpy(array) for name, array in fitted.surface.tensors().items()}
    return tensors


def _calibrations(fitted: Fitted) -> tuple[int, dict[str, Any]]:
    """Labels missing for a probability; calibration, thresholds, category calibrations of out-of-fold scores or None.

    The calibration learns a soft label as both verdicts, each by its share; the threshold goes by decided labels alone.
    """
    examples = fitted.examples
    known = ~np.isnan(fitted.raw)
    at = np.flatnonzero(examples.decided & known)
    good, same = examples.label[at] >= 0.5, examples.same[at]
    calibration, best = None, None
    missing = labels_missing(len(np.unique(same[good])), len(np.unique(same[~good])))
    if not missing:
        rows, verdict, weight = examples.verdicts(known)
        fit = fit_calibration(fitted.raw[rows], verdict, weights=weight, texts=examples.same[rows])
        calibration, best = fit.to_dict(), best_threshold(fit.apply(fitted.raw[at]), good, metric="kappa")
    categories = {}
    for index, name in enumerate(examples.category_names):
        said = np.flatnonzero(~np.isnan(examples.categories[:, index]) & ~np.isnan(fitted.category_raw[:, index]))
        applies = examples.categories[said, index] == 1
        if not labels_missing(int(applies.sum()), int((~applies).sum())):
            categories[name] = fit_platt(fitted.category_raw[said, index], applies).to_dict()
    return missing, {
        "calibration": calibration, "thresholds": {"best": best}, "category_calibrations": categories
    }  # fmt: skip


def _known_answers(judge: Judge, fitted: Fitted) -> tuple[dict[str, np.ndarray], float]:
    """The golden rows' raw scores in all precisions of this machine, and how far apart probabilities lie.

    Not in its fastest alone: the judge may go to a machine that has another.
    """
    device = default_device()
    texts = fitted.examples.texts[:MAX_BAND_TEXTS]
    trained_on = next(fitted.model.parameters()).device
    fitted.model.cpu()  # a large judge finds no room on a GPU beside it
    raw, answers = {}, []
    for precision in precisions_here(device):
        name, golden, probability = _answers(judge, texts, device, precision)
        raw[name] = golden
        answers.append(probability)
    fitted.model.to(trained_on)
    apart = float(np.nanmax(np.abs(answers[0] - answers[-1]), initial=0.0)) if judge.spec.calibration else 0.0
    return raw, max(apart, FLOAT32_BAND)


def _answers(judge: Judge, texts: list[str], device: str, precision: torch.dtype) -> tuple[str, np.ndarray, np.ndarray]:
    """(the precision's name, raw scores of the golden rows, probabilities of `texts`), and no model left in memory."""
    free_memory(device)
    try:
        scorer = load_scorer(judge, device=device, precision=precision, prove=False)
        return scorer.precision, scorer.score(GOLDEN_TEXTS).raw, scorer.score(texts).probability
    except torch.OutOfMemoryError:
        if device == "cpu":
            raise
    return _answers(judge, texts, "cpu", precision)  # float32 takes twice the room that the judge will take


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in LIBRARIES},
    }
