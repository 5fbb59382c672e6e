"""The expectation that a row has a score exactly when its code, or its decision, says that it has one.

It knows nothing of the codes themselves: the suite names those that come with a score.
"""

from __future__ import annotations

from typing import Any

from great_expectations.compatibility.pydantic import StrictStr
from great_expectations.compatibility.pyspark import functions as F  # type: ignore[attr-defined]
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
    ColumnAggregateMetricProvider,
    column_aggregate_partial,
)
from great_expectations.expectations.metrics.metric_provider import metric_value

from quality_judge.errors import CorpusError
from quality_judge.expectations.bounded import BoundedColumnNumber
from quality_judge.expectations.usable_scores import numbers, spark_missing, spark_usable, usable

METRIC = "column.quality_judge.score_code_agreement"


class ColumnScoreCodeAgreement(ColumnAggregateMetricProvider):
    """Share of rows, in [0, 1], that have a usable score under a code of `scored_codes`, and none under another."""

    metric_name = METRIC
    value_keys = ("code_column", "scored_codes")

    # column_aggregate_value hands over one column only, and this needs two of the same rows.
    @metric_value(engine=PandasExecutionEngine)
    def _pandas(
        cls,
        execution_engine: Any,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any],
    ) -> float | None:
        frame, _, accessor = execution_engine.get_compute_domain(metric_domain_kwargs, MetricDomainTypes.COLUMN)
        code_column, scored_codes = metric_value_kwargs["code_column"], metric_value_kwargs["scored_codes"]
        _require(code_column, frame.columns)
        _require(accessor["column"], frame.columns)
        values = numbers(frame[accessor["column"]])
        scored = frame[code_column].isin(list(scored_codes)).to_numpy(dtype=bool)
        agrees = (scored & usable(values)) | (~scored & (values != values))
        return float(agrees.mean()) if len(agrees) else None

    @column_aggregate_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: Any, code_column: str, scored_codes: list[str], _table: Any, **_: Any) -> Any:
        _require(code_column, _table.columns)
        scored = F.coalesce(F.col(f"`{code_column}`").isin(list(scored_codes)), F.lit(False))
        return F.avg(((scored & spark_usable(column)) | (~scored & spark_missing(column))).cast("double"))


class ExpectColumnScoreCodeAgreementToBeBetween(BoundedColumnNumber):
    """The share of rows with a usable score exactly when `code_column` is in `scored_codes` lies in the bounds."""

    code_column: StrictStr
    scored_codes: list[StrictStr]

    metric_dependencies = (METRIC,)
    success_keys = ("code_column", "scored_codes", "min_value", "max_value")
    args_keys = ("column", "code_column", "scored_codes", "min_value", "max_value")

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        return self.judged(metrics)


def _require(column: str, columns: Any) -> None:
    # Here and not in Spark's own analysis, where it would take down every expectation of the same job.
    if column not in columns:
        raise CorpusError(f"the table has no column {column!r}; name one of its columns in the suite")
