"""The expectation that a share of a column's rows holds one of some values: `decision` is `keep`, `code` is known.

It knows nothing of what the values mean. Null is a row like any other: it counts, and it does not pass.
"""

from __future__ import annotations

from typing import Any

from great_expectations.compatibility.pydantic import StrictStr
from great_expectations.compatibility.pyspark import functions as F  # type: ignore[attr-defined]
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
    ColumnAggregateMetricProvider,
    column_aggregate_partial,
    column_aggregate_value,
)

from quality_judge.expectations.bounded import BoundedColumnNumber

METRIC = "column.quality_judge.pass_rate"


class ColumnPassRate(ColumnAggregateMetricProvider):
    """Share of rows, in [0, 1], whose value is one of `pass_values`; null or NaN for a table without rows."""

    metric_name = METRIC
    value_keys = ("pass_values",)

    @column_aggregate_value(engine=PandasExecutionEngine)
    def _pandas(cls, column: Any, pass_values: list[str], **_: Any) -> float:
        return float(column.isin(list(pass_values)).mean())

    @column_aggregate_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: Any, pass_values: list[str], **_: Any) -> Any:
        return F.avg(F.coalesce(column.isin(list(pass_values)), F.lit(False)).cast("double"))


class ExpectColumnPassRateToBeBetween(BoundedColumnNumber):
    """The share of rows whose value is one of `pass_values` lies in [min_value, max_value], nulls counted."""

    pass_values: list[StrictStr]

    metric_dependencies = (METRIC,)
    success_keys = ("pass_values", "min_value", "max_value")
    args_keys = ("column", "pass_values", "min_value", "max_value")

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        return self.judged(metrics)
