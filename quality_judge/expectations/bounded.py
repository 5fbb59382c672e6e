"""What our expectations share: one number from one column, which has to lie between two stated bounds.

The number is handed on in the result's `meta`, because BOOLEAN_ONLY, the one result format that never holds
row text, empties `result`. It knows nothing of which number it is.
"""

from __future__ import annotations

import math
from abc import ABC
from typing import Any, ClassVar

from great_expectations.expectations.expectation import ColumnAggregateExpectation

OBSERVED = "quality_judge_observed"


class BoundedColumnNumber(ColumnAggregateExpectation, ABC):
    """Base of an expectation on one metric. Neither column nor bounds have a default: Great Expectations does
    not store an argument equal to its default, so a later change of default would change old suites."""

    min_value: float
    max_value: float

    success_keys: ClassVar[tuple[str, ...]] = ("min_value", "max_value")

    def judged(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The outcome for the one metric this expectation depends on."""
        (name,) = self.metric_dependencies
        return within(metrics.get(name), self.min_value, self.max_value)


def within(value: float | None, low: float, high: float) -> dict[str, Any]:
    """Success when `value` is a finite number in [low, high], with the number beside it."""
    if value is None or not math.isfinite(value):
        return {"success": False, "meta": {OBSERVED: None}}
    return {"success": low <= value <= high, "meta": {OBSERVED: float(value)}}
