"""The geometry of the report's charts: from counts and metrics to bars, points and lines with their places.

It knows nothing of HTML, of words or of how a number is printed, and never sees a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quality_judge.metrics_file import best_baseline, contenders, finite, interval
from quality_judge.profile import BINS, Numbers, ScoreProfile, SliceRow
from quality_judge.scores import DECISIONS
from quality_judge.stats.intervals import wilson

MAX_SLICES = 15
MAX_REASONS = 5
MAX_CONTENDERS = 12
MAX_POINTS = 120
LABEL_SPAN = 0.165  # of the histogram's axis: a name and a number
NUMBER_SPAN = 0.1  # of the trade-off's

View = dict[str, Any]


def funnel(profile: ScoreProfile) -> View:
    """The bar of decisions, 1000 wide, and the bars of reasons, codes and flags, the longest of each 100 wide."""
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


def _ticks(most: float) -> list[int]:
    step = 10 ** math.floor(math.log10(max(most, 1)))
    step = next(int(max(1, step * part)) for part in (0.2, 0.5, 1, 2) if most / max(1, step * part) <= 5)
    return list(range(0, math.ceil(most / step) * step + 1, step))


def histogram(profile: ScoreProfile, marks: Sequence[tuple[str, float]]) -> View | None:
    """The stacked bars of the probabilities, their grid and the thresholds; None without rows."""
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
    return {"bars": bars, "marks": _marks(marks, span=LABEL_SPAN, levels=3), "grid": grid}


def _marks(thresholds: Sequence[tuple[str, float]], *, span: float, levels: int, centred: bool = False) -> list[View]:
    """The thresholds in [0, 1] and where their labels stand: on the first line with room, turned near the right edge.

    span: the width of a label, as a part of the axis. Without room on any of the lines it takes the emptiest.
    """
    marks: list[View] = []
    ends = [-1.0] * levels
    for name, value in sorted((mark for mark in thresholds if 0 <= mark[1] <= 1), key=lambda mark: mark[1]):
        turned = not centred and value > 1 - span
        start = value - (span / 2 if centred else span * turned)
        level = next((line for line, end in enumerate(ends) if end <= start), ends.index(min(ends)))
        ends[level] = start + span
        marks.append({"name": name, "value": value, "level": level, "turned": turned})
    return marks


def reliability(bins: Sequence[Mapping[str, Any]]) -> View | None:
    """The points (x: mean probability, y: share of good rows), larger where more rows stand; None without any."""
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


def tradeoff(curve: Sequence[Mapping[str, Any]], marks: Sequence[tuple[str, float]]) -> View | None:
    """A line for each of precision, recall and keep rate over the threshold, thinned where long; None without any."""
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
    placed = _marks(marks, span=NUMBER_SPAN, levels=2, centred=True)
    return {"lines": {name: points for name, points in lines.items() if points}, "marks": placed}


def slice_chart(column: str, rows: Sequence[SliceRow]) -> View:
    """A bar for each of the largest slices of a column, by the share kept, and one for all others together."""
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


def duel(metrics: Mapping[str, Any]) -> View | None:
    """The ROC AUC of the judge, then of the baselines, best first, and where the axis starts; None without any."""
    rivals = {
        name: (value, interval(scores, "roc_auc"))
        for name, scores in list(contenders(metrics).items())[:MAX_CONTENDERS]
        if (value := _unit(scores.get("roc_auc"))) is not None
    }
    if not rivals:
        return None
    start = axis_start([{"value": value, "bounds": bounds} for value, bounds in rivals.values()])
    own = rivals.pop("judge", None)
    dots = [{"name": "judge", "value": own[0], "bounds": own[1]}] if own else []
    dots += [
        {"name": name, "value": value, "bounds": bounds}
        for name, (value, bounds) in sorted(rivals.items(), key=lambda item: -item[1][0])
    ]
    return {"dots": dots, "start": start, "own": own and own[0], "best": best_baseline(metrics)}


def axis_start(dots: Sequence[View]) -> float:
    """Where an axis of ROC AUC begins so that every dot has its place: at 0.5, or a tenth below the lowest."""
    lowest = min((min(dot["value"], dot["bounds"][0] if dot["bounds"] else 1.0) for dot in dots), default=0.5)
    return min(0.5, math.floor(max(0.0, lowest - 0.01) * 10) / 10)
