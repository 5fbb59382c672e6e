"""Workers are forks of a daemon that holds what scoring imports; they share its pages and inherit nothing that runs."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pyspark import cloudpickle

from quality_judge.spark.session import DAEMON, DAEMON_SETTING, given_settings

LOOK = """
import os, sys
from quality_judge.spark_daemon import share_imports
share_imports()
import torch
print(len(os.listdir("/proc/self/task")), torch.cuda.is_initialized(), *({"pyarrow", "pandas"} & set(sys.modules)))
"""


FORK = """
import os, sys
from quality_judge.spark_daemon import share_imports
share_imports()
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
import numpy, pyarrow, torch
print(*(float((ones @ ones)[0, 0]) for ones in (numpy.ones((500, 500)), torch.ones(500, 500))))
sys.stdout.flush()
os._exit(0)
"""


def private_mb():
    """What this process shares with no other."""
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def seen_by_a_worker(batches):
    """Whether torch was there before the worker asked, and by how many MB of its own it grows when it does."""
    imported, before = "torch" in sys.modules, private_mb()
    import torch
    import transformers.modeling_utils  # noqa: F401

    for _ in batches:
        yield pd.DataFrame({
            "imported": [imported], "grown": [private_mb() - before], "parent": [os.getppid()],
            "initialised": [torch.cuda.is_initialized()],
        })  # fmt: skip


def apart_from_a_worker(folder):
    """A function for workers: whether a process apart had torch before it was asked to do anything."""

    def asked(batches):
        from quality_judge.nursery import apart

        sys.path.insert(0, folder)
        process = apart("looks", ["torch"])
        found = process.line.recv(10)
        process.end()
        sys.path.remove(folder)
        for _ in batches:
            yield pd.DataFrame({"found": [found.decode()]})

    return asked


def test_a_process_apart_of_a_worker_is_forked_with_torch_imported(spark, tmp_path):
    (tmp_path / "looks.py").write_text(
        "import os, sys\ndef serve(name): os.write(1, str(name in sys.modules).encode())\n"
    )
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    asked = apart_from_a_worker(str(tmp_path))
    assert spark.range(1).coalesce(1).mapInPandas(asked, "found string").first()["found"] == "True"


def test_a_worker_that_scores_finds_torch_imported_and_pays_for_none_of_its_pages(spark):
    assert spark.conf.get(DAEMON_SETTING) == DAEMON
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    schema = "imported boolean, grown double, parent long, initialised boolean"
    (found,) = spark.range(1).coalesce(1).mapInPandas(seen_by_a_worker, schema).collect()
    assert found.imported
    assert found.grown < 20  # some 250 without
    assert "quality_judge.spark_daemon" in Path(f"/proc/{found.parent}/cmdline").read_text()
    assert not found.initialised


def test_the_daemon_holds_no_thread_no_gpu_and_nothing_that_starts_threads():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_a_fork_of_a_daemon_whose_tasks_have_several_cores_computes():
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "500.0 500.0\n"), done.stderr[-500:]


def test_where_there_is_a_gpu_every_worker_imports_for_itself(tmp_path):
    (tmp_path / "a-gpu").touch()
    command = f"import sys, quality_judge.spark_daemon as daemon; daemon.GPU_DEVICES = ({str(tmp_path / 'a-gpu')!r},)"
    command += "; daemon.share_imports(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_where_the_import_fails_the_daemon_starts_all_the_same(tmp_path):
    (tmp_path / "torch.py").write_text("print('on stdout'); raise OSError('no such library')")
    command = "from quality_judge.spark_daemon import share_imports; share_imports(); print('started')"
    done = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "started\n"


@pytest.mark.parametrize("option", ["--py-files", "--master", "--driver-memory"])
def test_what_the_launcher_was_told_is_known_by_its_setting(monkeypatch, option):
    setting = {"--py-files": "spark.submit.pyFiles", "--master": "spark.master"}.get(option, "spark.driver.memory")
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"{option} value pyspark-shell")
    assert setting in given_settings()


@pytest.mark.parametrize(
    "options", ['--conf "spark.speculation=true"', "--conf=spark.speculation=true", "--properties-file {}"]
)
def test_what_the_launcher_was_told_is_known_in_every_spelling(monkeypatch, tmp_path, options):
    (tmp_path / "own.conf").write_text("# ours\nspark.speculation  true\n")
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"{options.format(tmp_path / 'own.conf')} pyspark-shell")
    assert "spark.speculation" in given_settings()
