"""Suites of expectations as small YAML files, checked whole before a table is looked at.

    name: scored
    min_rows: 1
    expectations:
      - {type: expect_column_values_to_not_be_null, kwargs: {column: quality_code}, severity: critical, note: why}

Great Expectations drops a type it does not know without a word, so every type and argument is tried here. A `reference`
names a `_quality_profile.json` beside the suite, and becomes its counts. It knows nothing of tables.
"""

from __future__ import annotations

import json
import math
import os
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from quality_judge.config import Strict, parse, read_yaml
from quality_judge.errors import ConfigError, MissingExtra, gathered, unknown
from quality_judge.profile import ScoreProfile

OURS = (
    "mean_score", "pass_rate", "score_code_agreement", "score_drift", "single_value", "slice_pass_rate",
    "usable_scores",
)  # fmt: skip
REFERENCE = "reference"
# What the runner sets: a suite that chose its own result format could put row text into a report.
RESERVED = ("batch_id", "catch_exceptions", "id", "meta", "rendered_content", "result_format", "severity", "windows")


class ExpectationSpec(Strict):
    """One expectation. A `warning` that does not hold, or that looks for a column which the table does not have, is
    reported and does not fail the suite."""

    type: str = Field(min_length=1)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    severity: Literal["critical", "warning"] = "critical"
    note: str | None = None


class SuiteSpec(Strict):
    """A suite: at least one expectation, on a table of at least `min_rows` rows."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    min_rows: int = Field(1, ge=0)
    expectations: tuple[ExpectationSpec, ...] = Field(min_length=1)


def load_suite(path: str | Path, *, reference: str | Path | None = None) -> SuiteSpec:
    """The suite in the YAML file `path`. Raises one ConfigError that names every unknown type and wrong argument.

    reference: the profile to compare with, in place of those that the suite names.
    """
    suite = parse(SuiteSpec, read_yaml(path), where=str(path))
    if reference is not None and not any(isinstance(spec.kwargs.get(REFERENCE), str) for spec in suite.expectations):
        raise ConfigError(f"{path} compares with no reference, and {reference} was given as one; use drift.yaml")
    suite = suite.model_copy(
        update={"expectations": tuple(_with_counts(spec, Path(path).parent, reference) for spec in suite.expectations)}
    )
    types = registered()
    faults = [
        f"expectations.{position} ({spec.type}): {fault}"
        for position, spec in enumerate(suite.expectations)
        for fault in _faults(spec, types)
    ]
    if faults:
        raise ConfigError(gathered(f"{path}: {len(faults)} fault(s) in its expectations", faults))
    return suite


def registered() -> dict[str, Any]:
    """Every expectation type Great Expectations knows once ours are imported, as name → class. Takes seconds."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        registry = import_module("great_expectations.expectations.registry")
    except ModuleNotFoundError as error:
        if error.name != "great_expectations":
            raise
        raise MissingExtra("great_expectations", "expectations") from None
    registry.register_core_expectations()
    for name in OURS:
        import_module(f"quality_judge.expectations.{name}")
    names = registry.list_registered_expectation_implementations()
    return {name: registry.get_expectation_impl(name) for name in names}


def _with_counts(spec: ExpectationSpec, folder: Path, instead: str | Path | None) -> ExpectationSpec:
    """The expectation with counts of scores where it names, or is given, the profile that holds them."""
    named = spec.kwargs.get(REFERENCE)
    if not isinstance(named, str):
        return spec
    file = Path(instead) if instead is not None else folder / named
    try:
        found = ScoreProfile.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{spec.type}: the reference {file} cannot be read ({type(error).__name__}); name the "
            "_quality_profile.json of a filtered corpus"
        ) from None
    counts = [sum(bins) for bins in zip(*found.histogram.values(), strict=True)]
    return spec.model_copy(update={"kwargs": spec.kwargs | {REFERENCE: counts}})


def _faults(spec: ExpectationSpec, types: dict[str, Any]) -> list[str]:
    if spec.type not in types:
        return [unknown("expectation", spec.type, types)]
    reserved = sorted(set(spec.kwargs) & set(RESERVED))
    if reserved:
        return [f"kwargs.{name} is set by the runner; remove it" for name in reserved]
    # Great Expectations models are pydantic 1, whose ValidationError is another class than pydantic 2's.
    refused = import_module("great_expectations.compatibility.pydantic").ValidationError
    try:
        types[spec.type](**spec.kwargs)
    except refused as error:
        return [f"kwargs.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    except (TypeError, ValueError) as error:
        return [f"kwargs: {error}"]
    return _number_faults(spec.kwargs)


def _number_faults(kwargs: dict[str, Any]) -> list[str]:
    odd = {name: found for name, value in kwargs.items() if (found := _not_finite(value)) is not None}
    faults = [f"kwargs.{name}: {number} is not finite" for name, number in odd.items()]
    bounds = {name: kwargs[name] for name in ("min_value", "max_value") if isinstance(kwargs.get(name), int | float)}
    if len(bounds) == 2 and bounds["min_value"] > bounds["max_value"]:
        faults.append("kwargs: min_value {min_value} is above max_value {max_value}".format(**bounds))
    return faults


def _not_finite(value: Any) -> float | None:
    """The first number in a value, list or mapping that JSON has no form for."""
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for each in inside if (found := _not_finite(each)) is not None), None)
