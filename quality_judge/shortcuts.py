"""The shortcut audit: how far something that is not quality would get, and whether the judge rests on it.

A judge that tells sources apart instead of rows can look good on pooled labels and be useless within each source. So:
the ROC AUC of length, source and language alone; the judge's own AUC among rows of one source; what it keeps of each.
It knows nothing of models: labels and scores go in, numbers and names of sources and languages come out, never text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from quality_judge.labels import FlatLabels
from quality_judge.stats.intervals import roc_auc_interval, wilson
from quality_judge.stats.metrics import Array, roc_auc

NEAR = 0.02  # a shortcut this close to the judge, or ahead of it, is warned of
FAR_BELOW = 0.05  # so is an AUC within sources this far below the pooled one
FOLDS = 5
MAX_GROUPS = 20
MIN_OF_EACH_CLASS = 5  # an AUC of fewer rows says nothing
LETTERS_READ = 400
MIN_LANGUAGE_SHARE = 0.05
LANGUAGE_CODE = re.compile("[a-z]{2,3}")
LANGUAGE_OF_SCRIPT = {"Han": "zh", "Kana": "ja", "Hangul": "ko", "Greek": "el", "Hebrew": "he", "Thai": "th"}
KANA_SHARE = 0.05  # Japanese is mostly Han characters
SCRIPTS = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "FULLWIDTH": "Latin", "HALFWIDTH": "Kana"}


def audit(flat: FlatLabels, raw: Array, probability: Array, *, threshold: float) -> dict[str, Any]:
    """`threshold`, `alone`, `within`, `by_source`, `by_language`, `warnings` of the labelled texts, for metrics.json.

    raw, probability: float64 (n,) over the flat texts, NaN where there is no score; such a row ranks last and is not
    kept. threshold: from where the judge keeps. An AUC is None where one class is missing or too few rows are there.
    """
    at = flat.labelled
    good = flat.label[at] == 1
    scores = np.nan_to_num(raw[at], nan=float(np.nanmin(raw)) if np.isfinite(raw).any() else 0.0)
    kept = np.nan_to_num(probability[at], nan=-1.0) >= threshold
    groups = {"source": [flat.sources[i] for i in at], "language": [language_of(flat, i) for i in at]}
    length = np.array([len(flat.completions[i]) for i in at], float)
    forwards = roc_auc(good, length)
    turned = -length if forwards is not None and forwards < 0.5 else length
    alone: dict[str, dict[str, Any] | None] = {"length": _auc(good, turned)}
    within: dict[str, float | None] = {}
    for name, values in groups.items():
        told = len(set(values)) > 1
        alone[name] = _auc_of_groups(values, good) if told else None
        within[name] = auc_within(values, good, scores) if told else None
    pooled = roc_auc(good, scores)
    return {
        "threshold": threshold, "alone": alone, "within": within,
        "by_source": _table(groups["source"], good, scores, kept),
        "by_language": _table(groups["language"], good, scores, kept), "warnings": _warnings(pooled, alone, within),
    }  # fmt: skip


def language_of(flat: FlatLabels, index: int) -> str:
    """The language that the label file states for the text, else the script most of its letters are of."""
    return flat.languages[index] or script_of(flat.completions[index])


def languages(flat: FlatLabels) -> tuple[str, ...]:
    """Codes of the languages of at least 5% of the texts, sorted: stated ones, and those that a script gives away."""
    n = len(flat.completions)
    told = Counter(language_of(flat, index) for index in range(n))
    codes = Counter[str]()
    for name, count in told.items():
        code = LANGUAGE_OF_SCRIPT.get(name, name.lower())
        if LANGUAGE_CODE.fullmatch(code) and (name in LANGUAGE_OF_SCRIPT or name in flat.languages):
            codes[code] += count
    return tuple(sorted(code for code, count in codes.items() if count >= MIN_LANGUAGE_SHARE * n))


def script_of(text: str) -> str:
    """The script of most of the first letters of `text`: Latin, Han, Kana, Cyrillic, …; "none" without letters."""
    letters = [letter for letter in text[: 10 * LETTERS_READ] if letter.isalpha()][:LETTERS_READ]
    counts = Counter(_script(letter) for letter in letters)
    if not counts:
        return "none"
    return "Kana" if counts["Kana"] > KANA_SHARE * len(letters) else max(sorted(counts), key=lambda name: counts[name])


def group_rates(values: Sequence[str | None], good: Array, *, seed: int = 0) -> Array:
    """How often rows of the same group are good, told from the other folds alone, float64 (n,).

    Rows do not vote on themselves: with many small groups, shares over all rows would know the answers by heart.
    """
    fold = np.empty(len(good), dtype=np.int64)
    generator = np.random.default_rng(seed)
    for side in (good, ~good):
        fold[side] = generator.permutation(int(side.sum())) % FOLDS
    _, group = np.unique([str(value) for value in values], return_inverse=True)
    rates = np.empty(len(good))
    for number in range(FOLDS):
        others = fold != number
        overall = good[others].mean() if others.any() else 0.5
        rows = np.bincount(group[others], minlength=group.max() + 1)
        n_good = np.bincount(group[others & good], minlength=group.max() + 1)
        rates[~others] = ((n_good + overall) / (rows + 1))[group[~others]]
    return rates


def auc_within(values: Sequence[str | None], good: Array, scores: Array) -> float | None:
    """P(a good row scores above a bad one of the same group), ties counting half; None without such a pair."""
    won = pairs = 0.0
    names = np.array([str(value) for value in values], dtype=object)
    for name in sorted(set(names)):
        inside = names == name
        weight = float(good[inside].sum()) * float((~good[inside]).sum())
        won += weight * (roc_auc(good[inside], scores[inside]) or 0.0) if weight else 0.0
        pairs += weight
    return won / pairs if pairs else None


@lru_cache(maxsize=50_000)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    return SCRIPTS.get(first, first.capitalize())


def _auc(good: Array, values: Array) -> dict[str, Any]:
    return {"roc_auc": roc_auc(good, values), "roc_auc_ci": roc_auc_interval(good, values)}


def _auc_of_groups(values: Sequence[str | None], good: Array) -> dict[str, Any]:
    """As `_auc` of the group's rate, rows of one group tied. In cross-fitted rates they are not: a good row lowers what
    its own fold is told, and the group would look worse than it is; the interval is moved along with the value.
    """
    rates = group_rates(values, good)
    found = _auc(good, rates)
    inside = auc_within(values, good, rates)
    if found["roc_auc"] is None or inside is None:
        return found
    shift = (0.5 - inside) * _share_within(values, good)
    interval = found["roc_auc_ci"]
    moved = [min(max(bound + shift, 0.0), 1.0) for bound in interval] if interval else None
    return {"roc_auc": found["roc_auc"] + shift, "roc_auc_ci": moved}


def _share_within(values: Sequence[str | None], good: Array) -> float:
    """Of all pairs of a good and a bad row the share whose rows are of one group."""
    _, group = np.unique([str(value) for value in values], return_inverse=True)
    n_good, n_bad = (
        np.bincount(group[good], minlength=group.max() + 1),
        np.bincount(group[~good], minlength=group.max() + 1),
    )
    return float(n_good @ n_bad) / float(n_good.sum() * n_bad.sum())


def _table(values: Sequence[str | None], good: Array, scores: Array, kept: Array) -> list[dict[str, Any]]:
    """One entry for each of the largest groups; empty where no row is of a named group."""
    names = np.array(["" if value is None else value for value in values], dtype=object)
    if not any(names):
        return []
    largest = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))[:MAX_GROUPS]
    return [_entry(name, names == name, good, scores, kept) for name, _ in largest]


def _entry(name: str, inside: Array, good: Array, scores: Array, kept: Array) -> dict[str, Any]:
    n, n_good, n_kept = int(inside.sum()), int(good[inside].sum()), int(kept[inside].sum())
    judged = min(n_good, n - n_good) >= MIN_OF_EACH_CLASS
    found = _auc(good[inside], scores[inside]) if judged else {"roc_auc": None, "roc_auc_ci": None}
    return {
        "name": name, "n": n, "good_rate": n_good / n, "keep_rate": n_kept / n, "keep_rate_ci": wilson(n_kept, n),
        **found,
    }  # fmt: skip


def _warnings(
    pooled: float | None, alone: dict[str, dict[str, Any] | None], within: dict[str, float | None]
) -> list[dict[str, Any]]:
    """What a reader must know: {kind: near or within, shortcut, value, judge}."""
    if pooled is None:
        return []
    near = [
        {"kind": "near", "shortcut": name, "value": found["roc_auc"], "judge": pooled}
        for name, found in alone.items()
        if found is not None and found["roc_auc"] is not None and found["roc_auc"] >= pooled - NEAR
    ]
    far = [
        {"kind": "within", "shortcut": name, "value": value, "judge": pooled}
        for name, value in within.items()
        if value is not None and value <= pooled - FAR_BELOW
    ]
    return near + far
