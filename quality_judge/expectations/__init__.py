"""Great Expectations on scored and filtered tables: our own expectations, suites in YAML, and a runner that counts.

`load_suite(path)` and `validate(frame, suite)` are the way in. Great Expectations takes seconds to import, so
this package imports it only inside those two. It knows nothing of judges, models or where a table came from.
"""

from quality_judge.expectations.runner import ExpectationResult, ValidationReport, validate
from quality_judge.expectations.suites import ExpectationSpec, SuiteSpec, load_suite

__all__ = ["ExpectationResult", "ExpectationSpec", "SuiteSpec", "ValidationReport", "load_suite", "validate"]
