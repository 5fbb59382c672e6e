"""The expectation that in every slice of a table a share of the rows holds one of some values: no source is lost whole.

The number observed is the share of the slice that lies furthest outside the bounds, or nearest to them. Slices with
fewer than `min_rows` rows are left alone: their shares are chance. It knows nothing of what a slice is.
"""

from __future__ import annotations

from typing import Any

from great_expectations.compatibility.pydantic import StrictStr
from great_expectations.compatibility.pyspark import functions as F  # type: ignore[attr-defined]
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.metrics.column_aggregate_metric_provider import ColumnAggregateMetricProvider
from great_expectations.expectations.metrics.metric_provider import metric_value

from quality_judge.errors import CorpusError
from quality_judge.expectations.bounded import BoundedColumnNumber, within

METRIC = "column.quality_judge.slice_pass_rates"


class ColumnSlicePassRates(ColumnAggregateMetricProvider):
    """(smallest, largest) share of rows, in [0, 1], whose value passes, over large enough slices; null without any."""

    metric_name = METRIC
    value_keys = ("pass_values", "slice_column", "min_rows")

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(
        cls, execution_engine: Any, metric_domain_kwargs: dict[str, Any], metric_value_kwargs: dict[str, Any], **_: Any
    ) -> tuple[float, float] | None:
        frame, column = _domain(execution_engine, metric_domain_kwargs, metric_value_kwargs)
        passes = frame[column].isin(list(metric_value_kwargs["pass_values"]))
        slices = passes.groupby(frame[metric_value_kwargs["slice_column"]], dropna=False)
        rates = slices.mean()[slices.size() >= metric_value_kwargs["min_rows"]]
        return (float(rates.min()), float(rates.max())) if len(rates) else None

    @metric_value(engine=SparkDFExecutionEngine)
    def _spark(
        cls, execution_engine: Any, metric_domain_kwargs: dict[str, Any], metric_value_kwargs: dict[str, Any], **_: Any
    ) -> tuple[float, float] | None:
        frame, column = _domain(execution_engine, metric_domain_kwargs, metric_value_kwargs)
        passes = F.coalesce(F.col(f"`{column}`").isin(list(metric_value_kwargs["pass_values"])), F.lit(False))
        slices = frame.groupBy(F.col(f"`{metric_value_kwargs['slice_column']}`")).agg(
            F.avg(passes.cast("double")).alias("rate"), F.count(F.lit(1)).alias("n")
        )
        large = slices.where(F.col("n") >= metric_value_kwargs["min_rows"])
        least, most = large.agg(F.min("rate"), F.max("rate")).first()
        return None if least is None else (float(least), float(most))


class ExpectColumnSlicePassRateToBeBetween(BoundedColumnNumber):
    """In each slice of `min_rows` rows or more, the share whose value is one of `pass_values` lies in the bounds."""

    pass_values: list[StrictStr]
    slice_column: StrictStr
    min_rows: int

    metric_dependencies = (METRIC,)
    success_keys = ("pass_values", "slice_column", "min_rows", "min_value", "max_value")
    args_keys = ("column", "pass_values", "slice_column", "min_rows", "min_value", "max_value")

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        rates = metrics.get(METRIC)
        if rates is None:
            return within(None, self.min_value, self.max_value)
        least, most = rates
        furthest = least if self.min_value - least >= most - self.max_value else most
        return within(furthest, self.min_value, self.max_value)


def _domain(engine: Any, domain: dict[str, Any], values: dict[str, Any]) -> tuple[Any, str]:
    frame, _, accessor = engine.get_compute_domain(domain, MetricDomainTypes.COLUMN)
    for column in (accessor["column"], values["slice_column"]):
        if column not in frame.columns:
            raise CorpusError(f"the table has no column {column!r}; name one of its columns in the suite")
    return frame, accessor["column"]
