"""The profile of a scored and filtered corpus: counts by decision, reason, score and slice, to and from JSON.

It does not know how they were counted (`spark.profile`) nor how they are shown (`report`), and never sees a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from quality_judge.errors import InputError, unknown
from quality_judge.scores import DECISIONS

BINS = 50

Numbers = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SliceRow:
    """What became of the rows with one value of a column. `mean_score` is over scored rows, None without any."""

    value: str
    rows: int
    kept: int
    reviewed: int
    dropped: int
    unscored: int
    mean_score: float | None = None


@dataclass(frozen=True, slots=True)
class ScoreProfile:
    """Counts over a scored and filtered corpus.

    decisions: rows for each of DECISIONS. codes, flags, reasons: rows for each that occurs.
    histogram: for each decision, rows in each of 50 equal bins of the probability, [0, 0.02) … [0.98, 1].
    slices: for each sliced column, one SliceRow for each value. Tokens and characters are None where nobody counted.
    """

    rows_in: int
    decisions: Numbers
    codes: Numbers = field(default_factory=dict)
    flags: Numbers = field(default_factory=dict)
    reasons: Numbers = field(default_factory=dict)
    histogram: Mapping[str, Sequence[int]] = field(default_factory=dict)
    slices: Mapping[str, Sequence[SliceRow]] = field(default_factory=dict)
    tokens_kept: int | None = None
    characters_kept: int | None = None

    def __post_init__(self) -> None:
        for decision in (*self.decisions, *self.histogram):
            if decision not in DECISIONS:
                raise InputError(f"profile: {unknown('decision', decision, DECISIONS)}")
        for decision, bins in self.histogram.items():
            if len(bins) != BINS:
                raise InputError(f"profile: histogram of {decision!r} has {len(bins)} bins; expected {BINS}")

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        return cast("dict[str, Any]", json.loads(json.dumps(asdict(self), allow_nan=False)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScoreProfile:
        """The profile that `to_dict` gave. Raises InputError on an unknown or missing key."""
        known = [each.name for each in fields(cls)]
        for key in data:
            if key not in known:
                raise InputError(f"profile: {unknown('key', key, known)}")
        try:
            slices = {name: tuple(SliceRow(**row) for row in rows) for name, rows in data.get("slices", {}).items()}
            return cls(**{**data, "slices": slices})
        except TypeError as error:
            raise InputError(f"profile: {error}; it was not written by this version") from error
