"""How far the scores of one table lie from those of another, beyond what sampling alone explains.

Both tables come as counts in the same equal bins. A distance between samples is never zero: what chance gives 999 times
in 1,000 is taken away first, so that one bound holds for small and large tables. It knows nothing of tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import chi2

from quality_judge.errors import InputError

CHANCE = 0.001
GROUPS = 10
SMOOTHED = 0.5


def psi(reference: Sequence[int], found: Sequence[int]) -> float:
    """The population stability index Σ (q - p) ln(q / p), at least 0, less its value under chance.

    p, q: shares of ten groups of bins that hold about as many rows of `reference` each. With n and m rows of one
    distribution PSI · nm / (n + m) is near χ² with one degree less than groups (Yurdakul 2018, Western Michigan
    University). 0.1 and 0.25 are the field's usual bounds. Raises InputError when a table has no scores.
    """
    old, new, n, m = _counted(reference, found)
    middle = (np.cumsum(old) - old / 2) / n
    group = np.minimum((middle * GROUPS).astype(int), GROUPS - 1)
    p, q = (np.bincount(group, counts, GROUPS) for counts in (old, new))
    used = (p + q) > 0
    p, q = (_shares(counts[used]) for counts in (p, q))
    index = float(((q - p) * np.log(q / p)).sum())
    chance = float(chi2.ppf(1 - CHANCE, max(1, int(used.sum()) - 1))) * (1 / n + 1 / m)
    return max(0.0, index - chance)


def ks(reference: Sequence[int], found: Sequence[int]) -> float:
    """The largest distance between both distribution functions, in [0, 1], less its value under chance.

    Bins only bring the functions nearer, so the bound of Kolmogorov and Smirnov, √(-ln(α/2)/2 · (1/n + 1/m)), holds.
    Raises InputError when a table has no scores.
    """
    old, new, n, m = _counted(reference, found)
    distance = float(np.abs(np.cumsum(old) / n - np.cumsum(new) / m).max())
    return max(0.0, distance - math.sqrt(-math.log(CHANCE / 2) / 2 * (1 / n + 1 / m)))


MEASURES: Mapping[str, Callable[[Sequence[int], Sequence[int]], float]] = {"psi": psi, "ks": ks}


def _counted(reference: Sequence[int], found: Sequence[int]) -> tuple[np.ndarray, np.ndarray, float, float]:
    old, new = np.asarray(reference, float), np.asarray(found, float)
    if old.shape != new.shape:
        raise InputError(f"the tables are counted in {len(old)} and {len(new)} bins; use the same")
    if not old.sum() or not new.sum():
        raise InputError("a table without scores has no distribution to compare")
    return old, new, float(old.sum()), float(new.sum())


def _shares(counts: np.ndarray) -> np.ndarray:
    return (counts + SMOOTHED) / (counts + SMOOTHED).sum()
