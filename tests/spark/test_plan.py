"""A plan is the same for the same corpus, loses no file, and is even; what cannot be cut evenly is rewritten first."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.spark import read_corpus
from quality_judge.spark.places import Place
from quality_judge.spark.plan import (
    MAX_ROWS_PER_SLOT,
    MIN_SHARD_ROWS,
    InputFile,
    cut,
    input_files,
    named_plan,
    pack,
    shard_count,
    shard_rows,
)  # fmt: skip
from quality_judge.spark.shards import AT_ONCE

FILES = st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**6)), min_size=1, max_size=60).map(
    lambda found: [InputFile(f"file:/c/{i:03d}.parquet", size, 0, rows) for i, (size, rows) in enumerate(found)]
)


@given(FILES, st.integers(1, 40))
def test_packing_puts_every_file_in_exactly_one_shard_whatever_their_order(files, number):
    shards = pack(files, number, uneven=float("inf"))
    assert sorted(path for shard in shards for path in shard.files) == [file.path for file in files]
    assert sum(shard.rows for shard in shards) == sum(file.rows for file in files)
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert len(shards) <= number
    assert shards == pack(files[::-1], number, uneven=float("inf"))


@given(FILES, st.integers(1, 40))
def test_packing_that_says_yes_is_even(files, number):
    shards = pack(files, number, uneven=1.5)
    if shards is not None:
        assert max(shard.bytes for shard in shards) <= 1.5 * sum(file.bytes for file in files) / number


@given(st.integers(0, 10**11), st.integers(1, 5000))
def test_shards_are_neither_too_many_nor_too_large(rows, slots):
    number = shard_count(rows, slots)
    most = max(MIN_SHARD_ROWS, slots * MAX_ROWS_PER_SLOT)
    assert number >= 1
    assert rows <= number * most
    if rows >= 32 * MIN_SHARD_ROWS:
        assert number >= 30


@pytest.mark.parametrize(
    ("rows", "slots", "number"), [(10_000, 4, 5), (1_000_000, 4, 32), (10**10, 100, 400), (10**10, 1000, 40)]
)
def test_a_kill_repeats_little_and_a_huge_corpus_has_few_shards(rows, slots, number):
    assert shard_count(rows, slots) == number
    assert number < 32 or AT_ONCE / number <= 0.15


def corpus_of(folder, sizes, *, names="{}.parquet"):
    folder.mkdir(exist_ok=True)
    for i, rows in enumerate(sizes):
        table = pa.table({"id": [f"{i}-{j}" for j in range(rows)], "text": [f"{i} {j} " * 30 for j in range(rows)]})
        pq.write_table(table, folder / names.format(i), compression="none")


def planned(spark, folder, run, *, shards, said=()):
    corpus = read_corpus(spark, str(folder))
    return corpus, cut(named_plan(input_files(corpus), dict(said)), corpus, Place.at(spark, str(run)), shards=shards)


def ids(df):
    return sorted(row["id"] for row in df.select("id").collect())


@pytest.mark.parametrize(
    ("sizes", "names", "rewritten"),
    [
        ([50] * 6, "{}.parquet", False),
        ([900, 20, 30, 50], "{}.parquet", True),
        ([50] * 6, "with space {}.parquet", False),
        ([50] * 6, "[{}] x*.parquet", True),
        ([50] * 6, "100% {}.parquet", True),
    ],
)  # fmt: skip
def test_the_shards_hold_every_row_once_and_are_even(spark, tmp_path, sizes, names, rewritten):
    corpus_of(tmp_path / "c", sizes, names=names)
    corpus, plan = planned(spark, tmp_path / "c", tmp_path / "run", shards=3)
    assert plan.rows == sum(sizes)
    assert (tmp_path / "run" / "input").exists() is rewritten
    tables = [shard_rows(spark, shard, corpus) for shard in plan.shards]
    assert [table.count() for table in tables] == [shard.rows for shard in plan.shards]
    assert sorted(i for table in tables for i in ids(table)) == ids(corpus)
    assert all(table.columns == corpus.columns for table in tables)
    weights = sorted(shard.bytes for shard in plan.shards)
    assert weights[-1] <= 2 * weights[len(weights) // 2]


def test_the_same_input_gives_the_same_plan_and_any_change_another(spark, tmp_path):
    corpus_of(tmp_path / "c", [40, 40])
    _, plan = planned(spark, tmp_path / "c", tmp_path / "run", shards=2)
    _, again = planned(spark, tmp_path / "c", tmp_path / "run", shards=7)
    assert again == plan
    assert planned(spark, tmp_path / "c", tmp_path / "r2", shards=2, said={"judge": "b"}.items())[1].id != plan.id
    corpus_of(tmp_path / "c", [40, 41])
    assert planned(spark, tmp_path / "c", tmp_path / "r3", shards=2)[1].id != plan.id
