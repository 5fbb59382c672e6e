"""What became of a corpus, in counts: one pass over a table of scored or decided rows. (driver)

It returns numbers and names of slices only, never row text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from quality_judge.profile import BINS, ScoreProfile, SliceRow
from quality_judge.scores import (
    CODE_COLUMN,
    DECISION_COLUMN,
    DROP,
    FLAGS_COLUMN,
    KEEP,
    REASON_COLUMN,
    REVIEW,
    SCORE_COLUMN,
    UNSCORED,
)
from quality_judge.spark.score import judged_texts, type_of

MAX_SLICES = 200
SLICE_COLUMNS = ("source", "lang", "language", "domain")


def counted(df: DataFrame, column: str) -> dict[str, int]:
    """Rows for each value of `column`."""
    return {str(row[column]): row["count"] for row in df.groupBy(column).count().collect()}


def flags_counted(df: DataFrame) -> dict[str, int]:
    """Rows for each flag."""
    return counted(df.select(F.explode(FLAGS_COLUMN).alias("flag")), "flag")


def profile(df: DataFrame, *, slice_columns: Sequence[str] = SLICE_COLUMNS, text_column: str = "text") -> ScoreProfile:
    """The profile of a table of decided rows. Of slice columns those there are; of many values the largest."""
    bin_index = F.least(F.floor(F.col(SCORE_COLUMN) * BINS), F.lit(BINS - 1)).alias("bin")
    has_text = type_of(df.schema, text_column) is not None
    length = F.sum(F.length(judged_texts(df, text_column)[-1].cast("string"))) if has_text else F.lit(None)
    rows = (
        df.groupBy(DECISION_COLUMN, REASON_COLUMN, CODE_COLUMN, bin_index)
        .agg(F.count("*").alias("n"), length.alias("characters"))
        .collect()
    )
    decisions: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    histogram = {decision: [0] * BINS for decision in (KEEP, REVIEW, DROP)}
    characters = 0
    for row in rows:
        decisions[row[DECISION_COLUMN]] += row["n"]
        codes[row[CODE_COLUMN]] += row["n"]
        reasons[row[REASON_COLUMN]] += row["n"]
        if row["bin"] is not None and row[DECISION_COLUMN] in histogram:
            histogram[row[DECISION_COLUMN]][row["bin"]] += row["n"]
        if row[DECISION_COLUMN] == KEEP:
            characters += row["characters"] or 0
    return ScoreProfile(
        rows_in=sum(decisions.values()), decisions=dict(decisions), codes=dict(codes), flags=flags_counted(df),
        reasons=dict(reasons),
        histogram=histogram, slices={name: _slices(df, name) for name in slice_columns if name in df.columns},
        characters_kept=characters if has_text else None,
    )  # fmt: skip


def _slices(df: DataFrame, column: str) -> tuple[SliceRow, ...]:
    def rows_with(decision: str) -> Column:
        return F.sum(F.when(F.col(DECISION_COLUMN) == decision, 1).otherwise(0)).alias(decision)

    found = (
        df.groupBy(F.coalesce(F.col(column).cast("string"), F.lit("(none)")).alias("value"))
        .agg(
            F.count("*").alias("n"), *map(rows_with, (KEEP, REVIEW, DROP, UNSCORED)), F.avg(SCORE_COLUMN).alias("mean")
        )
        .orderBy(F.desc("n"), "value")
        .limit(MAX_SLICES)
        .collect()
    )
    return tuple(
        SliceRow(row["value"][:100], row["n"], row[KEEP], row[REVIEW], row[DROP], row[UNSCORED], row["mean"])
        for row in found
    )
