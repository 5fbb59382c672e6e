"""Whether one judge may take the place of another: both measured on the same labels, and not worse.

What the two state about themselves is compared where they were measured on the same held-out labels; otherwise both
are measured anew on labels that are given. It knows nothing of where judges live.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quality_judge.comparison import read_side, same_labels
from quality_judge.errors import InputError
from quality_judge.judge import Judge
from quality_judge.labels import LabelSet
from quality_judge.metrics_file import finite

MARGIN = 0.01  # what a judge may lie below its best baseline, too
METRICS = ("roc_auc", "pair_accuracy")


@dataclass(frozen=True)
class Contest:
    """One metric of both judges on the same labels. holds: the candidate is not worse by more than `margin`."""

    metric: str
    candidate: float
    current: float
    margin: float

    @property
    def holds(self) -> bool:
        """Whether the candidate may take the place."""
        return self.candidate >= self.current - self.margin


def contest(candidate: Judge, current: Judge, *, labels: LabelSet | None = None, margin: float = MARGIN) -> Contest:
    """Both judges by ROC AUC, or by pair accuracy where only orders are known.

    Raises InputError where they were measured on different labels and none are given.
    """
    if labels is not None:
        measured = [_measured(judge, labels) for judge in (candidate, current)]
    else:
        sides = [read_side(judge.folder) for judge in (candidate, current)]
        if not same_labels(*sides):
            raise InputError(
                "the two judges were not measured on the same labels; give some that neither has learnt from: "
                "--labels test.jsonl"
            )
        measured = [dict(side.numbers.get("test") or {}) for side in sides]
    for metric in METRICS:
        a, b = (finite(test.get(metric)) for test in measured)
        if a is not None and b is not None:
            return Contest(metric, a, b, margin)
    raise InputError(f"neither {' nor '.join(METRICS)} is known of both judges; give labels of both classes: --labels")


def _measured(judge: Judge, labels: LabelSet) -> dict[str, Any]:
    from quality_judge.engine.scorer import load_scorer
    from quality_judge.evaluation import measure, score_labels

    return measure(score_labels(load_scorer(judge), labels), threshold=judge.spec.threshold)
