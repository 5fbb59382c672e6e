"""Runs a suite on a pandas or Spark table and reports verdicts and numbers, never values of rows.

Results are asked for as BOOLEAN_ONLY: every other format of Great Expectations puts values of failing rows in
them. What was evaluated is counted against what was declared, since an expectation can go missing silently.
On Spark the table is read once for each few expectations: give it a written one, not one with a judge in its plan.
It knows nothing of judges or of where the table came from.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quality_judge.errors import CorpusError, InputError
from quality_judge.expectations.suites import ExpectationSpec, SuiteSpec, registered
from quality_judge.files import local_path, write_beside

POSITION = "quality_judge_position"
PARAMETER = "$PARAMETER"
ANSI = "spark.sql.ansi.enabled"
# The arguments that name a column to be read, or a list of them.
COLUMNS = ("column", "slice_column", "code_column", "column_A", "column_B", "column_list")


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """One expectation's outcome.

    observed: the number it looked at; None for a built-in expectation.   allowed: its arguments, column apart.
    error: why there is no verdict. Of an exception only the type is named: its message may quote a row.
    """

    expectation: str
    column: str | None
    success: bool
    observed: float | None
    allowed: Mapping[str, Any]
    severity: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """A suite's outcome. `message` says in words why `success` is False, and is None when it is True."""

    suite: str
    success: bool
    evaluated: int
    declared: int
    results: tuple[ExpectationResult, ...]
    rows: int
    seconds: float
    message: str | None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values that JSON can hold."""
        return {**asdict(self), "results": [asdict(result) for result in self.results]}

    def write(self, path: str | Path) -> Path:
        """Writes the report as JSON beside `path`, on this machine, and renames it into place; returns where it is."""
        path = local_path(path)
        try:
            write_beside(path, json.dumps(self.to_dict(), indent=2, allow_nan=False, default=str) + "\n")
        except OSError as error:
            raise InputError(f"the report cannot be written to {path}: {error.strerror}; name a new file") from error
        return path


def validate(frame: Any, suite: SuiteSpec, *, parameters: Mapping[str, Any] | None = None) -> ValidationReport:
    """The outcome of `suite` on `frame`, a pandas or a Spark DataFrame (driver).

    parameters: values for `{$PARAMETER: name}` in the suite; an expectation whose value is not given does not hold.

    It succeeds when every declared expectation was evaluated, none raised, every critical one holds and the
    table has `min_rows` rows. A warning whose column the table does not have counts as one that does not hold.
    Raises CorpusError for anything that is not such a DataFrame.
    """
    started = time.perf_counter()
    engine = _engine(frame)
    rows = len(frame) if engine == "pandas" else frame.count()
    found = _evaluate(frame, engine, suite, parameters or {})
    columns = {str(column) for column in frame.columns}
    results = tuple(_result(spec, found.get(position), columns) for position, spec in enumerate(suite.expectations))
    message = _message(suite, results, columns, evaluated=len(found), rows=rows)
    return ValidationReport(
        suite=suite.name,
        success=message is None,
        evaluated=len(found),
        declared=len(suite.expectations),
        results=results,
        rows=rows,
        seconds=round(time.perf_counter() - started, 3),
        message=message,
    )


def _evaluate(frame: Any, engine: str, suite: SuiteSpec, parameters: Mapping[str, Any]) -> dict[int, Any]:
    """Great Expectations' own result for each expectation it evaluated, by its position in the suite."""
    registered()
    import great_expectations as gx

    configurations = [
        {"type": spec.type, "kwargs": kwargs, "meta": {POSITION: position}}
        for position, spec in enumerate(suite.expectations)
        if (kwargs := _filled(spec.kwargs, parameters)) is not None
    ]
    with _quiet(frame if engine == "pyspark" else None):
        context = gx.get_context(mode="ephemeral")
        context.enable_analytics(enable=False)
        context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
        sources = context.data_sources
        # persist=True would cache the table and never let it go.
        source = sources.add_pandas("table") if engine == "pandas" else sources.add_spark("table", persist=False)
        batches = source.add_dataframe_asset("table").add_batch_definition_whole_dataframe("all")
        batch = batches.get_batch(batch_parameters={"dataframe": frame})
        expectations = gx.ExpectationSuite(name=suite.name, expectations=configurations)
        outcome = batch.validate(expectations, result_format="BOOLEAN_ONLY")
    return {_position(result): result for result in outcome.results}


def _filled(kwargs: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments with every parameter's value; None when one is not given: Great Expectations would raise."""
    named = {key: value[PARAMETER] for key, value in kwargs.items() if isinstance(value, dict) and PARAMETER in value}
    if not set(named.values()) <= parameters.keys():
        return None
    return {**kwargs, **{key: parameters[name] for key, name in named.items()}}


def _position(result: Any) -> int:
    return result.expectation_config.meta[POSITION]


def _result(spec: ExpectationSpec, found: Any, columns: set[str]) -> ExpectationResult:
    from quality_judge.expectations.bounded import OBSERVED

    lacking = _lacking(spec, columns)
    error = "was not evaluated" if found is None else _raised(found.exception_info)
    if error is not None and lacking is not None:
        error = f"looks for {lacking!r}, a column that the table does not have"
    return ExpectationResult(
        expectation=spec.type,
        column=spec.kwargs.get("column"),
        success=error is None and found.success is True,
        observed=None if found is None else found.meta.get(OBSERVED),
        allowed={name: value for name, value in spec.kwargs.items() if name != "column"},
        severity=spec.severity,
        error=error,
    )


def _lacking(spec: ExpectationSpec, columns: set[str]) -> str | None:
    """The first column the expectation names that is not among `columns`."""
    asked = [spec.kwargs.get(key) for key in COLUMNS]
    named = [name for each in asked for name in (each if isinstance(each, list) else [each])]
    return next((column for column in named if isinstance(column, str) and column not in columns), None)


def _message(
    suite: SuiteSpec, results: tuple[ExpectationResult, ...], columns: set[str], *, evaluated: int, rows: int
) -> str | None:
    faults = []
    if evaluated != len(results):
        faults.append(f"{evaluated} of {len(results)} declared expectations were evaluated")
    if rows < suite.min_rows:
        faults.append(f"the table has {rows} row{'s' * (rows != 1)} and the suite wants at least {suite.min_rows}")
    for spec, result in zip(suite.expectations, results, strict=True):
        raised = result.error is not None and _lacking(spec, columns) is None
        if not result.success and (result.severity == "critical" or raised):
            faults.append(f"{result.expectation}({result.column or ''}) {result.error or 'does not hold'}")
    return "; ".join(faults) or None


def _raised(exception_info: Mapping[str, Any]) -> str | None:
    """`raised X`, X the type of the first exception in Great Expectations' record of one, or None."""
    # One record, or one for each metric under the metric's name.
    records = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    for record in records:
        if record.get("raised_exception"):
            return f"raised {_first_type(record.get('exception_traceback') or '')}"
    return None


def _first_type(trace: str) -> str:
    # Frames are indented. The first line after them that is not opens with the type, before any message:
    # what a row's own text could look like comes later and is not read.
    lines = trace.splitlines()
    for line in lines[1:]:
        if not line.startswith(" "):
            match = re.match(r"[A-Za-z_][A-Za-z0-9_.]*", line)
            return match.group().rpartition(".")[2] if match else "Exception"
    return "Exception"


def _engine(frame: Any) -> str:
    package = type(frame).__module__
    if type(frame).__name__ == "DataFrame" and package.startswith(("pandas.", "pyspark.sql.")):
        return package.partition(".")[0]
    raise CorpusError(f"got a {package}.{type(frame).__name__}; give a pandas or a Spark DataFrame")


@contextmanager
def _quiet(spark_frame: Any) -> Iterator[None]:
    """Keeps row text out of logs, here and on executors.

    Both libraries log exceptions, which quote values. Under ANSI rules Spark raises one for text in a number's
    place, and tasks log it where no logger here can reach; without those rules it is a null, which fails as well.
    """
    loggers = [logging.getLogger("great_expectations")]
    if spark_frame is not None:
        # Only pyspark may create this one: a plain logger of that name breaks every error pyspark reports afterwards.
        loggers.append(sys.modules["pyspark.logger"].PySparkLogger.getLogger("DataFrameQueryContextLogger"))
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    conf = None if spark_frame is None else spark_frame.sparkSession.conf
    ansi = None if conf is None else conf.get(ANSI)
    if conf is not None:
        conf.set(ANSI, "false")
    try:
        yield
    finally:
        if conf is not None:
            conf.set(ANSI, ansi)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
