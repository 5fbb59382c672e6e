"""What is wrong or doubtful in a set of labels: duplicates, contradictions, leaks into a test set, imbalance.

`clean_labels` settles them as training or measuring needs it, and its report says how; `check_labels` is that alone.
It does not know where labels come from (`load`) nor how they are split (`split`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from quality_judge.errors import LabelError
from quality_judge.labels.annotators import Agreement, find_consensus
from quality_judge.labels.label_set import LabelSet, label_of
from quality_judge.labels.settle import COUNTED, Settled
from quality_judge.labels.statements import statement_of

MIN_ROWS = 8
MIN_CLASS_SHARE = 0.05


@dataclass(frozen=True)
class LabelReport:
    """Faults that forbid training (`errors`), remarks (`warnings`, `file:line: …`), and counts; never row text.

    counts: those of `LabelSet.counts()` for what was given, and of its rows: `duplicates` merged, `outvoted` by a
    majority, `tied` and so left out, `leaks` left out, `kept`. rows = duplicates + outvoted + tied + leaks + kept.
    `contradictions` counts statements that were judged in more than one way; `repeated`, rankings with a text twice.
    agreement: what is known of annotators who judged the same rows.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    counts: dict[str, int]
    agreement: Agreement = field(default_factory=Agreement)

    def raise_for_failures(self) -> None:
        """Nothing, or a LabelError with all errors."""
        if self.errors:
            raise LabelError("these labels cannot train a judge", self.errors)

    def raise_for_nothing_left(self) -> None:
        """Nothing, or a LabelError where no row is left to measure on."""
        if not self.counts["kept"]:
            raise LabelError(
                f"none of {self.counts['rows']} rows is left to measure on: all contradict one another or are of no "
                "use; settle them, or label others", self.warnings[:5],
            )  # fmt: skip

    def to_dict(self) -> dict[str, int]:
        """Counts alone, for metrics and cards."""
        return {**self.counts, "errors": len(self.errors), "warnings": len(self.warnings)}

    def found(self) -> dict[str, Any]:
        """For metrics.json: the counts under `report`, what is known of the annotators under `agreement`."""
        return {"report": self.to_dict(), "agreement": self.agreement.to_dict()}


def check_labels(labels: LabelSet, *, test: LabelSet | None = None) -> LabelReport:
    """What `clean_labels` would report: errors are judged on the rows that it would keep."""
    return clean_labels(labels, test=test)[1]


def clean_labels(
    labels: LabelSet, *, test: LabelSet | None = None, measuring: bool = False
) -> tuple[LabelSet, LabelReport]:
    """The labels to train on or, with `measuring`, to measure on, and the report. `test` itself is never changed.

    Rows with a text that also stands in `test` under the same prompt are left out (equal after NFKC, white space and
    case), those with nearly the same long text under any prompt, and those of a group that stands in `test`. Then
    copies (equal after NFKC and white space) become one: the verdict of the majority, where each named annotator counts
    once for a verdict and each anonymous row once; at a tie all copies are left out. Where named annotators share
    samples, each counts for what they are worth instead (Dawid & Skene), and the kept sample carries P(good); what
    somebody judged alone is overruled only where they tell good from bad hardly better than a coin.
    Measuring goes by the majority all the same, for what two who disagree are worth is a guess that can take nearly
    every split for good, and a promise with it; only those who hardly beat a coin have no vote on samples.
    Categories are merged one by one; a tied one becomes None, and the row `contested`. A text that a ranking puts in
    two places leaves that ranking.
    """
    settled = Settled(list(labels.rows()), labels.origins())
    leaked = settled.leave_out_leaks(test or LabelSet())
    left_out = leaked | settled.shorten(set(range(len(labels))) - leaked)
    statements: dict[Hashable, list[int]] = {}
    for index, row in enumerate(settled.rows):
        if index not in left_out:
            statements.setdefault(statement_of(row), []).append(index)
    groups = list(statements.values())
    consensus = find_consensus([[settled.rows[index] for index in copies] for copies in groups])
    for number, copies in enumerate(groups):
        if measuring:
            settled.settle_by_vote(copies, distrusted=consensus.agreement.distrusted)
        else:
            settled.settle(copies, probability=consensus.probability.get(number))
    kept = sorted(settled.kept.items())
    cleaned = LabelSet.of([row for _, row in kept], [settled.origins[index] for index, _ in kept])
    counts = {**labels.counts(), **{name: settled.counts[name] for name in COUNTED}, "kept": len(cleaned)}
    warnings = [f"{settled.origins[index]}: {remark}" for index, remark in sorted(settled.remarks)]
    warnings = [*_distrust(consensus.agreement), *warnings, *_imbalance(cleaned)]
    return cleaned, LabelReport(_errors(cleaned, leaks=counts["leaks"]), tuple(warnings), counts, consensus.agreement)


def as_measured(drawn: LabelSet, labels: LabelSet) -> LabelSet:
    """The rows of `drawn`, which were settled for training, out of `labels` as measuring settles them."""
    if all(row.probability is None for row in drawn.samples):
        return drawn
    measured, _ = clean_labels(labels, measuring=True)
    asked = set(map(statement_of, drawn.rows()))
    found = [(row, origin) for row, origin in zip(measured.rows(), measured.origins(), strict=True)
             if statement_of(row) in asked]  # fmt: skip
    return LabelSet.of([row for row, _ in found], [origin for _, origin in found])


def _errors(labels: LabelSet, *, leaks: int) -> tuple[str, ...]:
    errors = []
    if len(labels) < MIN_ROWS:
        errors.append(f"{len(labels)} rows of use in all; expected at least {MIN_ROWS}: label more")
    classes = {label_of(row) for row in labels.rows()} - {None}
    if len(classes) < 2 and not labels.preferences and not labels.rankings:
        got = " and ".join("desirable" if label else "undesirable" for label in classes) or "unjudged"
        errors.append(
            f"all {len(labels)} rows are {got}; expected both desirable and undesirable ones: label the other class"
        )
    if errors and leaks:
        errors.append(f"{leaks} rows were left out, for their texts or groups stand in the test labels; part the two")
    return tuple(errors)


def _distrust(agreement: Agreement) -> list[str]:
    return [
        f"annotator {name!r} tells good from bad hardly better than a coin on the "
        f"{agreement.annotators[name]['shared']} rows that others judged too; their verdicts count for next to nothing"
        for name in agreement.distrusted
    ]


def _imbalance(labels: LabelSet) -> tuple[str, ...]:
    counts = labels.counts()
    rare, common = sorted(("desirable", "undesirable"), key=lambda name: counts[name])
    judged = counts[rare] + counts[common]
    if not counts[rare] or counts[rare] >= MIN_CLASS_SHARE * judged:
        return ()
    return (
        f"all files: only {counts[rare]} of {judged} judged texts are {rare}; label more of them for a safer judge",
    )
