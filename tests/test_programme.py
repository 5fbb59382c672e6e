"""Whatever happens to a programme, its last line on stdout is JSON, its exit code says which kind; no row is shown."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quality_judge.airflow.outcome import Outcome

ROOT = Path(__file__).resolve().parents[1]
CANARY = "canary-078-05-1120"
SCRIPT = """
import sys, time
from quality_judge.programme import parser, run
from quality_judge.errors import CheckFailed, CorpusError, RunConflict, SparkFailed
def main(kind):
    row = "{canary}"
    if kind == "fine": return {{"rows": 1}}
    if kind == "no": return {{"ok": False}}
    if kind == "sleep":
        print("asleep", file=sys.stderr, flush=True)
        time.sleep(60)
    if kind == "nan": return {{"x": float("nan")}}
    if kind == "chain":
        try: int(row)
        except ValueError as error: raise RuntimeError(row) from error
    ours = {{"check": CheckFailed, "conflict": RunConflict, "input": CorpusError, "spark": SparkFailed}}
    if kind in ours: raise ours[kind]("refused")
    if kind == "connection": raise ConnectionResetError(row)
    raise {{"key": KeyError, "type": TypeError, "memory": MemoryError, "recursion": RecursionError}}[kind](row)
arguments = parser("a programme")
arguments.add_argument("--kind", choices={choices!r}, required=True)
arguments.add_argument("--count", type=int)
options = arguments.parse_args()
run(lambda: main(options.kind))
"""
CHOICES = [
    "fine", "no", "sleep", "nan", "chain", "check", "conflict", "input", "spark", "key", "type", "memory", "recursion",
    "connection",
]  # fmt: skip


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("programme") / "programme.py"
    path.write_text(SCRIPT.format(canary=CANARY, choices=CHOICES))
    return path


def started(script, *options):
    return subprocess.Popen(
        [sys.executable, script, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        (["--kind", "fine"], 0, None), (["--kind", "no"], 1, None), (["--kind", "check"], 1, "CheckFailed"),
        (["--kind", "conflict"], 1, "RunConflict"), (["--kind", "input"], 2, "CorpusError"),
        (["--kind", "key"], 2, "KeyError"), (["--kind", "chain"], 2, "RuntimeError"),
        (["--kind", "memory"], 2, "MemoryError"), (["--kind", "recursion"], 2, "RecursionError"),
        (["--kind", "nan"], 2, "ValueError"),
        ([], 2, "ArgumentError"), (["--kind", "never"], 2, "ArgumentError"), (["--what"], 2, "ArgumentError"),
        (["--kind", "fine", "--count", "x"], 2, "ArgumentError"), (["--kin", "fine"], 2, "ArgumentError"),
    ],
)  # fmt: skip
def test_every_end_is_one_line_of_json_and_a_code(script, options, code, error):
    process = started(script, *options)
    out, shown = process.communicate(timeout=60)
    said = json.loads(out.splitlines()[-1])
    assert (process.returncode, said.get("error")) == (code, error)
    assert said["ok"] is (code == 0)
    assert len(out.splitlines()) == 1
    assert CANARY not in out + shown


@pytest.mark.parametrize(
    ("options", "final"),
    [
        (["--kind", "no"], True), (["--kind", "check"], True), (["--kind", "input"], True), (["--what"], True),
        (["--kind", "conflict"], False), (["--kind", "spark"], False), (["--kind", "memory"], False),
        (["--kind", "connection"], False),
    ],
)  # fmt: skip
def test_a_scheduler_is_told_what_another_try_cannot_change(script, options, final):
    process = started(script, *options)
    out, _ = process.communicate(timeout=60)
    assert Outcome("programme.py", process.returncode, json.loads(out)).final is final


def test_a_fault_says_where_it_was_raised_and_not_what_it_says(script):
    process = started(script, "--kind", "type")
    out, shown = process.communicate(timeout=60)
    line = next(i for i, text in enumerate(SCRIPT.splitlines(), 1) if "TypeError" in text)
    assert f"programme.py:{line} in main" in json.loads(out)["message"]
    assert "programme.py" in shown
    assert CANARY not in out + shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_programme_that_is_asked_to_end_says_so(script, number, code):
    process = started(script, "--kind", "sleep")
    assert process.stderr.readline() == "asleep\n"
    time.sleep(0.1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    said = json.loads(out)
    assert said["error"] == "Interrupted"
    assert said["retry"] is True
