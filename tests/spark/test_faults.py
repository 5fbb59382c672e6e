"""Faults of rows, processes and files, each done for real: no row is lost, none doubled, no other row changes."""

import gzip
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.judge import save_judge
from quality_judge.scores import SCORED_COLUMNS

ROOT = Path(__file__).resolve().parents[2]
FAULTY = Path(__file__).resolve().parent / "faulty"
CANARY = "canary-078-05-1120"
GOOD = "Water boils at a lower temperature on mountain number {} because the air presses less on its surface."
RAISED = {
    "exception": "SCORER_ERROR", "recursion": "SCORER_ERROR", "memory": "OOM_ROW", "allocator": "OOM_ROW",
    "noise": "OK",
}  # fmt: skip
PASSING = ("exit", "sigkill", "segfault", "hang")
FATAL = {"sigkill": "SKIPPED_CRASH", "segfault": "SKIPPED_CRASH", "hang_with_the_interpreter_held": "TIMEOUT_ROW"}
HANG_SECONDS = 24


@pytest.fixture
def faulty(spark, tmp_path):
    """Python workers, and their children, that do what the texts say."""
    environment = spark.sparkContext.environment
    before = dict(environment)
    (tmp_path / "once").mkdir()
    environment.update(PYTHONPATH=f"{FAULTY}{os.pathsep}{ROOT}", FAULTS_ONCE=str(tmp_path / "once"))
    yield
    environment.clear()
    environment.update(before)


def write_rows(path, texts):
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"id": [f"{path.stem} {i}" for i in range(len(texts))], "text": texts})
    pq.write_table(table, path)


def rows_of(folder):
    return {row["id"]: row for row in pq.read_table(folder).to_pylist()}


def good(n):
    return [GOOD.format(i) for i in range(n)]


def test_each_faulty_row_ends_as_it_should_and_costs_no_other(spark, judge, scorer, run_job, tmp_path, faulty):
    corpus, expected = tmp_path / "corpus", {}
    write_rows(corpus / "raised.parquet", [f"FAULT[{kind}] {CANARY} raises" for kind in RAISED] + good(20))
    expected |= {f"raised {i}": code for i, code in enumerate(RAISED.values())}
    for kind in PASSING:
        write_rows(corpus / f"{kind}.parquet", [f"FAULT[{kind}:once] {CANARY} passes", *good(6)])
    write_rows(corpus / "fatal.parquet", good(20) + [f"FAULT[{kind}] {CANARY} is fatal" for kind in FATAL])
    expected |= {f"fatal {20 + i}": code for i, code in enumerate(FATAL.values())}
    output = tmp_path / "out"
    code, said, shown = run_job(
        "score_corpus", judge=judge.folder, input=corpus, output=output, shards=len(PASSING) + 2,
        hang_seconds=HANG_SECONDS,
    )  # fmt: skip
    assert code == 0, shown
    found, given = rows_of(output), rows_of(corpus)
    assert said["rows"] == len(given) == len(found) == pq.read_table(output).num_rows
    assert {key: row["quality_code"] for key, row in found.items()} == dict.fromkeys(given, "OK") | expected
    assert {path.name for path in (tmp_path / "once").iterdir()} == set(PASSING)
    assert CANARY not in shown
    alone = dict(zip(good(20), scorer.score(good(20)).probability, strict=True))
    assert all(row["quality_score"] == alone[row["text"]] for row in found.values() if row["text"] in alone)


def test_a_text_longer_than_allowed_is_too_long_and_changes_nothing_else(judge, scorer, run_job, tmp_path):
    texts = [*good(3), "long " * 400, None, "ä" * 1000]
    write_rows(tmp_path / "in" / "a.parquet", texts)
    for limit, codes in (
        (2000, ["OK", "OK", "OK", "OK", "NULL_TEXT", "OK"]),
        (1999, ["OK"] * 3 + ["TOO_LONG", "NULL_TEXT", "TOO_LONG"]),
    ):
        code, said, _ = run_job(
            "score_corpus", judge=judge.folder, input=tmp_path / "in", output=tmp_path / "out", max_bytes=limit
        )
        assert code == 0
        assert [row["quality_code"] for _, row in sorted(rows_of(tmp_path / "out").items())] == codes
        assert said["codes"] == dict(Counter(codes))
    assert [row["text"] for _, row in sorted(rows_of(tmp_path / "out").items())] == texts


@pytest.mark.parametrize(("option", "value"), [("max_bytes", 0), ("shards", 0), ("hang_seconds", 0.5)])
def test_a_limit_below_one_is_refused(judge, run_job, tmp_path, option, value):
    code, said, _ = run_job(
        "score_corpus", judge=judge.folder, input=tmp_path, output=tmp_path / "o", **{option: value}
    )
    assert (code, said["error"]) == (2, "ConfigError")
    assert option.replace("_", "-") in said["message"]


def cut_short(content):
    return content[:-30]


def cut_in_half(content):
    return content[: len(content) // 2]


def emptied(content):
    return b""


def of_another_kind(content):
    return b"this was never Parquet, it is a text that someone gave the wrong name"


def flipped_pages(content):
    return content[:20] + bytes(value ^ 0x5A for value in content[20:600]) + content[600:]


def zeroed_pages(content):
    return content[:4] + bytes(400) + content[404:]


def wrong_footer_length(content):
    return content[:-8] + b"\xff\xff\xff\x7f" + content[-4:]


def wrong_magic(content):
    return content[:-4] + b"PAR2"


def zeroed_footer(content):
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[:start] + bytes(192) + content[start + 192 :]


def beginning_lost(content):
    return content[500:]


PARQUET_DAMAGE = [
    cut_short, cut_in_half, emptied, of_another_kind, flipped_pages, zeroed_pages, wrong_footer_length, wrong_magic,
    zeroed_footer, beginning_lost,
]  # fmt: skip


def gzip_bit_flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


GZIP_DAMAGE = [cut_in_half, gzip_bit_flipped, of_another_kind]


def test_damaged_files_are_left_out_named_and_counted_when_asked(spark, judge, run_job, tmp_path):
    corpus = tmp_path / "corpus"
    for i, damage in enumerate(PARQUET_DAMAGE):
        write_rows(corpus / f"bad {i}.parquet", [f"{text} {CANARY} {i}" for text in good(40)])
        path = corpus / f"bad {i}.parquet"
        path.write_bytes(damage(path.read_bytes()))
    write_rows(corpus / "whole.parquet", good(30))
    given = {"judge": judge.folder, "input": corpus, "output": tmp_path / "out"}
    code, said, shown = run_job("score_corpus", **given)
    assert (code, said["error"]) == (2, "UnreadableFile")
    assert "/bad" in said["message"]
    assert not (tmp_path / "out").exists()
    code, said, shown = run_job("score_corpus", **given, quarantine=True)
    assert (code, said["rows"], said["files_quarantined"]) == (0, 30, len(PARQUET_DAMAGE)), shown
    manifest = json.loads((tmp_path / "out" / "_quality_manifest.json").read_text())
    named = {Path(bad["file"]).name: bad for bad in manifest["quarantined"]}
    assert set(named) == {f"bad {i}.parquet" for i in range(len(PARQUET_DAMAGE))}
    assert all(bad["bytes"] == (corpus / name).stat().st_size and bad["reason"] for name, bad in named.items())
    assert CANARY not in shown + json.dumps(manifest)
    assert len(rows_of(tmp_path / "out")) == 30


@pytest.fixture
def interrupted(judge, run_job, tmp_path):
    """A run of 96 rows that ended at a file it could not read: its options, and how many shards it finished."""
    corpus, last = tmp_path / "corpus", tmp_path / "corpus" / "last.parquet"
    for i in range(4):
        write_rows(corpus / f"{i}.parquet", good(20))
    write_rows(last, good(16))
    whole, at = last.read_bytes(), last.stat().st_mtime_ns
    where = {"judge": judge.folder, "input": corpus, "output": tmp_path / "out", "shards": 5}
    last.write_bytes(whole[:4] + bytes(36) + whole[40:])
    os.utime(last, ns=(at, at))
    code, said, _ = run_job("score_corpus", **where)
    assert (code, said["error"]) == (2, "UnreadableFile")
    left = len(list(tmp_path.glob(".out.run-*/receipts/*.json")))
    assert left >= 2
    last.write_bytes(whole)
    os.utime(last, ns=(at, at))
    return where, left


def test_a_file_that_cannot_be_read_for_a_while_costs_no_shard_that_was_finished(interrupted, run_job):
    where, left = interrupted
    code, said, _ = run_job("score_corpus", **where)
    assert (code, said["rows"], said["shards_reused"]) == (0, 96, left)


def test_shards_of_a_judge_with_another_threshold_are_not_taken_up_for_flags_depend_on_it(
    interrupted, judge, run_job, tmp_path
):
    where, _ = interrupted
    files = {name: judge.path(name) for name in judge.spec.files}
    cut = save_judge(tmp_path / "cut", judge.spec.model_copy(update={"thresholds": {"best": 0.987}}), files)
    assert cut.fingerprint == judge.fingerprint
    code, said, _ = run_job("score_corpus", **where | {"judge": cut.folder})
    assert (code, said["rows"], said["shards_reused"]) == (0, 96, 0)


def test_damaged_gzip_files_are_left_out_and_plain_ones_stay(spark, judge, run_job, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in good(3000)).encode()
    for i, damage in enumerate(GZIP_DAMAGE):
        (corpus / f"bad-{i}.jsonl.gz").write_bytes(damage(gzip.compress(lines)))
    (corpus / "good.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in good(12)))
    given = {"judge": judge.folder, "input": corpus, "output": tmp_path / "out", "format": "json"}
    code, said, _ = run_job("score_corpus", **given)
    assert (code, said["error"]) == (2, "UnreadableFile")
    code, said, shown = run_job("score_corpus", **given, quarantine=True)
    assert (code, said["rows"], said["files_quarantined"]) == (0, 12, len(GZIP_DAMAGE)), shown


def test_a_csv_file_that_is_not_what_it_was_packed_to_is_named_and_left_out_when_asked(judge, run_job, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    lines = "".join(["text\n", *(f"{text}\n" for text in good(12))]).encode()
    (corpus / "cut.csv.gz").write_bytes(gzip.compress(lines)[:-20])
    (corpus / "no gzip.csv.gz").write_bytes(lines)
    (corpus / "good.csv").write_bytes(lines)
    given = {"judge": judge.folder, "input": corpus, "output": tmp_path / "out", "format": "csv"}
    code, said, _ = run_job("score_corpus", **given)
    assert (code, said["error"], "/cut.csv.gz" in said["message"]) == (2, "UnreadableFile", True)
    code, said, shown = run_job("score_corpus", **given, quarantine=True)
    assert (code, said["rows"], said["files_quarantined"]) == (0, 12, 2), shown


def test_a_corpus_of_damaged_files_only_is_refused(judge, run_job, tmp_path):
    write_rows(tmp_path / "corpus" / "a.parquet", good(5))
    shutil.copy(tmp_path / "corpus" / "a.parquet", tmp_path / "corpus" / "b.parquet")
    for path in (tmp_path / "corpus").iterdir():
        path.write_bytes(cut_short(path.read_bytes()))
    given = {"judge": judge.folder, "input": tmp_path / "corpus", "output": tmp_path / "out", "quarantine": True}
    code, said, _ = run_job("score_corpus", **given)
    assert (code, said["error"]) == (2, "CorpusError")
    assert "2 files that cannot be read" in said["message"]


def test_quarantine_keeps_columns_that_folder_names_give(judge, run_job, tmp_path):
    for lang in ("en", "de"):
        write_rows(tmp_path / "corpus" / f"{lang}.parquet", good(4))
        (tmp_path / "corpus" / f"lang={lang}").mkdir()
        (tmp_path / "corpus" / f"{lang}.parquet").rename(tmp_path / "corpus" / f"lang={lang}" / f"{lang}.parquet")
    for quarantine in (False, True):
        for shards in (None, 2):
            code, said, shown = run_job(
                "score_corpus", judge=judge.folder, input=tmp_path / "corpus", output=tmp_path / "out", shards=shards,
                quarantine=quarantine,
            )  # fmt: skip
            assert (code, said["rows"]) == (0, 8), shown
            found = rows_of(tmp_path / "out")
            assert {key: row["lang"] for key, row in found.items()} == {key: key.split()[0] for key in found}
            assert set(next(iter(found.values()))) == {"id", "text", "lang", *SCORED_COLUMNS}
