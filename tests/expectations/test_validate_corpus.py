"""The programme: exit codes, the last line, the report, and that no row text is in any of them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from planted_tables import CANARY, CODE, DECISION, SCORE, filtered_rows, pandas_frame, planted, scored_rows

from quality_judge.config import conf_folder
from quality_judge.scores import DECISION_FOLDERS

ROOT = Path(__file__).resolve().parents[2]
SUITES = conf_folder() / "expectations"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("quality_judge.spark.session") is None, reason="quality_judge.spark.session is not there"
)


def validated(tmp_path, *, suite="scored"):
    report = tmp_path / "report.json"
    suite = suite if os.sep in str(suite) else SUITES / f"{suite}.yaml"
    command = [sys.executable, ROOT / "jobs" / "validate_corpus.py", "--scored", tmp_path / "out"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*map(str, command), "--suite", str(suite), "--output", str(report)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )
    return done, json.loads(done.stdout.splitlines()[-1]), report


def written(tmp_path, rows, name=""):
    folder = tmp_path / "out" / name
    folder.mkdir(parents=True)
    pandas_frame(rows).to_parquet(folder / "part-0.parquet")


@pytest.mark.spark
@pytest.mark.slow
def test_a_faulty_scored_table_exits_1_and_no_row_text_comes_out(tmp_path):
    written(tmp_path, planted(scored_rows(), {("all", SCORE): CANARY, (4, CODE): CANARY}))
    done, summary, report = validated(tmp_path)
    assert done.returncode == 1, done.stderr
    assert summary["ok"] is False
    assert "expect_column_pass_rate_to_be_between(quality_code)" in summary["failed"]
    assert json.loads(report.read_text())["rows"] == summary["rows"] == 20
    for said in (done.stdout, done.stderr, report.read_text()):
        assert "078-05" not in said


@pytest.mark.spark
@pytest.mark.slow
def test_the_four_folders_of_a_filtered_corpus_are_read_together(tmp_path):
    rows = filtered_rows()
    for decision, folder in DECISION_FOLDERS.items():
        written(
            tmp_path,
            [row for row in rows if row[DECISION] == decision] or [[*rows[0][:4], decision, "one more"]],
            folder,
        )
    (tmp_path / "out" / "_quality_manifest.json").write_text('{"rows": 21}')
    done, summary, report = validated(tmp_path, suite="filtered")
    assert done.returncode == 0, done.stderr
    assert summary["rows"] == 21
    assert json.loads(report.read_text())["success"] is True


@pytest.mark.spark
@pytest.mark.slow
def test_a_missing_table_exits_2_and_writes_no_report(tmp_path):
    done, summary, report = validated(tmp_path)
    assert done.returncode == 2, done.stderr
    assert summary["error"] == "CorpusError"
    assert not report.exists()


@pytest.mark.slow
def test_a_missing_suite_exits_2_before_spark_starts(tmp_path):
    done, summary, _ = validated(tmp_path, suite=tmp_path / "none.yaml")
    assert done.returncode == 2, done.stderr
    assert summary["error"] == "ConfigError"
    assert "Spark" not in done.stderr
