"""What a sample makes of files as people have them: long rows, byte order marks, broken rows, numbers among texts.

That the draw is fair is held in `test_planning.py`.
"""

import csv
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge import corpus_sample
from quality_judge.corpus_sample import sample_corpus
from quality_judge.errors import CorpusError


def write_csv(file, rows, *, encoding="utf-8"):
    with file.open("w", newline="", encoding=encoding) as opened:
        csv.writer(opened).writerows([("text", "id"), *rows])
    return file


def write_lines(file, texts):
    file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return file


def texts_of(sample):
    return [None if value is None else value.decode() for value in sample.columns["text"].to_pylist()]


def test_a_csv_cell_of_any_length_is_read_and_the_limit_is_as_before(tmp_path):
    usual, long = csv.field_size_limit(), "x" * 200_000
    file = write_csv(tmp_path / "a.csv", [("short", 1), (long, 2)])
    assert texts_of(sample_corpus(file, ["text"])) == ["short", long]
    assert csv.field_size_limit() == usual


def test_a_csv_record_that_is_broken_counts_as_null_and_a_broken_header_refuses_the_file(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(b"text,id\none,1\ntw\ro,2\nthree,3\n")
    sample = sample_corpus(tmp_path / "a.csv", ["text"])
    assert (sample.rows, texts_of(sample)) == (3, ["one", None, "three"])
    (tmp_path / "b.csv").write_bytes(b"te\rxt,id\none,1\n")
    with pytest.raises(CorpusError, match="cannot be read as csv"):
        sample_corpus(tmp_path / "b.csv", ["text"])


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    file = write_csv(tmp_path / "a.csv", [("水 water", 1)], encoding="utf-8-sig")
    assert texts_of(sample_corpus(file, ["text"])) == ["水 water"]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8-sig")
    assert texts_of(sample_corpus(tmp_path / "a.jsonl", ["text"])) == ["one", "two"]


def test_a_json_line_nested_too_deep_is_a_broken_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' + "[" * 200_000 + "\n")
    assert texts_of(sample_corpus(tmp_path / "a.jsonl", ["text"])) == ["one", None]


def test_a_number_among_texts_is_text_as_spark_reads_it_and_numbers_alone_are_refused(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", ["one", 2024, 0.5, True, ["a"], None])
    assert texts_of(sample_corpus(file, ["text"])) == ["one", "2024", "0.5", "true", None, None]
    with pytest.raises(CorpusError, match="column 'text' holds float, int; expected text"):
        sample_corpus(write_lines(tmp_path / "b.jsonl", [1, 0.5, None]), ["text"])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_a_parquet_column_of_categories_is_read_as_their_text_and_one_of_numbers_is_refused(tmp_path, kind):
    pq.write_table(pa.table({"text": pa.array(["a", "b", None], kind).dictionary_encode()}), tmp_path / "a.parquet")
    assert sorted(map(str, texts_of(sample_corpus(tmp_path / "a.parquet", ["text"])))) == ["None", "a", "b"]
    pq.write_table(pa.table({"text": pa.array([1, 2]).dictionary_encode()}), tmp_path / "b.parquet")
    with pytest.raises(CorpusError, match="expected string or binary"):
        sample_corpus(tmp_path / "b.parquet", ["text"])


@pytest.fixture
def small(monkeypatch):
    """Blocks of 16 bytes, 4 kB in all, and no more than 64 kB looked at."""
    monkeypatch.setattr(corpus_sample, "BLOCK_BYTES", 16)
    monkeypatch.setattr(corpus_sample, "MOST_BYTES", 64_000)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_where_rows_are_long_more_is_read_until_there_are_as_many_as_asked_for(tmp_path, small, kind):
    texts = [f"{row} {'水' * 50}" for row in range(3000)]
    file = tmp_path / f"a.{kind}"
    write_lines(file, texts) if kind == "jsonl" else write_csv(file, [(text, 1) for text in texts])
    sample = sample_corpus(file, ["text"], rows=200)
    assert (len(sample), sample.exact) == (200, False)
    assert len(set(texts_of(sample))) == 200
    assert set(texts_of(sample)) <= set(texts)
    assert abs(sample.rows / 3000 - 1) < 0.1


def test_rows_of_ordinary_length_cost_one_look(tmp_path, small, monkeypatch):
    looks = []
    whole = corpus_sample._blocks
    monkeypatch.setattr(corpus_sample, "_blocks", lambda *asked: looks.append(asked[-1]) or whole(*asked))
    file = write_lines(tmp_path / "a.jsonl", [f"row {row}" for row in range(3000)])
    assert len(sample_corpus(file, ["text"], rows=100)) == 100
    assert looks == [256 * 16]


def test_no_more_than_the_limit_is_looked_at(tmp_path, small):
    file = write_lines(tmp_path / "a.jsonl", [f"{row} {'x' * 1000}" for row in range(1000)])
    sample = sample_corpus(file, ["text"], rows=1000)
    assert 32 < len(sample) < 128
    assert f"{len(sample)} of {len(sample)} rows read from blocks at random places" in sample.drawn


def test_a_file_no_larger_than_a_further_look_is_read_whole(tmp_path, small):
    texts = [f"{row} {'x' * 1000}" for row in range(50)]
    sample = sample_corpus(write_lines(tmp_path / "a.jsonl", texts), ["text"], rows=1000)
    assert (sample.exact, texts_of(sample)) == (True, texts)


def test_a_row_behind_a_long_one_has_no_better_chance_to_be_read(tmp_path, small):
    """5 standard errors are passed with P < 1e-6. Blocks that grow until a row begins in them are 12 off."""
    lengths = np.random.default_rng(0).integers(10_000, 60_000, 40)
    short = ["short"] * 50
    file = write_lines(tmp_path / "a.jsonl", [*("x" * length for length in lengths), *short])
    more = []
    for seed in range(200):
        parts, _ = corpus_sample._looked_at([file], 1, np.random.default_rng(seed), corpus_sample._json_parts)
        of_short = sum(record["text"] == "short" for record, _, _ in parts)
        more.append((len(parts) - of_short) / len(lengths) - of_short / len(short))
    assert abs(np.mean(more)) < 5 * np.std(more) / len(more) ** 0.5


def test_of_rows_so_long_that_none_begins_in_what_was_looked_at_the_truth_is_said(tmp_path, small):
    file = write_lines(tmp_path / "a.jsonl", ["x" * 20_000_000])
    with pytest.raises(CorpusError, match=r"no row that begins in the 0.064 MB looked at.*very long.*Parquet"):
        sample_corpus(file, ["text"])


def test_of_a_block_inside_a_long_row_no_more_than_the_block_is_read(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", ["x" * 20_000_000, "short"])
    tracemalloc.start()
    try:
        assert not list(corpus_sample._json_parts(iter([(file, 1000, 16, 0)])))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
