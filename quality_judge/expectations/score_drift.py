"""The expectation that scores are spread as those of a reference: PSI or KS, beyond what sampling explains.

The reference is counts of scores in 50 equal bins, as a filtered corpus keeps them in `_quality_profile.json`; a suite
may name that file. It knows nothing of where it came from.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from great_expectations.compatibility.pydantic import conlist
from great_expectations.compatibility.pyspark import functions as F  # type: ignore[attr-defined]
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
    ColumnAggregateMetricProvider,
    column_aggregate_partial,
    column_aggregate_value,
)

from quality_judge.expectations.bounded import BoundedColumnNumber, within
from quality_judge.expectations.usable_scores import numbers, spark_usable, usable
from quality_judge.profile import BINS
from quality_judge.stats.drift import MEASURES

METRIC = "column.quality_judge.score_histogram"


class ColumnScoreHistogram(ColumnAggregateMetricProvider):
    """How many usable scores lie in each of 50 bins, [0, 0.02) … [0.98, 1]."""

    metric_name = METRIC

    @column_aggregate_value(engine=PandasExecutionEngine)
    def _pandas(cls, column: Any, **_: Any) -> list[int]:
        values = numbers(column)
        bins = np.minimum((values[usable(values)] * BINS).astype(int), BINS - 1)
        return np.bincount(bins, minlength=BINS).tolist()

    @column_aggregate_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: Any, **_: Any) -> Any:
        bin_index = F.when(spark_usable(column), F.least(F.floor(column.cast("double") * BINS), F.lit(BINS - 1)))
        return F.array(*[F.count(F.when(bin_index == i, True)) for i in range(BINS)])


class ExpectColumnScoreDriftToBeBetween(BoundedColumnNumber):
    """The drift of the usable scores from `reference`, by `measure`, beyond chance, lies in [min_value, max_value]."""

    reference: conlist(int, min_items=BINS, max_items=BINS)  # type: ignore[valid-type]
    measure: Literal["psi", "ks"]

    metric_dependencies = (METRIC,)
    success_keys = ("reference", "measure", "min_value", "max_value")
    args_keys = ("column", "reference", "measure", "min_value", "max_value")

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        found = metrics.get(METRIC)
        drift = MEASURES[self.measure](self.reference, found) if found and sum(found) else None
        return within(drift, self.min_value, self.max_value)
