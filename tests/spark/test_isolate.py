"""A process apart that hangs or dies is ended in time, says which of the two, and the next rows are scored."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from quality_judge.errors import JudgeError
from quality_judge.spark.isolate import Child, Died, Hung
from quality_judge.spark.worker import Apart

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 3.0


def column(*texts):
    return [pa.array([text.encode() for text in texts], pa.large_binary())]


@pytest.fixture(scope="module", autouse=True)
def faulty():
    """Children that do what the texts say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{Path(__file__).resolve().parent / 'faulty'}{os.pathsep}{ROOT}")
        yield


@pytest.fixture(scope="module")
def apart(judge):
    apart = Apart(judge.folder, judge.fingerprint, "cpu", None, 2 * LIMIT)
    assert apart.score(column("it has loaded"))["quality_code"].tolist() == ["OK"]
    yield apart
    apart.close()


@pytest.fixture
def child(judge):
    child = Child(judge.folder, judge.fingerprint, "cpu")
    yield child
    child.close()


def test_a_hang_costs_its_limit_and_at_most_ten_seconds_and_an_abort_ends_one_child(child, scorer):
    (alone,) = scorer.score(["a good text"]).probability
    assert child.score(column("a good text"), seconds=30).to_pylist()[0]["quality_score"] == alone
    began = time.monotonic()
    with pytest.raises(Hung):
        child.score(column("FAULT[hang_with_the_interpreter_held]"), seconds=LIMIT)
    assert LIMIT <= time.monotonic() - began <= LIMIT + 10
    with pytest.raises(Died):
        child.score(column("FAULT[abort]"), seconds=LIMIT)


def test_what_a_judge_refuses_is_no_crash_of_the_row(child):
    with pytest.raises(JudgeError, match="leave the prompts out"):
        child.score(column("FAULT[refused]"), seconds=30)


def test_what_is_left_of_the_limit_is_paid_once_for_a_row_that_hangs_and_no_other_row_is_touched(
    apart, scorer, monkeypatch
):
    texts, loading, start = ["a good text", "FAULT[hang] every time", "another good text"], [], apart._child._start

    def timed_start():
        began = time.monotonic()
        process = start()
        loading.append(time.monotonic() - began)
        return process

    monkeypatch.setattr(apart._child, "_start", timed_start)
    began = time.monotonic()
    found = apart.score(column(*texts))
    took = time.monotonic() - began - sum(loading)
    assert found["quality_code"].tolist() == ["OK", "TIMEOUT_ROW", "OK"]
    assert found["quality_score"].drop(1).tolist() == scorer.score(texts[::2]).probability.tolist()
    assert len(loading) == 2
    assert 1.5 * LIMIT <= took <= 1.5 * LIMIT + 5  # suspected after a quarter, given up after a half alone


def test_rows_that_are_slow_together_are_all_scored_and_suspected_no_second_time(apart):
    suspicious = apart._together = 0.001
    assert apart.score(column("one text", "another"))["quality_code"].tolist() == ["OK", "OK"]
    assert apart._together == apart._alone > suspicious


def test_a_process_apart_searches_where_its_worker_does(judge, monkeypatch):
    faulty, *others = os.environ["PYTHONPATH"].split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(others))
    monkeypatch.syspath_prepend(faulty)  # as Spark does with what --py-files brings
    child = Child(judge.folder, judge.fingerprint, "cpu")
    with pytest.raises(Died):
        child.score(column("FAULT[abort]"), seconds=30)
    child.close()
