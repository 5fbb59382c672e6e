"""Every bad input has a code of its own or is refused before a row is scored; no other row changes."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.errors import CorpusError
from quality_judge.scores import CODE_COLUMN, FLAGS_COLUMN, SCORE_COLUMN
from quality_judge.spark import read_corpus, score

ROOT = Path(__file__).resolve().parents[2]
GOOD = "Water boils at a lower temperature on a mountain because the air presses less on its surface."
TEN_MEGABYTES = 10_000_000
CHAT = "array<struct<role string, content string>>"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00\x00\x00\x01\x00\x08\x06\x00\x00\x00"
ROWS = {
    "null": (None, "NULL_TEXT", []),
    "empty": (b"", "EMPTY_TEXT", []),
    "blank": (" \t\r\n\u00a0\u200b\ufeff".encode(), "EMPTY_TEXT", []),
    "ten megabytes": (b"Words without an end. " * (TEN_MEGABYTES // 22), "OK", ["TRUNCATED"]),
    "ten megabytes without a space": (b"a" * TEN_MEGABYTES, "OK", ["TRUNCATED"]),
    "invalid UTF-8": (b"caf\xe9 au lait is a drink of the morning", "OK", ["INVALID_UTF8"]),
    "a lone surrogate": (b"half \xed\xa0\xbd an emoji in a text", "OK", ["INVALID_UTF8"]),
    "a NUL": (b"a text with one \x00 in it, and more words", "OK", []),
    "only NULs": (b"\x00" * 50, "BINARY_TEXT", []),
    "a picture": (PNG, "BINARY_TEXT", ...),
    "a control token": (b"good text [SEP] [CLS] very good", "OK", ["CONTROL_TEXT"]),
    "right to left": ("abc \u202e fed".encode(), "OK", ["HIDDEN_CHARS"]),
}  # fmt: skip


def test_each_bad_row_has_its_code_and_changes_no_other_row(spark, judge, scorer):
    rows = [(name, text) for name, (text, _, _) in ROWS.items()] + [(f"good {i}", GOOD.encode()) for i in range(3)]
    df = spark.createDataFrame(rows, "name string, text binary").repartition(2)
    found = {row["name"]: row for row in df.transform(score(judge)).drop("text").collect()}
    assert len(found) == len(rows)
    near = {"NEAR_THRESHOLD"}
    told = {
        name: (found[name][CODE_COLUMN], [flag for flag in found[name][FLAGS_COLUMN] if flag not in near])
        for name in ROWS
    }
    expected = {name: (code, told[name][1] if flags is ... else flags) for name, (_, code, flags) in ROWS.items()}
    assert told == expected
    assert all((found[name][SCORE_COLUMN] is not None) == (code == "OK") for name, (_, code, _) in ROWS.items())
    alone = scorer.score([GOOD]).probability[0]
    assert {found[f"good {i}"][SCORE_COLUMN] for i in range(3)} == {alone}


def test_invalid_bytes_in_a_string_column_neither_stop_the_job_nor_change(spark, judge, tmp_path):
    (tmp_path / "rows.txt").write_bytes(b"caf\xe9 au lait is a drink\n" + GOOD.encode() + b"\n")
    df = read_corpus(spark, str(tmp_path / "rows.txt"), format="text", text_column="line")
    df.transform(score(judge, text_column="line")).write.parquet(str(tmp_path / "out"))
    back = spark.read.parquet(str(tmp_path / "out")).selectExpr("cast(line as binary) as line", FLAGS_COLUMN).collect()
    assert {bytes(row["line"]): row[FLAGS_COLUMN][:1] for row in back}[b"caf\xe9 au lait is a drink"] == [
        "INVALID_UTF8"
    ]


MALFORMED = [
    '{"text": "cut off',
    "not json",
    '{"text": "one", "id": }',
    "12",
    '"a string"',
    "null",
    "]",
    '{"text" "x"}',
]


def test_malformed_json_lines_stay_as_bad_records_and_cost_no_other_line(spark, judge, scorer, tmp_path):
    good = [json.dumps({"text": GOOD, "id": i}) for i in range(3)]
    lines = [good[0], *MALFORMED, good[1], "", "  ", '{"text": null}', '{"id": 9}', good[2]]
    (tmp_path / "rows.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"text": "bad \xff bytes"}\n')
    df = read_corpus(spark, str(tmp_path / "rows.jsonl"), format="json")
    found = df.transform(score(judge)).collect()
    codes = [row[CODE_COLUMN] for row in found]
    assert df.count() == len(found) == 3 + len(MALFORMED) + 2 + 1
    assert {code: codes.count(code) for code in codes} == {"OK": 3, "BAD_RECORD": len(MALFORMED) + 1, "NULL_TEXT": 2}
    assert {row["_corrupt_record"] for row in found if row[CODE_COLUMN] == "BAD_RECORD"} >= set(MALFORMED)
    assert {row[SCORE_COLUMN] for row in found if row["id"] in (0, 1, 2)} == {scorer.score([GOOD]).probability[0]}


def test_a_record_that_says_itself_that_it_was_malformed_stays_so(spark, judge, tmp_path):
    """As a table that was read leniently is written by Spark."""
    file, broken = tmp_path / "rows.jsonl", json.dumps({"_corrupt_record": "{broken "})
    for further, codes in (("", ["OK", "BAD_RECORD"]), ("{cut of\n", ["OK", "BAD_RECORD", "BAD_RECORD"])):
        file.write_text(json.dumps({"text": GOOD}) + "\n" + broken + "\n" + further, encoding="utf-8")
        found = read_corpus(spark, str(file), format="json").transform(score(judge)).collect()
        assert sorted(row[CODE_COLUMN] for row in found) == sorted(codes)
        assert "{broken " in {row["_corrupt_record"] for row in found}


def test_csv_keeps_line_breaks_quotes_and_short_or_long_records(spark, tmp_path):
    (tmp_path / "rows.csv").write_text(
        'id,text\n1,plain\n2,"two\nlines, ""quoted"""\n3\n4,four,too many\n', encoding="utf-8"
    )
    found = read_corpus(spark, str(tmp_path / "rows.csv"), format="csv").orderBy("id").collect()
    assert [row["text"] for row in found] == ["plain", 'two\nlines, "quoted"', None, "four"]
    assert [row["_corrupt_record"] for row in found] == [None, None, "3", "4,four,too many"]


def test_a_csv_record_with_a_comma_too_many_or_a_cell_too_few_is_not_scored_by_half_its_text(spark, judge, tmp_path):
    (tmp_path / "rows.csv").write_text("id,text,lang\n1,plain,en\n2,one, two, three,en\n3,short\n", encoding="utf-8")
    found = read_corpus(spark, str(tmp_path / "rows.csv"), format="csv").transform(score(judge)).orderBy("id").collect()
    assert [row[CODE_COLUMN] for row in found] == ["OK", "BAD_RECORD", "BAD_RECORD"]
    assert [row[SCORE_COLUMN] is None for row in found] == [False, True, True]
    assert found[1]["_corrupt_record"] == "2,one, two, three,en"


def test_a_whole_csv_gains_no_column(spark, tmp_path):
    (tmp_path / "rows.csv").write_text("id,text\n1,plain\n", encoding="utf-8")
    assert read_corpus(spark, str(tmp_path / "rows.csv"), format="csv").columns == ["id", "text"]


def test_csv_files_with_their_columns_in_another_order_are_refused_by_name(spark, judge, run_job, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.csv").write_text("id,text\n1,plain\n", encoding="utf-8")
    (folder / "b.csv").write_text("text,id\nplain,1\n", encoding="utf-8")
    code, said, _ = run_job("score_corpus", judge=judge.folder, input=folder, output=tmp_path / "out", format="csv")
    assert (code, said["error"]) == (2, "CorpusError")
    assert ".csv has other columns" in said["message"]


def test_parquet_files_with_other_columns_lose_none(spark, tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "lang": ["en"]}), tmp_path / "b.parquet")
    found = read_corpus(spark, str(tmp_path)).orderBy("text").collect()
    assert [(row["text"], row["lang"]) for row in found] == [("a", None), ("b", "en")]


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ("id int", {}, "there is no column 'text'; the table has id"),
        ("Text string", {}, r"did you mean 'Text'"),
        ("text int", {}, "of type int; expected string or binary"),
        ("text array<string>", {}, "of type array<string>"),
        ("text struct<a string>", {}, "of type struct"),
        ("text string", {"prompt_column": "prompt"}, "no column 'prompt'"),
        ("text string, prompt double", {"prompt_column": "prompt"}, "of type double"),
        ("doc struct<body string>", {"text_column": "doc.text"}, "no column 'doc.text'"),
        ("text string, quality_score double", {}, "already has quality_score"),
        ("text string, Quality_Code string", {}, "already has Quality_Code"),
        ("text string, quality_decision string", {}, "already has quality_decision"),
        ("text string, _quality string", {}, "already has _quality"),
        ("text map<string,string>", {}, "of type map<string,string>"),
        ("text array<struct<role string>>", {}, "or as text column chats"),
        ("text array<struct<role string, content int>>", {}, "or as text column chats"),
        (f"text {CHAT}, prompt string", {"prompt_column": "prompt"}, "prompts of their own"),
        (f"text string, prompt {CHAT}", {"prompt_column": "prompt"}, "'prompt' is of type array"),
    ],
)
def test_an_unfit_table_is_refused_before_any_job_starts(spark, judge, columns, options, said):
    tracker = spark.sparkContext.statusTracker()
    spark.sparkContext.setJobGroup("unfit", "unfit")
    with pytest.raises(CorpusError, match=said):
        spark.createDataFrame([], columns).transform(score(judge, **options))
    assert not tracker.getJobIdsForGroup("unfit")
    spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)


def test_columns_that_differ_in_case_only_are_refused(spark, judge):
    df = spark.createDataFrame([("a", "b")], "text string, lang string").toDF("text", "Text")
    with pytest.raises(CorpusError, match="differ in case only: Text, text"):
        df.transform(score(judge))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


def emptied(path):
    path.write_bytes(b"")


def overwritten(path):
    path.write_bytes(b"this was never Parquet, it is a text that someone gave the wrong name")


def flipped(path):
    """The footer is whole, the data are not."""
    content = bytearray(path.read_bytes())
    content[20:600] = bytes(value ^ 0x5A for value in content[20:600])
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncated, emptied, overwritten, flipped])
def test_a_damaged_file_ends_the_run_with_its_name_and_the_old_output_stands(spark, judge, run_job, tmp_path, damage):
    corpus, output = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table({"text": [f"{GOOD} {name} {i}" for i in range(20)]}), corpus / f"{name}.parquet")
    assert run_job("score_corpus", judge=judge.folder, input=corpus, output=output)[0] == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    damage(corpus / "b.parquet")
    code, said, _ = run_job("score_corpus", judge=judge.folder, input=corpus, output=output)
    assert (code, said["ok"], said["error"]) == (2, False, "UnreadableFile")
    assert "b.parquet" in said["message"]
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


def test_a_folder_that_is_no_judge_is_refused_before_spark_starts(tmp_path):
    """Where there is no Java at all, so that a start would fail."""
    (tmp_path / "judge").mkdir()
    command = [sys.executable, ROOT / "jobs/score_corpus.py", "--judge", tmp_path / "judge", "--input", tmp_path]
    done = subprocess.run(
        [*map(str, command), "--output", str(tmp_path / "out")], capture_output=True, text=True,
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
    )  # fmt: skip
    said = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, said["error"]) == (2, "JudgeError")
    assert "judge.json" in said["message"]


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_an_input_that_is_not_there_is_refused(spark, judge, run_job, tmp_path, path):
    (tmp_path / "empty").mkdir()
    code, said, _ = run_job("score_corpus", judge=judge.folder, input=tmp_path / path, output=tmp_path / "out")
    assert (code, said["error"]) == (2, "CorpusError")
    assert path in said["message"]


def test_a_truncated_gzip_file_is_refused_by_name(spark, judge, run_job, tmp_path):
    import gzip

    whole = gzip.compress("".join(json.dumps({"text": f"{GOOD} {i}"}) + "\n" for i in range(3000)).encode())
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    code, said, _ = run_job(
        "score_corpus", judge=judge.folder, input=tmp_path / "rows.jsonl.gz", output=tmp_path / "out", format="json"
    )
    assert (code, said["error"]) == (2, "UnreadableFile"), said
    assert "rows.jsonl.gz" in said["message"]
