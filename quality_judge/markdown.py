"""Pieces of Markdown with nothing in them that Markdown or HTML would act on: tables, numbers, a calibration plot.

It knows nothing of judges; whatever is no finite number is shown as missing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quality_judge.metrics_file import finite, interval

MISSING = "–"
PLOT_COLUMNS = 51


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; a cell that is None is shown as missing."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(plain(MISSING if cell is None else cell) for cell in line) + " |" for line in lines
    )


def plain(value: Any) -> str:
    """`value` on one line, with nothing in it that Markdown or HTML would act on."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([|`\\\[\]])", r"\\\1", text)


def with_interval(scores: Mapping[str, Any], name: str) -> str:
    """The metric `name` with its interval, `0.812 (0.790 to 0.830)`."""
    value, bounds = finite(scores.get(name)), interval(scores, name)
    if value is None:
        return MISSING
    return f"{value:.3f}" if bounds is None else f"{value:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})"


def number(value: object, places: int = 3) -> str:
    """A number with so many decimals."""
    known = finite(value)
    return MISSING if known is None else f"{known:.{places}f}"


def short(value: object) -> str:
    """A number in four digits at most."""
    known = finite(value)
    return MISSING if known is None else f"{known:.4g}"


def exact(value: object) -> str:
    """A number with every digit that it has: a cut that is shortened keeps other rows."""
    known = finite(value)
    return MISSING if known is None else f"{known:.15g}"


def percent(value: object) -> str:
    """A share in percent, in four digits at most."""
    known = finite(value)
    return MISSING if known is None else f"{100 * known:.4g}%"


def counted(value: object, one: str, several: str | None = None) -> str:
    """A number and what it counts: `1 row`, `2 rows`; several: the form for all but one, unless it only gains an s."""
    return f"{count(value)} {one if finite(value) == 1 else several or one + 's'}"


def count(value: object) -> str:
    """A whole number with separators; another value as plain text."""
    known = finite(value)
    return (
        plain(MISSING if value is None else value)
        if known is None
        else f"{known:,.0f}"
        if known.is_integer()
        else f"{known:.4g}"
    )


def calibration_plot(bins: Sequence[Mapping[str, Any]]) -> str:
    """The reliability curve as a fenced text plot, one line for each bin with rows: it is drawn the same everywhere.

    `o` the share that is good, `=` its interval, `|` what the judge said. Hubs strip inline SVG, so it is text.
    """
    lines = []
    for each in bins:
        said, found = finite(each.get("mean_probability")), finite(each.get("fraction_good"))
        if not each.get("n") or said is None or found is None:
            continue
        bounds = interval({"_ci": each.get("ci")}, "") or (found, found)
        row = [" "] * PLOT_COLUMNS
        row[_column(bounds[0]) : _column(bounds[1]) + 1] = "=" * (_column(bounds[1]) - _column(bounds[0]) + 1)
        row[_column(said)] = "|"
        row[_column(found)] = "o"
        lines.append(f"{number(each.get('low'), 1)}-{number(each.get('high'), 1)} [{''.join(row)}] {count(each['n'])}")
    if not lines:
        return ""
    scale = "said    0" + "0.5".center(PLOT_COLUMNS) + "1 labels"
    return "\n".join(["```text", scale, *reversed(lines), "```"])


def _column(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * (PLOT_COLUMNS - 1))
