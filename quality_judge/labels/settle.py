"""Which of several rows about one thing is kept: none that leaks into a test set, one of those that say the same, and
by vote or by what each annotator is worth one of those that do not.

It does not know what of the outcome forbids training (`validate`), nor how annotators are weighed (`annotators`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TypeVar

from quality_judge.labels.annotators import UNDECIDED
from quality_judge.labels.label_set import LabelSet, Row, labels_of
from quality_judge.labels.near import near_duplicates
from quality_judge.labels.statements import judged_texts, verdict_of
from quality_judge.samples import CategoryRow, Ranking, Sample

Verdict = TypeVar("Verdict", bound=Hashable)

WRONG_ELSEWHERE = "its annotators are mostly wrong on rows that others judged; left out"
COUNTED = ("duplicates", "contradictions", "outvoted", "tied", "leaks", "repeated")


@dataclass
class Settled:
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
        verdicts = {index: verdict_of(self.rows[index]) for index in copies}
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
