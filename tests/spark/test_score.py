"""A row's score is the same bits wherever it is computed: inline, in Spark however partitioned, alone, in the shell."""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from quality_judge.engine.encode import Encoder
from quality_judge.engine.forward_pool import ForwardPool
from quality_judge.engine.precision import precision_here
from quality_judge.engine.scorer import load_scorer
from quality_judge.engine.weights import load_model
from quality_judge.judge import TOKENIZER_FILE
from quality_judge.scores import CODE_COLUMN, FLAGS_COLUMN, RAW_COLUMN, SCORE_COLUMN, SCORED_COLUMNS
from quality_judge.spark import score
from quality_judge.spark.score import STRUCT_COLUMN
from quality_judge.spark.stage import scored_in_stage

ROOT = Path(__file__).resolve().parents[2]
TEXTS = 250
HAS_SHELL = all(importlib.util.find_spec(f"quality_judge.{name}") for name in ("cli", "tables"))


@pytest.fixture(scope="module")
def judge(fit_quickly, packaged_base):
    """A judge on the packaged base as it is: its bits are what users get."""
    return fit_quickly(packaged_base.id)


@pytest.fixture(scope="module")
def scorer(judge):
    return load_scorer(judge, threads=1)


@pytest.fixture(scope="module")
def texts(texts):
    """Half of them, for each is computed by six layers and many times over; every odd one is there."""
    return texts[:TEXTS]


@pytest.fixture(scope="module")
def inline(scorer, texts):
    """(score, raw, code, flags) of each text, scored at once in this process."""
    return told(scorer.score(texts))


def told(scores):
    """Plain values, None where there is no number."""
    numbers = [
        [None if np.isnan(value) else float(value) for value in column] for column in (scores.probability, scores.raw)
    ]
    return list(zip(*numbers, scores.codes(), scores.flag_lists(), strict=True))


def as_bytes(texts):
    return [text.encode() if isinstance(text, str) else text for text in texts]


def test_most_of_the_texts_have_a_score_and_scores_differ(inline):
    assert len(inline) == TEXTS
    assert len({row[0] for row in inline}) > 0.8 * TEXTS


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_spark_gives_the_bits_of_the_inline_scorer(spark, judge, texts, inline, partitions):
    rows = list(enumerate(as_bytes(texts)))
    random.Random(partitions).shuffle(rows)
    df = spark.createDataFrame(rows, "id int, text binary").repartition(partitions)
    scored = df.transform(score(judge)).orderBy("id").collect()
    assert [
        tuple(row[name] for name in (SCORE_COLUMN, RAW_COLUMN, CODE_COLUMN, FLAGS_COLUMN)) for row in scored
    ] == inline


def test_two_threads_a_shuffled_order_and_a_row_alone_change_no_bit(judge, scorer, texts, inline):
    order = random.Random(5).sample(range(len(texts)), len(texts))
    shuffled = told(load_scorer(judge, threads=2).score([texts[i] for i in order]))
    assert [shuffled[order.index(i)] for i in range(len(texts))] == inline
    for needle in random.Random(6).sample(range(len(texts)), 25):
        assert told(scorer.score([texts[needle]])) == [inline[needle]]


def test_without_the_fixed_shapes_bits_do_differ(judge, texts):
    encoding = judge.spec.encoding
    encoder = Encoder(judge.path(TOKENIZER_FILE).read_text(encoding="utf-8"), encoding)
    tokens = encoder.encode([text for text in texts if isinstance(text, str) and text.strip()][:40]).tokens
    pool = ForwardPool(load_model(judge), device="cpu", dtype=precision_here("cpu"), threads=1)
    longest = int(tokens.lengths.max())
    alone = pool.run(tokens, [(length, 1) for length in sorted(set(tokens.lengths.tolist()))], encoding.pad)
    together = pool.run(tokens, [(longest, 16)], encoding.pad)
    assert (alone != together).mean() > 0.2
    assert np.abs(alone - together).max() < 0.5


@pytest.mark.skipif(not HAS_SHELL, reason="quality-judge has no score command yet")
def test_scoring_a_file_in_the_shell_gives_the_same_bits(judge, texts, inline, tmp_path):
    from quality_judge.tables import write_table

    write_table(__import__("pyarrow").table({"text": as_bytes(texts)}), tmp_path / "rows.parquet")
    code = "from quality_judge.cli import main; main()"
    command = [
        "score",
        "--judge",
        judge.folder,
        "--input",
        tmp_path / "rows.parquet",
        "--output",
        tmp_path / "out.parquet",
    ]
    command = [sys.executable, "-c", code, *map(str, command)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [
        tuple(row[name] for name in (SCORE_COLUMN, RAW_COLUMN, CODE_COLUMN, FLAGS_COLUMN)) for row in found
    ] == inline


def test_a_prompt_column_is_used_and_gives_the_bits_of_the_inline_scorer(spark, judge, scorer, texts):
    rows = [
        (i, prompt, text) for i, (prompt, text) in enumerate(zip(["Why?", None, ""] * 10, texts[8:38], strict=True))
    ]
    df = spark.createDataFrame(rows, "id int, prompt string, completion string")
    scored = df.transform(score(judge, text_column="completion", prompt_column="prompt")).orderBy("id").collect()
    expected = told(scorer.score([row[2] for row in rows], [row[1] for row in rows]))
    assert [row[SCORE_COLUMN] for row in scored] == [row[0] for row in expected]
    bare = told(scorer.score([row[2] for row in rows]))
    changed = [got[0] != plain[0] for got, plain in zip(expected, bare, strict=True)]
    assert changed == [row[1] == "Why?" for row in rows]


def test_a_text_within_a_struct_and_odd_column_names_are_scored_and_every_column_stays(spark, judge, scorer):
    df = spark.createDataFrame(
        [(1, ("deep text",), "x", 2.5)], "id int, doc struct<text string>, `a.b` string, `c ``d` double"
    )
    row = df.transform(score(judge, text_column="doc.text")).first()
    assert row.asDict() | dict.fromkeys(SCORED_COLUMNS) == df.first().asDict() | dict.fromkeys(SCORED_COLUMNS)
    assert row[SCORE_COLUMN] == scorer.score(["deep text"]).probability[0]
    assert df.transform(score(judge, text_column="a.b")).first()[SCORE_COLUMN] == scorer.score(["x"]).probability[0]
    dotted = spark.createDataFrame([(("x",),)], "doc struct<`te.x``t`: string>")
    assert dotted.transform(score(judge, text_column="doc.te.x`t")).first()[SCORE_COLUMN] is not None


ODD_COLUMNS = {
    "at": "timestamp'2026-11-29 01:02:03.456789'", "local": "timestamp_ntz'1900-01-01 00:00:00'",
    "day": "date'1582-10-04'", "price": "cast(0.10 as decimal(20, 2))", "numbers": "map('a', 1, 'b', null)",
    "chat": "array(struct(text as said, null as nothing))", "bytes": "cast('x' as binary)", "wait": "interval '3' day",
    "small": "cast(id as byte)", "nan": "float('nan')", "a.b": "text", "评委": "'x'", "nothing": "null",
    "parsed": "parse_json('{\"a\": 1}')",
}  # fmt: skip


def test_whole_rows_through_python_keep_columns_of_every_type_and_give_the_same_bits(spark, judge, texts):
    rows = [(i, text if isinstance(text, str) else None) for i, text in enumerate(texts[:40])]
    odd = [f"{what} as `{name}`" for name, what in ODD_COLUMNS.items()]
    df = spark.createDataFrame(rows, "id long, text string").selectExpr("*", *odd)
    scoring = score(judge)
    staged = scored_in_stage(df, STRUCT_COLUMN, scoring.texts(df), judge, profile=None, gpus_per_task=1.0)
    found, expected = scoring.finished(df, staged), scoring(df)
    assert found.columns == expected.columns
    assert [field.dataType for field in found.schema] == [field.dataType for field in expected.schema]
    both = [[repr(row) for row in scored.orderBy("id").collect()] for scored in (found, expected)]
    assert both[0] == both[1]


def test_an_empty_table_and_empty_partitions_give_the_columns_and_no_row(spark, judge):
    df = spark.createDataFrame([], "text string")
    assert df.transform(score(judge)).columns == ["text", *SCORED_COLUMNS]
    assert df.transform(score(judge)).collect() == []
    one = spark.createDataFrame([("one",)], "text string").repartition(4)
    assert one.transform(score(judge)).count() == 1


def test_a_score_that_is_not_there_is_null_and_never_nan(spark, judge):
    scored = spark.createDataFrame([(None,), ("",)], "text string").transform(score(judge))
    assert scored.where(F.col(SCORE_COLUMN).isNull() & F.col(RAW_COLUMN).isNull()).count() == 2


def test_rows_with_equal_ids_are_all_scored_in_place(spark, judge):
    df = spark.createDataFrame([(1, "one"), (1, "two"), (None, "three"), (None, "three")], "id int, text string")
    scored = df.transform(score(judge)).collect()
    assert sorted(row["text"] for row in scored) == ["one", "three", "three", "two"]
    assert json.dumps([row[CODE_COLUMN] for row in scored]) == json.dumps(["OK"] * 4)
