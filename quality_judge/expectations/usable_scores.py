"""What a usable score is on both engines, and the expectation that a share of all rows has one.

Usable: a finite number in [0, 1]. Missing: null or NaN, which a pandas float column cannot tell apart, so the
two are one thing on Spark as well. It knows nothing of why a row has no score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from great_expectations.compatibility.pyspark import functions as F  # type: ignore[attr-defined]
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
    ColumnAggregateMetricProvider,
    column_aggregate_partial,
    column_aggregate_value,
)

from quality_judge.expectations.bounded import BoundedColumnNumber

METRIC = "column.quality_judge.usable_scores_fraction"


def numbers(column: Any) -> np.ndarray:
    """The pandas series `column` as float64 (n,), NaN where a value is missing."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def usable(values: np.ndarray) -> np.ndarray:
    """True where a number of float64 `values` (n,) is in [0, 1]; bool (n,)."""
    return (values >= 0.0) & (values <= 1.0)


def spark_missing(column: Any) -> Any:
    """A Spark condition, never null: the value is null or NaN."""
    return column.isNull() | F.coalesce(F.isnan(column.cast("double")), F.lit(False))


def spark_usable(column: Any) -> Any:
    """A Spark condition, never null: the value is a finite number in [0, 1]."""
    return ~spark_missing(column) & F.coalesce(column.cast("double").between(0.0, 1.0), F.lit(False))


class ColumnUsableScoresFraction(ColumnAggregateMetricProvider):
    """Share of rows, in [0, 1], with a usable score; null or NaN for a table without rows."""

    metric_name = METRIC

    @column_aggregate_value(engine=PandasExecutionEngine)
    def _pandas(cls, column: Any, **_: Any) -> float | None:
        return float(usable(numbers(column)).mean()) if len(column) else None

    @column_aggregate_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: Any, **_: Any) -> Any:
        return F.avg(spark_usable(column).cast("double"))


class ExpectColumnUsableScoresFractionToBeBetween(BoundedColumnNumber):
    """The share of all rows with a finite score in [0, 1] lies in [min_value, max_value]."""

    metric_dependencies = (METRIC,)
    args_keys = ("column", "min_value", "max_value")

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        return self.judged(metrics)
