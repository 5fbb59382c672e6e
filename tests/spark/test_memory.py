"""Memory and processor time stay bounded: over many rows in one worker process, and for a row of ten megabytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = 2_000_000 if os.environ.get("QUALITY_JUDGE_SOAK") else 200_000
MANY_ROWS = """
import json, os, sys
import numpy as np, pandas as pd
from quality_judge.scores import CODES, FLAGS, OK, Scores
from quality_judge.spark import worker

class Stub:
    def score(self, completions, prompts=None):
        n = len(completions)
        values = np.linspace(0, 1, n)
        return Scores(values, values, np.full(n, CODES.index(OK), np.int8), np.zeros((n, len(FLAGS)), bool),
                      np.zeros((n, 0)), np.zeros((n, 0), bool))

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

worker.scorer_for = lambda folder, fingerprint: Stub()
batch, rows = 10_000, int(sys.argv[1])
texts = pd.Series([f"a text of some length, number {i}".encode() for i in range(batch)])
early = done = 0
for found in worker.score_batches("folder", "fingerprint", (texts for _ in range(rows // batch))):
    done += len(found)
    if done == 10 * batch:
        early = resident()
print(json.dumps({"rows": done, "growth": resident() - early}))
"""
ONE_LONG_ROW = """
import json, resource, sys, time
from quality_judge.engine.scorer import load_scorer
from quality_judge.judge import load_judge

scorer = load_scorer(load_judge(sys.argv[1]), threads=1)
row = b"Words without an end. " * (10_000_000 // 22)
encoding = scorer.judge.spec.encoding
read = row[: encoding.head_bytes + encoding.tail_bytes]
scorer.score(["warm up " * 200])
before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {"long": [], "read": []}
for _ in range(5):
    for name, text in (("read", read), ("long", row)):
        started = time.process_time()
        scorer.score([text])
        seconds[name].append(time.process_time() - started)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps({"long": min(seconds["long"]), "read": min(seconds["read"]), "grown": grown}))
"""


def said_by(script, *options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_worker_does_not_grow_with_the_rows_it_has_scored():
    said = said_by(MANY_ROWS, ROWS)
    assert said["rows"] == ROWS
    assert said["growth"] <= 50 * 2**20


@pytest.mark.slow
def test_a_row_of_ten_megabytes_costs_little_time_and_memory(judge):
    said = said_by(ONE_LONG_ROW, judge.folder)
    assert said["long"] <= 1.5 * said["read"]  # what it takes to score the part that is read, and little more
    assert said["grown"] <= 50 * 2**20
