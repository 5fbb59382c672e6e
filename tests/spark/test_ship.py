"""A packed judge goes with the job: the programme takes the file, and a node without it fetches and checks it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark import SparkFiles

from quality_judge.archive import judge_folder, pack_judge
from quality_judge.errors import JudgeError
from quality_judge.judge import load_judge
from quality_judge.registry import push_judge
from quality_judge.spark.ship import folder_here, ship_judge


@pytest.fixture
def packed(judge, tmp_path, monkeypatch):
    monkeypatch.setenv("QUALITY_JUDGE_CACHE", str(tmp_path / "driver"))
    return pack_judge(judge, tmp_path / "评委.zip")


def test_the_job_takes_a_packed_judge(packed, judge, run_job, tmp_path):
    pq.write_table(
        pa.table({"id": [1, 2], "text": ["A text of some words.", "另一段文字。"]}), tmp_path / "rows.parquet"
    )
    code, said, log = run_job("score_corpus", judge=packed, input=tmp_path / "rows.parquet", output=tmp_path / "out")
    assert code == 0, log
    assert (said["rows"], said["judge"]) == (2, judge.fingerprint)


def test_a_commit_in_the_hub_is_fetched_once_by_the_driver_and_goes_with_the_job(
    judge, run_job, small_hub, tmp_path, monkeypatch
):
    monkeypatch.setenv("QUALITY_JUDGE_CACHE", str(tmp_path / "driver"))
    commit = push_judge(judge.folder, "hf://org/mine@v1")["version"]
    pq.write_table(pa.table({"text": ["A text of some words.", "另一段文字。"]}), tmp_path / "rows.parquet")
    small_hub.requests.clear()
    fetched = []
    for name in (f"hf://org/mine@{commit}", f"org/mine@{commit}"):
        code, said, log = run_job("score_corpus", judge=name, input=tmp_path / "rows.parquet", output=tmp_path / name)
        assert (code, said.get("rows"), said.get("judge")) == (0, 2, judge.fingerprint), log
        fetched.append(len(small_hub.requests))
    assert fetched[0] == fetched[1] > 0
    assert {line.split("/resolve/")[1][:40] for line in small_hub.requests if "/resolve/" in line} == {commit}
    code, said, _ = run_job("score_corpus", judge="hf://org/mine@v1", input=tmp_path, output=tmp_path / "none")
    assert (code, said["error"]) == (2, "InputError")
    assert "hf://org/mine@COMMIT" in said["message"]


def test_an_executor_finds_a_judge_among_the_archives_by_its_fingerprint(packed, judge, spark, monkeypatch):
    spark.sparkContext.addArchive(f"{packed}#came")
    here = Path(folder_here("/a folder of the driver alone", judge.fingerprint))
    assert here == Path(SparkFiles.get("came"))
    assert load_judge(here).fingerprint == judge.fingerprint
    assert folder_here("/a folder of the driver alone", "0" * 16) == "/a folder of the driver alone"


def test_a_node_without_the_folder_unpacks_what_came_with_the_job(packed, judge, spark, tmp_path, monkeypatch):
    at_driver = ship_judge(spark, packed)
    assert at_driver == judge_folder(packed)
    monkeypatch.setenv("QUALITY_JUDGE_CACHE", str(tmp_path / "node"))
    here = Path(folder_here(str(at_driver), judge.fingerprint))
    assert here.parent == tmp_path / "node"
    assert load_judge(here).fingerprint == judge.fingerprint


def test_a_node_refuses_a_judge_that_was_edited_after_it_was_unpacked(packed, judge, spark):
    folder = Path(folder_here(str(judge_folder(packed)), judge.fingerprint))
    (folder / "card.md").write_text("another", encoding="utf-8")
    with pytest.raises(JudgeError, match="sha256"):
        load_judge(folder)


def test_a_plain_folder_is_where_the_driver_has_it(judge):
    assert folder_here(judge.folder, judge.fingerprint) == judge.folder
