"""The report of a run: one HTML page that says what was kept and why, and what may be promised of it.

The page is self-contained: inline SVG, no script, no network. Every word and mark of it stands in `report.html.jinja`;
here stand the data it shows and the geometry of its charts. It knows nothing of Spark or models and never sees a row:
what it prints are counts, scores, names of columns and slice values.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

from jinja2 import Environment, StrictUndefined, Template

from quality_judge.card import best_baseline, contenders, finite, interval, metric_names, observed, write_beside
from quality_judge.errors import InputError, unknown
from quality_judge.scores import DECISIONS
from quality_judge.stats.metrics import wilson

LANGUAGES = ("en", "zh")
BINS = 50
MAX_SLICES = 15
MAX_COLUMNS = 6
MAX_REASONS = 5
MAX_CHECKS = 60
MAX_CONTENDERS = 12
MAX_POINTS = 120

Numbers = Mapping[str, int]
View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SliceRow:
    """What became of the rows with one value of a column. `mean_score` is over scored rows, None without any."""

    value: str
    rows: int
    kept: int
    reviewed: int
    dropped: int
    unscored: int
    mean_score: float | None = None


@dataclass(frozen=True, slots=True)
class ScoreProfile:
    """Counts over a scored and filtered corpus.

    decisions: rows for each of DECISIONS. codes, flags, reasons: rows for each that occurs.
    histogram: for each decision, rows in each of 50 equal bins of the probability, [0, 0.02) … [0.98, 1].
    slices: for each sliced column, one SliceRow for each value. Tokens and characters are None where nobody counted.
    """

    rows_in: int
    decisions: Numbers
    codes: Numbers = field(default_factory=dict)
    flags: Numbers = field(default_factory=dict)
    reasons: Numbers = field(default_factory=dict)
    histogram: Mapping[str, Sequence[int]] = field(default_factory=dict)
    slices: Mapping[str, Sequence[SliceRow]] = field(default_factory=dict)
    tokens_kept: int | None = None
    characters_kept: int | None = None

    def __post_init__(self) -> None:
        for decision in (*self.decisions, *self.histogram):
            if decision not in DECISIONS:
                raise InputError(f"profile: {unknown('decision', decision, DECISIONS)}")
        for decision, bins in self.histogram.items():
            if len(bins) != BINS:
                raise InputError(f"profile: histogram of {decision!r} has {len(bins)} bins; expected {BINS}")

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        return cast("dict[str, Any]", json.loads(json.dumps(asdict(self), allow_nan=False)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScoreProfile:
        """The profile that `to_dict` gave. Raises InputError on an unknown or missing key."""
        known = [each.name for each in fields(cls)]
        for key in data:
            if key not in known:
                raise InputError(f"profile: {unknown('key', key, known)}")
        try:
            slices = {name: tuple(SliceRow(**row) for row in rows) for name, rows in data.get("slices", {}).items()}
            return cls(**{**data, "slices": slices})
        except TypeError as error:
            raise InputError(f"profile: {error}; it was not written by this version") from error


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything the page shows; whatever is None is said to be missing.

    judge: what judge.json says, with "fingerprint"; its "thresholds" may also hold a policy's "keep" and "review".
    metrics: metrics.json (see `quality_judge.card`), with "curves" if they were drawn:
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
        "funnel": data.profile and _funnel(data.profile),
        "histogram": data.profile and _histogram(data.profile, marks),
        "slices": data.profile and [_slice_chart(*each) for each in list(data.profile.slices.items())[:MAX_COLUMNS]],
        "reliability": _reliability(curves.get("reliability") or ()),
        "tradeoff": _tradeoff(curves.get("threshold") or (), marks),
        "duel": _duel(metrics),
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


def _funnel(profile: ScoreProfile) -> View:
    counts = {name: int(profile.decisions.get(name, 0)) for name in DECISIONS}
    total = sum(counts.values())
    parts, left = [], 0.0
    for name, rows in counts.items():
        width = 1000 * rows / total if total else 0.0
        parts.append({"name": name, "rows": rows, "share": rows / total if total else None, "x": left, "width": width})
        left += width
    ranked = sorted(profile.reasons.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(rows for _, rows in ranked[MAX_REASONS:])
    most = max([rest, *profile.reasons.values()], default=0)
    return {
        "parts": parts, "total": total, "rows_in": profile.rows_in, "adds_up": total == profile.rows_in,
        "reasons": _bars(ranked[:MAX_REASONS], total, most), "rest": _bars([("", rest)], total, most) if rest else [],
        "rest_count": len(ranked[MAX_REASONS:]),
        "codes": _bars(_ranked(profile.codes), total), "flags": _bars(_ranked(profile.flags), total),
    }  # fmt: skip


def _ranked(counts: Numbers) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:40]


def _bars(counts: Sequence[tuple[str, int]], total: int, most: int = 0) -> list[View]:
    most = most or max((rows for _, rows in counts), default=0)
    return [
        {
            "name": name,
            "rows": rows,
            "share": rows / total if total else None,
            "width": 100 * rows / most if most else 0,
        }
        for name, rows in counts
    ]


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


def _ticks(most: float) -> list[int]:
    step = 10 ** math.floor(math.log10(max(most, 1)))
    step = next(int(max(1, step * part)) for part in (0.2, 0.5, 1, 2) if most / max(1, step * part) <= 5)
    return list(range(0, math.ceil(most / step) * step + 1, step))


def _histogram(profile: ScoreProfile, marks: Sequence[tuple[str, float]]) -> View | None:
    stacks = {name: list(profile.histogram.get(name, [0] * BINS)) for name in ("drop", "review", "keep")}
    most = max(map(sum, zip(*stacks.values(), strict=True)))
    if most == 0:
        return None
    ticks = _ticks(most)
    left, width, floor, height = 64.0, 880.0, 236.0, 184.0
    bars = []
    for index in range(BINS):
        top = floor
        for name, bins in stacks.items():
            tall = height * bins[index] / ticks[-1]
            top -= tall
            if tall:
                place = {"x": left + width * index / BINS + 0.75, "y": top, "width": width / BINS - 1.5, "height": tall}
                bars.append(
                    {"name": name, "rows": bins[index], "low": index / BINS, "high": (index + 1) / BINS, **place}
                )
    grid = [{"rows": tick, "y": floor - height * tick / ticks[-1]} for tick in ticks]
    return {"bars": bars, "marks": _marks(marks), "grid": grid}


def _marks(thresholds: Sequence[tuple[str, float]]) -> list[View]:
    """The thresholds in [0, 1] and where their labels stand: neighbours on two lines, turned near the right edge."""
    marks: list[View] = []
    for name, value in thresholds:
        if 0 <= value <= 1:
            close = bool(marks) and value - marks[-1]["value"] < 0.2 and not marks[-1]["level"]
            marks.append({"name": name, "value": value, "level": int(close), "turned": value > 0.8})
    return marks


def _reliability(bins: Sequence[Mapping[str, Any]]) -> View | None:
    known = [each for each in bins if each.get("n") and None not in (_x(each), _y(each))]
    if not known:
        return None
    most = max(each["n"] for each in known)
    points = []
    for each in known:
        bounds = interval({"_ci": each.get("ci")}, "")
        size = 3.5 + 4.5 * math.sqrt(each["n"] / most)
        points.append({**each, "x": _x(each), "y": _y(each), "size": size, "bounds": bounds})
    return {"points": points}


def _x(each: Mapping[str, Any]) -> float | None:
    return _unit(each.get("mean_probability"))


def _y(each: Mapping[str, Any]) -> float | None:
    return _unit(each.get("fraction_good"))


def _unit(value: object) -> float | None:
    """`value` where a chart from 0 to 1 has a place for it, else None."""
    known = finite(value)
    return known if known is not None and 0 <= known <= 1 else None


def _tradeoff(curve: Sequence[Mapping[str, Any]], marks: Sequence[tuple[str, float]]) -> View | None:
    ordered = sorted((each for each in curve if _unit(each.get("threshold")) is not None), key=lambda e: e["threshold"])
    if not ordered:
        return None
    kept = ordered[:: max(1, math.ceil(len(ordered) / MAX_POINTS))]
    if kept[-1] is not ordered[-1]:
        kept.append(ordered[-1])
    lines = {
        name: [(each["threshold"], value) for each in kept if (value := _unit(each.get(name))) is not None]
        for name in ("precision", "recall", "keep_rate")
    }
    return {"lines": {name: points for name, points in lines.items() if points}, "marks": _marks(marks)}


def _slice_chart(column: str, rows: Sequence[SliceRow]) -> View:
    by_size = sorted(rows, key=lambda row: (-row.rows, row.value))
    shown = sorted(by_size[:MAX_SLICES], key=lambda row: (-(row.kept / row.rows if row.rows else 0), row.value))
    bars = [_slice_bar(row, 0) for row in shown]
    rest = by_size[MAX_SLICES:]
    if rest:
        bars.append(_slice_bar(_together(rest), len(rest)))
    total, kept = sum(row.rows for row in rows), sum(row.kept for row in rows)
    return {"column": column, "bars": bars, "overall": kept / total if total else None, "values": len(rows)}


def _together(rows: Sequence[SliceRow]) -> SliceRow:
    scored = [(row.mean_score, row.rows - row.unscored) for row in rows if row.mean_score is not None]
    weight = sum(n for _, n in scored)
    mean = sum(score * n for score, n in scored) / weight if weight else None
    sums = {
        name: sum(getattr(row, name) for row in rows) for name in ("rows", "kept", "reviewed", "dropped", "unscored")
    }
    return SliceRow(value="", mean_score=mean, **sums)


def _slice_bar(row: SliceRow, merged: int) -> View:
    rate = row.kept / row.rows if row.rows else None
    return {"row": row, "rate": rate, "bounds": wilson(row.kept, row.rows) if row.rows else None, "merged": merged}


def _duel(metrics: Mapping[str, Any]) -> View | None:
    rivals = {
        name: (value, interval(scores, "roc_auc"))
        for name, scores in list(contenders(metrics).items())[:MAX_CONTENDERS]
        if (value := _unit(scores.get("roc_auc"))) is not None
    }
    if not rivals:
        return None
    lowest = min(min(value, bounds[0] if bounds else 1.0, 1.0) for value, bounds in rivals.values())
    start = min(0.5, math.floor(max(0.0, lowest - 0.01) * 10) / 10)
    own = rivals.pop("judge", None)
    dots = [{"name": "judge", "value": own[0], "bounds": own[1]}] if own else []
    dots += [
        {"name": name, "value": value, "bounds": bounds}
        for name, (value, bounds) in sorted(rivals.items(), key=lambda item: -item[1][0])
    ]
    return {"dots": dots, "start": start, "own": own and own[0], "best": best_baseline(metrics)}


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
