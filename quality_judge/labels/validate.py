"""What is wrong or doubtful in a set of labels: duplicates, contradictions, leaks into a test set, imbalance.

`clean_labels` settles them as training or measuring needs it, and its report says how; `check_labels` is that alone.
It does not know where labels come from (`load`) nor how they are split (`split`).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, TypeVar

from quality_judge.errors import LabelError
from quality_judge.labels.annotators import UNDECIDED, Agreement, find_consensus
from quality_judge.labels.label_set import LabelSet, Row, completions_of, label_of, labels_of
from quality_judge.labels.near import near_duplicates
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample

Verdict = TypeVar("Verdict", bound=Hashable)

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
    settled = _Settled(list(labels.rows()), labels.origins())
    leaked = settled.leave_out_leaks(test or LabelSet())
    left_out = leaked | settled.shorten(set(range(len(labels))) - leaked)
    statements: dict[Hashable, list[int]] = {}
    for index, row in enumerate(settled.rows):
        if index not in left_out:
            statements.setdefault(_statement(row), []).append(index)
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


WRONG_ELSEWHERE = "its annotators are mostly wrong on rows that others judged; left out"
COUNTED = ("duplicates", "contradictions", "outvoted", "tied", "leaks", "repeated")


@dataclass
class _Settled:
    """Rows under examination: which are kept (by index), what was remarked (index, sentence), and the counts."""

    rows: list[Row]
    origins: Sequence[str]
    kept: dict[int, Row] = field(default_factory=dict)
    remarks: list[tuple[int, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def leave_out_leaks(self, test: LabelSet) -> set[int]:
        """The indices of rows with a text that stands in `test`, or nearly does, or of a group that stands there."""
        if not len(test):
            return set()
        told = [(text, origin) for row, origin in zip(test.rows(), test.origins(), strict=True)
                for text in judged_texts(row)]  # fmt: skip
        seen = dict(reversed(told))  # of several the first
        own = [(text, index) for index, row in enumerate(self.rows) for text in judged_texts(row)]
        leaked: dict[int, str] = {}
        for text, index in own:
            if text in seen:
                leaked.setdefault(index, f"also stands in the test labels ({seen[text]}); left out")
        pairs = near_duplicates([completion for (_, completion), _ in [*told, *own]])
        for first, second in pairs.tolist():
            if first < len(told) <= second:
                where = told[first][1]
                says = f"says nearly the same as a row of the test labels ({where}); left out"
                leaked.setdefault(own[second - len(told)][1], says)
        tested = {row.group: origin for row, origin in zip(test.rows(), test.origins(), strict=True)}
        for index, row in enumerate(self.rows):
            if row.group is not None and row.group in tested:
                says = f"is of one group with a row of the test labels ({tested[row.group]}); left out"
                leaked.setdefault(index, says)
        self.remarks += list(leaked.items())
        self.counts["leaks"] = len(leaked)
        return set(leaked)

    def shorten(self, indices: Iterable[int]) -> set[int]:
        """Leaves rankings the texts that have one place. The indices of those that have no order left."""
        orderless = set()
        for index in indices:
            row = self.rows[index]
            if isinstance(row, Ranking) and len(set(row.completions)) < len(row.completions):
                self.counts["repeated"] += 1
                self.remarks.append((index, "ranks the same text twice; its places are left out where they differ"))
                self.rows[index] = shortened = _with_one_place(row)
                orderless |= {index} if len(shortened.completions) < 2 else set()
        self.counts["tied"] += len(orderless)
        return orderless

    def settle(self, copies: list[int], *, probability: float | None) -> None:
        """Keep one of the rows that judge the same texts, or none. probability: what its annotators say together."""
        first = copies[0]
        if probability is not None:
            self.settle_weighed(copies, probability)
        elif len(copies) == 1:
            self.kept[first] = self.rows[first]
        elif isinstance(self.rows[first], CategoryRow):
            self.settle_categories(copies)
        else:
            self.settle_verdicts(copies)

    def settle_by_vote(self, copies: list[int], *, distrusted: Collection[str]) -> None:
        """Keep one of the rows by majority, or none; on samples the distrusted have no vote."""
        heard = [at for at in copies if not isinstance(row := self.rows[at], Sample) or row.annotator not in distrusted]
        self.counts["outvoted"] += len(copies) - len(heard)
        if heard:
            self.settle(heard, probability=None)
        else:
            self.remarks.append((copies[0], WRONG_ELSEWHERE))

    def settle_verdicts(self, copies: list[int]) -> None:
        verdicts = {index: _verdict(self.rows[index]) for index in copies}
        winner = _majority((self.rows[index].annotator, verdict) for index, verdict in verdicts.items())
        agreeing = [] if winner is None else [index for index in copies if verdicts[index] == winner]
        if agreeing:
            self.settle_cut(agreeing)
            self.kept[agreeing[0]] = self.rows[agreeing[0]]
            self.counts["duplicates"] += len(agreeing) - 1
            self.counts["outvoted"] += len(copies) - len(agreeing)
        else:
            self.counts["tied"] += len(copies)
        self.remark(copies, [index for index in copies if verdicts[index] != verdicts[copies[0]]], tied=not agreeing)

    def settle_weighed(self, copies: list[int], probability: float) -> None:
        """Keep a sample that says what is probable; none where that is open, or no annotator said it."""
        good = {index: row for index in copies if isinstance(row := self.rows[index], Sample)}
        agreeing = [index for index, row in good.items() if row.label == (probability > 0.5)]
        tied = abs(probability - 0.5) < UNDECIDED
        if tied:
            self.counts["tied"] += len(copies)
        else:
            self.counts["outvoted"] += len(copies) - len(agreeing)
            self.counts["duplicates"] += max(len(agreeing) - 1, 0)
            if agreeing:
                self.kept[agreeing[0]] = replace(good[agreeing[0]], probability=probability)
            else:
                self.remarks.append((copies[0], WRONG_ELSEWHERE))
        differing = [index for index in copies if good[index].label != good[copies[0]].label]
        self.remark(copies, differing, tied=tied, settled="by what each annotator is worth")

    def settle_cut(self, copies: list[int]) -> None:
        """Copies of a ranking that agree on the order: the cut of the majority of those who set one, None at a tie."""
        rows = [row for index in copies if isinstance(row := self.rows[index], Ranking)]
        cuts = [(row.annotator, row.cut) for row in rows if row.cut is not None]
        if not cuts:
            return
        cut = _majority(cuts)
        if len({said for _, said in cuts}) > 1:
            outcome = "no cut is kept" if cut is None else "the majority's is kept"
            self.remarks.append((copies[0], f"its copies cut the same order in different places; {outcome}"))
        self.rows[copies[0]] = replace(rows[0], cut=cut)

    def settle_categories(self, copies: list[int]) -> None:
        merged: dict[str, bool | None] = {}
        differing: set[int] = set()
        contested = False
        rows = {index: row for index in copies if isinstance(row := self.rows[index], CategoryRow)}
        for name in dict.fromkeys(name for row in rows.values() for name in row.categories):
            values = {index: row.categories.get(name) for index, row in rows.items()}
            said = {index: value for index, value in values.items() if value is not None}
            merged[name] = _majority((rows[index].annotator, value) for index, value in said.items())
            contested |= bool(said) and merged[name] is None
            differing |= {index for index, value in said.items() if value != next(iter(said.values()))}
        tied = bool(differing) and all(value is None for value in merged.values())
        if tied:
            self.counts["tied"] += len(copies)
        else:
            self.kept[copies[0]] = replace(rows[copies[0]], categories=merged, contested=contested)
            self.counts["duplicates"] += len(copies) - 1
        self.remark(copies, sorted(differing), tied=tied)

    def remark(self, copies: list[int], differing: list[int], *, tied: bool, settled: str = "by majority") -> None:
        first = self.origins[copies[0]]
        self.counts["contradictions"] += bool(differing)
        outcome = "a tie, all copies are left out" if tied else f"settled {settled}"
        for index in copies[1:]:
            says = f"contradicts {first}; {outcome}" if index in differing else f"says the same as {first}; merged"
            self.remarks.append((index, "left out with its tied copies" if tied and index not in differing else says))


def as_measured(drawn: LabelSet, labels: LabelSet) -> LabelSet:
    """The rows of `drawn`, which were settled for training, out of `labels` as measuring settles them."""
    if all(row.probability is None for row in drawn.samples):
        return drawn
    measured, _ = clean_labels(labels, measuring=True)
    asked = set(map(_statement, drawn.rows()))
    found = [(row, origin) for row, origin in zip(measured.rows(), measured.origins(), strict=True)
             if _statement(row) in asked]  # fmt: skip
    return LabelSet.of([row for row, _ in found], [origin for _, origin in found])


def plain(text: str) -> str:
    """The text with compatible characters made one (Unicode NFKC) and each run of white space a single space."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).split())


def folded(text: str) -> str:
    """`plain` without case."""
    return plain(plain(text).casefold())


def judged_texts(row: Row) -> list[tuple[str, str]]:
    """What a row makes known: each of its completions under its prompt, both folded."""
    prompt = folded(row.prompt)
    return [(prompt, folded(completion)) for completion in completions_of(row)]


def _statement(row: Row) -> Hashable:
    """What was judged, whatever the verdict: rows with the same statement are copies or contradict one another."""
    return type(row).__name__, plain(row.prompt), tuple(sorted(map(plain, completions_of(row))))


def _verdict(row: Row) -> Hashable:
    """What was said of a statement: a label, or an order of the texts."""
    if isinstance(row, Sample):
        return row.label
    if isinstance(row, Preference | Ranking):
        texts = completions_of(row)
        return tuple(map(plain, texts)) if len(set(map(plain, texts))) == len(texts) else texts
    return None


def _with_one_place(row: Ranking) -> Ranking:
    """The ranking of the texts that stand once, or several times in a row without a cut between; cut as it was."""
    places = [place for place, _ in groupby(zip(row.completions, labels_of(row), strict=True))]
    texts = [text for text, _ in places]
    kept = [(text, good) for text, good in places if texts.count(text) == 1]
    cut = None if row.cut is None else sum(bool(good) for _, good in kept)
    return replace(row, completions=tuple(text for text, _ in kept), cut=cut)


def _majority(votes: Iterable[tuple[str | None, Verdict]]) -> Verdict | None:
    """The verdict with most votes, None at a tie or without votes. A vote is (annotator or None, verdict)."""
    votes = list(votes)
    named = {vote for vote in votes if vote[0] is not None}
    tally = Counter(verdict for _, verdict in named)
    tally.update(verdict for annotator, verdict in votes if annotator is None)
    leading = tally.most_common(2)
    if not leading or (len(leading) == 2 and leading[0][1] == leading[1][1]):
        return None
    return leading[0][0]


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
