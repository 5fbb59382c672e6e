"""Labels worth a second look: rows whose label the rest of the labels contradict, and why each is suspected.

    flip       a judge that never saw the row believes the opposite
    trigger    one n-gram goes with one label, against all else in its rows
    annotator  the row was judged by somebody whom others, or the judge, contradict far too often

Everything is judged out of fold: no row is believed because it was learnt. It changes no label and knows no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import binom

from quality_judge.labels import LabelSet
from quality_judge.labels.label_set import Row
from quality_judge.labels.triggers import Association, Ngrams
from quality_judge.samples import CategoryRow, Sample
from quality_judge.train.beliefs import Beliefs
from quality_judge.train.examples import example_rows
from quality_judge.train.fit import Fitted

FLIP, TRIGGER, ANNOTATOR = "flip", "trigger", "annotator"
REASONS = (FLIP, TRIGGER, ANNOTATOR)
LISTED_SHARE = 0.1
MAX_CHANCE = 0.01
MIN_ANNOTATOR_ROWS = 20
MIN_LABELS = 20


@dataclass(frozen=True)
class Suspect:
    """One label to check again. probability: that the given label is right, by rows other than this one.

    row: its place in `labels.rows()`. ngrams: the triggers in it.
    """

    origin: str
    row: int
    label: bool
    probability: float
    reasons: tuple[str, ...]
    ngrams: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The suspects, least probable first; the triggers, and the annotators whom the judge contradicts too often."""

    suspects: tuple[Suspect, ...] = ()
    triggers: tuple[Association, ...] = ()
    annotators: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Counts and names for metrics.json; no row text, so no n-gram either."""
        reasons = Counter(reason for suspect in self.suspects for reason in suspect.reasons)
        triggers = [{"rows": len(each.rows), "label": each.label, "chance": each.chance} for each in self.triggers]
        counts = {reason: reasons[reason] for reason in REASONS}
        return {"listed": len(self.suspects), **counts, "triggers": triggers, "annotators": self.annotators}

    def lines(self, labels: LabelSet, *, include_text: bool = False) -> list[dict[str, Any]]:
        """One JSON object for each suspect; with the row's text and its triggers only if asked for."""
        lines = []
        for suspect in self.suspects:
            row = labels.rows()[suspect.row]
            line: dict[str, Any] = {
                "origin": suspect.origin, "id": row.id, "label": suspect.label,
                "probability": round(suspect.probability, 6), "reasons": list(suspect.reasons),
            }  # fmt: skip
            if include_text and isinstance(row, Sample | CategoryRow):
                line |= {"prompt": row.prompt, "completion": row.completion, "triggers": list(suspect.ngrams)}
            lines.append(line)
        return lines


def audit_labels(labels: LabelSet, fitted: Fitted, *, distrusted: Sequence[str] = ()) -> Audit:
    """The labels that `fitted` was fitted to, worth a second look: LISTED_SHARE of them, and all with other reasons.

    distrusted: annotators whom others contradict (`Agreement.distrusted`). Empty below MIN_LABELS or with one class.
    """
    at = np.flatnonzero(fitted.examples.labelled)
    said = fitted.examples.label[at] >= 0.5
    if len(at) < MIN_LABELS or len(np.unique(said)) < 2:
        return Audit()
    row_of = example_rows(labels)[at]
    rows = [labels.rows()[row] for row in row_of]
    beliefs = Beliefs(fitted, at, said)
    good = beliefs.all_parts()
    given = np.where(said, good, 1 - good)
    annotators = _contradicted(rows, given)
    triggers = _triggers(beliefs, given, _groups(rows))
    ngrams = [
        [each.ngram for each in triggers if index in each.rows and given[index] < 0.5] for index in range(len(at))
    ]
    order = np.argsort(given, kind="stable")
    flips = set(order[: max(1, round(LISTED_SHARE * len(at)))].tolist())
    suspects = []
    for index in order.tolist():
        name = rows[index].annotator
        stands = {
            FLIP: index in flips, TRIGGER: bool(ngrams[index]),
            ANNOTATOR: name in distrusted or (name in annotators and given[index] < 0.5),
        }  # fmt: skip
        reasons = tuple(reason for reason in REASONS if stands[reason])
        if reasons:
            row = int(row_of[index])
            found = (float(given[index]), reasons, tuple(ngrams[index]))
            suspects.append(Suspect(labels.origins()[row], row, bool(said[index]), *found))
    return Audit(tuple(suspects), tuple(triggers), annotators)


def _groups(rows: Sequence[Row]) -> np.ndarray:
    """What each row is said to belong to, int64 (n,), a row without a group to itself.

    Not what near-duplicates are joined to: somebody who plants a word in many copies of one text is to be found. A
    group is taken at its word: who may write it can hide a planted word in few of them.
    """
    names = [f"alone {at}" if row.group is None else f"group {row.group}" for at, row in enumerate(rows)]
    return np.unique(names, return_inverse=True)[1]


def _triggers(beliefs: Beliefs, given: np.ndarray, groups: np.ndarray) -> list[Association]:
    """The n-grams that stand against all else in their rows; `given` sinks there to what is believed without them."""
    ngrams = Ngrams(beliefs.examples.texts)
    found = []
    for candidate in ngrams.candidates(beliefs.said, beliefs.semantic, groups):
        belief = beliefs.without(candidate)
        said = beliefs.said[candidate.rows]
        chance = ngrams.chance(said, belief, candidate.label)
        if chance < MAX_CHANCE:
            found.append(replace(candidate, chance=chance))
            given[candidate.rows] = np.minimum(given[candidate.rows], np.where(said, belief, 1 - belief))
    return found


def _contradicted(rows: Sequence[Row], given: np.ndarray) -> dict[str, dict[str, Any]]:
    """Annotators whose labels are believed wrong far more often than those of all others."""
    names = np.array([row.annotator or "" for row in rows], dtype=object)
    wrong = given < 0.5
    found = {}
    for name in sorted(set(names) - {""}):
        own = names == name
        if min(own.sum(), (~own).sum()) < MIN_ANNOTATOR_ROWS:
            continue
        rate = (wrong[~own].sum() + 1) / ((~own).sum() + 2)
        chance = float(binom.sf(wrong[own].sum() - 1, own.sum(), rate)) * len(set(names))
        if chance < MAX_CHANCE and wrong[own].mean() > 2 * rate:
            found[str(name)] = {"rows": int(own.sum()), "contradicted": int(wrong[own].sum()), "others": float(rate)}
    return found
