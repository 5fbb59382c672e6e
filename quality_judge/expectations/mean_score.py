"""The expectation on the mean score of the rows that have a usable one.

The built-in mean skips NaN in pandas and becomes NaN in Spark; this one is the same number on both.
It knows nothing of how many rows have no score: `usable_scores` looks at that.
"""

from __future__ import annotations

from typing import Any

from great_expectations.compatibility.pyspark import functions as F  # type: ignore[attr-defined]
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
    ColumnAggregateMetricProvider,
    column_aggregate_partial,
    column_aggregate_value,
)

from quality_judge.expectations.bounded import BoundedColumnNumber
from quality_judge.expectations.usable_scores import numbers, spark_usable, usable

METRIC = "column.quality_judge.mean_score"


class ColumnMeanScore(ColumnAggregateMetricProvider):
    """Mean, in [0, 1], of the usable scores; null when there is none."""

    metric_name = METRIC

    @column_aggregate_value(engine=PandasExecutionEngine)
    def _pandas(cls, column: Any, **_: Any) -> float | None:
        values = numbers(column)
        values = values[usable(values)]
        return float(values.mean()) if len(values) else None

    @column_aggregate_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: Any, **_: Any) -> Any:
        return F.avg(F.when(spark_usable(column), column.cast("double")))


class ExpectColumnMeanScoreToBeBetween(BoundedColumnNumber):
    """The mean of the usable scores lies in [min_value, max_value]."""

    metric_dependencies = (METRIC,)
    args_keys = ("column", "min_value", "max_value")

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        return self.judged(metrics)
