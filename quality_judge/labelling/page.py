"""The labelling page itself: one template, one script, one style sheet, and its words in English and Chinese.

Whatever was handed over is escaped; rows never stand in the page, the script asks for them. No network, no build step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from quality_judge.errors import InputError, unknown
from quality_judge.pages import LANGUAGES
from quality_judge.rubric import Rubric

TYPES = {"label.js": "text/javascript; charset=utf-8", "label.css": "text/css; charset=utf-8"}
WRAPPED = 60  # a line this long was broken because it was long
FIRST_CJK = 0x2E80
LIST_ITEM = re.compile(r"\s*(?:[-*•]|\d+[.)、])\s?|\s{2,}")
# Of a category the key that toggles it; s, n and u mean something else.
CATEGORY_KEYS = "1234567890qwertyiopadfghjklzxcvbm"


def render_page(mode: str, rubric: Rubric, *, annotator: str | None, language: str) -> str:
    """The page for a mode and a rubric. annotator: the expert of the link; None asks for a name."""
    if language not in LANGUAGES:
        raise InputError(unknown("language", language, LANGUAGES))
    words = _words()[language]
    categories = [
        {"key": CATEGORY_KEYS[at] if at < len(CATEGORY_KEYS) else "", "code": each.code, "name": each.name,
         "description": each.description}
        for at, each in enumerate(rubric.categories)
    ]  # fmt: skip
    settings = {"mode": mode, "annotator": annotator, "words": words["script"]}
    template = _environment().get_template("label.html.jinja")
    page = template.render(
        t=words, criteria=paragraphs(rubric.criteria),
        mode=mode, rubric=rubric, categories=categories, settings=settings, language=language,
        verdicts=(spoken(rubric.good, words["good"]), spoken(rubric.bad, words["bad"])),
    )  # fmt: skip
    return page.encode("utf-8", "replace").decode()


def paragraphs(text: str) -> list[str]:
    """The text cut at its empty lines, without the breaks that only kept a line of the file short."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        first, *lines = paragraph.split("\n")
        for line in lines:
            wrapped = len(first.rpartition("\n")[2]) >= WRAPPED and not LIST_ITEM.match(line)
            between = "" if wrapped and ord(first[-1]) >= FIRST_CJK else " " if wrapped else "\n"
            first += between + (line.strip() if wrapped else line)
        found.append(first)
    return found


def spoken(word: str, plain: str) -> str:
    """The rubric's own word for a verdict; where it has none of its own, that of the page's language."""
    return plain if word in ("good", "bad") else word


def asset(name: str) -> tuple[str, str] | None:
    """The content and type of a file of the page, None for any other name."""
    return (_source(name), TYPES[name]) if name in TYPES else None


@lru_cache(maxsize=1)
def _words() -> Mapping[str, Mapping[str, Any]]:
    return cast("Mapping[str, Mapping[str, Any]]", yaml.safe_load(_source("words.yaml")))


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _source(name: str) -> str:
    return files("quality_judge.labelling").joinpath(name).read_text(encoding="utf-8")
