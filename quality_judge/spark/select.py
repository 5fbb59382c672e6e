"""Which rows of a scored table an expert should look at next, with the chance each had of being chosen. (driver)

Metrics stay unbiased only over rows whose chance is known: `uniform` rows serve to measure and certify, `uncertain`
ones to learn from. The rows hold text, which is what the file is for.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError
from quality_judge.samples import COMPLETION, PROMPT, ROW_ID, SOURCE
from quality_judge.scores import CODE_COLUMN, OK, SCORE_COLUMN

STRATEGIES = ("uniform", "uncertain", "stratified")
INCLUSION = "inclusion_probability"
STRATEGY = "strategy"
UNCERTAIN_SHARE = 0.7


def rows_for_labels(
    df: DataFrame, count: int, strategy: str, *, text_column: str, prompt_column: str | None, threshold: float | None,
    stratum: str | None = None, seed: int = 0,
) -> list[dict[str, object]]:  # fmt: skip
    """At most `count` rows as plain dicts: prompt, completion, id and source where known, score, strategy, chance.

    uncertain: 70% nearest to `threshold`, the rest uniform among the others. stratified: as many from each value of
    `stratum`. Raises CorpusError when the table has no scored row.
    """
    shown = _shown(df.where(F.col(CODE_COLUMN) == OK), text_column, prompt_column, stratum)
    n = shown.count()
    if n == 0:
        raise CorpusError("no row of the table has a score; there is nothing to sample")
    if strategy == "stratified":
        return _stratified(shown, count, seed)
    nearest = []
    if strategy == "uncertain":
        distance = F.abs(F.col(SCORE_COLUMN) - F.lit(0.5 if threshold is None else threshold))
        nearest = _taken(shown.orderBy(distance, *_stable(seed)), min(n, round(UNCERTAIN_SHARE * count)), "uncertain", 1.0)
        shown = shown.orderBy(distance, *_stable(seed)).offset(len(nearest))
    left, wanted = n - len(nearest), min(n, count) - len(nearest)
    return nearest + _taken(shown.orderBy(*_stable(seed)), wanted, "uniform", wanted / left if left else 0.0)


def _stratified(shown: DataFrame, count: int, seed: int) -> list[dict[str, object]]:
    sizes = {row[SOURCE]: row["count"] for row in shown.groupBy(SOURCE).count().collect()}
    each, rows = max(1, count // len(sizes)), []
    for value in sorted(sizes, key=str)[:count]:
        wanted = min(each, sizes[value])
        here = shown.where(F.col(SOURCE).eqNullSafe(F.lit(value)))
        rows += _taken(here.orderBy(*_stable(seed)), wanted, "stratified", wanted / sizes[value])
    return rows


def _shown(df: DataFrame, text_column: str, prompt_column: str | None, stratum: str | None) -> DataFrame:
    prompt = F.coalesce(F.col(prompt_column), F.lit("")) if prompt_column else F.lit("")
    columns = [prompt.alias(PROMPT), F.col(text_column).cast("string").alias(COMPLETION), F.col(SCORE_COLUMN)]
    columns += [F.col(ROW_ID).cast("string").alias(ROW_ID)] if ROW_ID in df.columns else []
    source = stratum or (SOURCE if SOURCE in df.columns else None)
    columns += [F.col(source).cast("string").alias(SOURCE)] if source else []
    return df.select(*columns)


def _stable(seed: int) -> tuple[Column, Column]:
    """An order that looks random, and is the same whatever the partitions."""
    return F.xxhash64(F.lit(seed), F.col(PROMPT), F.col(COMPLETION)), F.col(COMPLETION)


def _taken(ordered: DataFrame, count: int, strategy: str, chance: float) -> list[dict[str, object]]:
    rows = ordered.limit(count).collect() if count > 0 else []
    return [{**row.asDict(), STRATEGY: strategy, INCLUSION: chance} for row in rows]
