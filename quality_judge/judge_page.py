"""The judge card as one HTML page: how good a judge is, what it promises, and what it must not lean on.

Its marks stand in `judge_page.html.jinja`, its words in `words.yaml`; here stand the data it shows, all of them from
judge.json and metrics.json. It computes no metric, knows nothing of models, and never sees a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quality_judge.metrics_file import contenders, finite, interval, label_faults, metric_names, observed
from quality_judge.pages import brief, cut, flat, metric_table, page_words, partial, percent, render, short, thresholds
from quality_judge.report_charts import View, axis_start, duel, reliability, tradeoff

Words = Mapping[str, str]
SHORTCUT_GROUPS = ("source", "language")
SHOWN_CUTS = ("certified", "certified_drop", "best", "proposed")


def render_judge_page(judge: Mapping[str, Any], metrics: Mapping[str, Any], *, language: str = "en") -> str:
    """The whole page as HTML text, everything in it escaped.

    judge: what judge.json says, with "fingerprint". metrics: metrics.json. What is missing is said to be missing.
    """
    words = page_words(language)
    curves = metrics.get("curves") or {}
    cuts = thresholds(judge)
    certificate = metrics.get("certificate") or judge.get("certificate") or {}
    view: View = {
        "title": judge.get("name") or words["card_title"],
        "judge": partial({"rubric": None, "fingerprint": None, **judge}),
        "headline": _headline(metrics, judge, words),
        "certificate": partial(certificate) or None,
        "observed": observed(certificate),
        "reliability": reliability(curves.get("reliability") or ()),
        "tradeoff": tradeoff(curves.get("threshold") or (), cuts),
        "cuts": [(name, value) for name, value in cuts if name in SHOWN_CUTS or finite(value) is not None],
        "duel": duel(metrics),
        "table": metric_table(metrics),
        "categories": _categories(metrics),
        "shortcuts": _shortcuts(metrics, words),
        "labels": _labels(metrics.get("labels") or {}),
        "label_warnings": _label_warnings(judge, metrics, words),
        "facts": _facts(judge, words),
        "command": (judge.get("training") or {}).get("command"),
    }
    return render("judge_page.html.jinja", language, view=view)


def _headline(metrics: Mapping[str, Any], judge: Mapping[str, Any], words: Words) -> View:
    """The one number to remember, and what stands behind it."""
    test = metrics.get("test") or {}
    for name, phrase in (("roc_auc", "card_auc"), ("pair_accuracy", "card_pairs")):
        value, bounds = finite(test.get(name)), interval(test, name)
        if value is not None:
            n = f"{finite(test.get('n')) or 0:,.0f}"
            small = words["card_tested"].format(n=n)
            if bounds:
                small = words["card_interval"].format(low=percent(bounds[0]), high=percent(bounds[1]), n=n)
            return {"big": percent(value), "small": " ".join([words[phrase], small, _keeps(judge, words)])}
    return {"big": words["card_nothing"], "small": words["none_metrics"]}


def _keeps(judge: Mapping[str, Any], words: Words) -> str:
    given = judge.get("thresholds") or {}
    kept_from = next((given[name] for name in ("certified", "best") if finite(given.get(name)) is not None), None)
    return words["card_no_cut"] if kept_from is None else words["card_cut"].format(value=cut(kept_from))


def _categories(metrics: Mapping[str, Any]) -> View | None:
    found = (metrics.get("test") or {}).get("per_category")
    if not isinstance(found, Mapping) or not found:
        return None
    names = metric_names({"baselines": found})[:6]
    rows = [(who, [finite(scores.get(name)) for name in names]) for who, scores in list(found.items())[:60]]
    return {"names": names, "rows": rows}


def _shortcuts(metrics: Mapping[str, Any], words: Words) -> View | None:
    """The warnings, the dots of the shortcuts beside the judge, and the bars of what is kept of each group."""
    found = metrics.get("shortcuts") or {}
    if not found.get("alone"):
        return None
    own = contenders(metrics).get("judge") or {}
    dots = [_dot("judge", own)] if finite(own.get("roc_auc")) is not None else []
    dots += [_dot(words[f"s_{name}"], scores or {}) for name, scores in found["alone"].items() if f"s_{name}" in words]
    for name, value in (found.get("within") or {}).items():
        if f"s_{name}" in words:
            dots.append(_dot(words["s_within"].format(name=words[f"s_{name}"]), {"roc_auc": value}))
    dots = [dot for dot in dots if dot["value"] is not None]
    groups = [_group(words[f"s_{name}"], found.get(f"by_{name}") or (), words) for name in SHORTCUT_GROUPS]
    return {
        "warnings": [_warning(each, words) for each in found.get("warnings") or ()],
        "chart": {"dots": dots, "start": axis_start(dots)},
        "groups": [group for group in groups if len(group["bars"]) > 1],
    }


def _dot(name: str, scores: Mapping[str, Any]) -> View:
    value = finite(scores.get("roc_auc"))
    return {
        "name": name,
        "value": value if value is None else min(max(value, 0.0), 1.0),
        "bounds": interval(scores, "roc_auc"),
    }


def _group(column: str, entries: Any, words: Words) -> View:
    bars = [
        {
            "row": {"value": each.get("name") or words["not_stated"], "rows": each.get("n")},
            "rate": finite(each.get("keep_rate")), "bounds": interval(each, "keep_rate"), "merged": 0,
            "good": finite(each.get("good_rate")), "auc": finite(each.get("roc_auc")),
            "auc_bounds": interval(each, "roc_auc"),
        }
        for each in entries
    ]  # fmt: skip
    total = sum(finite(each.get("n")) or 0 for each in entries)
    kept = sum((finite(each.get("n")) or 0) * (finite(each.get("keep_rate")) or 0) for each in entries)
    return {"column": column, "bars": bars, "overall": kept / total if total else None}


def _warning(warning: Mapping[str, Any], words: Words) -> str:
    phrase = words["warn_near" if warning.get("kind") == "near" else "warn_within"]
    name = words.get(f"s_{warning.get('shortcut')}", str(warning.get("shortcut")))
    said = phrase.format(name=name, value=short(warning.get("value")), judge=short(warning.get("judge")))
    return said[:1].upper() + said[1:]


def _labels(labels: Mapping[str, Any]) -> View | None:
    """Counts of each part of the labels that has any."""
    splits = {
        name: counts for name, counts in labels.items()
        if isinstance(counts, Mapping) and finite(counts.get("rows")) is not None
    }  # fmt: skip
    names = [
        name
        for name in dict.fromkeys(key for counts in splits.values() for key in counts)
        if any(finite(counts.get(name)) for counts in splits.values())
    ]
    rows = [(who, [finite(counts.get(name)) for name in names]) for who, counts in splits.items()]
    return {"names": names[:12], "rows": [(who, cells[:12]) for who, cells in rows]} if rows else None


def _label_warnings(judge: Mapping[str, Any], metrics: Mapping[str, Any], words: Words) -> list[str]:
    return [
        words[f"warn_{name}"].format(value=f"{value:.2f}" if name == "unlike" else percent(value))
        for name, value in label_faults(judge, metrics).items()
    ]


def _facts(judge: Mapping[str, Any], words: Words) -> list[tuple[str, str]]:
    base = judge.get("base")
    base = base.get("id") if isinstance(base, Mapping) else base
    # A folder on somebody's machine tells a reader nothing; its last name does.
    base = str(base).rsplit("/", 1)[-1] if str(base or "").startswith(("/", ".", "~")) else base
    calibration = judge.get("calibration")
    method = calibration.get("method") if isinstance(calibration, Mapping) else calibration
    given = [
        ("j_name", judge.get("name")), ("j_kind", judge.get("kind")), ("j_method", judge.get("method")),
        ("j_base", base), ("j_license", judge.get("license")), ("j_language", judge.get("language") or None),
        ("j_fingerprint", judge.get("fingerprint")), ("j_calibration", method),
        ("p_versions", judge.get("created_with")),
    ]  # fmt: skip
    return [(words[key], brief(flat(value), 600)) for key, value in given if value]
