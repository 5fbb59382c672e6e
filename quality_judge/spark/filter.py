"""A policy as Spark columns: the same decisions and reasons as `policy.decide`, for a table of scored rows. (driver)"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError
from quality_judge.policy import ResolvedPolicy, rank_cut
from quality_judge.scores import (
    CODE_COLUMN, DECIDED_COLUMNS, DECISION_COLUMN, DROP, FLAGS, FLAGS_COLUMN, KEEP, NON_FINITE, OK, REASON_COLUMN,
    REVIEW, SCORE_COLUMN, SCORER_ERROR, UNSCORED,
)  # fmt: skip

RANK_BINS = 1 << 16


def apply_policy(df: DataFrame, policy: ResolvedPolicy) -> DataFrame:
    """`df` with quality_decision and quality_reason. `df` must be written scores: a rank rule reads it twice."""
    missing = sorted({SCORE_COLUMN, CODE_COLUMN, FLAGS_COLUMN, *([policy.slice_column] if policy.slice_column else [])} - set(df.columns))
    if missing:
        raise CorpusError(f"the table has no column {', '.join(missing)}; it has {', '.join(df.columns)}")
    taken = sorted(set(DECIDED_COLUMNS) & set(df.columns))
    if taken:
        raise CorpusError(f"the table already has {', '.join(taken)}; filter what score_corpus.py wrote")
    cut = None if policy.rank is None else find_rank_cut(df, policy)
    decision, reason = decided(policy, cut)
    return df.withColumn(DECISION_COLUMN, decision).withColumn(REASON_COLUMN, reason)


def decided(policy: ResolvedPolicy, cut: float | None) -> tuple[Column, Column]:
    """(decision, reason) as columns. cut: the lowest score the rank rule keeps."""
    score = F.col(SCORE_COLUMN)
    outcome = _by_threshold(policy)
    for flag in [flag for flag in FLAGS if flag in policy.on_flags]:
        lower = policy.on_flags[flag]
        from_here = (KEEP,) if lower == REVIEW else (KEEP, REVIEW)
        hit = outcome.getField("decision").isin(*from_here) & F.coalesce(F.array_contains(FLAGS_COLUMN, flag), F.lit(False))
        outcome = F.when(hit, _outcome(lower, f"flag {flag}")).otherwise(outcome)
    if cut is not None:
        beyond = (outcome.getField("decision") == KEEP) & (score < cut)
        outcome = F.when(beyond, _outcome(policy.beyond, policy.beyond_reason or "")).otherwise(outcome)
    usable = (F.col(CODE_COLUMN) == OK) & score.isNotNull() & ~F.isnan(score) & (F.abs(score) != float("inf"))
    why = F.when(F.col(CODE_COLUMN) == OK, NON_FINITE).otherwise(F.coalesce(F.col(CODE_COLUMN), F.lit(SCORER_ERROR)))
    scored = F.coalesce(usable, F.lit(False))
    return (
        F.when(scored, outcome.getField("decision")).otherwise(UNSCORED),
        F.when(scored, outcome.getField("reason")).otherwise(why),
    )


def find_rank_cut(df: DataFrame, policy: ResolvedPolicy) -> float:
    """The lowest score that the policy's rank rule keeps, from a histogram of RANK_BINS bins over what it may keep."""
    decision, _ = decided(policy.without_rank(), None)
    scored = df.where(F.col(CODE_COLUMN) == OK).count()
    bins = (
        df.where(decision == KEEP)
        .groupBy(F.floor(F.col(SCORE_COLUMN) * RANK_BINS).alias("bin"))
        .agg(F.sum(_measure(policy)).alias("size"))
        .orderBy("bin")
        .collect()
    )
    wanted = policy.wanted(scored)
    return rank_cut([row["size"] for row in bins], [row["bin"] / RANK_BINS for row in bins], wanted if wanted is not None else 0)


def _measure(policy: ResolvedPolicy) -> Column:
    """What a row costs under the rank rule: one, or its tokens."""
    rank = policy.rank
    if rank is None or not hasattr(rank, "tokens"):
        return F.lit(1)
    if rank.column is not None:
        return F.coalesce(F.col(rank.column).cast("long"), F.lit(0))
    return F.ceil(F.length(F.col("text")) / F.lit(rank.characters_per_token))


def _by_threshold(policy: ResolvedPolicy) -> Column:
    score = F.col(SCORE_COLUMN)
    cases = []
    for value, keep_at, drop_below in policy.bands():
        words = policy.reasons(value, keep_at, drop_below)
        band = (
            F.when(score >= keep_at, _outcome(KEEP, words[KEEP]))
            .when(score < drop_below, _outcome(DROP, words[DROP]))
            .otherwise(_outcome(REVIEW, words[REVIEW]))
        )
        cases.append((None if value is None else F.col(policy.slice_column or "").cast("string") == value, band))
    *slices, (_, rest) = cases
    return reduce(lambda otherwise, case: F.when(case[0], case[1]).otherwise(otherwise), reversed(slices), rest)


def _outcome(decision: str, reason: str) -> Column:
    return F.struct(F.lit(decision).alias("decision"), F.lit(reason).alias("reason"))
