"""Which rows go through the model together, so that a row's score depends on the row alone.

A row's bucket follows from its own length; a bucket's batches always have the same shape, and the last one is filled
up with copies of its own first row. Neighbours, partitions and worker counts then change no bit (measured in
`tests/engine/test_scorer.py`). It knows nothing of ids or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quality_judge.engine.encode import Ragged

GPU_FLOP_PER_BATCH = 3e13  # some 50 ms of an H100: long enough that starting kernels costs nothing beside it
GPU_TOKENS_PER_BATCH = (1_024, 16_384)


@dataclass(frozen=True, slots=True)
class Batch:
    """rows: which rows, int64 (filled,), filled ≤ capacity.   length, capacity: the shape the model sees."""

    rows: np.ndarray
    length: int
    capacity: int


def plan_batches(lengths: np.ndarray, buckets: Sequence[tuple[int, int]]) -> list[Batch]:
    """Batches that hold every row once, the longest first so that memory peaks at once. lengths: int64 (n,)."""
    bucket_of = np.searchsorted(np.array([length for length, _ in buckets]), lengths)
    batches = []
    for index in range(len(buckets) - 1, -1, -1):
        length, capacity = buckets[index]
        rows = np.flatnonzero(bucket_of == index)
        batches += [Batch(rows[at : at + capacity], length, capacity) for at in range(0, len(rows), capacity)]
    return batches


def gpu_buckets(buckets: Sequence[tuple[int, int]], parameters: int) -> list[tuple[int, int]]:
    """(length, rows) for a GPU, which wants more rows at once than a core: the judge's shapes, widened.

    parameters: of the model, > 0. They depend on the judge alone, so that GPUs of one kind give the same bits. Sized by
    arithmetic; no GPU was at hand to measure it.
    """
    least, most = GPU_TOKENS_PER_BATCH
    tokens = int(min(max(GPU_FLOP_PER_BATCH / (2 * parameters), least), most))
    return [(length, max(rows, tokens // length)) for length, rows in buckets]


def padded(tokens: Ragged, offsets: np.ndarray, batch: Batch, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """ids, int64 (capacity, length), padded on the right, and the length of each row, int64 (capacity,)."""
    rows = np.concatenate([batch.rows, np.repeat(batch.rows[:1], batch.capacity - len(batch.rows))])
    lengths = tokens.lengths[rows]
    places = np.arange(batch.length)[None, :]
    inside = places < lengths[:, None]
    ids = np.where(inside, tokens.ids[np.minimum(offsets[rows][:, None] + places, len(tokens.ids) - 1)], pad)
    return ids.astype(np.int64), lengths
