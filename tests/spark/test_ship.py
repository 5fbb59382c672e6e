"""A packed judge goes with the job: the programme takes the file, and a node without it fetches and checks it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.archive import judge_folder, pack_judge
from quality_judge.errors import JudgeError
from quality_judge.judge import load_judge
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


def test_a_node_without_the_folder_unpacks_what_came_with_the_job(packed, judge, spark, tmp_path, monkeypatch):
    ship_judge(spark, packed)
    at_driver = judge_folder(packed)
    monkeypatch.setenv("QUALITY_JUDGE_CACHE", str(tmp_path / "node"))
    here = Path(folder_here(str(at_driver)))
    assert here.parent == tmp_path / "node"
    assert load_judge(here).fingerprint == judge.fingerprint


def test_a_node_refuses_a_judge_that_was_edited_after_it_was_unpacked(packed, spark):
    folder = Path(folder_here(str(judge_folder(packed))))
    (folder / "card.md").write_text("another", encoding="utf-8")
    with pytest.raises(JudgeError, match="sha256"):
        load_judge(folder)


def test_a_plain_folder_is_where_the_driver_has_it(judge):
    assert folder_here(judge.folder) == judge.folder
