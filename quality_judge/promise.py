"""A certificate in plain English: what is promised, on what ground, or what is missing for it.

It knows nothing of how a certificate is found; `stats.certificate` says what its keys mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quality_judge.markdown import count, counted, exact, percent, plain
from quality_judge.metrics_file import finite, observed


def promise_in_words(metrics: Mapping[str, Any]) -> str:
    """Every promise of metrics.json as sentences: granted, refused with what is missing, or that nobody asked."""
    certificate = metrics.get("certificate")
    if not certificate:
        return "Nothing is promised: no certificate was asked for."
    parts = [each for each in (certificate, certificate.get("drop"), certificate.get("recall")) if each]
    said = [_granted(each) if each.get("granted") else _refused(each) for each in parts]
    if len(parts) > 1:
        together = _sure(certificate.get("joint_confidence"))
        said.append(f"What is granted here holds all at once with confidence {together}.")
    if any(each.get("granted") for each in parts):
        said += _of_groups(metrics)
    return "\n\n".join(said)


def _of_groups(metrics: Mapping[str, Any]) -> list[str]:
    """What a promise leaves out where the held-out labels, on which it rests, come in groups."""
    if (metrics.get("certificate") or {}).get("sampling") == "fresh":
        return []
    groups = ((metrics.get("labels") or {}).get("held_out") or {}).get("groups")
    return [] if finite(groups) is None else [
        f"The held-out labels come from {counted(groups, 'group')} of rows that are alike or share a prompt, none of "
        "them trained on. The bound counts each row as drawn by itself: with few groups that differ, less is proven "
        "than it says."
    ]  # fmt: skip


def _granted(certificate: Mapping[str, Any]) -> str:
    metric = certificate.get("metric") or "precision"
    cut, confidence = exact(certificate.get("threshold")), _sure(certificate.get("confidence"))
    what = {
        "precision": f"Keeping rows scored {cut} or more has a precision of at least",
        "npv": f"Of the rows scored below {cut}, which may be dropped, the share that is bad is at least",
        "recall": f"Dropping rows scored below {cut} leaves of all good rows at least",
    }.get(metric, f"At {cut} the {plain(metric)} is at least")
    text = f"{what} {_asked(certificate)}, with confidence {confidence}, on {_ground(certificate)}."
    seen = [("observed", observed(certificate)), ("proven lower bound", _floored(certificate.get("lower_bound"), 4))]
    if metric == "precision":
        seen.append(("estimated share of good rows kept", certificate.get("recall_estimate")))
    extra = ", ".join(f"{what} {percent(value)}" for what, value in seen if finite(value) is not None)
    return f"{text} {extra.capitalize()}." if extra else text


def _ground(certificate: Mapping[str, Any]) -> str:
    n, inside = certificate.get("n"), count(certificate.get("n_kept"))
    if certificate.get("sampling") == "fresh":
        return f"{counted(n, 'label')} of different texts, drawn at a cut that was fixed before they were labelled"
    side = {"npv": "below it", "recall": "at or above it"}.get(str(certificate.get("metric")), "kept")
    return f"{counted(n, 'held-out label')}, {inside} of them {side}"


def _refused(certificate: Mapping[str, Any]) -> str:
    metric, target = plain(certificate.get("metric") or "precision"), _asked(certificate)
    confidence, n = _sure(certificate.get("confidence")), certificate.get("n")
    fresh = certificate.get("sampling") == "fresh"
    labels, why = counted(n, "drawn row" if fresh else "held-out label"), certificate.get("message")
    missing = finite(certificate.get("labels_missing"))
    if why and (fresh or missing is None):
        return f"**Refused**, on {labels}: {plain(why)}."
    where = f"The {labels} do not show" if fresh else f"On {labels} no threshold shows"
    text = f"**Refused.** {where} a {metric} of {target} with confidence {confidence}."
    if missing is None:
        return f"{text} More labels alone will not help."
    return f"{text} About {counted(missing, 'more label is', 'more labels are')} needed."


def _sure(value: object) -> str:
    """A confidence in percent, rounded down."""
    return percent(_floored(value, 3))


def _floored(value: object, places: int) -> float | None:
    """A share rounded down to so many decimals, so that what is printed never promises more."""
    known = finite(value)
    return known if known is None else math.floor(round(known * 10**places, 6)) / 10**places


def _asked(certificate: Mapping[str, Any]) -> str:
    """The target in percent, with every digit that was asked for."""
    target = finite(certificate.get("target"))
    return percent(target) if target is None else f"{100 * target:.10g}%"
