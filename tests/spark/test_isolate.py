"""A process apart that hangs or dies is ended in time, says which of the two, and the next rows are scored."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from quality_judge.spark.isolate import Child, Died, Hung

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 3.0


def column(*texts):
    return [pa.array([text.encode() for text in texts], pa.large_binary())]


@pytest.fixture
def child(judge, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).resolve().parent / 'faulty'}{os.pathsep}{ROOT}")
    child = Child(judge.folder, judge.fingerprint, "cpu", seconds=LIMIT)
    yield child
    child.close()


def test_a_hang_costs_its_limit_and_at_most_ten_seconds_and_an_abort_ends_one_child(child, scorer):
    (alone,) = scorer.score(["a good text"]).probability
    assert child.score(column("a good text")).to_pylist()[0]["quality_score"] == alone
    began = time.monotonic()
    with pytest.raises(Hung):
        child.score(column("FAULT[hang_with_the_interpreter_held]"))
    assert LIMIT <= time.monotonic() - began <= LIMIT + 10
    with pytest.raises(Died):
        child.score(column("FAULT[abort]"))
