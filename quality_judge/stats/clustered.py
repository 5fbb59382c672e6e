"""An interval for a mean of values that come in clusters, as the variants of one text do. It knows nothing of texts."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

MIN_CLUSTERS = 5


def clustered_interval(values: np.ndarray, cluster: np.ndarray, *, confidence: float = 0.95) -> list[float] | None:
    """[low, high] of the mean of `values` (n,), n >= 1, whose `cluster` (n,) says which belong together.

    Cluster-robust, with t of G - 1 degrees of freedom (Cameron & Miller 2015, "A Practitioner's Guide to
    Cluster-Robust Inference"); of clusters of one it is Student's interval. None for fewer than MIN_CLUSTERS clusters,
    and where all values are alike: such a sample does not say how far they vary.
    """
    _, at = np.unique(cluster, return_inverse=True)
    clusters = int(at.max()) + 1
    if clusters < MIN_CLUSTERS or np.ptp(values) == 0:
        return None
    mean = float(np.mean(values))
    residual = np.bincount(at, weights=values - mean)
    error = np.sqrt(clusters / (clusters - 1) * float(residual @ residual)) / len(values)
    half = float(stdtrit(clusters - 1, 0.5 + confidence / 2)) * float(error)
    return [mean - half, mean + half]
