"""The expectation that a column holds one value throughout: the rows of a table come from one judge.

It knows nothing of fingerprints. Null is not a value: whether it may stand there is another expectation's matter.
"""

from __future__ import annotations

from typing import Any

from great_expectations.compatibility.pyspark import functions as F  # type: ignore[attr-defined]
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.expectation import ColumnAggregateExpectation
from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
    ColumnAggregateMetricProvider,
    column_aggregate_partial,
    column_aggregate_value,
)

from quality_judge.expectations.bounded import within

METRIC = "column.quality_judge.value_count"


class ColumnValueCount(ColumnAggregateMetricProvider):
    """How many different values, null apart, a column holds."""

    metric_name = METRIC

    @column_aggregate_value(engine=PandasExecutionEngine)
    def _pandas(cls, column: Any, **_: Any) -> int:
        return int(column.nunique(dropna=True))

    @column_aggregate_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: Any, **_: Any) -> Any:
        return F.count_distinct(column)


class ExpectColumnToHaveSingleValue(ColumnAggregateExpectation):
    """Exactly one value, null apart, stands in the column; the number observed is how many there are."""

    metric_dependencies = (METRIC,)
    args_keys = ("column",)

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        return within(metrics.get(METRIC), 1, 1)
