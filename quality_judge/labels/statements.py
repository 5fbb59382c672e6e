"""What a row of labels states and what it says of it, with spellings that differ in nothing made one.

It does not know which of several rows is right (`settle`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable

from quality_judge.labels.label_set import Row, completions_of
from quality_judge.samples import Preference, Ranking, Sample


def plain(text: str) -> str:
    """The text with compatible characters made one (Unicode NFKC) and each run of white space a single space."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).split())


def folded(text: str) -> str:
    """`plain` without case."""
    return plain(plain(text).casefold())


def judged_texts(row: Row) -> list[tuple[str, str]]:
    """What a row makes known: each of its completions under its prompt, both folded."""
    prompt = folded(row.prompt)
    return [(prompt, folded(completion)) for completion in completions_of(row)]


def statement_of(row: Row) -> Hashable:
    """What was judged, whatever the verdict: rows with the same statement are copies or contradict one another."""
    return type(row).__name__, plain(row.prompt), tuple(sorted(map(plain, completions_of(row))))


def verdict_of(row: Row) -> Hashable:
    """What was said of a statement: a label, or an order of the texts."""
    if isinstance(row, Sample):
        return row.label
    if isinstance(row, Preference | Ranking):
        texts = completions_of(row)
        return tuple(map(plain, texts)) if len(set(map(plain, texts))) == len(texts) else texts
    return None
