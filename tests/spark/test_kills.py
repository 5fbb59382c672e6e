"""kill -9 at any step of a run: the old output stands, the next run goes on, and the result is the undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTY = Path(__file__).resolve().parent / "faulty"
SHARDS = 10
ROWS = 200
KILLED = -9
POINTS = {  # where the run is killed: rows that may be scored again because of it, in shards
    "planning": "quality_judge.spark.run:cut:before:1",
    "planned, the input rewritten": "quality_judge.spark.run:cut:after:1",
    "10%": "quality_judge.spark.shards:_written:after:1",
    "50%": "quality_judge.spark.shards:_written:after:4",
    "90%": "quality_judge.spark.shards:_written:after:4",
    "99%": "quality_judge.spark.run:gather:before:1",
    "gathering": "quality_judge.spark.places:Place.moved:after:7",
    "before the switch": "quality_judge.spark.publish:switch:before:1",
    "after the switch": "quality_judge.spark.publish:switch:after:1",
}


SOAK = int(os.environ.get("QUALITY_JUDGE_SOAK", "0"))  # kill -9 at that many moments drawn by chance; `make soak`


def text_of(i):
    return f"Water boils at a lower temperature on mountain number {i} because the air presses less. " * (1 + i % 5)


def table_of(rows):
    return pa.table({"id": range(rows), "text": [text_of(i) for i in range(rows)]})


def scored_in_a_process(judge, corpus, output, *options, kill=None):
    command = [sys.executable, ROOT / "jobs/score_corpus.py", "--judge", judge.folder, "--input", corpus]
    command += ["--output", output, "--shards", SHARDS, *options]
    environment = {**os.environ, "PYTHONPATH": f"{FAULTY}{os.pathsep}{ROOT}"} | ({"FAULTS_KILL": kill} if kill else {})
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=300)


def content(folder):
    return sorted(json.dumps(row, sort_keys=True) for row in pq.read_table(folder).to_pylist())


class Reader(threading.Thread):
    """Reads a table over and over until it is stopped; `seen` holds the rows of every whole reading."""

    def __init__(self, spark, output):
        super().__init__(daemon=True)
        self.spark, self.output, self.ended = spark, output, threading.Event()
        self.seen, self.failed = [], []

    def run(self):
        while not self.ended.wait(0.25):  # a reader without a pause takes one of two cores from the runs
            try:
                self.seen.append(self.spark.read.parquet(str(self.output)).count())
            except Exception as error:
                self.failed.append(str(error)[:300])

    def stop(self):
        self.ended.set()
        self.join()


@pytest.mark.slow
def test_whatever_the_moment_of_kill_9_the_next_run_ends_with_the_undisturbed_result(spark, judge, run_job, tmp_path):
    corpus, output = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    pq.write_table(table_of(20), corpus / "rows.parquet")
    assert run_job("score_corpus", judge=judge.folder, input=corpus, output=output)[0] == 0
    old = content(output)
    pq.write_table(table_of(ROWS), corpus / "rows.parquet")
    code, undisturbed, _ = run_job("score_corpus", judge=judge.folder, input=corpus, output=tmp_path / "calm")
    assert (code, undisturbed["rows"]) == (0, ROWS)
    reader = Reader(spark, output)
    reader.start()
    left = {}
    for name, kill in POINTS.items():
        done = scored_in_a_process(judge, corpus, output, kill=kill)
        assert done.returncode == KILLED, f"{name}: {done.stderr[-2000:]}"
        assert content(output) == (content(tmp_path / "calm") if name == "after the switch" else old), name
        left[name] = len(list(tmp_path.glob(".out.run-*/receipts/*.json")))
    done = scored_in_a_process(judge, corpus, output)
    reader.stop()
    said = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, said["rows"], said["shards"]) == (0, ROWS, SHARDS), done.stderr[-2000:]
    assert content(output) == content(tmp_path / "calm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calm", "corpus", "out"]
    assert (left["planning"], left["99%"]) == (0, SHARDS)
    assert 1 <= left["10%"] <= 2
    assert 5 <= left["50%"] <= 7
    assert left["90%"] >= 9
    assert set(reader.seen) == {20, ROWS}
    assert len(reader.seen) >= 200
    assert len(reader.failed) <= 1, reader.failed  # it listed the old files and opened them after the one switch


@pytest.mark.slow
def test_a_run_goes_on_after_a_full_disk_and_the_old_output_stands_meanwhile(spark, judge, run_job, tmp_path):
    corpus, output = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    noise = [os.urandom(6000).hex() for _ in range(600)]
    pq.write_table(pa.table({"text": noise[:10]}), corpus / "rows.parquet")
    assert run_job("score_corpus", judge=judge.folder, input=corpus, output=output)[0] == 0
    old = content(output)
    pq.write_table(pa.table({"text": noise}), corpus / "rows.parquet")
    command = f"ulimit -f 1000; exec {sys.executable} {ROOT}/jobs/score_corpus.py --judge {judge.folder}"
    done = subprocess.run(
        ["bash", "-c", f"{command} --input {corpus} --output {output} --shards 1"], capture_output=True, text=True,
        timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode in (1, 2), done.stderr[-2000:]
    assert not said["ok"]
    assert content(output) == old
    assert run_job("score_corpus", judge=judge.folder, input=corpus, output=output, shards=1)[0] == 0
    assert sorted(row["text"] for row in pq.read_table(output).to_pylist()) == sorted(noise)


@pytest.fixture
def small_disk(tmp_path):
    """A folder that is a disk of its own, of 4 MB, and a function from a number to a disk of so many."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("a disk of 4 MB cannot be mounted here")
    yield folder, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}m", folder], check=True)
    subprocess.run(["umount", "--lazy", folder], check=True)  # a cancelled task may still hold a file open


@pytest.mark.skipif(not SOAK, reason="make soak; that such shards outlive any failure is tested in test_faults.py")
def test_shards_that_were_finished_before_the_disk_was_full_are_not_scored_again(
    judge, run_job, tmp_path, small_disk, monkeypatch
):
    monkeypatch.setattr("quality_judge.spark.shards.AT_ONCE", 1)  # else the last shard takes the space of the others
    corpus, (disk, resize) = tmp_path / "corpus", small_disk
    corpus.mkdir()
    noise = [os.urandom(30_000).hex() for _ in range(80)]
    for i in range(5):
        pq.write_table(pa.table({"text": noise[i::5]}), corpus / f"{i}.parquet", compression="none")
    where = {"judge": judge.folder, "input": corpus, "output": disk / "out"}
    code, said, _ = run_job("score_corpus", **where, shards=5)
    assert (code, said["error"]) == (2, "CorpusError")
    assert "the space left" in said["message"]
    assert len(list(disk.glob(".out.run-*/receipts/*.json"))) == 4
    resize(64)
    code, said, _ = run_job("score_corpus", **where, shards=5)
    assert (code, said["shards_reused"]) == (0, 4)
    assert sorted(row["text"] for row in pq.read_table(disk / "out").to_pylist()) == sorted(noise)


def process_tree(pid):
    """(pid, command line) of every process below `pid`."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):  # those of each thread: a JVM starts them from many
        with suppress(OSError):  # gone meanwhile
            for child in children.read_text().split():
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found += [(int(child), command), *process_tree(int(child))]
    return found


@pytest.mark.slow
def test_an_executor_that_is_killed_costs_no_row(judge, tmp_path):
    """On a cluster of two executor processes, one of which gets SIGKILL while it scores."""
    home, corpus, output = tmp_path / "home", tmp_path / "corpus", tmp_path / "out"
    rows = 600  # an executor is seen at its second shard before that ends
    home.mkdir()
    corpus.mkdir()
    installed = Path(find_spec("pyspark").origin).parent
    for name in ("bin", "jars", "python", "sbin"):
        (home / name).symlink_to(installed / name)
    pq.write_table(table_of(rows), corpus / "rows.parquet")
    settings = {"spark.executorEnv.PYTHONPATH": ROOT, "spark.ui.enabled": "false", "spark.log.level": "ERROR"}
    words = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    submit = ["--master", "local-cluster[2,1,1024]", *words, "pyspark-shell"]
    command = [sys.executable, ROOT / "jobs/score_corpus.py", "--judge", judge.folder, "--input", corpus]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": " ".join(submit), "SPARK_LOCAL_IP": "127.0.0.1",
    }  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as stderr:
        run = subprocess.Popen(
            [*map(str, command), "--output", str(output), "--shards", "4"], env=environment, stdout=subprocess.PIPE,
            stderr=stderr, text=True,
        )  # fmt: skip
    try:
        executor = executor_that_scores(run, tmp_path)
        os.kill(executor, signal.SIGKILL)
        out, _ = run.communicate(timeout=300)
    finally:
        run.kill()
    said = json.loads(out.splitlines()[-1])
    assert (run.returncode, said["rows"]) == (0, rows), log.read_text()[-3000:]
    assert sorted(pq.read_table(output).column("id").to_pylist()) == [*range(rows)]


def executor_that_scores(run, folder):
    """An executor's process, as soon as one shard stands and its Python worker is at work on the next."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert run.poll() is None, "the run ended before an executor could be killed"
        if list(folder.glob(".out.run-*/receipts/*.json")):
            executors = [pid for pid, command in process_tree(run.pid) if "CoarseGrainedExecutorBackend" in command]
            working = [pid for pid in executors if any("pyspark.worker" in line for _, line in process_tree(pid))]
            if working:
                return working[0]
        time.sleep(0.05)
    raise AssertionError("no executor scored")


@pytest.mark.skipif(not SOAK, reason="make soak")
def test_soak_kill_9_at_any_moment(spark, judge, run_job, tmp_path):
    """Each run is killed at a moment drawn by chance; every third is left to its end and must be undisturbed."""
    corpus, output, chance = tmp_path / "corpus", tmp_path / "out", random.Random(5)
    corpus.mkdir()
    pq.write_table(table_of(ROWS), corpus / "rows.parquet")
    assert run_job("score_corpus", judge=judge.folder, input=corpus, output=tmp_path / "calm")[0] == 0
    calm, killed, seconds = content(tmp_path / "calm"), 0, 40.0
    while killed < SOAK:
        for _ in range(2):
            killed += killed_at(judge, corpus, output, chance.uniform(0.1, 1.0) * seconds)
            assert not output.exists() or content(output) == calm
        began = time.monotonic()
        done = scored_in_a_process(judge, corpus, output)
        seconds = max(10.0, time.monotonic() - began)
        assert done.returncode == 0, done.stderr[-2000:]
        assert content(output) == calm
        assert sorted(path.name for path in tmp_path.iterdir()) == ["calm", "corpus", "out"]


def killed_at(judge, corpus, output, seconds):
    """Whether the run was still going after `seconds`; it is killed then, and its JVM dies with it."""
    command = [sys.executable, ROOT / "jobs/score_corpus.py", "--judge", judge.folder, "--input", corpus]
    run = subprocess.Popen(
        [*map(str, command), "--output", str(output), "--shards", str(SHARDS)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        run.kill()
    return run.wait() == KILLED
