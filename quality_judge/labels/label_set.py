"""A `LabelSet`: labels of the four kinds with where each came from, its counts and its hash.

It does not know how labels are read (`load`), whether they agree with one another (`validate`) nor what they are for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from quality_judge.errors import InputError
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample
from quality_judge.stats.clustered import MIN_CLUSTERS

Row = Sample | Preference | Ranking | CategoryRow


@dataclass(frozen=True)
class LabelSet:
    """Labels of the four kinds, and parallel to each its origins: `file name:line`.

    In Parquet files and JSON lists the number is that of the row, from 1.
    """

    samples: tuple[Sample, ...] = ()
    preferences: tuple[Preference, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    categories: tuple[CategoryRow, ...] = ()
    sample_origins: tuple[str, ...] = ()
    preference_origins: tuple[str, ...] = ()
    ranking_origins: tuple[str, ...] = ()
    category_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rows()) != len(self.origins()):
            raise InputError(f"a LabelSet needs one origin a row; got {len(self.origins())} for {len(self.rows())}")

    @classmethod
    def of(cls, rows: Sequence[Row], origins: Sequence[str]) -> LabelSet:
        """The set of `rows`, of any kinds in any order, with the origin of each."""
        pairs = list(zip(rows, origins, strict=True))
        return cls(
            samples=tuple(row for row in rows if isinstance(row, Sample)),
            preferences=tuple(row for row in rows if isinstance(row, Preference)),
            rankings=tuple(row for row in rows if isinstance(row, Ranking)),
            categories=tuple(row for row in rows if isinstance(row, CategoryRow)),
            sample_origins=tuple(origin for row, origin in pairs if isinstance(row, Sample)),
            preference_origins=tuple(origin for row, origin in pairs if isinstance(row, Preference)),
            ranking_origins=tuple(origin for row, origin in pairs if isinstance(row, Ranking)),
            category_origins=tuple(origin for row, origin in pairs if isinstance(row, CategoryRow)),
        )

    def rows(self) -> tuple[Row, ...]:
        """All rows: samples, preferences, rankings, category rows."""
        return (*self.samples, *self.preferences, *self.rankings, *self.categories)

    def origins(self) -> tuple[str, ...]:
        """The origin of each of `rows()`."""
        return (*self.sample_origins, *self.preference_origins, *self.ranking_origins, *self.category_origins)

    def __len__(self) -> int:
        return len(self.samples) + len(self.preferences) + len(self.rankings) + len(self.categories)

    @cached_property
    def sha256(self) -> str:
        """Hash of all rows, hexadecimal; the same for any file names, file formats and row order."""
        return hashlib.sha256(b"".join(sorted(map(_digest, self.rows())))).hexdigest()

    def cluster_names(self) -> list[str | None]:
        """The cluster of each of `rows()`: the group it says, else its prompt; None for a row that is one of its own.

        Rows of a cluster are alike, so that together they prove less than as many others. Fewer prompts than give an
        interval are instructions, and name no cluster.
        """
        rows = self.rows()
        asked = len({row.prompt for row in rows if row.prompt}) >= MIN_CLUSTERS
        return [
            f"group {row.group}" if row.group is not None else f"prompt {row.prompt}" if asked and row.prompt else None
            for row in rows
        ]

    def counts(self) -> dict[str, int]:
        """How many rows of each kind, and texts called desirable or not; of how many groups, where rows share one."""
        labels = [label for row in self.rows() for label in labels_of(row)]
        named = [name for name in self.cluster_names() if name is not None]
        groups = len(self) - len(named) + len(set(named))
        return {
            "rows": len(self),
            "samples": len(self.samples),
            "preferences": len(self.preferences),
            "rankings": len(self.rankings),
            "categories": len(self.categories),
            "desirable": labels.count(True),
            "undesirable": labels.count(False),
            **({"groups": groups} if groups < len(self) else {}),
        }


def label_of(row: Row) -> bool | None:
    """Whether the row is desirable as a whole; None for pairs, rankings, and category rows that nobody judged."""
    return row.label if isinstance(row, Sample | CategoryRow) else None


def labels_of(row: Row) -> tuple[bool | None, ...]:
    """Whether each of `completions_of(row)` is desirable; None where nobody said so."""
    if isinstance(row, Ranking) and row.cut is not None:
        return tuple(place < row.cut for place in range(len(row.completions)))
    return (label_of(row),) * len(completions_of(row))


def probabilities_of(row: Row) -> tuple[float | None, ...]:
    """P(desirable) that training learns of each text: the row's own, else 1 or 0 by its label; None without a label."""
    if isinstance(row, Sample) and row.probability is not None:
        return (row.probability,)
    return tuple(None if label is None else float(label) for label in labels_of(row))


def completions_of(row: Row) -> tuple[str, ...]:
    """Every judged text of the row: one of a sample or category row, two of a preference, all of a ranking."""
    if isinstance(row, Preference):
        return row.chosen, row.rejected
    return row.completions if isinstance(row, Ranking) else (row.completion,)


def _digest(row: Row) -> bytes:
    said = {name: getattr(row, name) for name in row.__slots__}
    for name, unsaid in (("probability", None), ("group", None), ("contested", False)):
        if said.get(name, 0.0) is unsaid:  # a set has the hash that it had before rows could say so
            del said[name]
    if isinstance(row, CategoryRow):  # Parquet fills in every category of the file, so null is the same as absent
        said["categories"] = {name: value for name, value in row.categories.items() if value is not None}
    return hashlib.sha256(json.dumps([type(row).__name__, said], sort_keys=True).encode()).digest()
