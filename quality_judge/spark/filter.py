"""A policy as Spark columns: the same decisions and reasons as `policy.decide`, for a table of scored rows. (driver)"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError
from quality_judge.policy import ResolvedPolicy, TokenBudget, rank_cut
from quality_judge.scores import (
    CODE_COLUMN,
    DECIDED_COLUMNS,
    DECISION_COLUMN,
    DROP,
    FLAGS,
    FLAGS_COLUMN,
    KEEP,
    NON_FINITE,
    OK,
    RAW_COLUMN,
    REASON_COLUMN,
    REVIEW,
    SCORE_COLUMN,
    SCORER_ERROR,
    UNSCORED,
)  # fmt: skip
from quality_judge.spark.score import judged_texts, named, type_of

RANK_BINS = 1 << 16  # a power of two, so that a score's bin and a bin's start are exact


def apply_policy(df: DataFrame, policy: ResolvedPolicy, *, text_column: str = "text") -> DataFrame:
    """`df` with quality_decision and quality_reason. `df` must be written scores, for a rank rule reads it.

    text_column: what a token budget measures by its characters. Raises CorpusError for a missing or a taken column.
    """
    asked = [RAW_COLUMN if policy.by_order else SCORE_COLUMN, CODE_COLUMN, FLAGS_COLUMN]
    asked += [policy.slice_column] if policy.slice_column else []
    if isinstance(policy.rank, TokenBudget):
        asked += [text_column] + ([policy.rank.column] if policy.rank.column else [])
    missing = sorted(name for name in asked if type_of(df.schema, name) is None)
    if missing:
        raise CorpusError(f"the table has no column {', '.join(missing)}; it has {', '.join(df.columns)}")
    taken = sorted(name for name in df.columns if name.lower() in DECIDED_COLUMNS)
    if taken:
        raise CorpusError(f"the table already has {', '.join(taken)}; filter what score_corpus.py wrote")
    cut = None if policy.rank is None else find_rank_cut(df, policy, text_column=text_column)
    decision, reason = decided(df, policy, cut)
    return df.select("*", decision.alias(DECISION_COLUMN), reason.alias(REASON_COLUMN))


def decided(df: DataFrame, policy: ResolvedPolicy, cut: float | None) -> tuple[Column, Column]:
    """(decision, reason) as columns. cut: the lowest score the rank rule keeps."""
    score = _score(policy)
    outcome = _by_threshold(df, policy)
    if cut is not None:
        beyond = (outcome.getField("decision") == KEEP) & (score < cut)
        outcome = F.when(beyond, _outcome(policy.beyond, policy.beyond_reason or "")).otherwise(outcome)
    for flag in [flag for flag in FLAGS if flag in policy.on_flags]:
        lower = policy.on_flags[flag]
        from_here = (KEEP,) if lower == REVIEW else (KEEP, REVIEW)
        hit = outcome.getField("decision").isin(*from_here) & F.coalesce(
            F.array_contains(FLAGS_COLUMN, flag), F.lit(False)
        )
        outcome = F.when(hit, _outcome(lower, f"flag {flag}")).otherwise(outcome)
    usable = (F.col(CODE_COLUMN) == OK) & score.isNotNull() & ~F.isnan(score) & (F.abs(score) != float("inf"))
    why = F.when(F.col(CODE_COLUMN) == OK, NON_FINITE).otherwise(F.coalesce(F.col(CODE_COLUMN), F.lit(SCORER_ERROR)))
    scored = F.coalesce(usable, F.lit(False))
    return (
        F.when(scored, outcome.getField("decision")).otherwise(UNSCORED),
        F.when(scored, outcome.getField("reason")).otherwise(why),
    )


def find_rank_cut(df: DataFrame, policy: ResolvedPolicy, *, text_column: str = "text") -> float:
    """The lowest score that the policy's rank rule keeps: from a histogram over what it may keep, and then from a finer
    one of the single bin in which the rule stops, so that a judge that is sure of many rows still keeps some of them.
    """
    decision, _ = decided(df, policy.without_rank(), None)
    wanted = policy.wanted(df.where(decision != UNSCORED).count()) or 0
    size = _measure(df, policy, text_column).alias("size")
    kept = df.where(decision == KEEP).select(_score(policy).alias(SCORE_COLUMN), size)
    lows, sizes = _histogram(kept, RANK_BINS)
    cut = rank_cut(sizes, lows, wanted)
    below = [low for low in lows if low < cut]
    if not below:
        return cut
    left = wanted - sum(held for low, held in zip(lows, sizes, strict=True) if low >= cut)
    stop = F.floor(F.col(SCORE_COLUMN) * RANK_BINS) == int(below[-1] * RANK_BINS)
    finer_lows, finer_sizes = _histogram(kept.where(stop), RANK_BINS * RANK_BINS)
    return min(cut, rank_cut(finer_sizes, finer_lows, left))


def _histogram(kept: DataFrame, bins: int) -> tuple[list[float], list[int]]:
    """(where each bin that is not empty starts, its size), the lowest first."""
    index = F.floor(F.col(SCORE_COLUMN) * bins)
    total = F.sum(F.col("size").cast("decimal(20,0)"))  # a sum of longs would overflow, and end the job
    rows = kept.groupBy(index.alias("bin")).agg(total.alias("size")).orderBy("bin").collect()
    return [row["bin"] / bins for row in rows], [int(row["size"]) for row in rows]


def _measure(df: DataFrame, policy: ResolvedPolicy, text_column: str) -> Column:
    """What a row costs under the rank rule: one, or its tokens. Where a count is no number, by its characters."""
    rank = policy.rank
    if not isinstance(rank, TokenBudget):
        return F.lit(1)
    (*_, text) = judged_texts(df, text_column)
    by_length = F.coalesce(F.ceil(F.length(text.cast("string")) / F.lit(rank.characters_per_token)), F.lit(0))
    if rank.column is None:
        return by_length
    return F.greatest(F.coalesce(named(df, rank.column).try_cast("long"), by_length), F.lit(0))


def _by_threshold(df: DataFrame, policy: ResolvedPolicy) -> Column:
    score = _score(policy)
    cases = []
    for value, keep_at, drop_below in policy.bands():
        words = policy.reasons(value, keep_at, drop_below)
        band = (
            F.when(score >= keep_at, _outcome(KEEP, words[KEEP]))
            .when(score < drop_below, _outcome(DROP, words[DROP]))
            .otherwise(_outcome(REVIEW, words[REVIEW]))
        )
        cases.append((value, band))
    *slices, (_, rest) = cases
    own = named(df, policy.slice_column or "").cast("string")
    return reduce(
        lambda otherwise, case: F.when(own.eqNullSafe(F.lit(case[0])), case[1]).otherwise(otherwise),
        reversed(slices),
        rest,
    )


def _score(policy: ResolvedPolicy) -> Column:
    """What is compared and ranked: the probability, or the order where the judge states none."""
    if not policy.by_order:
        return F.col(SCORE_COLUMN)
    raw = F.col(RAW_COLUMN)
    return 0.5 + 0.5 * raw / (1 + F.abs(raw))  # as scores.order_of


def _outcome(decision: str, reason: str) -> Column:
    return F.struct(F.lit(decision).alias("decision"), F.lit(reason).alias("reason"))
