"""A standalone cluster of real processes whose worker declares four GPUs: who gets which, and the scores are the same.

The addresses are made up, with no CUDA behind them: tested is who is given what, not what a GPU computes.
"""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.archive import pack_judge
from quality_judge.judge import load_judge, sha256_of
from quality_judge.scores import SCORED_COLUMNS

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).resolve().parent / "cluster" / "driver.py"
ADDRESSES = ["0", "1", "2", "3"]
ROWS = 60
WAIT_SECONDS = 60
MASTER, WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A SPARK_HOME of links, so that nothing is written into the installed package."""
    spec = find_spec("pyspark")
    installed = Path(spec.origin).parent if spec else None
    if installed is None or not (installed / "bin" / "spark-class").is_file():
        pytest.skip("pyspark is installed without spark-class")
    folder = tmp_path_factory.mktemp("home")
    for name in ("bin", "jars", "python", "sbin"):
        (folder / name).symlink_to(installed / name)
    return folder


@contextmanager
def started(home, log, *command):
    """A Spark daemon; gives what its log says under `(?P<found>…)` of the first of `command`."""
    pattern, *words = command
    environment = {
        **os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable,
    }  # fmt: skip
    with log.open("wb") as out:
        daemon = subprocess.Popen([home / "bin" / "spark-class", *words], env=environment, stdout=out, stderr=out)
    try:
        yield logged(daemon, log, pattern)
    finally:
        daemon.terminate()
        daemon.wait(30)


def logged(daemon, log, pattern):
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until and daemon.poll() is None:
        if said := re.search(pattern, log.read_text(encoding="utf-8", errors="replace")):
            return said["found"]
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace")[-2000:])


@pytest.fixture(scope="module")
def master(home, tmp_path_factory):
    """The address of a master with one worker that declares the GPUs."""
    folder = tmp_path_factory.mktemp("cluster")
    discovery, properties = folder / "discovery.sh", folder / "worker.conf"
    discovery.write_text(f"#!/bin/sh\necho '{json.dumps({'name': 'gpu', 'addresses': ADDRESSES})}'\n", encoding="utf-8")
    discovery.chmod(0o755)
    properties.write_text(
        f"spark.worker.resource.gpu.amount {len(ADDRESSES)}\nspark.worker.resource.gpu.discoveryScript {discovery}\n",
        encoding="utf-8",
    )
    here = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
    room = ["--cores", str(len(ADDRESSES)), "--memory", "3g", "--work-dir", folder / "work"]
    at_master = r"Starting Spark master at (?P<found>spark://\S+)"
    with started(home, folder / "master.log", at_master, MASTER, *here) as address:
        words = [WORKER, *here, *room, "--properties-file", properties, address]
        with started(home, folder / "worker.log", r"(?P<found>Successfully registered with master)", *words):
            yield address


@pytest.fixture(scope="module")
def driven(home, master, judge, texts, tmp_path_factory):
    """A function from a word of cluster/driver.py to what that wrote after its run."""

    def drive(word):
        folder = tmp_path_factory.mktemp(word)
        rows = pa.table(
            {"id": range(ROWS), "text": pa.array(given(texts), pa.binary()), "of id": [ROWS * ["x"]] * ROWS}
        )
        pq.write_table(rows, folder / "rows.parquet")
        packed = pack_judge(judge, folder / "judge.zip")
        command = [sys.executable, DRIVER, word, master, packed, folder / "rows.parquet", folder / "said.json"]
        environment = {
            **os.environ, "SPARK_HOME": str(home), "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable,
            "QUALITY_JUDGE_CACHE": str(folder / "cache of the driver"),
        }  # fmt: skip
        words = [*map(str, command), str(folder / "node")]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
        found = json.loads((folder / "said.json").read_text(encoding="utf-8"))
        return found | {"node": folder / "node", "packed": packed}

    return drive


@pytest.fixture(scope="module")
def said(driven):
    """A job that asks for a GPU for every task."""
    return driven("tasks")


@pytest.fixture(scope="module")
def staged(driven):
    """A job that asks for no GPU; its scoring stages ask for half of one."""
    return driven("stage")


def given(texts):
    return [text.encode() if isinstance(text, str) else text for text in texts[:ROWS]]


@pytest.mark.slow
def test_a_task_uses_the_gpu_that_spark_gave_it_and_no_two_executors_share_one(said):
    assert {task["device"] for task in said["tasks"]} <= {f"cuda:{address}" for address in ADDRESSES}
    assert all([task["device"]] == [f"cuda:{address}" for address in task["addresses"]] for task in said["tasks"])
    pairs = {(task["executor"], task["device"]) for task in said["tasks"]}
    assert len(pairs) == len({executor for executor, _ in pairs}) == len({device for _, device in pairs}) == 3
    assert sum(task["rows"] for task in said["tasks"]) == len(said["tasks"]) * 5
    assert {task["gpus"] for task in said["tasks"]} == {1.0}


@pytest.mark.slow
def test_neither_the_driver_nor_a_daemon_has_loaded_torch_after_scoring(said):
    assert not said["torch_in_driver"]
    assert not any(task["torch_in_daemon"] for task in said["tasks"])


@pytest.mark.slow
def test_scores_of_a_cluster_are_those_of_one_process_to_the_last_bit(said, scorer, texts):
    expected = scorer.score(pa.array(given(texts), pa.large_binary()))
    found = sorted(said["rows"], key=lambda row: row["id"])
    assert [row["code"] for row in found] == expected.codes()
    wanted = [None if raw != raw else float(raw).hex() for raw in expected.raw]
    assert [None if row["raw"] is None else row["raw"].hex() for row in found] == wanted


@pytest.mark.slow
def test_executors_that_see_no_folder_of_the_driver_unpack_the_judge_once_for_the_node(said, judge):
    digest = sha256_of(said["packed"])
    assert sorted(path.name for path in said["node"].iterdir()) == [f"{digest}.judge", f"{digest}.lock"]
    assert load_judge(said["node"] / f"{digest}.judge").fingerprint == judge.fingerprint
    assert len({task["executor"] for task in said["tasks"]}) == 3


@pytest.mark.slow
def test_only_the_stage_that_scores_asks_for_gpus_and_two_of_its_tasks_share_one(staged):
    (scoring,) = [stage for stage in staged["stages"] if stage["own"]]
    assert scoring["written"] == ROWS
    others = [stage for stage in staged["stages"] if not stage["own"]]
    assert sum(stage["read"] for stage in others) >= ROWS  # they count what came in, and what was written
    assert not any(stage["written"] for stage in others)
    assert len({task["device"] for task in staged["tasks"]}) == 1
    assert all([task["device"]] == [f"cuda:{address}" for address in task["addresses"]] for task in staged["tasks"])


@pytest.mark.slow
def test_a_stage_that_asks_for_gpus_gives_the_bits_of_one_process_and_keeps_every_column(staged, scorer, texts):
    expected = scorer.score(pa.array(given(texts), pa.large_binary()))
    table = pq.read_table(staged["scored"]).sort_by("id")
    assert table.column_names == ["id", "text", "of id", *SCORED_COLUMNS]
    found = table.to_pylist()
    assert [row["quality_code"] for row in found] == expected.codes()
    wanted = [None if raw != raw else float(raw).hex() for raw in expected.raw]
    assert [None if row["quality_raw"] is None else row["quality_raw"].hex() for row in found] == wanted
    assert [row["text"] for row in found] == given(texts)
    assert {tuple(row["of id"]) for row in found} == {("x",) * ROWS}


@pytest.mark.slow
def test_a_judge_that_came_as_an_archive_is_read_where_spark_unpacked_it_for_the_executor(staged):
    assert staged["by_archive"] == 5
    assert not staged["node"].exists()  # nothing was sent beside it


@pytest.mark.parametrize("variant", ["gpu-yarn.conf", "gpu-k8s.conf"])
def test_the_settings_for_yarn_and_kubernetes_have_no_error(variant):
    from quality_judge.spark.doctor import examine, read_properties

    settings = read_properties(ROOT / "conf/spark/gpu.conf") | read_properties(ROOT / "conf/spark" / variant)
    master = {"gpu-yarn.conf": "yarn", "gpu-k8s.conf": "k8s://https://host:443"}[variant]
    assert [finding for finding in examine(settings | {"spark.master": master}) if finding.severity == "error"] == []
