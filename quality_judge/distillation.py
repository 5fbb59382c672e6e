"""A teacher labels rows that nobody labelled, and what its student learnt of them is measured.

It scores through the engine only, as Spark does, and knows nothing of how the student is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr

from quality_judge.engine.scorer import Scorer
from quality_judge.errors import CorpusError, InputError, JudgeError, unknown
from quality_judge.labels import LabelSet
from quality_judge.samples import Sample
from quality_judge.scores import CODES, OK
from quality_judge.stats.metrics import cohen_kappa, roc_auc

DEFAULT_THRESHOLD = 0.5
ORIGIN = "quality_judge_origin"


class ScoredTexts(Protocol):
    """Anything with a probability for each text, float64 (n,)."""

    @property
    def probability(self) -> np.ndarray: ...


def teacher_threshold(teacher: Scorer) -> float:
    """The probability from which the teacher calls a row good. Raises JudgeError where it states no probability."""
    if teacher.judge.spec.calibration is None:
        raise JudgeError(
            "the teacher learnt from orders alone and gives no probability to learn; calibrate it first: "
            "training/calibrate_judge.py"
        )
    return DEFAULT_THRESHOLD if teacher.judge.spec.threshold is None else teacher.judge.spec.threshold


def drawn_rows(table: pa.Table, file: str | Path, *, rows: int, seed: int) -> pa.Table:
    """At most `rows` rows of `table`, drawn at random, in their order, with a column of origins `file:row` from 1."""
    if rows < 1:
        raise InputError(f"--rows is {rows}; expected at least 1")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[:rows])
    origins = pa.array([f"{Path(file).name}:{row + 1}" for row in chosen.tolist()], pa.string())
    return table.take(pa.array(chosen)).append_column(ORIGIN, origins)


def teacher_labels(
    teacher: Scorer, table: pa.Table, *, text_column: str, prompt_column: str | None = None
) -> tuple[LabelSet, dict[str, int]]:
    """Samples with the teacher's probability as their soft label, and how many rows had which code.

    table: rows of `drawn_rows`. Rows without a score are left out. Raises CorpusError where a column is missing.
    """
    for column in filter(None, (text_column, prompt_column)):
        if column not in table.column_names:
            raise CorpusError(unknown("column", column, [name for name in table.column_names if name != ORIGIN]))
    texts = _as_strings(table.column(text_column))
    prompts = _as_strings(table.column(prompt_column)) if prompt_column else None
    scores = teacher.score(texts, prompts)
    usable = np.flatnonzero((scores.code == CODES.index(OK)) & ~np.isnan(scores.probability)).tolist()
    said = [value or "" for value in prompts] if prompts is not None else [""] * len(table)
    origins = table.column(ORIGIN).to_pylist()
    samples = [
        Sample(said[at], texts[at] or "", bool(p >= DEFAULT_THRESHOLD), id=origins[at], probability=p)
        for at in usable
        for p in [float(scores.probability[at])]
    ]
    codes, counts = np.unique(scores.code, return_counts=True)
    found = {CODES[code]: int(count) for code, count in zip(codes, counts, strict=True)}
    return LabelSet.of(samples, [origins[at] for at in usable]), found


def _as_strings(column: pa.ChunkedArray) -> list[str | None]:
    """A column of texts or bytes as texts, (n,), so that teacher and student read the same; others as they are."""
    values = column.to_pylist()
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]


def teacher_agreement(scored: ScoredTexts, labels: LabelSet, *, threshold: float) -> dict[str, Any]:
    """How far a student agrees with its teacher on rows it has not seen.

    scored: the student's scores of `labels`, samples of `teacher_labels`. Both decide at the teacher's threshold:
    `cohen_kappa` and `same_decision` compare decisions, `roc_auc` the student's order with the teacher's decisions,
    `pearson`, `spearman` and `mean_absolute_difference` the probabilities.
    """
    said = np.array([row.probability for row in labels.samples], float)
    usable = ~np.isnan(scored.probability)
    teacher, student = said[usable], np.asarray(scored.probability)[usable]
    good = teacher >= threshold
    varied = len(student) > 1 and np.ptp(teacher) > 0 and np.ptp(student) > 0
    return {
        "n": len(student), "unscored": int((~usable).sum()), "roc_auc": roc_auc(good, student),
        "cohen_kappa": cohen_kappa(good, student, threshold=threshold),
        "same_decision": float(((student >= threshold) == good).mean()) if len(student) else None,
        "pearson": float(np.corrcoef(teacher, student)[0, 1]) if varied else None,
        "spearman": float(spearmanr(teacher, student).statistic) if varied else None,
        "mean_absolute_difference": float(np.abs(teacher - student).mean()) if len(student) else None,
    }  # fmt: skip
