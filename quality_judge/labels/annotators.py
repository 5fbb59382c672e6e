"""Several annotators on the same rows: how far they agree, how much each is worth, what they say together.

What an annotator is worth is learnt from rows that two or more of them judged, and then weighs every verdict of theirs;
what one judged alone is overruled only where that one is distrusted. It does not know how copies are merged
(`validate`); it never sees a text.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from quality_judge.labels.agreement import Annotators, cohen_kappa, dawid_skene, krippendorff_alpha
from quality_judge.labels.label_set import Row, completions_of
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample

ANONYMOUS = "(anonymous)"
MIN_SHARED_VOTES = 10  # of one annotator, before a word is said about them
# An annotator is named when even this many standard deviations up they tell good from bad hardly better than a coin.
# Simulated with two or three honest others: of those right on 65% of 100 shared rows 2% are named, of those on 70% of
# 60 rows .2%; of those who toss a coin half on 60 rows and three in four on 100; of those who lie on 90%, all on 60.
DEVIATIONS, LEAST_INFORMEDNESS = 1.64, 0.25
MOST_PAIRS = 45
UNDECIDED = 0.05  # P(good) this near to one half is no verdict

Vote = tuple[int, str, bool]


@dataclass(frozen=True)
class Agreement:
    """What is known of the annotators. alpha: Krippendorff's, over the shared samples; None where undefined.

    category_alpha: the same for each category. order_alpha: over which of two texts is better, of `shared_orders` pairs
    and rankings that two named annotators judged. kappa: Cohen's of each pair, with how many rows both judged.
    annotators: of each, verdicts given, verdicts on shared rows, sensitivity and specificity (None before
    MIN_SHARED_VOTES). distrusted: those who hardly beat a coin.
    """

    shared_rows: int = 0
    alpha: float | None = None
    category_alpha: dict[str, float | None] = field(default_factory=dict)
    shared_orders: int = 0
    order_alpha: float | None = None
    kappa: tuple[dict[str, Any], ...] = ()
    annotators: dict[str, dict[str, Any]] = field(default_factory=dict)
    distrusted: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "shared_rows": self.shared_rows, "alpha": self.alpha, "category_alpha": self.category_alpha,
            "shared_orders": self.shared_orders, "order_alpha": self.order_alpha, "kappa": list(self.kappa),
            "annotators": self.annotators, "distrusted": list(self.distrusted),
        }  # fmt: skip


@dataclass(frozen=True)
class Consensus:
    """probability: P(good) of each group of copies, by its number, where the annotators are known well enough."""

    probability: dict[int, float] = field(default_factory=dict)
    agreement: Agreement = field(default_factory=Agreement)


def find_consensus(groups: Sequence[Sequence[Row]]) -> Consensus:
    """What the annotators of each group of copies say together. groups: rows that judge the same texts.

    Only where at least two named annotators judged the same sample. A group that one annotator judged alone has no
    probability unless that annotator has MIN_SHARED_VOTES elsewhere, nor where it would undo the verdict of one who is
    not distrusted: who agreed on twenty good rows has shown nothing of bad ones, and rows left out for their verdict
    would bend whatever is certified on the rest.
    """
    votes = [vote for number, rows in enumerate(groups) for vote in _votes(number, rows)]
    voters: dict[int, set[str]] = defaultdict(set)
    for number, name, _ in votes:
        voters[number].add(name)
    shared = {number for number, names in voters.items() if len(names) > 1}
    known = sorted({name for number in shared for name in voters[number]})
    if len(set(known) - {ANONYMOUS}) < 2:
        return Consensus(agreement=_beside_samples(groups))
    fitted = _fitted([vote for vote in votes if vote[0] in shared], known)
    verdicts = Counter(name for number, name, _ in votes if number in shared)
    weighed = [vote for vote in votes if vote[0] in shared or verdicts[vote[1]] >= MIN_SHARED_VOTES]
    numbers, item, annotator, says = _coded(weighed, known)
    probability = dict(zip(numbers, fitted.weigh(item, annotator, says, items=len(numbers)).tolist(), strict=True))
    agreement = _agreement(groups, votes, shared, fitted)
    for number in _undone(weighed, probability, agreement.distrusted):
        del probability[number]
    return Consensus(probability, agreement)


def _undone(votes: Sequence[Vote], probability: Mapping[int, float], distrusted: Sequence[str]) -> list[int]:
    """The groups of one vote, of an annotator who is not distrusted, that the probability does not bear out."""
    count = Counter(number for number, _, _ in votes)
    return [
        number for number, name, verdict in votes
        if count[number] == 1 and name not in distrusted
        and (probability[number] - 0.5 if verdict else 0.5 - probability[number]) < UNDECIDED
    ]  # fmt: skip


def _votes(number: int, rows: Iterable[Row]) -> list[Vote]:
    """A named annotator counts once for a verdict; each row without a name is a vote of its own."""
    samples = [row for row in rows if isinstance(row, Sample)]
    named = dict.fromkeys((number, row.annotator, row.label) for row in samples if row.annotator is not None)
    return [*named, *((number, ANONYMOUS, row.label) for row in samples if row.annotator is None)]


def _coded(votes: Sequence[Vote], names: Sequence[str]) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """The groups voted on, and of each vote the place of its group, the place of its annotator, its verdict."""
    numbers = sorted({number for number, _, _ in votes})
    place = {number: at for at, number in enumerate(numbers)}
    who = {name: at for at, name in enumerate(names)}
    item, annotator, says = zip(*((place[number], who[name], verdict) for number, name, verdict in votes), strict=True)
    return numbers, np.array(item), np.array(annotator), np.array(says, bool)


def _fitted(votes: Sequence[Vote], names: Sequence[str]) -> Annotators:
    numbers, item, annotator, says = _coded(votes, names)
    return dawid_skene(item, annotator, says, items=len(numbers), annotators=len(names))


def _agreement(
    groups: Sequence[Sequence[Row]], votes: Sequence[Vote], shared: set[int], fitted: Annotators
) -> Agreement:
    names = sorted({name for number, name, _ in votes if number in shared})
    ratings = _ratings([vote for vote in votes if vote[0] in shared], names)
    on_shared = (~np.isnan(ratings)).sum(axis=1)
    found: dict[str, dict[str, Any]] = {}
    for at, name in enumerate(names):
        enough = on_shared[at] >= MIN_SHARED_VOTES
        found[name] = {
            "verdicts": sum(voter == name for _, voter, _ in votes), "shared": int(on_shared[at]),
            "sensitivity": float(fitted.sensitivity[at]) if enough else None,
            "specificity": float(fitted.specificity[at]) if enough else None,
        }  # fmt: skip
    best_case = fitted.informedness + DEVIATIONS * fitted.informedness_sd
    distrusted = [
        name for at, name in enumerate(names)
        if name != ANONYMOUS and on_shared[at] >= MIN_SHARED_VOTES and best_case[at] < LEAST_INFORMEDNESS
    ]  # fmt: skip
    return replace(
        _beside_samples(groups), shared_rows=len(shared), alpha=krippendorff_alpha(ratings),
        kappa=_kappas(names, ratings), annotators=found, distrusted=tuple(distrusted),
    )  # fmt: skip


def _beside_samples(groups: Sequence[Sequence[Row]]) -> Agreement:
    """What is known of the annotators of categories, pairs and rankings."""
    shared, alpha = _order_alpha(groups)
    return Agreement(category_alpha=_category_alpha(groups), shared_orders=shared, order_alpha=alpha)


def _kappas(names: Sequence[str], ratings: np.ndarray) -> tuple[dict[str, Any], ...]:
    """Of the pairs with most shared rows, at most MOST_PAIRS."""
    said = (~np.isnan(ratings)).astype(np.float32)
    together = said @ said.T
    named = [at for at, name in enumerate(names) if name != ANONYMOUS]
    pairs = [pair for pair in combinations(named, 2) if together[pair]]
    most = sorted(pairs, key=lambda pair: -together[pair])[:MOST_PAIRS]
    return tuple(
        {
            "annotators": [names[first], names[second]], "rows": int(together[first, second]),
            "kappa": cohen_kappa(ratings[first], ratings[second]),
        }
        for first, second in most
    )  # fmt: skip


def _ratings(votes: Sequence[Vote], names: Sequence[str]) -> np.ndarray:
    """1, 0 or NaN, float64 (annotators, groups); NaN also where an annotator said both."""
    numbers, item, annotator, says = _coded(votes, names)
    said = np.zeros((2, len(names), len(numbers)), bool)
    said[says.astype(int), annotator, item] = True
    return np.where(said[0] != said[1], said[1].astype(float), np.nan)


def _category_alpha(groups: Sequence[Sequence[Row]]) -> dict[str, float | None]:
    """Krippendorff's alpha of each category that two named annotators judged on the same row."""
    votes: dict[str, list[Vote]] = defaultdict(list)
    for number, rows in enumerate(groups):
        for row in rows:
            if isinstance(row, CategoryRow) and row.annotator is not None and len(rows) > 1:
                said = {name: value for name, value in row.categories.items() if value is not None}
                for name, value in said.items():
                    votes[name].append((number, row.annotator, value))
    found = {name: _ratings(each, sorted({voter for _, voter, _ in each})) for name, each in sorted(votes.items())}
    return {name: krippendorff_alpha(table) for name, table in found.items() if (~np.isnan(table)).sum(0).max() > 1}


def _order_alpha(groups: Sequence[Sequence[Row]]) -> tuple[int, float | None]:
    """How many groups of pairs or rankings two named annotators judged, and alpha over each two texts of theirs."""
    votes: list[Vote] = []
    shared = item = 0
    for rows in groups:
        orders = [row for row in rows if isinstance(row, Preference | Ranking) and row.annotator is not None]
        if len({row.annotator for row in orders}) < 2:
            continue
        shared += 1
        for pair in combinations(sorted(set(completions_of(orders[0]))), 2):
            for row in orders:
                texts = completions_of(row)
                if row.annotator is not None and all(texts.count(text) == 1 for text in pair):
                    first = texts.index(pair[0]) < texts.index(pair[1])
                    votes += [
                        (item, row.annotator, first),
                        (item + 1, row.annotator, not first),
                    ]  # neither side is good
            item += 2
    names = sorted({name for _, name, _ in votes})
    return shared, krippendorff_alpha(_ratings(votes, names)) if votes else None
