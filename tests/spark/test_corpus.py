"""Nothing that lies in a corpus is lost on the way in without a word: neither a file nor what stands in a line."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.errors import CorpusError
from quality_judge.spark import read_corpus, score
from quality_judge.spark.corpus import read_whole_files
from quality_judge.spark.plan import input_files
from quality_judge.spark.publish import published

HOLDING_MORE = [
    '{"text": "joined"}{"text": "without a line break"}',
    '{"text": "two"} {"text": "with a space"}',
    '{"text": "two"}, {"text": "as in an array"}',
    '{"text": "rubbish"} behind it',
    '{"text": "}"}]{"text": "behind brackets"}',
    '[{"text": "an array"}] {"text": "and more"}',
]
ONE_RECORD = [
    ('{"text": "braces {\\"}{ in a text"}', ["braces {\"}{ in a text"]),
    ('  {"text": "blanks", "more": {"a": [{}]}} \t', ["blanks"]),
    ('{"text": "one of an array"},', ["one of an array"]),
    ('{"text": "the last of it"} ]', ["the last of it"]),
    ('[{"text": "first"}, {"text": "second"}]', ["first", "second"]),
    ("{'text': 'single quotes', 'id': NaN}", ["single quotes"]),
    ("", []),
]  # fmt: skip


def write(path, text="a text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": [text]}), path)
    else:
        path.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")


def test_a_line_that_holds_more_than_its_record_is_a_bad_record_and_costs_no_other_line(spark, judge, tmp_path):
    lines = [line for pair in zip(HOLDING_MORE, ONE_RECORD, strict=False) for line in (pair[0], pair[1][0])]
    lines += [line for line, _ in ONE_RECORD[len(HOLDING_MORE) :]]
    (tmp_path / "lang=en").mkdir()
    (tmp_path / "lang=en" / "rows.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"text": "bad \xff bytes"}\n')
    df = read_corpus(spark, str(tmp_path), format="json")
    found = df.transform(score(judge)).collect()
    bad = [row["_corrupt_record"] for row in found if row["quality_code"] == "BAD_RECORD"]
    assert bad[:-1] == HOLDING_MORE
    assert len(bad) == len(HOLDING_MORE) + 1
    assert [row["text"] for row in found if row["text"]] == [text for _, texts in ONE_RECORD for text in texts]
    assert {row["lang"] for row in found} == {"en"}
    assert sum(file.rows for file in input_files(df)) == len(found)


def test_a_corpus_without_such_a_line_is_read_as_spark_reads_it(spark, tmp_path):
    rows = ['{"text": 1.50, "lang": "fr", "id": {}}', "", '{"text": "a", "other": null, "doc": {"b": 1}}']
    for name, more in (("whole", []), ("malformed", ["null", '{"text": '])):
        (tmp_path / name / "lang=en").mkdir(parents=True)
        (tmp_path / name / "lang=en" / "rows.jsonl").write_text("\n".join([*rows, *more]), encoding="utf-8")
        found = read_corpus(spark, str(tmp_path / name), format="json")
        known = spark.read.json(str(tmp_path / name))
        assert dict(found.dtypes) == dict(known.dtypes)
        assert found.select(known.columns).collect() == known.collect()


@pytest.mark.parametrize("kind", ["parquet", "json"])
@pytest.mark.parametrize(
    ("files", "unread"),
    [
        (["a", "more/b", "more/c"], "/more/b.{} would not be read (2 of 3 files)"),
        (["a", "lang=en/b"], "/a.{} would not be read"),
        (["中 文", "ein Ordner/ü b"], "/ein Ordner/ü b.{} would not be read"),
    ],
)
def test_files_that_spark_would_skip_are_refused_and_a_pattern_reads_them(spark, tmp_path, files, unread, kind):
    for name in files:
        write(tmp_path / "corpus" / f"{name}.{kind}", name)
    with pytest.raises(CorpusError) as refused:
        read_corpus(spark, str(tmp_path / "corpus"), format=kind)
    assert unread.format(kind) in str(refused.value)
    assert "--input 'corpus/[!._]*'" in str(refused.value)
    found = read_corpus(spark, str(tmp_path / "corpus/[!._]*"), format=kind)
    assert sorted(row["text"] for row in found.collect()) == sorted(files)


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_files_that_are_no_part_of_a_corpus_are_no_reason_to_refuse(spark, tmp_path, kind):
    for name in ("lang=en/a", "lang=zh/b"):
        write(tmp_path / "parts" / f"{name}.{kind}", name)
    if kind == "json":  # of Parquet, Spark itself refuses it
        (tmp_path / "parts" / "README.md").write_text("about", encoding="utf-8")
    for name in ("one/a", "two/b", ".git/objects/zz", "_tmp/0/c"):
        write(tmp_path / "folders" / f"{name}.{kind}", name)
    for path, rows in ((tmp_path / "parts", 2), (tmp_path / "folders" / "*", 2)):
        assert read_corpus(spark, str(path), format=kind).count() == rows


def test_a_skipped_file_is_refused_when_damaged_ones_are_left_out(spark, tmp_path):
    for name in ("a", "lang=en/b"):
        write(tmp_path / f"{name}.parquet")
    with pytest.raises(CorpusError, match=r"/a\.parquet would not be read"):
        read_whole_files(spark, str(tmp_path))


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_hidden_files_and_odd_names_are_no_reason_to_refuse(spark, tmp_path, kind):
    kept = [f"lang=zh ü/day=%2F{i}/{name}" for i, name in enumerate(("a b", "中 文", "x,y"))]
    for name in (*kept, "_run/a", ".hidden/b", "lang=zh ü/day=%2F0/_c"):
        write(tmp_path / f"{name}.{kind}", name)
    (tmp_path / "_SUCCESS").touch()
    for path in (tmp_path, f"{tmp_path}/lang=*/day=*"):
        found = read_corpus(spark, str(path), format=kind)
        assert sorted(row["text"] for row in found.collect() if "_c" not in row["text"]) == sorted(kept)


def test_files_that_the_log_of_a_table_does_not_name_are_no_reason_to_refuse(spark, tmp_path):
    spark._jsc.hadoopConfiguration().set("fs.viewfs.mounttable.corpus-tests.link./there", f"file://{tmp_path}")
    output = "viewfs://corpus-tests/there/out"
    published(spark, output, lambda staging: staging.write(spark.range(3).selectExpr("'a' as text")) or {})
    write(tmp_path / "out" / "left by a killed run.parquet")
    assert read_corpus(spark, output).count() == 3


@pytest.mark.parametrize("names", [("a[1]", "e{x}", "b*c", "plain"), ("src=x[1]/a", "src={y}/b", "src=z/c")])
def test_a_name_that_could_be_a_pattern_is_a_name_where_damaged_files_are_left_out(spark, tmp_path, names):
    for name in names:
        write(tmp_path / f"{name}.parquet", name)
    found, bad = read_whole_files(spark, str(tmp_path))
    assert (sorted(row["text"] for row in found.collect()), bad) == (sorted(names), ())
    empty = tmp_path / f"{names[0]} too.parquet"
    empty.touch()
    found, (bad,) = read_whole_files(spark, str(tmp_path))
    assert (sorted(row["text"] for row in found.collect()), bad.bytes) == (sorted(names), 0)
    assert bad.file.endswith(f"/{names[0]} too.parquet")
    with pytest.raises(CorpusError, match="has no bytes"):
        read_corpus(spark, str(tmp_path))


@pytest.mark.parametrize("packed", [("part-0",), ("more/part-1",)])
def test_a_packed_file_is_like_a_plain_one_of_its_kind_and_neither_is_skipped_in_silence(spark, tmp_path, packed):
    for name in ("part-0", "more/part-1"):
        write(tmp_path / f"{name}.jsonl", name)
    for path in (tmp_path / f"{name}.jsonl" for name in packed):
        path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with pytest.raises(CorpusError, match=r"/more/part-1\.jsonl(\.gz)? would not be read"):
        read_corpus(spark, str(tmp_path), format="json")


def test_text_of_no_file_is_refused_and_an_empty_file_is_none_the_less_a_file(spark, tmp_path):
    (tmp_path / "_tmp").mkdir()
    (tmp_path / "_tmp" / "a.txt").write_text("hidden", encoding="utf-8")
    with pytest.raises(CorpusError, match="no file to read lies at"):
        read_corpus(spark, str(tmp_path), format="text")
    (tmp_path / "a.txt").touch()
    assert read_corpus(spark, str(tmp_path), format="text").count() == 0


def test_columns_whose_types_do_not_meet_are_bad_input_and_not_worth_another_try(spark, tmp_path):
    pq.write_table(pa.table({"text": ["a"], "lang": pa.array([1], pa.int64())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "lang": ["en"]}), tmp_path / "b.parquet")
    with pytest.raises(CorpusError, match="one type in some files") as refused:
        read_corpus(spark, str(tmp_path))
    assert "CANNOT_MERGE_SCHEMAS" in str(refused.value)
