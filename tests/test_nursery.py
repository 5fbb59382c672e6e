"""A process apart is a fork of what has imported everything, where there is a nursery; it can always be ended."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux has pidfds")
SERVED = """
import json, os, sys, time

def serve(*arguments):
    said = {"arguments": arguments, "added": os.environ.get("ADDED"), "pid": os.getpid(), "parent": os.getppid()}
    os.write(1, json.dumps(said | {"fork": hasattr(sys, "imported")}).encode())
    while os.read(0, 1) == b"again":
        pass
    time.sleep(60 if "hang" in arguments else 0)

if __name__ == "__main__":
    serve(*sys.argv[1:])
"""
ASKS = """
import json, os, signal, sys, time
from quality_judge.nursery import apart, open_nursery

def asked(*arguments):
    process = apart("served", arguments)
    return process, json.loads(process.line.recv(10_000))

def there(pid):
    return os.path.exists(f"/proc/{pid}") and " Z " not in open(f"/proc/{pid}/stat").read()

def gone(pid):
    until = time.monotonic() + 10
    while there(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not there(pid)

sys.imported = True
open_nursery()
os.environ["ADDED"] = "here \\udcff 水"
sys.path.insert(0, sys.argv[1])
"""


@pytest.fixture
def answer(tmp_path):
    """A function from the end of a script that opened a nursery to what it prints as JSON."""
    (tmp_path / "served.py").write_text(SERVED, encoding="utf-8")

    def call(script):
        done = subprocess.run(
            [sys.executable, "-c", ASKS + script, tmp_path], capture_output=True, text=True, timeout=100,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return call


def gone(pid):
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()


def test_a_fork_has_what_was_imported_and_the_environment_and_search_path_of_who_asks(answer):
    said = answer("print(json.dumps([asked('a', 'b 水')[1], asked()[1], os.getpid()]))")
    first, second, asking = said
    assert (first["arguments"], first["added"], first["fork"]) == (["a", "b 水"], "here \udcff 水", True)
    assert (second["arguments"], second["fork"]) == ([], True)
    assert first["parent"] == second["parent"] != asking
    assert gone(first["parent"])
    assert gone(first["pid"])  # its line was closed


def test_a_fork_that_hangs_is_ended_and_one_that_has_ended_can_be(answer):
    assert answer("""
hanging, said = asked("hang")
hanging.line.shutdown(1)
time.sleep(0.2)
found = [there(said["pid"])]
hanging.end()
process, ended = asked()
process.line.shutdown(1)
found += [gone(said["pid"]), gone(ended["pid"])]
process.end()
print(json.dumps([*found, asked()[1]["fork"]]))
""") == [True, True, True, True]


def test_without_a_nursery_a_process_is_started_as_like_as_can_be(answer):
    said = answer("""
before = asked()[1]
os.kill(before["parent"], signal.SIGKILL)
gone(before["parent"])
process, said = asked("a")
process.end()
print(json.dumps([said, there(said["pid"])]))
""")
    assert (said[0]["arguments"], said[0]["added"], said[0]["fork"]) == (["a"], "here \udcff 水", False)
    assert not said[1]
