"""What the HTML pages share: templates, words in two languages, how numbers are printed, and small views.

A page is self-contained: inline SVG, no script, no network; everything that was handed over is escaped. Templates are
`*.html.jinja`, phrases `words.yaml`. It knows nothing of what a page is about, and never sees a row.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from string import Formatter
from typing import Any, cast

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from quality_judge.errors import InputError, unknown
from quality_judge.metrics_file import contenders, finite, interval, metric_names
from quality_judge.report_charts import MAX_CONTENDERS, View

LANGUAGES = ("en", "zh")
MAX_METRICS = 40


def render(template: str, language: str, **values: Any) -> str:
    """The page that `template` makes of `values`, in `language`. Raises InputError for a language without words."""
    words = page_words(language)
    page = (
        _environment()
        .get_template(template)
        .render(t=words, language=language, gap="" if language == "zh" else " ", **values)
    )
    # A lone surrogate cannot be written as UTF-8; a question mark can.
    return page.encode("utf-8", "replace").decode("utf-8")


def page_words(language: str) -> Mapping[str, str]:
    """Every phrase of the pages in `language`."""
    if language not in LANGUAGES:
        raise InputError(unknown("language", language, LANGUAGES))
    return _words()[language]


class Counted(str):
    """A phrase about several that has another form for one; which it is, the first value filled in decides."""

    __slots__ = ("first", "one")
    first: str
    one: str

    def __new__(cls, forms: Mapping[str, str]) -> Counted:
        phrase = super().__new__(cls, forms["other"])
        phrase.one = forms["one"]
        phrase.first = next(name for _, name, _, _ in Formatter().parse(forms["other"]) if name)
        return phrase

    def format(self, *args: object, **values: object) -> str:
        return (self.one if str(values.get(self.first)) == "1" else str(self)).format(*args, **values)


@lru_cache(maxsize=1)
def _words() -> Mapping[str, Mapping[str, str]]:
    said = cast("Mapping[str, Mapping[str, Any]]", yaml.safe_load(_source("words.yaml")))
    return {
        language: {name: each if isinstance(each, str) else Counted(each) for name, each in phrases.items()}
        for language, phrases in said.items()
    }


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": count, "percent": percent, "aim": aim, "short": short, "cut": cut, "number": number, "brief": brief,
        "flat": flat,
    }  # fmt: skip
    return environment


def _source(name: str) -> str:
    # Read through importlib, so that it works from a zip too (spark-submit --py-files).
    return files("quality_judge").joinpath(name).read_text(encoding="utf-8")


class Partial(dict[str, Any]):
    """A mapping whose missing keys read as None, so that the template can ask for what may not be there."""

    def __missing__(self, key: str) -> None:
        return None


def partial(value: Any) -> Any:
    """`value` with every mapping in it a `Partial`."""
    if not isinstance(value, Mapping):
        return value
    return Partial({str(key): partial(each) for key, each in value.items()})


def brief(value: Any, width: int = 40) -> str:
    """`value` on one line of at most `width` columns (a wide character takes two), invisible characters shown."""
    shown, used = "", 0
    for character in " ".join(str(value)[:4000].split()):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > width - 1:
            return shown + "…"
        shown += "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character
    return shown


def thresholds(judge: Mapping[str, Any] | None) -> list[tuple[str, float]]:
    """(name, value) of the thresholds that judge.json says, the lowest first."""
    given = (judge or {}).get("thresholds") or {}
    known = [(str(name), finite(value)) for name, value in given.items()]
    return sorted(((name, value) for name, value in known if value is not None), key=lambda item: item[1])


def uncovered(certificate: Mapping[str, Any], judge: Mapping[str, Any] | None) -> float | None:
    """The lowest cut of a policy or one of its slices, where rows are kept below what the certificate speaks of."""
    said = judge or {}
    keep = finite(said.get("lowest_keep", (said.get("thresholds") or {}).get("keep")))
    certified = finite(certificate.get("threshold"))
    if not certificate.get("granted") or certified is None or keep is None:
        return None
    return keep if keep < certified - 1e-9 else None


def metric_table(metrics: Mapping[str, Any]) -> View | None:
    """The metrics of the judge and its baselines side by side; None without any."""
    scored = dict(list(contenders(metrics).items())[:MAX_CONTENDERS])
    names = metric_names(metrics)[:MAX_METRICS]
    if not scored or not names:
        return None
    rows = [
        (name, [(finite(scores.get(name)), interval(scores, name)) for scores in scored.values()]) for name in names
    ]
    return {"who": list(scored), "rows": rows, "n": (metrics.get("test") or {}).get("n")}


def count(value: object) -> str:
    """A number with separators."""
    known = finite(value)
    return "–" if known is None else f"{known:,.0f}" if known.is_integer() else f"{known:,.3f}"


def percent(value: object) -> str:
    """A share in percent; what is not quite nothing or not quite all never reads as if it were."""
    known = finite(value)
    if known is None:
        return "–"
    if known in (0.0, 1.0):
        return f"{known:.0%}"
    return "<0.1%" if 0 < known < 0.001 else ">99.9%" if 0.999 < known < 1 else f"{known:.1%}"


def aim(value: object) -> str:
    """A share that somebody chose, without needless digits: 0.9 is 90%. What has many is rounded down to one."""
    known = finite(value)
    if known is None:
        return "–"
    exact = round(100 * known, 6)
    return f"{exact:.6g}%" if round(exact, 2) == exact else f"{math.floor(10 * exact) / 10:.1f}%"


def short(value: object) -> str:
    """A number in four digits at most."""
    known = finite(value)
    return "–" if known is None else f"{known:,.0f}" if known.is_integer() else f"{known:.4g}"


def cut(value: object, least: int = 0) -> str:
    """A threshold with all digits that were set or certified, for a shortened one keeps other rows; another in four.

    least: how many decimals are shown at least.
    """
    known = finite(value)
    if known is None:
        return "–"
    digits = 12 if round(known, 12) == known else 4
    return max(f"{known:.{digits}g}", f"{known:.{least}f}", key=len)


def number(value: object, places: int = 3) -> str:
    """A number with so many decimals."""
    known = finite(value)
    return "–" if known is None else f"{known:.{places}f}"


def flat(value: Any) -> str:
    """Any JSON value in a few words: mappings as `name value`, lists joined, numbers with separators."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {flat(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(flat, value))
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else short(value) if finite(value) is not None else str(value)
