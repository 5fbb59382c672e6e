"""The report of a run: one HTML page that says what was kept and why, and what may be promised of it.

The page is self-contained: inline SVG, no script, no network. Every word and mark of it stands in `report.html.jinja`;
the geometry of its charts in `report_charts`; here stand the data it shows. It knows nothing of Spark or models and
never sees a row: what it prints are counts, scores, names of columns and slice values.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

from jinja2 import Environment, StrictUndefined, Template

from quality_judge.card import write_beside
from quality_judge.errors import InputError, unknown
from quality_judge.metrics_file import contenders, finite, interval, metric_names, observed
from quality_judge.profile import ScoreProfile
from quality_judge.report_charts import (
    MAX_CONTENDERS,
    View,
    duel,
    funnel,
    histogram,
    reliability,
    slice_chart,
    tradeoff,
)

LANGUAGES = ("en", "zh")
MAX_COLUMNS = 6
MAX_CHECKS = 60


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything the page shows; whatever is None is said to be missing.

    judge: what judge.json says, with "fingerprint"; its "thresholds" may also hold a policy's "keep" and "review".
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
    marks = _thresholds(data.judge)
    views: View = {
        "funnel": data.profile and funnel(data.profile),
        "histogram": data.profile and histogram(data.profile, marks),
        "slices": data.profile and [slice_chart(*each) for each in list(data.profile.slices.items())[:MAX_COLUMNS]],
        "reliability": reliability(curves.get("reliability") or ()),
        "tradeoff": tradeoff(curves.get("threshold") or (), marks),
        "duel": duel(metrics),
        "table": _metric_table(metrics),
        "certificate": _partial(metrics.get("certificate")),
        "observed": observed(metrics.get("certificate") or {}),
        "uncovered": _uncovered(metrics.get("certificate") or {}, marks),
        "checks": None if data.validation is None else _checks(data.validation),
        "judge": _partial(data.judge),
        "origin": _partial(data.provenance),
        "thresholds": "; ".join(f"{name} ≥ {_short(value)}" for name, value in marks),
    }
    page = _template().render(
        data=data, view=views, t=page_words(data.language), gap="" if data.language == "zh" else " "
    )
    # A lone surrogate cannot be written as UTF-8; a question mark can.
    return page.encode("utf-8", "replace").decode("utf-8")


def page_words(language: str) -> Mapping[str, str]:
    """Every phrase of the page in `language`."""
    return cast("Mapping[str, str]", cast("Any", _template().module).words[language])


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "count": _count,
        "percent": _percent,
        "aim": _aim,
        "short": _short,
        "number": _number,
        "brief": brief,
        "flat": _flat,
    }
    # Read through importlib, so that it works from a zip too (spark-submit --py-files).
    source = files("quality_judge").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)


class _Partial(dict[str, Any]):
    """A mapping whose missing keys read as None, so that the template can ask for what may not be there."""

    def __missing__(self, key: str) -> None:
        return None


def _partial(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return _Partial({str(key): _partial(each) for key, each in value.items()})


def brief(value: Any, width: int = 40) -> str:
    """`value` on one line of at most `width` columns (a wide character takes two), invisible characters shown."""
    shown, used = "", 0
    for character in " ".join(str(value)[:4000].split()):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > width - 1:
            return shown + "…"
        shown += "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character
    return shown


def _thresholds(judge: Mapping[str, Any] | None) -> list[tuple[str, float]]:
    given = (judge or {}).get("thresholds") or {}
    known = [(str(name), finite(value)) for name, value in given.items()]
    return sorted(((name, value) for name, value in known if value is not None), key=lambda item: item[1])


def _uncovered(certificate: Mapping[str, Any], marks: Sequence[tuple[str, float]]) -> float | None:
    """The keep threshold, where rows are kept below the threshold that the certificate speaks of."""
    certified, keep = finite(certificate.get("threshold")), dict(marks).get("keep")
    if not certificate.get("granted") or certified is None or keep is None:
        return None
    return keep if keep < certified - 1e-9 else None


def _metric_table(metrics: Mapping[str, Any]) -> View | None:
    scored = dict(list(contenders(metrics).items())[:MAX_CONTENDERS])
    names = metric_names(metrics)[:40]
    if not scored or not names:
        return None
    rows = [
        (name, [(finite(scores.get(name)), interval(scores, name)) for scores in scored.values()]) for name in names
    ]
    return {"who": list(scored), "rows": rows, "n": (metrics.get("test") or {}).get("n")}


def _checks(validation: Sequence[Mapping[str, Any]]) -> View:
    ordered = sorted(validation, key=lambda check: bool(check.get("success")))
    failed = sum(not check.get("success") for check in ordered)
    return {
        "shown": [_partial(check) for check in ordered[:MAX_CHECKS]],
        "failed": failed,
        "total": len(ordered),
        "rest": len(ordered[MAX_CHECKS:]),
    }


def _count(value: object) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:,.0f}" if known.is_integer() else f"{known:,.3f}"


def _percent(value: object) -> str:
    """A share in percent; what is not quite nothing or not quite all never reads as if it were."""
    known = finite(value)
    if known is None:
        return "–"
    if known in (0.0, 1.0):
        return f"{known:.0%}"
    return "<0.1%" if 0 < known < 0.001 else ">99.9%" if 0.999 < known < 1 else f"{known:.1%}"


def _aim(value: object) -> str:
    """A share that somebody chose, without needless digits: 0.9 is 90%."""
    known = finite(value)
    return "–" if known is None else f"{100 * known:.6g}%"


def _short(value: object) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:,.0f}" if known.is_integer() else f"{known:.4g}"


def _number(value: object, places: int = 3) -> str:
    known = finite(value)
    return "–" if known is None else f"{known:.{places}f}"


def _flat(value: Any) -> str:
    """Any JSON value in a few words: mappings as `name value`, lists joined, numbers with separators."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_flat, value))
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else _short(value) if finite(value) is not None else str(value)
