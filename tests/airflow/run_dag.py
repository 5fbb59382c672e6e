"""Runs the example DAG for real, twice: once to its end, and once with the quality gate closed.

    .venv-airflow/bin/python tests/airflow/run_dag.py --python .venv/bin/python

Run it with a Python that has Airflow; `--python` is the one that has quality_judge with Spark and its engine.
It makes a corpus of about two hundred rows from the demo labels that the judge is not trained on. Airflow's home,
logs and everything written lie in a temporary folder. The last line on stdout is one JSON object; exit 0: both
runs ended as they should. It knows nothing of how the tasks do their work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quality_judge.programme import parser, run

ROOT = Path(__file__).resolve().parents[2]
DAG_FILE = ROOT / "jobs" / "dags" / "quality_judge_dag.py"
LABELLED = 200
# Every text begins with it, and it may stand in no log and no XCom.
MARKER = "Qzheliotrope."
ODD_ROWS = (None, "", " \n\t ")
# Quick, and not refused for what two hundred labels cannot show: whether it is a good judge is not asked here.
JUDGE = """\
name: airflow
base: sentence-transformers/all-MiniLM-L6-v2
max_tokens: 64
train: {method: frozen, below_baseline: allow}
"""
CLOSED_SUITE = """\
name: closed
expectations:
  - type: expect_column_pass_rate_to_be_between
    kwargs: {column: quality_code, pass_values: [OK], min_value: 1.0, max_value: 1.0}
    note: cannot hold, for the corpus has rows without text
"""
TO_PARQUET = "import sys, pyarrow.json as j, pyarrow.parquet as p; p.write_table(j.read_json(sys.argv[1]), sys.argv[2])"
ALL_DONE = {"train": "success", "score": "success", "validate": "success", "filter": "success"}
GATE_CLOSED = {"train": "success", "score": "success", "validate": "failed", "filter": "upstream_failed"}


def main(options: argparse.Namespace) -> dict[str, Any]:
    """Prepares, runs both, compares; returns the summary."""
    with tempfile.TemporaryDirectory(prefix="quality-judge-airflow-") as scratch:
        work = Path(options.keep or scratch).resolve()
        python = Path(options.python).absolute()
        rows = write_inputs(work, python)
        environment = airflow_environment(work, python)
        airflow(environment, "db", "migrate", log=work / "migrate.log")
        good = run_dag(work, environment, "good", {})
        closed = run_dag(work, environment, "closed", {"suite": str(work / "closed.yaml")})
    faults = [
        *(f"good: {fault}" for fault in faults_of(good, ALL_DONE, state="success", submitted=3, rows=rows)),
        *(f"closed: {fault}" for fault in faults_of(closed, GATE_CLOSED, state="failed", submitted=2, rows=None)),
    ]
    return {"ok": not faults, "message": "; ".join(faults), "corpus_rows": rows, "good": good, "closed": closed}


def write_inputs(work: Path, python: Path) -> int:
    """The number of corpus rows; writes labels, corpus, configuration and the suite that cannot hold."""
    work.mkdir(parents=True, exist_ok=True)
    labels = (ROOT / "conf" / "demo" / "labels.en.jsonl").read_text(encoding="utf-8").splitlines()
    (work / "labels.jsonl").write_text("\n".join(labels[::2][:LABELLED]) + "\n", encoding="utf-8")
    texts = [*(f"{MARKER} {json.loads(line)['completion']}" for line in labels[1::2][:LABELLED]), *ODD_ROWS]
    rows = [json.dumps({"id": number, "text": text}) for number, text in enumerate(texts)]
    (work / "corpus.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (work / "corpus").mkdir()
    subprocess.run([python, "-c", TO_PARQUET, work / "corpus.jsonl", work / "corpus" / "part-0.parquet"], check=True)
    (work / "judge.yaml").write_text(JUDGE, encoding="utf-8")
    (work / "closed.yaml").write_text(CLOSED_SUITE, encoding="utf-8")
    return len(rows)


def airflow_environment(work: Path, python: Path) -> dict[str, str]:
    """The environment of a fresh Airflow whose deployment and params are set by variables alone."""
    return {
        **os.environ,
        "AIRFLOW_HOME": str(work / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILE.parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(
            {"conn_type": "spark", "host": "local[2]", "extra": {"deploy-mode": "client"}}
        ),
        "PYTHONPATH": str(ROOT),
        "QUALITY_JUDGE_HOME": str(ROOT),
        "QUALITY_JUDGE_PYTHON": str(python),
        "QUALITY_JUDGE_SPARK_SUBMIT": str(python.parent / "spark-submit"),
        "QUALITY_JUDGE_LABELS": str(work / "labels.jsonl"),
        "QUALITY_JUDGE_CONFIG": str(work / "judge.yaml"),
        "QUALITY_JUDGE_CORPUS": str(work / "corpus"),
        "QUALITY_JUDGE_OUTPUT": str(work / "runs"),
    }


def run_dag(work: Path, environment: Mapping[str, str], name: str, conf: Mapping[str, str]) -> dict[str, Any]:
    """How one `airflow dags test` ended: states, tries, seconds, what was written, whether a log holds row text."""
    started = time.perf_counter()
    output = str(work / "runs" / name)
    arguments = ("dags", "test", "quality_judge", "-f", str(DAG_FILE), "-c", json.dumps({**conf, "output": output}))
    log = work / f"{name}.log"
    code = airflow(environment, *arguments, log=log, check=False)
    state, tasks = states(environment, work)
    written = sorted(str(path.relative_to(output)).partition("/")[2] for path in Path(output).glob("*/*"))
    logs = [log, *(path for path in (work / "airflow").rglob("*") if path.is_file())]
    return {
        "exit_code": code,
        "state": state,
        "tasks": tasks,
        "submitted": log.read_text(encoding="utf-8", errors="replace").count("Spark-Submit cmd: "),
        "written": written,
        "filtered_rows": filtered_rows(Path(output)),
        "leaks": sum(MARKER.encode() in path.read_bytes() for path in logs),
        "seconds": round(time.perf_counter() - started, 1),
    }


def filtered_rows(output: Path) -> int | None:
    """The rows of all four folders as their manifest counts them, or None when nothing was filtered."""
    for path in output.glob("*/filtered/_quality_manifest.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return sum(manifest[folder] for folder in ("kept", "review", "dropped", "unscored"))
    return None


def states(environment: Mapping[str, str], work: Path) -> tuple[str, dict[str, str]]:
    """The state of the newest run and of each of its tasks, as Airflow's own commands tell them."""
    runs = listed(environment, work, "dags", "list-runs", "quality_judge")
    newest = max(runs, key=lambda item: item["run_after"])
    tasks = listed(environment, work, "tasks", "states-for-dag-run", "quality_judge", newest["run_id"])
    return newest["state"], {task["task_id"]: task["state"] for task in tasks}


def listed(environment: Mapping[str, str], work: Path, *arguments: str) -> list[dict[str, str]]:
    """What an Airflow command lists as JSON on its last line; warnings may stand before it."""
    log = work / "listed.json"
    airflow(environment, *arguments, "--output", "json", log=log, stderr=subprocess.DEVNULL)
    return json.loads(log.read_text(encoding="utf-8").splitlines()[-1])


def airflow(
    environment: Mapping[str, str], *arguments: str, log: Path, check: bool = True, stderr: int = subprocess.STDOUT
) -> int:
    """The exit code of one Airflow command, its output in `log`."""
    command = [sys.executable, "-m", "airflow", *arguments]
    with log.open("wb") as out:
        return subprocess.run(command, env=dict(environment), stdout=out, stderr=stderr, check=check).returncode


def faults_of(
    ended: Mapping[str, Any], tasks: Mapping[str, str], *, state: str, submitted: int, rows: int | None
) -> list[str]:
    """What is not as it should be about one run; `submitted` counts spark-submits, so that a retry shows."""
    wanted = {
        "state": state,
        "tasks": dict(tasks),
        "submitted": submitted,
        "written": [".judge.receipt.json", *(["filtered"] if rows else []), "judge", "scored", "validation.json"],
        "filtered_rows": rows,
        "leaks": 0,
    }
    return [f"{name} is {ended[name]}, not {want}" for name, want in wanted.items() if ended[name] != want]


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--python", default=ROOT / ".venv" / "bin" / "python", help="Python that has quality_judge")
    arguments.add_argument("--keep", help="folder to work in and leave behind; a temporary one without it")
    options = arguments.parse_args()
    run(lambda: main(options))
