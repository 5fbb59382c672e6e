"""What the card says of the audits: what a judge might lean on instead of quality, and texts written to please it.

It measures nothing itself: it is handed what metrics.json says under `shortcuts` and `redteam`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quality_judge.markdown import MISSING, count, number, percent, plain, table, with_interval


def shortcuts_in_words(metrics: Mapping[str, Any]) -> list[str]:
    """The shortcut audit as a section; none when it was not made."""
    found = metrics.get("shortcuts") or {}
    if not found.get("alone"):
        return []
    said = "How far something that is not quality would get. Near the judge, the judge may lean on it."
    within = found.get("within") or {}
    rows = [
        [name, with_interval(scores or {}, "roc_auc"), number(within.get(name))]
        for name, scores in found["alone"].items()
    ]
    parts = [said, *map(shortcut_warning, found.get("warnings") or ())]
    parts.append(table(["", "ROC AUC of this alone", "judge's ROC AUC among rows that share it"], rows))
    kept = "share kept" if found.get("threshold") is None else f"share from {number(found['threshold'])} on"
    for name in ("source", "language"):
        cells = [
            [each.get("name") or "not stated", count(each.get("n")), percent(each.get("good_rate")),
             with_interval(each, "keep_rate"), with_interval(each, "roc_auc")]
            for each in found.get(f"by_{name}") or ()
        ]  # fmt: skip
        if len(cells) > 1:
            parts.append(table([name, "labels", "good", kept, "judge's ROC AUC"], cells))
    return ["## Shortcuts\n\n" + "\n\n".join(parts)]


def shortcut_warning(warning: Mapping[str, Any]) -> str:
    """One warning of the shortcut audit as a sentence."""
    name, value, judge = plain(warning.get("shortcut")), number(warning.get("value")), number(warning.get("judge"))
    if warning.get("kind") == "near":
        return f"**Warning: {name} alone reaches a ROC AUC of {value}, and the judge {judge}.**"
    return f"**Warning: among rows of one {name} the judge's ROC AUC is {value}, and {judge} over all.**"


def redteam_in_words(metrics: Mapping[str, Any]) -> list[str]:
    """How the judge stood up to `quality-judge redteam`; nothing when nobody tried."""
    found = metrics.get("redteam")
    if not found:
        return []
    worst, control = found["held_out"].get("worst"), found["over_defence"].get("control")
    beyond = found["over_defence"].get("beyond_control")
    rows = [
        ["attacks that training may have seen", *_flips(found["seen"])],
        ["attacks held out", *_flips(found["held_out"])],
        *([[f"the worst of them ({plain(worst['family'])})", percent(worst["rate"]), MISSING]] if worst else []),
        ["control tokens, points over the same apart", number(found["control"]["points_over_apart"], 1), MISSING],
        ["empty openers that were kept", *_flips(found["master_keys"])],
        ["harmless look-alikes that were lost", *_flips(found["over_defence"])],
        *([["the same with other harmless words", *_flips(control)]] if control else []),
        *([["points lost beyond those", *_points(beyond)]] if beyond else []),
    ]  # fmt: skip
    own = "rows of the suite" if found["carriers"]["own"] else "rows of labels"
    return [
        f"## Texts written to please it\n\nOf {found['carriers']['bad']} bad {own}, how many an attack lifts over a "
        f"threshold of {number(found['threshold'])}. Attacks that nobody thought of are not in here.\n\n"
        + table(["what", "flips", "95% interval"], rows)
    ]


def _points(found: Mapping[str, Any]) -> list[str]:
    interval = found["ci"]
    return [
        number(found["points"], 1),
        f"{number(interval[0], 1)} to {number(interval[1], 1)}" if interval else MISSING,
    ]


def _flips(found: Mapping[str, Any]) -> list[str]:
    if found["rate"] is None:
        return [MISSING, MISSING]
    return [
        f"{found['flips']} of {found['n']} ({percent(found['rate'])})",
        " – ".join(percent(value) for value in found["ci"]),
    ]
