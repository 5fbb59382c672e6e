"""Labels of all kinds as one list of texts, with what was said of them as indices.

It knows nothing of how texts are scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from quality_judge.labels.label_set import LabelSet, completions_of, labels_of
from quality_judge.labels.statements import plain
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample

HALF = 0.5


@dataclass(frozen=True)
class FlatLabels:
    """n texts. label: 1, 0 or NaN where nobody said, float64 (n,).

    pairs: (better, worse) indices, int64 (p, 2), of preferences and of all ordered pairs in rankings. rankings: the
    indices of each, best first. categories: name to 1, 0 or NaN for each text, float64 (n,). sources, languages: what
    the label file says of each text, None where it says nothing. groups: the cluster of each text, see
    `LabelSet.cluster_names`; all texts of a ranking are of one.
    """

    prompts: list[str]
    completions: list[str]
    label: np.ndarray
    pairs: np.ndarray
    rankings: list[np.ndarray]
    categories: dict[str, np.ndarray] = field(default_factory=dict)
    sources: list[str | None] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)

    @cached_property
    def labelled(self) -> np.ndarray:
        """Indices of the texts with a label of their own, rising, int64: each text under its prompt once.

        Equal as copies are (`validate.plain`), whatever rows they stand in, and labelled as most of these say; where as
        many say good as bad it is left out.
        """
        said: dict[tuple[str, str], list[int]] = {}
        for at in np.flatnonzero(~np.isnan(self.label)).tolist():
            said.setdefault((plain(self.prompts[at]), plain(self.completions[at])), []).append(at)
        share = {same: float(self.label[places].mean()) for same, places in said.items()}
        chosen = [
            next(at for at in places if (self.label[at] > HALF) == (share[same] > HALF))
            for same, places in said.items() if share[same] != HALF
        ]  # fmt: skip
        return np.array(sorted(chosen), np.int64)

    def clusters(self, texts: np.ndarray) -> np.ndarray | None:
        """For each of these texts, by index, a number that it shares with those of its group, int64; a text without
        one has its own. None where no two of them share a group, so that nothing belongs together.
        """
        names = [self.groups[at] if self.groups else None for at in texts.tolist()]
        numbers: dict[str | int, int] = {}
        found = [numbers.setdefault(at if name is None else name, len(numbers)) for at, name in enumerate(names)]
        return np.array(found, np.int64) if len(numbers) < len(found) else None


def flatten(labels: LabelSet) -> FlatLabels:
    """All texts of `labels`: those of samples, preferences, rankings and category rows, in that order."""
    prompts: list[str] = []
    completions: list[str] = []
    said: list[float] = []
    pairs: list[tuple[int, int]] = []
    rankings: list[np.ndarray] = []
    marks: list[tuple[str | None, str | None]] = []
    groups: list[str | None] = []
    names = sorted({name for row in labels.categories for name in row.categories})
    categories: dict[str, dict[int, float]] = {name: {} for name in names}
    for number, (row, cluster) in enumerate(zip(labels.rows(), labels.cluster_names(), strict=True)):
        texts, first = completions_of(row), len(completions)
        prompts += [row.prompt] * len(texts)
        completions += texts
        said += [np.nan if label is None else float(label) for label in labels_of(row)]
        groups += [f"row {number}" if cluster is None and isinstance(row, Ranking) else cluster] * len(texts)
        marks += [(row.source, row.lang) if isinstance(row, Sample | CategoryRow) else (None, None)] * len(texts)
        if isinstance(row, Preference | Ranking):
            pairs += [(first + i, first + j) for i in range(len(texts)) for j in range(i + 1, len(texts))]
        if isinstance(row, Ranking):
            rankings.append(np.arange(first, first + len(texts)))
        if isinstance(row, CategoryRow):
            for name, value in row.categories.items():
                if value is not None:
                    categories[name][first] = float(value)
    return FlatLabels(
        prompts, completions, np.array(said, float), np.array(pairs, np.int64).reshape(-1, 2), rankings,
        {name: _column(values, len(completions)) for name, values in categories.items()},
        [source for source, _ in marks], [language for _, language in marks], groups,
    )  # fmt: skip


def _column(values: dict[int, float], n: int) -> np.ndarray:
    column = np.full(n, np.nan)
    column[list(values)] = list(values.values())
    return column
