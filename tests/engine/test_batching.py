"""Batches hold every row once, in shapes that follow from a row's own length and from nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.engine.batching import gpu_buckets, padded, plan_batches
from quality_judge.engine.encode import Ragged

BUCKETS = ((4, 6), (8, 3), (16, 1))
LENGTHS = st.lists(st.integers(1, 16), max_size=60)


def ragged(lengths):
    """Rows whose ids tell their row: row r holds 100 r + 1, 100 r + 2, …"""
    ids = [100 * row + place + 1 for row, length in enumerate(lengths) for place in range(length)]
    return Ragged(np.array(ids, np.int32), np.array(lengths, np.int64))


@given(LENGTHS)
def test_every_row_stands_in_exactly_one_batch(lengths):
    batches = plan_batches(np.array(lengths, np.int64), BUCKETS)
    rows = [row for batch in batches for row in batch.rows.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(1 <= len(batch.rows) <= batch.capacity for batch in batches)


@given(LENGTHS.filter(bool))
def test_a_row_goes_to_the_smallest_bucket_that_holds_it(lengths):
    shapes = dict(BUCKETS)
    for batch in plan_batches(np.array(lengths, np.int64), BUCKETS):
        assert batch.capacity == shapes[batch.length]
        for row in batch.rows:
            assert batch.length == min(length for length, _ in BUCKETS if length >= lengths[row])


def test_the_longest_batches_come_first():
    lengths = [batch.length for batch in plan_batches(np.arange(1, 17), BUCKETS)]
    assert lengths == sorted(lengths, reverse=True)


@given(LENGTHS.filter(bool))
def test_a_batch_has_the_shape_of_its_bucket_and_the_ids_of_its_rows(lengths):
    tokens = ragged(lengths)
    for batch in plan_batches(tokens.lengths, BUCKETS):
        ids, seen = padded(tokens, tokens.offsets(), batch, pad=-7)
        assert (ids.shape, ids.dtype) == ((batch.capacity, batch.length), np.int64)
        for at in range(batch.capacity):
            row = batch.rows[at] if at < len(batch.rows) else batch.rows[0]
            own = [100 * row + place + 1 for place in range(lengths[row])]
            assert ids[at].tolist() == own + [-7] * (batch.length - len(own))
            assert seen[at] == lengths[row]


def test_the_shape_a_row_sees_does_not_depend_on_its_neighbours():
    alone = plan_batches(np.array([7]), BUCKETS)
    among = [batch for batch in plan_batches(np.array([1, 16, 7, 8, 5, 2, 3]), BUCKETS) if 2 in batch.rows]
    assert [(batch.length, batch.capacity) for batch in alone] == [(batch.length, batch.capacity) for batch in among]


@pytest.mark.parametrize("length", [1, 4, 5, 8, 9, 16])
def test_bucket_borders_are_inclusive(length):
    (batch,) = plan_batches(np.array([length]), BUCKETS)
    assert batch.length == {1: 4, 4: 4, 5: 8, 8: 8, 9: 16, 16: 16}[length]


def test_no_rows_need_no_batch():
    assert plan_batches(np.zeros(0, np.int64), BUCKETS) == []


@pytest.mark.parametrize(
    ("parameters", "rows"),
    [(22_000_000, [256, 64, 16]), (8_000_000_000, [29, 7, 1]), (10**12, [16, 4, 1])],
)
def test_a_gpu_gets_more_rows_at_once_and_fewer_of_them_the_larger_the_model(parameters, rows):
    judged = [(64, 8), (256, 2), (1024, 1)]
    assert gpu_buckets(judged, parameters) == [(length, n) for (length, _), n in zip(judged, rows, strict=True)]
