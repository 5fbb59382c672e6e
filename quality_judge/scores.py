"""What a scored row carries: column names, outcome codes, flags, and `Scores`, the arrays behind them.

A row has exactly one code. Only `OK` rows have a score; every other code says why there is none.
Flags are remarks on a row that may well have a score. It knows nothing of models or Spark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SCORE_COLUMN = "quality_score"
RAW_COLUMN = "quality_raw"
CODE_COLUMN = "quality_code"
FLAGS_COLUMN = "quality_flags"
CATEGORIES_COLUMN = "quality_categories"
JUDGE_COLUMN = "quality_judge"
DECISION_COLUMN = "quality_decision"
REASON_COLUMN = "quality_reason"
SCORED_COLUMNS = (SCORE_COLUMN, RAW_COLUMN, CODE_COLUMN, FLAGS_COLUMN, CATEGORIES_COLUMN, JUDGE_COLUMN)
DECIDED_COLUMNS = (DECISION_COLUMN, REASON_COLUMN)

OK = "OK"
NULL_TEXT = "NULL_TEXT"
EMPTY_TEXT = "EMPTY_TEXT"
BINARY_TEXT = "BINARY_TEXT"
TOO_LONG = "TOO_LONG"
BAD_RECORD = "BAD_RECORD"
OOM_ROW = "OOM_ROW"
TIMEOUT_ROW = "TIMEOUT_ROW"
NON_FINITE = "NON_FINITE"
SCORER_ERROR = "SCORER_ERROR"
SKIPPED_CRASH = "SKIPPED_CRASH"
CODES = (
    OK, NULL_TEXT, EMPTY_TEXT, BINARY_TEXT, TOO_LONG, BAD_RECORD,
    OOM_ROW, TIMEOUT_ROW, NON_FINITE, SCORER_ERROR, SKIPPED_CRASH,
)  # fmt: skip

TRUNCATED = "TRUNCATED"
INVALID_UTF8 = "INVALID_UTF8"
CONTROL_TEXT = "CONTROL_TEXT"
HIDDEN_CHARS = "HIDDEN_CHARS"
NEAR_THRESHOLD = "NEAR_THRESHOLD"
FLAGS = (TRUNCATED, INVALID_UTF8, CONTROL_TEXT, HIDDEN_CHARS, NEAR_THRESHOLD)

KEEP = "keep"
REVIEW = "review"
DROP = "drop"
UNSCORED = "unscored"
DECISIONS = (KEEP, REVIEW, DROP, UNSCORED)
DECISION_FOLDERS = {KEEP: "kept", REVIEW: "review", DROP: "dropped", UNSCORED: "unscored"}


@dataclass(frozen=True, slots=True)
class Scores:
    """The outcome of n rows, in the order they came.

    raw: model output, float64 (n,); NaN where the code is not OK.
    probability: calibrated P(an expert would call it good), float64 (n,) in [0, 1]; NaN where there is none.
    code: index into CODES, int8 (n,).   flags: True where the flag stands, bool (n, len(FLAGS)).
    category_raw: raw score of each category, float64 (n, len(category_names)), NaN without a score.
    categories: True where the category applies, bool (n, len(category_names)).
    """

    raw: np.ndarray
    probability: np.ndarray
    code: np.ndarray
    flags: np.ndarray
    category_raw: np.ndarray
    categories: np.ndarray
    category_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.raw)

    def codes(self) -> list[str]:
        """The code of each row, spelled out."""
        return [CODES[index] for index in self.code]

    def flag_lists(self) -> list[list[str]]:
        """The flags of each row, spelled out."""
        return spelled(self.flags, FLAGS)

    def category_lists(self) -> list[list[str]]:
        """The categories of each row, spelled out."""
        return spelled(self.categories, self.category_names)


def spelled(marks: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    """For each row of the bool array `marks` (n, len(names)), the names that are True."""
    lists: list[list[str]] = [[] for _ in range(len(marks))]
    for row, column in zip(*np.nonzero(marks), strict=True):
        lists[row].append(names[column])
    return lists


def order_of(raw: Any) -> Any:
    """Raw scores, any real numbers, as numbers in (0, 1) of the same order: what a judge that only orders ranks by."""
    return 0.5 + 0.5 * raw / (1 + abs(raw))
