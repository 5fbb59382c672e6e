"""Texts that are nearly the same: found by MinHash (Broder 1997) over runs of five characters, then compared in full.

A text learnt in training and tested with one comma less is no test. Short texts are never called alike, because two
different short answers often are. It knows nothing of rows, labels or prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHINGLE = 5
MIN_SHINGLES = 40  # distinct ones; a shorter text is compared by equality alone, elsewhere
LIKENESS = 0.8  # shared shingles, of all that either text has (Jaccard)
BANDS, BAND_ROWS = (
    16,
    4,
)  # a pair of likeness .8 is missed once in some thousands, a pair of .4 compared two times in five
SKETCH = 400  # of a long text only the shingles of least hash are kept, a fair sample that two like texts share
MAX_CHARACTERS = 100_000
_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def near_duplicates(texts: Sequence[str]) -> np.ndarray:
    """Pairs (i, j), i < j, of texts with LIKENESS or more, int64 (p, 2); of many alike, each with the first found.

    Texts should be folded by the caller: case and white space count here.
    """
    shingles = [_shingles(text) for text in texts]
    known = np.array([at for at, found in enumerate(shingles) if len(found) >= MIN_SHINGLES], np.int64)
    if len(known) < 2:
        return np.zeros((0, 2), np.int64)
    signatures = _signatures([shingles[at] for at in known])
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        part = signatures[:, band * BAND_ROWS : (band + 1) * BAND_ROWS]
        _, bucket = np.unique(part, axis=0, return_inverse=True)
        order = np.argsort(bucket.ravel(), kind="stable")
        starts = np.flatnonzero(np.diff(bucket.ravel()[order], prepend=-1))
        for members in np.split(order, starts[1:]):
            first = int(members[0])
            pairs.update((first, int(other)) for other in members[1:])
            pairs.update(zip(members[:-1].tolist(), members[1:].tolist(), strict=True))
    alike = sorted(pair for pair in pairs if _likeness(*(shingles[known[at]] for at in pair)) >= LIKENESS)
    return known[np.array(alike, np.int64).reshape(-1, 2)]


def _shingles(text: str) -> np.ndarray:
    """Hashes of the distinct runs of SHINGLE characters, uint64, sorted, at most SKETCH of them."""
    points = np.frombuffer(text[:MAX_CHARACTERS].encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    whole = len(points) - SHINGLE + 1
    if whole <= 0:
        return np.zeros(0, np.uint64)
    hashes = np.zeros(whole, np.uint64)
    for place in range(SHINGLE):
        hashes = hashes * _PRIME + points[place : place + whole]
    hashes = (hashes ^ (hashes >> np.uint64(29))) * _MIX
    return np.unique(hashes ^ (hashes >> np.uint64(32)))[:SKETCH]


def _signatures(shingles: Sequence[np.ndarray]) -> np.ndarray:
    """The least of each of BANDS * BAND_ROWS hash functions over each text, uint64 (n, BANDS * BAND_ROWS)."""
    generator = np.random.default_rng(0)
    functions = BANDS * BAND_ROWS
    factors = generator.integers(1, 2**63, functions, dtype=np.uint64) | np.uint64(1)
    offsets = generator.integers(0, 2**63, functions, dtype=np.uint64)
    flat = np.concatenate(shingles)
    starts = np.cumsum([0, *(len(found) for found in shingles[:-1])])
    found = np.empty((len(shingles), functions), np.uint64)
    for at in range(functions):
        mixed = flat * factors[at] + offsets[at]
        mixed ^= mixed >> np.uint64(32)
        found[:, at] = np.minimum.reduceat(mixed * factors[at], starts)
    return found


def _likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Shared shingles of all, among the SKETCH of least hash: exact for texts of fewer (Broder 1997)."""
    values, count = np.unique(np.concatenate([first, second]), return_counts=True)
    return float((count[:SKETCH] == 2).mean()) if len(values) else 0.0
