"""The operators with Airflow's own hook: only the programmes and spark-submit are stand-ins. Needs Airflow."""

import contextlib
import json
import re
import stat
import sys
import threading
import time
from types import SimpleNamespace

import pytest

# "airflow" itself would be found even without Airflow: this folder has that name.
pytest.importorskip("airflow.sdk", reason="Airflow is not installed; see `make airflow`")
pytest.importorskip("airflow.providers.apache.spark", reason="Airflow's Spark provider is not installed")

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from quality_judge.airflow.operators import FilterCorpus, SampleForLabels, ScoreCorpus, TrainJudge, ValidateCorpus

SAY = """\
import json, os, sys
print("a line of the programme's log " + "x" * 1000, file=sys.stderr, flush=True)
print("row text on stdout", flush=True)
if {summary!r}:
    pythons = [os.environ.get("PYSPARK_PYTHON"), os.environ.get("PYSPARK_DRIVER_PYTHON")]
    open({seen!r}, "w").write(json.dumps({{"argv": sys.argv, "pythons": pythons}}))
    print({summary!r}, flush=True)
print("26/01/01 INFO ShutdownHookManager: Shutdown hook called", file=sys.stderr)
sys.exit({code})
"""
DONE = json.dumps({"ok": True, "rows": 3, "judge": "a name", "roc_auc": 0.9})
MADE = json.dumps({"ok": True, "rows": 3, "fingerprint": "0123456789abcdef"})
BELOW_BASELINE = json.dumps({"ok": False, "fingerprint": "0123456789abcdef"})
CONFLICT = json.dumps({"ok": False, "error": "RunConflict", "message": "a run is writing this output", "retry": True})
CONTEXT = {"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)}
NOT_HELD = json.dumps({"ok": False, "message": "1 of 2 expectations do not hold"})
REFUSED = json.dumps({"ok": False, "message": "judge exists; a judge is never overwritten", "retry": False})


@pytest.fixture
def stand_in(tmp_path):
    """Writes a program that says `summary` and exits with `code`; returns it and where it puts what it was given."""

    def write(path, summary=DONE, code=0):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        body = SAY.format(summary=summary, seen=str(tmp_path / "seen.json"), code=code)
        path.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


def seen(tmp_path):
    return json.loads((tmp_path / "seen.json").read_text(encoding="utf-8"))


def validate(spark_submit):
    return ValidateCorpus(
        task_id="v", home="/h", python="/p", spark_binary=str(spark_submit), scored="s", suite="u.yaml", output_path="r"
    )


@pytest.mark.parametrize(
    ("operator", "given", "arguments"),
    [
        (ScoreCorpus, {"judge": "j", "input_path": "i", "output_path": "o"}, "--judge j --input i --output o"),
        (
            ScoreCorpus,
            {"judge": "j", "input_path": "i", "output_path": "o", "input_format": "csv", "text_column": "t",
             "prompt_column": "p"},
            "--judge j --input i --output o --format csv --text-column t --prompt-column p",
        ),
        (FilterCorpus, {"scored": "s", "policy": "p", "output_path": "o"}, "--scored s --policy p --output o"),
        (ValidateCorpus, {"scored": "s", "suite": "u", "output_path": "o"}, "--scored s --suite u --output o"),
        (
            SampleForLabels,
            {"scored": "s", "output_path": "o", "count": 50},
            "--scored s --count 50 --strategy uncertain --output o",
        ),
    ],
)  # fmt: skip
def test_a_job_is_submitted_with_its_arguments_and_its_python(tmp_path, stand_in, operator, given, arguments):
    spark_submit = stand_in("bin/spark-submit")
    task = operator(task_id="t", home="/h", python="/venv/bin/python", spark_binary=str(spark_submit), **given)
    assert task.execute({}) == {"ok": True, "rows": 3, "roc_auc": 0.9}
    command = seen(tmp_path)
    assert command["argv"][0] == str(spark_submit)
    assert " ".join(command["argv"]).endswith(f"/h/jobs/{operator.programme} {arguments}")
    assert command["pythons"] == ["/venv/bin/python", "/venv/bin/python"]


def test_templates_are_rendered_before_the_command_line_is_put_together(tmp_path, stand_in):
    task = FilterCorpus(
        task_id="t", home="{{ base }}/home", spark_binary="{{ base }}/spark-submit", scored="{{ base }}/scored",
        policy="p", output_path="{{ base }}/{{ day }}",
    )  # fmt: skip
    stand_in("spark-submit")
    task.render_template_fields({"base": str(tmp_path), "day": "20260102"})
    task.execute({})
    argv = seen(tmp_path)["argv"]
    assert argv[-7:] == [
        f"{tmp_path}/home/jobs/filter_corpus.py", "--scored", f"{tmp_path}/scored", "--policy", "p",
        "--output", f"{tmp_path}/20260102",
    ]  # fmt: skip


def test_every_field_of_every_operator_is_a_template():
    for operator in (ScoreCorpus, ValidateCorpus, FilterCorpus, SampleForLabels, TrainJudge):
        own = set(operator.__init__.__kwdefaults__ or {}) | set(operator.__init__.__annotations__)
        assert own - {"return", "kwargs"} <= set(operator.template_fields), operator.__name__


def test_a_closed_gate_fails_the_task_for_good_and_says_why(stand_in):
    with pytest.raises(AirflowFailException, match=r"check did not hold \(exit 1\): 1 of 2 expectations"):
        validate(stand_in("spark-submit", NOT_HELD, 1)).execute({})


def test_bad_input_fails_the_task_for_good(stand_in):
    with pytest.raises(AirflowFailException, match=r"bad input or arguments \(exit 2\)"):
        validate(stand_in("spark-submit", "", 2)).execute({})


@pytest.mark.parametrize("code", [1, 137])
def test_a_job_that_died_without_a_word_may_be_tried_again(stand_in, code):
    with pytest.raises(AirflowException, match=rf"before its work did \(exit {code}\)") as raised:
        validate(stand_in("spark-submit", "", code)).execute({})
    assert not isinstance(raised.value, AirflowFailException)


def test_a_job_that_met_another_run_may_be_tried_again_and_says_why(stand_in):
    with pytest.raises(AirflowException, match="a run is writing this output") as raised:
        validate(stand_in("spark-submit", CONFLICT, 1)).execute({})
    assert not isinstance(raised.value, AirflowFailException)


def train(home, **given):
    return TrainJudge(**{"task_id": "t", "home": str(home), "python": sys.executable, "output_path": "judge", **given})


def test_training_gets_every_argument(tmp_path, stand_in):
    stand_in("training/train_judge.py")
    task = train(
        tmp_path, labels="a.jsonl\n b.jsonl\n", test_labels=["t.jsonl"], config="c.yaml", unlabelled="corpus",
        settings={"train.epochs": "1", "name": "x"},
    )  # fmt: skip
    assert task.execute(CONTEXT) == {"ok": True, "rows": 3, "roc_auc": 0.9}
    assert seen(tmp_path)["argv"][1:] == [
        "--config", "c.yaml", "--labels", "a.jsonl", "b.jsonl", "--test-labels", "t.jsonl", "--unlabelled",
        "corpus", "--output", "judge",
        "--set", "train.epochs=1", "--set", "name=x",
    ]  # fmt: skip


def test_training_leaves_to_the_programme_what_is_left_empty(tmp_path, stand_in):
    stand_in("training/train_judge.py")
    train(tmp_path, labels=["a.jsonl"]).execute(CONTEXT)
    assert seen(tmp_path)["argv"][1:] == ["--labels", "a.jsonl", "--output", "judge"]


def test_training_logs_its_stderr_cut_and_nothing_of_its_stdout(tmp_path, stand_in, capfd):
    stand_in("training/train_judge.py")
    train(tmp_path, labels=["a.jsonl"]).execute(CONTEXT)
    logged = capfd.readouterr()
    log = logged.out + logged.err
    assert "a line of the programme's log xxx" in log
    assert max(map(len, re.findall("x+", log))) < 500
    assert "row text" not in log


@pytest.mark.parametrize(
    ("summary", "code", "final"),
    [
        (NOT_HELD, 1, True), ("", 2, True), ("", 1, False), ("", 0, False), ("", -9, False), (CONFLICT, 1, False),
        (NOT_HELD, 143, False), (DONE, -11, False),
    ],
)  # fmt: skip
def test_training_that_failed_is_retried_only_when_it_crashed(tmp_path, stand_in, summary, code, final):
    script = stand_in("training/train_judge.py", summary, code if code >= 0 else 0)
    if code < 0:
        script.write_text(script.read_text().replace("sys.exit(0)", f"os.kill(os.getpid(), {-code})"))
    with pytest.raises(AirflowException) as raised:
        train(tmp_path, labels=["a.jsonl"]).execute(CONTEXT)
    assert isinstance(raised.value, AirflowFailException) is final


@pytest.fixture
def python(tmp_path):
    """A Python to which every folder is a whole judge with the fingerprint of `MADE`."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo 0123456789abcdef && exit\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("code", [0, 139])
def test_training_that_is_run_again_after_its_judge_was_made_is_done_at_once(tmp_path, stand_in, python, code):
    stand_in("training/train_judge.py", MADE, code)
    task = train(tmp_path, python=python, labels=["a.jsonl"], output_path=str(tmp_path / "judge"))
    with contextlib.suppress(AirflowException):
        task.execute(CONTEXT)
    stand_in("training/train_judge.py", REFUSED, 2)
    assert task.execute(CONTEXT) == {"ok": True, "rows": 3, "made_before": True}


@pytest.mark.parametrize("change", ["rubric", "rubric by setting", "corpus"])
def test_a_judge_made_by_another_rubric_or_corpus_is_not_taken_for_done(tmp_path, stand_in, python, change):
    for name in ("rubric.yaml", "other.yaml", "rows.jsonl"):
        (tmp_path / name).write_text("one")
    (tmp_path / "judge.yaml").write_text("name: mine\nrubric: rubric.yaml\n")
    given = {"settings": {"rubric": str(tmp_path / "other.yaml")}} if change == "rubric by setting" else {}
    task = train(
        tmp_path, python=python, labels=["a.jsonl"], output_path=str(tmp_path / "judge"), **given,
        config=str(tmp_path / "judge.yaml"), unlabelled=str(tmp_path / "rows.jsonl"),
    )  # fmt: skip
    stand_in("training/train_judge.py", MADE)
    task.execute(CONTEXT)
    stand_in("training/train_judge.py", REFUSED, 2)
    assert task.execute(CONTEXT)["made_before"] is True
    changed = {"rubric": "rubric.yaml", "rubric by setting": "other.yaml", "corpus": "rows.jsonl"}[change]
    (tmp_path / changed).write_text("another")
    with pytest.raises(AirflowFailException, match="never overwritten"):
        task.execute(CONTEXT)


@pytest.mark.parametrize("first", [(BELOW_BASELINE, 1), ("", 137)])
def test_a_judge_of_a_training_that_failed_is_not_taken_for_done(tmp_path, stand_in, python, first):
    task = train(tmp_path, python=python, labels=["a.jsonl"], output_path=str(tmp_path / "judge"))
    for summary, code in (first, (REFUSED, 2)):
        stand_in("training/train_judge.py", summary, code)
        with pytest.raises(AirflowException):
            task.execute(CONTEXT)


def test_ending_the_task_ends_the_training(tmp_path):
    script = tmp_path / "training" / "train_judge.py"
    script.parent.mkdir()
    script.write_text(f"import pathlib, time; pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(60)")
    task = train(tmp_path, labels=["a.jsonl"])

    def kill_when_up():
        while not (tmp_path / "up").exists():
            time.sleep(0.05)
        task.on_kill()

    threading.Thread(target=kill_when_up, daemon=True).start()
    with pytest.raises(AirflowException, match="exit -15"):
        task.execute(CONTEXT)
