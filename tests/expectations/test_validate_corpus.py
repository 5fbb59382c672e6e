"""The programme: exit codes, the last line, the report, and that no row text is in any of them."""

import importlib.util
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pandas
import pytest
from planted_tables import CANARY, CODE, DECISION, SCORE, filtered_rows, pandas_frame, planted, scored_rows

from quality_judge.config import conf_folder
from quality_judge.errors import CorpusError, InputError, UnreadableFile
from quality_judge.expectations import load_suite
from quality_judge.scores import DECISION_FOLDERS

ROOT = Path(__file__).resolve().parents[2]
SUITES = conf_folder() / "expectations"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("quality_judge.spark.session") is None, reason="quality_judge.spark.session is not there"
)


@pytest.fixture(scope="module")
def job():
    """jobs/validate_corpus.py as a module."""
    spec = importlib.util.spec_from_file_location("job_validate_corpus", ROOT / "jobs" / "validate_corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raw():
    return load_suite(SUITES / "raw.yaml")


def corpus(tmp_path, **files):
    """A folder of Parquet files, each with the columns given."""
    for name, columns in files.items():
        pandas.DataFrame(columns).to_parquet(tmp_path / f"{name}.parquet")
    return str(tmp_path)


def texts(n):
    return [f"row {i} says {i * i} and {i * i * i}" for i in range(n)]


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


@pytest.mark.spark
def test_parquet_files_that_differ_in_columns_are_read_with_all_of_them(spark, job, tmp_path):
    path = corpus(tmp_path, a={"id": [1, 2]}, b={"id": list(range(60)), "text": texts(60)})
    report = job.report_of(spark, path, raw())
    assert (report.success, report.message, report.rows) == (True, None, 62)


@pytest.mark.spark
def test_json_lines_are_refused_as_no_parquet_table(spark, job, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a text"}\n' * 5)
    with pytest.raises(CorpusError, match=r"is no parquet table: .*rows\.jsonl cannot be read") as refused:
        job.report_of(spark, str(tmp_path), raw())
    assert not refused.value.retry


@pytest.mark.spark
@pytest.mark.parametrize("where", ["footer", "pages"])
def test_a_damaged_file_is_named(spark, job, tmp_path, where):
    path = corpus(tmp_path, a={"text": texts(3000)}, b={"text": texts(3000)})
    file = tmp_path / "b.parquet"
    whole, third = file.read_bytes(), file.stat().st_size // 3
    file.write_bytes(whole[: 2 * third] if where == "footer" else whole[:third] + b"\xff" * third + whole[2 * third :])
    with pytest.raises(UnreadableFile, match=r"b\.parquet cannot be read") as refused:
        job.report_of(spark, path, raw())
    assert not refused.value.retry


@pytest.mark.spark
def test_a_damaged_file_in_one_of_the_four_folders_is_named_and_a_missing_folder_is_named(spark, job, tmp_path):
    folders = [*DECISION_FOLDERS.values()]
    for folder in folders:
        (tmp_path / folder).mkdir()
        corpus(tmp_path / folder, part={"text": texts(20)})
    assert job.report_of(spark, str(tmp_path), raw()).rows == 20 * len(folders)
    (tmp_path / folders[1] / "part.parquet").write_bytes(b"PAR1 is all that is left of it")
    with pytest.raises(UnreadableFile, match=rf"{folders[1]}/part\.parquet cannot be read"):
        job.report_of(spark, str(tmp_path), raw())
    (tmp_path / folders[1]).rename(tmp_path / "aside")
    with pytest.raises(CorpusError, match=f"is a filtered corpus without {folders[1]}/; run filter_corpus.py again"):
        job.report_of(spark, str(tmp_path), raw())


def test_a_report_for_another_file_system_is_refused_before_anything_is_read(job):
    given = Namespace(output="s3a://bucket/report.json", suite="none.yaml", reference=None, scored="none")
    with pytest.raises(InputError, match=r"the file is written on this machine; got s3a://bucket/report\.json"):
        job.main(given)
