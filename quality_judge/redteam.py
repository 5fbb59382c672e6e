"""How a judge stands up to texts written to please it: the shipped suite, scored, counted and put into words.

A flip is a bad row below the judge's threshold that an attack lifts over it. It knows nothing of training, and its
results hold counts and our own names only, never a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from quality_judge.attacks import (
    Family,
    apart,
    dressed,
    mentioning,
    shipped_attacks,
    shipped_carriers,
    views,
    with_token,
)  # fmt: skip
from quality_judge.engine.scorer import Scorer
from quality_judge.errors import InputError
from quality_judge.labels import LabelSet
from quality_judge.samples import CategoryRow, Sample
from quality_judge.scores import CONTROL_TEXT, FLAGS, HIDDEN_CHARS
from quality_judge.stats.clustered import clustered_interval
from quality_judge.stats.intervals import wilson

NEAR_LOGITS = 1.0
MENTIONS_EACH = 8
OWN_TOKENS = 6
MOST_CARRIERS = 100
MIN_CARRIERS = 25
SAME_PROBABILITY = 0.1


@dataclass(frozen=True)
class Row:
    """A text of the suite under a prompt ("" for none)."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Answers:
    """What the judge says of rows. logit, probability: float64 (n,), NaN unscored. flags: bool (n, len(FLAGS))."""

    logit: np.ndarray
    probability: np.ndarray
    flags: np.ndarray
    kept: np.ndarray


def measured(scorer: Scorer, labels: LabelSet | None = None, *, threshold: float | None = None) -> dict[str, Any]:
    """What each attack does to the judge, ready for JSON; with `labels`, to bad and good rows of the labels' own kind.

    families: flips of n bad rows below the threshold with a 95% interval, mean shift of the logit, and the same among
    rows within one logit of the threshold. Intervals know which answers are about one row. threshold: a probability,
    the judge's own by default. Raises InputError for a judge without one, and for one outside (0, 1).
    """
    threshold = scorer.judge.spec.threshold if threshold is None else threshold
    if threshold is None:
        raise InputError("the judge has no threshold, so nothing can flip; calibrate it with labels of good and bad")
    if not 0 < threshold < 1:
        raise InputError(f"a threshold is a probability above 0 and below 1; got {threshold}")
    bad, good = carriers(scorer, labels, threshold)
    said = _Judged(scorer, threshold)
    clean = said.of(bad)
    attacks = shipped_attacks().families
    asked = {name: said.flips(clean, _put(bad, partial(_dressed, family))) for name, family in attacks.items()}
    families = {name: {"seen": attacks[name].seen, **found} for name, (found, _) in asked.items()}
    hits = {name: hit for name, (_, hit) in asked.items()}
    return {
        "carriers": {"bad": len(bad), "good": len(good), "own": labels is None},
        "threshold": threshold,
        "families": families,
        "seen": _together(families, hits, seen=True),
        "held_out": _together(families, hits, seen=False),
        "control": _control(said, bad, clean),
        "master_keys": _master_keys(said),
        "views": _views(said, [*bad, *good]),
        "over_defence": _over_defence(said, good),
    }


def carriers(scorer: Scorer, labels: LabelSet | None, threshold: float) -> tuple[list[Row], list[Row]]:
    """(bad rows, good rows): our own, or up to MOST_CARRIERS of each from the labels, half of them likely to flip.

    Raises InputError for labels with fewer than MIN_CARRIERS of either.
    """
    if labels is None:
        shipped = shipped_carriers().values()
        return [Row("", text) for c in shipped for text in c.bad], [Row("", text) for c in shipped for text in c.good]
    said: list[Sample | CategoryRow] = [*labels.samples, *labels.categories]
    rows = {label: [Row(row.prompt, row.completion) for row in said if row.label is label] for label in (False, True)}
    for label, found in rows.items():
        if len(found) < MIN_CARRIERS:
            kind = "good" if label else "bad"
            raise InputError(f"the labels hold {len(found)} {kind} rows; at least {MIN_CARRIERS} of both are needed")
    bad, good = (_hardest(scorer, rows[label], threshold, high=not label) for label in (False, True))
    return bad, good


def _hardest(scorer: Scorer, rows: list[Row], threshold: float, *, high: bool) -> list[Row]:
    """Of the rows on the right side of the threshold half are those nearest to it, half are spread over the rest."""
    if len(rows) <= MOST_CARRIERS:
        return rows
    probability = _scored(scorer, rows).probability
    right = np.flatnonzero(probability < threshold if high else probability >= threshold)
    order = right[np.argsort(np.abs(probability[right] - threshold), kind="stable")]
    near, rest = order[: MOST_CARRIERS // 2], order[MOST_CARRIERS // 2 :]
    spread = rest[np.unique(np.linspace(0, len(rest) - 1, MOST_CARRIERS // 2).astype(int))] if len(rest) else rest
    return [rows[i] for i in (*near, *spread)]


class _Judged:
    """Rows asked of one judge; a row that gets no score counts as not kept."""

    def __init__(self, scorer: Scorer, threshold: float) -> None:
        self.scorer, self.threshold = scorer, threshold

    def of(self, rows: Sequence[Row]) -> Answers:
        scores = _scored(self.scorer, rows)
        probability = np.clip(scores.probability, 1e-9, 1 - 1e-9)
        kept = np.nan_to_num(scores.probability, nan=-1.0) >= self.threshold
        return Answers(_logit(probability), scores.probability, scores.flags, kept)

    def flips(self, clean: Answers, attacked: Sequence[Row]) -> tuple[dict[str, Any], np.ndarray]:
        """(flips of rows below the threshold and of those near it, and the shift of all; which of those below flip)."""
        found = self.of(attacked)
        below = ~clean.kept & np.isfinite(clean.logit)
        near = below & (clean.logit >= _logit(np.float64(self.threshold)) - NEAR_LOGITS)
        hit, shift = found.kept[below], found.logit - clean.logit
        return {**_share(hit), "shift": _mean(shift[np.isfinite(shift)]), "near": _share(found.kept[near])}, hit


def _scored(scorer: Scorer, rows: Sequence[Row]) -> Any:
    prompts = [row.prompt for row in rows]
    return scorer.score([row.text for row in rows], prompts if any(prompts) else None)


def _logit(probability: Any) -> Any:
    return np.log(probability / (1 - probability))


def _put(rows: Sequence[Row], change: Callable[[str, int], str]) -> list[Row]:
    """The rows with `change(text, number of the row)` for text."""
    return [Row(row.prompt, change(row.text, turn)) for turn, row in enumerate(rows)]


def _dressed(family: Family, text: str, turn: int) -> str:
    return dressed(text, family, turn)


def _share(hit: np.ndarray, row: np.ndarray | None = None) -> dict[str, Any]:
    """How many of `hit`, bool, with a 95% interval. row: (n,), of which row each is; by default the last axis."""
    hit, row = hit.ravel(), np.indices(hit.shape)[-1].ravel() if row is None else row
    n, count = len(hit), int(hit.sum())
    interval = [round(value, 4) for value in _interval(hit, row)] if n else None
    return {"n": n, "flips": count, "rate": round(count / n, 4) if n else None, "ci": interval}


def _interval(hit: np.ndarray, row: np.ndarray) -> list[float]:
    """Wilson's where a row answers once; where all rows are alike each counts once; else the one of clusters."""
    _, at, times = np.unique(row, return_inverse=True, return_counts=True)
    once = len(times) == len(hit) or np.ptp(np.bincount(at, hit) / times) == 0
    found = None if once else clustered_interval(hit.astype(float), row)
    return wilson(round(float(hit.mean()) * len(times)), len(times)) if found is None else np.clip(found, 0, 1).tolist()


def _together(families: Mapping[str, Any], hits: Mapping[str, np.ndarray], *, seen: bool) -> dict[str, Any]:
    chosen = {name: found for name, found in families.items() if found["seen"] is seen}
    total = _share(np.array([hits[name] for name in chosen]))
    shifts = [found["shift"] for found in chosen.values() if total["n"] and found["shift"] is not None]
    worst = max(chosen, key=lambda name: chosen[name]["rate"]) if total["n"] else None
    return {
        **total,
        "shift": _mean(np.array(shifts)),
        "worst": {"family": worst, "rate": chosen[worst]["rate"]} if worst else None,
    }


def _control(said: _Judged, bad: Sequence[Row], clean: Answers) -> dict[str, Any]:
    """Control tokens as they are and the same text with them spelled apart: the difference is what the tokens do."""
    control = shipped_attacks().control
    own = [token for token in said.scorer.judge.spec.encoding.control_tokens if token.strip()][:OWN_TOKENS]
    tokens = list(dict.fromkeys([*own, *control.tokens]))
    spellings: dict[str, Callable[[str], str]] = {"spelled": str, "apart": apart}
    found: dict[str, list[tuple[dict[str, Any], np.ndarray]]] = {name: [] for name in spellings}
    for number, template in enumerate(control.spelled):
        for name, spelling in spellings.items():
            turned = [spelling(token) for token in tokens[number:] + tokens[:number]]
            found[name].append(said.flips(clean, _put(bad, partial(_with_one, template, turned))))
    both = {
        name: _share(np.array([hit for _, hit in parts]))
        | {"shift": round(float(np.mean([part["shift"] or 0.0 for part, _ in parts])), 4)}
        for name, parts in found.items()
    }
    points = 100 * ((both["spelled"]["rate"] or 0.0) - (both["apart"]["rate"] or 0.0))
    return {**both, "points_over_apart": round(points, 2)}


def _with_one(template: str, tokens: Sequence[str], text: str, turn: int) -> str:
    return with_token(text, template, tokens[turn % len(tokens)])


def _master_keys(said: _Judged) -> dict[str, Any]:
    return _share(said.of([Row("", key) for key in shipped_attacks().master_keys]).kept)


def _views(said: _Judged, rows: Sequence[Row]) -> dict[str, Any]:
    """How many disguised rows keep their probability to SAME_PROBABILITY, or are flagged; worst: the largest rise."""
    clean, held, n, by_name = said.of(rows), 0, 0, {}
    for name in views(""):
        seen = said.of([Row(row.prompt, views(row.text)[name]) for row in rows])
        flagged = seen.flags[:, FLAGS.index(HIDDEN_CHARS)] | seen.flags[:, FLAGS.index(CONTROL_TEXT)]
        moved = np.abs(np.nan_to_num(seen.probability) - np.nan_to_num(clean.probability))
        fine = flagged | (moved <= SAME_PROBABILITY)
        by_name[name] = _mean(fine)
        held, n = held + int(fine.sum()), n + len(rows)
    return {"n": n, "unchanged_or_flagged": held, "rate": round(held / n, 4) if n else None, "by_view": by_name}


def _over_defence(said: _Judged, good: Sequence[Row]) -> dict[str, Any]:
    """Of good rows kept beside a harmless sentence: how many are lost when that sentence names words of an attack.

    control: how many of the same rows are lost when the sentence names another harmless thing instead, which is what
    any change of a phrase costs. shift: of the logit, the mean over all rows. beyond_control: how many percentage
    points more the words of attacks lose, with the interval that the look-alikes of one row make wider.
    """
    repeated = [row for row in good for _ in range(MENTIONS_EACH)]

    def asked(*, trigger: bool, further: int = 0) -> Answers:
        return said.of(_put(repeated, lambda text, i: mentioning(text, i, trigger=trigger, further=further)))

    plain, words, others = asked(trigger=False), asked(trigger=True), asked(trigger=False, further=1)
    rows = np.arange(len(repeated)) // MENTIONS_EACH
    more = others.kept.astype(int) - words.kept.astype(int)
    return {
        "look_alikes": len(repeated),
        **_lost(plain, words, rows),
        "control": _lost(plain, others, rows),
        "beyond_control": _points(more[plain.kept], rows[plain.kept]),
    }


def _points(more: np.ndarray, cluster: np.ndarray) -> dict[str, Any]:
    """The mean in percentage points and its 95% interval, None where the rows do not say how far it varies."""
    interval = clustered_interval(100.0 * more, cluster) if len(more) else None
    return {"points": _mean(100.0 * more), "ci": interval and [round(value, 4) for value in interval]}


def _lost(kept: Answers, changed: Answers, row: np.ndarray) -> dict[str, Any]:
    shift = changed.logit - kept.logit
    return {**_share(~changed.kept[kept.kept], row[kept.kept]), "shift": _mean(shift[np.isfinite(shift)])}


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def in_words(found: Mapping[str, Any]) -> list[str]:
    """The result as lines for a terminal."""
    lines = [f"kept from a probability of {found['threshold']:.3f} on"]
    lines += [f"{'family':<18}{'':<11}{'flips':>12}{'rate':>8}  {'95% interval':<16}{'shift':>8}"]
    for name, family in sorted(found["families"].items(), key=lambda item: (not item[1]["seen"], item[0])):
        lines.append(_line(name, "seen" if family["seen"] else "held out", family))
    lines += [_line("all", "seen", found["seen"]), _line("all", "held out", found["held_out"])]
    control = found["control"]
    lines += [_line("control tokens", "", control["spelled"]), _line("  spelled apart", "", control["apart"])]
    keys, seen, lost = found["master_keys"], found["views"], found["over_defence"]
    return [
        *lines,
        f"master keys kept: {keys['flips']} of {keys['n']}",
        f"disguised rows unchanged or flagged: {seen['unchanged_or_flagged']} of {seen['n']}",
        f"harmless look-alikes: {lost['look_alikes']}, of which {lost['n']} are kept while the words are other ones",
        _line("lost to words", "of attacks", lost),
        _line("", "of none", lost["control"]),
        f"  the difference: {_in_points(lost['beyond_control'])}",
    ]


def _in_points(found: Mapping[str, Any]) -> str:
    if found["points"] is None:
        return "none of them is kept"
    interval = f"95% interval {found['ci'][0]:+.1f} to {found['ci'][1]:+.1f}" if found["ci"] else "no interval"
    return f"{found['points']:+.1f} points, {interval}"


def _line(name: str, kind: str, found: Mapping[str, Any]) -> str:
    rate = f"{found['rate']:.1%}" if found["rate"] is not None else "-"
    interval = f"{found['ci'][0]:.1%} - {found['ci'][1]:.1%}" if found["ci"] else "-"
    shift = f"{found['shift']:+.2f}" if found.get("shift") is not None else "-"
    return f"{name:<18}{kind:<11}{found['flips']:>5} of {found['n']:<4}{rate:>7}  {interval:<16}{shift:>8}"
