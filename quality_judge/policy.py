"""From a score to keep, review or drop, with a reason: the rule a user writes in YAML, and its reference in numpy.

    policy   = Policy.load("conf/policies/default.yaml")      what the file says; "judge" may stand for a threshold
    resolved = policy.resolve(judge_threshold=0.71)           plain numbers, ready for any row
    decision, reason = decide(resolved, probability, code, flags, slice_values, rank_cut)

Order of the rules: a row without a score is `unscored`; thresholds (of its slice, where it has one); the rank rule,
whose places are for rows that no flag lowers; then flags, which only ever lower a decision. It knows nothing of Spark
or of judge folders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from quality_judge.config import Strict, parse, read_yaml
from quality_judge.errors import ConfigError, InputError, unknown
from quality_judge.scores import DROP, FLAGS, KEEP, NON_FINITE, OK, REVIEW, SCORER_ERROR, UNSCORED

JUDGE = "judge"


def _threshold(value: Any) -> Any:
    """A number from 0 to 1, or the word "judge"; one fault with one sentence instead of one for each type."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value == JUDGE or (is_number and 0 <= value <= 1):
        return value
    raise ValueError(f'{value!r} is no threshold; give a number from 0 to 1, or the word "judge"')


Threshold = Annotated[float | Literal["judge"], BeforeValidator(_threshold)]


class Band(Strict):
    """Keep from keep_at on, drop below drop_below, review between; drop_below left out means no review."""

    keep_at: Threshold
    drop_below: Threshold | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Band:
        if JUDGE in (self.keep_at, self.drop_below) or self.drop_below is None:
            return self
        if float(self.drop_below) > float(self.keep_at):
            raise ValueError(f"drop_below {self.drop_below} is above keep_at {self.keep_at}; it must not be")
        return self


class Slices(Strict):
    """Thresholds of their own for some values of a text column; every other row has those of the policy."""

    column: str = Field(min_length=1)
    values: dict[str, Band] = Field(min_length=1)


class KeepBest(Strict):
    """Of all scored rows keep at most this share, the best."""

    fraction: float = Field(gt=0, le=1)


class TokenBudget(Strict):
    """Keep the best rows until they hold this many tokens, counted by a column or by characters."""

    tokens: int = Field(ge=1)
    column: str | None = Field(None, min_length=1)
    characters_per_token: float = Field(4.0, gt=0, le=100)


class Policy(Band):
    """What a policy file may say. At most one of keep_best and token_budget."""

    name: str = Field(min_length=1, max_length=100)
    slices: Slices | None = None
    keep_best: KeepBest | None = None
    token_budget: TokenBudget | None = None
    beyond: Literal["review", "drop"] = "drop"
    on_flags: dict[str, Literal["review", "drop"]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        if self.keep_best and self.token_budget:
            raise ValueError("keep_best and token_budget both stand here; a policy has at most one rank rule")
        for flag in self.on_flags:
            if flag not in FLAGS:
                raise ValueError(f"on_flags: {unknown('flag', flag, FLAGS)}")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """The policy in the YAML file `path`. Raises ConfigError that names every fault."""
        return parse(cls, read_yaml(path), where=str(path))

    @property
    def asks_judge(self) -> bool:
        """Whether "judge" stands anywhere for a threshold."""
        bands = (self, *(self.slices.values.values() if self.slices else ()))
        return any(JUDGE in (band.keep_at, band.drop_below) for band in bands)

    def resolve(
        self, judge_threshold: float | None, judge_drop_below: float | None = None, *, probability: bool = True
    ) -> ResolvedPolicy:
        """The policy in plain numbers; None where the judge knows none.

        judge_threshold: the judge's certified, else best, probability. judge_drop_below: its certified cut for drops.
        probability: whether the judge states one; of one that only orders, rows can be kept by rank alone. Raises
        ConfigError when "judge" is asked for and not known, or lies below a drop_below, or a probability is asked for
        and not stated.
        """
        if not probability:
            self._refuse_thresholds()
        known = (judge_threshold, judge_drop_below)
        slices = {value: self._numbers(band, *known) for value, band in self._slice_bands()}
        keep_at, drop_below = self._numbers(self, *known)
        return ResolvedPolicy(
            name=self.name,
            keep_at=keep_at,
            drop_below=drop_below,
            slice_column=self.slices.column if self.slices else None,
            slices=slices,
            rank=self.keep_best or self.token_budget,
            beyond=self.beyond,
            on_flags={flag: self.on_flags[flag] for flag in FLAGS if flag in self.on_flags},
            by_order=not probability,
        )

    def _refuse_thresholds(self) -> None:
        if (
            self.keep_at != 0
            or self.drop_below not in (None, 0)
            or self.slices
            or not (self.keep_best or self.token_budget)
        ):
            raise ConfigError(
                f"policy {self.name!r} decides by probability, and this judge states none, for it has too few "
                "labels; keep rows by rank (keep_at: 0 with keep_best or token_budget, as in "
                "conf/policies/best_third.yaml), or give it labels with training/calibrate_judge.py"
            )

    def _slice_bands(self) -> list[tuple[str, Band]]:
        return sorted(self.slices.values.items()) if self.slices else []

    def _numbers(
        self, band: Band, judge_threshold: float | None, judge_drop_below: float | None
    ) -> tuple[float, float]:
        if band.keep_at == JUDGE and judge_threshold is None:
            raise ConfigError(
                f"policy {self.name!r} keeps at the judge's threshold, and the judge has none; "
                "calibrate the judge with labels, or give keep_at a number"
            )
        if band.drop_below == JUDGE and judge_drop_below is None:
            raise ConfigError(
                f"policy {self.name!r} drops below the judge's certified cut, and the judge has none; "
                "certify one with target_npv or target_recall, or give drop_below a number"
            )
        keep_at = float(judge_threshold if band.keep_at == JUDGE and judge_threshold is not None else band.keep_at)
        if not 0 <= keep_at <= 1:
            raise ConfigError(f"the judge's threshold is {keep_at}; expected a probability from 0 to 1")
        if band.drop_below is None:
            return keep_at, keep_at
        drop_below = judge_drop_below if band.drop_below == JUDGE else band.drop_below
        if drop_below is not None and float(drop_below) > keep_at and band.drop_below == band.keep_at == JUDGE:
            return float(drop_below), float(drop_below)  # keep_at is not certified here, and what may be dropped is
        if float(drop_below or 0.0) > keep_at:
            raise ConfigError(
                f"policy {self.name!r}: drop_below {drop_below} is above the judge's threshold {keep_at}; lower it"
            )
        return keep_at, float(drop_below or 0.0)


@dataclass(frozen=True)
class ResolvedPolicy:
    """A policy in plain numbers.

    slices: value of slice_column to (keep_at, drop_below).   on_flags: flag to the decision it lowers to, as in FLAGS.
    by_order: the judge states no probability, and what is ranked are its raw scores (see `scores.order_of`).
    """

    name: str
    keep_at: float
    drop_below: float
    slice_column: str | None
    slices: Mapping[str, tuple[float, float]]
    rank: KeepBest | TokenBudget | None
    beyond: str
    on_flags: Mapping[str, str]
    by_order: bool = False

    def without_rank(self) -> ResolvedPolicy:
        """The same without its rank rule: what it keeps is what the rank rule chooses from."""
        return replace(self, rank=None)

    def wanted(self, scored_rows: int) -> int | None:
        """Rows (keep_best) or tokens (token_budget) that may be kept; None without a rank rule."""
        if isinstance(self.rank, KeepBest):
            # The guard keeps 0.29 * 100 = 28.999999999999996 at 29.
            return math.floor(round(self.rank.fraction * scored_rows, 6))
        return self.rank.tokens if self.rank else None

    @property
    def beyond_reason(self) -> str | None:
        """The reason of rows that the rank rule turned away; None without a rank rule."""
        if isinstance(self.rank, KeepBest):
            return f"beyond best {100 * self.rank.fraction:g}%"
        return "beyond token budget" if self.rank else None

    def bands(self) -> list[tuple[str | None, float, float]]:
        """(slice value, keep_at, drop_below) of each slice in order of value, then those of all other rows as None."""
        slices = [(value, *self.slices[value]) for value in sorted(self.slices)]
        return [*slices, (None, self.keep_at, self.drop_below)]

    def reasons(self, value: str | None, keep_at: float, drop_below: float) -> dict[str, str]:
        """The reason of each decision in one band; `value` is its slice."""
        if self.by_order:
            return {KEEP: "among the best by order", REVIEW: "", DROP: ""}
        where = "" if value is None else f" ({self.slice_column}={value})"
        return {
            KEEP: f"score>={shown(keep_at)}{where}",
            REVIEW: f"between {shown(drop_below)} and {shown(keep_at)}{where}",
            DROP: f"score<{shown(drop_below)}{where}",
        }


def decide(
    policy: ResolvedPolicy,
    probability: Any,
    code: Sequence[str | None],
    flags: Sequence[Sequence[str] | None] | None = None,
    slice_values: Sequence[str | None] | None = None,
    rank_cut: float | None = None,
) -> tuple[list[str], list[str]]:
    """(decision, reason) of each of n rows, in order: the reference for the columns that Spark computes.

    probability: float (n,), NaN where there is none.   code: outcome of each row.   rank_cut: with a rank rule the
    lowest score it keeps, from `rank_cut` over the rows that `policy.without_rank()` keeps; without one, None.
    """
    scores = np.asarray(probability, dtype=np.float64)
    n = len(scores)
    for name, values in (("code", code), ("flags", flags), ("slice_values", slice_values)):
        if values is not None and len(values) != n:
            raise InputError(f"{n} probabilities and {len(values)} {name}; expected as many of both")
    if (policy.rank is None) != (rank_cut is None):
        state = (
            "has no rank rule and a rank cut was given" if policy.rank is None else "has a rank rule and no rank cut"
        )
        raise InputError(f"policy {policy.name!r} {state}; pass the cut exactly when the rule is there")
    decision, reason = _by_threshold(policy, scores, slice_values)
    if rank_cut is not None:
        beyond = (decision == KEEP) & (scores < rank_cut)
        decision[beyond], reason[beyond] = policy.beyond, policy.beyond_reason
    _lower_by_flags(policy, decision, reason, flags)
    for row, (outcome, score) in enumerate(zip(code, scores, strict=True)):
        if outcome != OK or not math.isfinite(score):
            decision[row], reason[row] = UNSCORED, NON_FINITE if outcome == OK else outcome or SCORER_ERROR
    return decision.tolist(), reason.tolist()


def rank_cut(bin_counts: Any, bin_lows: Any, wanted: float) -> float:
    """The lowest score to keep so that the bins at or above it hold at most `wanted`, never more; inf when none fits.

    bin_counts: rows or tokens in each bin, (bins,), >= 0.   bin_lows: where each bin starts, rising, (bins,); a bin
    reaches to the next one's start. Whole-number counts are added exactly.
    """
    counts, lows = np.asarray(bin_counts), np.asarray(bin_lows, dtype=np.float64)
    if counts.shape != lows.shape or counts.ndim != 1:
        raise InputError(f"{counts.shape} bin counts and {lows.shape} bin starts; expected one row of each, as long")
    if (counts < 0).any() or (np.diff(lows) <= 0).any() or np.isnan(lows).any():
        raise InputError("bin counts must be 0 or more, and bin starts must rise")
    held = list(accumulate(counts[::-1].tolist()))[::-1]  # numpy's integers wrap around
    fits = np.flatnonzero([size <= wanted for size in held])
    return float(lows[fits[0]]) if len(fits) else math.inf


def shown(threshold: float) -> str:
    """A threshold as reasons print it: two decimals when that is all there is to it, else every digit."""
    return f"{threshold:.2f}" if round(threshold, 2) == threshold else repr(float(threshold))


def _by_threshold(
    policy: ResolvedPolicy, scores: np.ndarray, slice_values: Sequence[str | None] | None
) -> tuple[np.ndarray, np.ndarray]:
    n = len(scores)
    decision, reason = np.full(n, DROP, dtype=object), np.full(n, "", dtype=object)
    values = np.array([None] * n if slice_values is None else list(slice_values), dtype=object)
    rest = np.ones(n, dtype=bool)
    for value, keep_at, drop_below in policy.bands():
        here = rest if value is None else rest & np.array([own == value for own in values], dtype=bool)
        rest = rest & ~here
        outcomes = np.where(scores >= keep_at, KEEP, np.where(scores < drop_below, DROP, REVIEW))
        words = policy.reasons(value, keep_at, drop_below)
        decision[here] = outcomes[here]
        reason[here] = [words[outcome] for outcome in outcomes[here]]
    return decision, reason


def _lower_by_flags(
    policy: ResolvedPolicy, decision: np.ndarray, reason: np.ndarray, flags: Sequence[Sequence[str] | None] | None
) -> None:
    """Writes into decision and reason: first the flags that drop, then those that send to review."""
    if flags is None:
        return
    for action, lowered in ((DROP, (KEEP, REVIEW)), (REVIEW, (KEEP,))):
        for flag in (flag for flag, asked in policy.on_flags.items() if asked == action):
            hit = np.array([flag in (own or ()) for own in flags], dtype=bool) & np.isin(decision.astype(str), lowered)
            decision[hit], reason[hit] = action, f"flag {flag}"
