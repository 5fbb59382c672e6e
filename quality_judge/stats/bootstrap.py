"""How far a value varies: draws of rows, or of whole clusters of them, and the interval of what they give (Efron 1979).

It knows nothing of metrics.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quality_judge.stats.clustered import MIN_CLUSTERS

INTERVAL = (2.5, 97.5)
MAX_CELLS = 2_000_000  # draws x rows held at once, so that a large test set does not take gigabytes


def bootstrap_counts(n: int, seed: int, draws: int, cluster: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Bootstrap counts in blocks of (draws, n), the same for the same n and seed.

    cluster: the cluster of each row, from 0 without gaps, int64 (n,); clusters are drawn then, each with all its rows.
    Fewer than MIN_CLUSTERS do not say how far values vary: one draw of NaN.
    """
    units = n if cluster is None else int(cluster.max()) + 1
    if cluster is not None and units < MIN_CLUSTERS:
        yield np.full((1, n), np.nan)
        return
    generator = np.random.default_rng([seed, units])
    block = max(1, min(draws, MAX_CELLS // max(n, 1)))
    for start in range(0, draws, block):
        counts = _one_block(generator, min(block, draws - start), units)
        yield counts if cluster is None else counts[:, cluster]


def _one_block(generator: np.random.Generator, draws: int, n: int) -> np.ndarray:
    if not n:
        return np.empty((draws, 0))
    drawn = generator.integers(0, n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def percentile_interval(sample: np.ndarray) -> list[float] | None:
    """The bounds of INTERVAL over the draws, float64 (draws,), that are finite; None where none is."""
    sample = sample[np.isfinite(sample)]
    return [float(bound) for bound in np.percentile(sample, INTERVAL)] if len(sample) else None
