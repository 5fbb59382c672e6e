"""The report of a run: one HTML page that says what was kept and why, and what may be promised of it.

Its words stand in `words.yaml`, its marks in `report.html.jinja`, the geometry of its charts in `report_charts`; here
stand the data it shows. It knows nothing of Spark or models and never sees a row: what it prints are counts, scores,
names of columns and slice values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quality_judge.errors import InputError, unknown
from quality_judge.files import write_beside
from quality_judge.metrics_file import observed
from quality_judge.pages import LANGUAGES, cut, metric_table, partial, render, thresholds, uncovered
from quality_judge.profile import ScoreProfile
from quality_judge.report_charts import View, duel, funnel, histogram, reliability, slice_chart, tradeoff

MAX_COLUMNS = 6
MAX_CHECKS = 60


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything the page shows; whatever is None is said to be missing.

    judge: what judge.json says, with "fingerprint"; its "thresholds" may also hold a policy's "keep" and "review",
    beside the "lowest_keep" of all its slices.
    metrics: metrics.json (see `quality_judge.metrics_file`), with "curves" if they were drawn:
    "reliability" [{low, high, n, mean_probability, fraction_good, ci}], "threshold" [{threshold, precision, recall,
    keep_rate, n_kept}]. validation: [{expectation, column, success, observed, allowed}]. provenance: {input, output,
    command, seconds, rows_per_second, versions, date}.
    """

    title: str
    language: Literal["en", "zh"] = "en"
    profile: ScoreProfile | None = None
    judge: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None
    validation: Sequence[Mapping[str, Any]] | None = None
    provenance: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise InputError(f"report: {unknown('language', self.language, LANGUAGES)}")


def write_report(data: ReportData, path: str | Path) -> None:
    """Writes the page of `data` to `path`: beside, then renamed."""
    write_beside(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The whole page as HTML text, everything in it escaped."""
    metrics = data.metrics or {}
    curves = metrics.get("curves") or {}
    marks = thresholds(data.judge)
    views: View = {
        "funnel": data.profile and funnel(data.profile),
        "histogram": data.profile and histogram(data.profile, marks),
        "slices": data.profile and [slice_chart(*each) for each in list(data.profile.slices.items())[:MAX_COLUMNS]],
        "reliability": reliability(curves.get("reliability") or ()),
        "tradeoff": tradeoff(curves.get("threshold") or (), marks),
        "duel": duel(metrics),
        "table": metric_table(metrics),
        "certificate": partial(metrics.get("certificate")),
        "observed": observed(metrics.get("certificate") or {}),
        "uncovered": uncovered(metrics.get("certificate") or {}, data.judge),
        "checks": None if data.validation is None else _checks(data.validation),
        "judge": partial(data.judge),
        "origin": partial(data.provenance),
        "thresholds": "; ".join(f"{name} ≥ {cut(value)}" for name, value in marks),
    }
    return render("report.html.jinja", data.language, data=data, view=views)


def _checks(validation: Sequence[Mapping[str, Any]]) -> View:
    ordered = sorted(validation, key=lambda check: bool(check.get("success")))
    failed = sum(not check.get("success") for check in ordered)
    return {
        "shown": [partial(check) for check in ordered[:MAX_CHECKS]],
        "failed": failed,
        "total": len(ordered),
        "rest": len(ordered[MAX_CHECKS:]),
    }
