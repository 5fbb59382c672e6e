"""Labels of all four kinds as one set of texts to learn from: each with a label, or a rank among its unit, or both.

A unit is what must stay together in a batch and in a fold: one labelled text, or all completions of a pair or ranking.
It knows nothing of losses or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from quality_judge.engine.encode import Encoder, Ragged
from quality_judge.engine.texts import Column, read_texts
from quality_judge.errors import LabelError
from quality_judge.judge_spec import Encoding
from quality_judge.labels import LabelSet, Row, completions_of, fold_indices, group_names, probabilities_of
from quality_judge.samples import CategoryRow, Sample

OPEN_LABEL = 0.1  # a label this near to one half does not say which of two texts is better


@dataclass(frozen=True)
class Examples:
    """n texts in m units, the texts of a unit side by side.

    texts: what is read of each completion. tokens: its ids with prompt and specials. label: P(good), NaN where nobody
    said, float64 (n,). weight: float64 (n,), > 0. categories: 1, 0 or NaN, float64 (n, K). unit: int64 (n,), rising.
    rank: 0 for the best of its unit, the same for tied texts, int64 (n,). groups: what may not be split over folds,
    (m,), see `group_names`.
    """

    texts: list[str]
    tokens: Ragged
    label: np.ndarray
    weight: np.ndarray
    categories: np.ndarray
    unit: np.ndarray
    rank: np.ndarray
    groups: tuple[str, ...]
    category_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return len(self.groups)

    @cached_property
    def same(self) -> np.ndarray:
        """The first text that is read and encoded alike, int64 (n,): itself where nothing before it is."""
        starts, ids, first = self.tokens.offsets(), self.tokens.ids, dict[tuple[str, bytes], int]()
        return np.array([
            first.setdefault((text, ids[start : start + length].tobytes()), at)
            for at, (text, start, length) in enumerate(zip(self.texts, starts, self.tokens.lengths, strict=True))
        ], np.int64)  # fmt: skip

    @property
    def labelled(self) -> np.ndarray:
        """Whether a text has a label of its own, bool (n,)."""
        return ~np.isnan(self.label)

    @property
    def decided(self) -> np.ndarray:
        """Whether a text's label says good or bad, and not that it is open, bool (n,)."""
        return np.abs(self.label - 0.5) > OPEN_LABEL

    def verdicts(self, among: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hard verdicts that weigh as much as the labels of the texts where `among`, bool (n,).

        text index int64 (v,), good or bad bool (v,), weight float64 (v,). A label of 0 or 1 is one verdict; any other
        is two of the same text, good by its P(good) and bad by the rest.
        """
        rows = np.flatnonzero(among & self.labelled)
        good = self.label[rows]
        soft = (good > 0) & (good < 1)
        text = np.concatenate([rows, rows[soft]])
        share = np.concatenate([np.where(soft, good, 1.0), 1 - good[soft]])
        return text, np.concatenate([good > 0, np.zeros(soft.sum(), bool)]), self.weight[text] * share

    def pairs(self, among: np.ndarray | None = None) -> np.ndarray:
        """(better, worse) indices of texts of one unit with different ranks, int64 (p, 2); only texts where `among`."""
        return self._within_units(among, lambda first, second: bool(self.rank[first] < self.rank[second]))

    def ties(self, among: np.ndarray | None = None) -> np.ndarray:
        """Indices of texts of one unit with the same rank, which should score alike, int64 (t, 2); as `pairs`."""
        return self._within_units(among, lambda first, second: bool(self.rank[first] == self.rank[second]))

    def _within_units(self, among: np.ndarray | None, taken: Callable[[int, int], bool]) -> np.ndarray:
        allowed = np.ones(len(self), bool) if among is None else among
        starts = np.flatnonzero(np.diff(self.unit, prepend=-1))
        ends = np.append(starts[1:], len(self))
        found = [
            (first, second)
            for start, end in zip(starts, ends, strict=True) if end - start > 1
            for first in range(start, end) for second in range(first + 1, end)
            if allowed[first] and allowed[second] and taken(first, second)
        ]  # fmt: skip
        return np.array(found, np.int64).reshape(-1, 2)

    def with_behind(self, others: Examples) -> Examples:
        """These examples and `others` behind them, whose units stay apart from these."""
        tokens = Ragged(
            np.concatenate([self.tokens.ids, others.tokens.ids]),
            np.concatenate([self.tokens.lengths, others.tokens.lengths]),
        )
        return replace(
            self, texts=[*self.texts, *others.texts], tokens=tokens, groups=(*self.groups, *others.groups),
            label=np.concatenate([self.label, others.label]), weight=np.concatenate([self.weight, others.weight]),
            categories=np.concatenate([self.categories, others.categories]),
            unit=np.concatenate([self.unit, others.unit + self.n_units]), rank=np.concatenate([self.rank, others.rank]),
        )  # fmt: skip

    def folds(self, count: int, seed: int) -> np.ndarray:
        """The fold of each text, int64 (n,), groups whole, stratified by label; no more folds than groups."""
        starts = np.flatnonzero(np.diff(self.unit, prepend=-1))
        strata = np.where(np.isnan(self.label[starts]), -1, self.label[starts] >= 0.5).astype(int)
        count = max(2, min(count, len(set(self.groups))))
        return fold_indices(list(self.groups), strata.tolist(), count, seed)[self.unit]


def build_examples(labels: LabelSet, encoder: Encoder, *, category_names: Sequence[str] = ()) -> Examples:
    """The examples in `labels`, read and encoded as in scoring. Raises LabelError when there are none.

    Labelled texts weigh 1 in the mean, so that a weight which all rows share changes nothing.
    """
    names = tuple(category_names)
    rows = list(_rows(labels, names))
    if not rows:
        raise LabelError("the label files hold no row that says anything: no label, no order, no category")
    prompts, completions, label, weight, categories, unit, rank, group = (
        list(column) for column in zip(*rows, strict=True)
    )
    texts = read_for(encoder.encoding, completions)
    encoded = encoder.encode(texts, read_for(encoder.encoding, prompts))
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    groups = tuple(group[at] for at in starts)
    said, weights = np.array(label, float), np.array(weight, float)
    if not np.isnan(said).all():
        weights = weights / weights[~np.isnan(said)].mean()
    return Examples(
        texts, encoded.tokens, said, weights,
        np.array(categories, float).reshape(len(rows), len(names)), np.array(unit), np.array(rank), groups, names,
    )  # fmt: skip


def example_rows(labels: LabelSet) -> np.ndarray:
    """For each text of `build_examples(labels)`, the index of its row in `labels.rows()`, int64 (n,)."""
    rows = [(index, len(completions_of(row))) for index, row in enumerate(labels.rows()) if _says_something(row)]
    return np.repeat([index for index, _ in rows], [texts for _, texts in rows]).astype(np.int64)


def category_names(labels: LabelSet) -> tuple[str, ...]:
    """The names of all categories that somebody judged in the labels, sorted."""
    judged = (row.categories.items() for row in labels.categories)
    return tuple(sorted({name for row in judged for name, applies in row if applies is not None}))


def _rows(labels: LabelSet, names: Sequence[str]) -> Iterable[tuple]:
    """prompt, completion, label, weight, categories, unit, rank, group of each text."""
    unit = 0
    for row, group in zip(labels.rows(), group_names(labels), strict=True):
        completions, said_good = completions_of(row), probabilities_of(row)
        if not _says_something(row):
            continue
        said = [np.nan] * len(names)
        if isinstance(row, CategoryRow):
            said = [np.nan if (value := row.categories.get(name)) is None else float(value) for name in names]
        weight = row.weight if isinstance(row, Sample) else 1.0
        for rank, (completion, label) in enumerate(zip(completions, said_good, strict=True)):
            yield row.prompt, completion, np.nan if label is None else label, weight, said, unit, rank, group
        unit += 1


def _says_something(row: Row) -> bool:
    return probabilities_of(row) != (None,)


def read_for(encoding: Encoding, texts: Column) -> list[str]:
    """What a judge with this encoding reads of each text."""
    return read_texts(texts, head_bytes=encoding.head_bytes, tail_bytes=encoding.tail_bytes).strings.to_pylist()
