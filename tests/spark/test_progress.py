"""The live line: one that changes on a terminal, a new one each time in a log; right numbers, no division by zero."""

import contextlib
import io
import time

from quality_judge.spark.progress import CLEAR, Progress, duration, shown
from quality_judge.spark.shards import Receipt


def receipt(rows, *, above=None, reused=False):
    return Receipt(0, "", (), rows, 0, {}, {}, "0", 1.0, above, reused)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_line_counts_rows_speed_time_left_and_what_is_kept():
    progress = Progress(1000, 4, now=0.0)
    assert progress.line(5.0) == "scored 0 of 1,000 rows (0%), shard 0 of 4, 5 s so far"
    progress.landed(receipt(250, above=50))
    assert progress.line(10.0) == (
        "scored 250 of 1,000 rows (25%), shard 1 of 4, 25 rows/s, 30 s left, 20.0% at or above the threshold"
    )


def test_rows_of_an_earlier_run_are_done_but_say_nothing_of_the_speed():
    progress = Progress(1000, 4, now=0.0)
    progress.landed(receipt(500, reused=True))
    progress.landed(receipt(100))
    assert progress.line(10.0) == "scored 600 of 1,000 rows (60%), shard 2 of 4, 10 rows/s, 40 s left"


def test_an_empty_corpus_has_a_line_too():
    assert Progress(0, 1, now=0.0).line(0.0) == "scored 0 of 0 rows, shard 0 of 1, 0 s so far"


def test_in_a_log_each_line_is_a_line_and_the_last_is_the_end():
    log = io.StringIO()
    with shown(10, 1, stream=log, every=0.02) as progress:
        time.sleep(0.2)
        progress.landed(receipt(10))
    lines = log.getvalue().splitlines()
    assert len(lines) > 2
    assert CLEAR not in log.getvalue()
    assert lines[0].startswith("scored 0 of 10")
    assert lines[-1].startswith("scored 10 of 10 rows (100%)")


def test_on_a_terminal_it_stays_one_line_even_when_the_run_fails():
    terminal = Terminal()
    with contextlib.suppress(ValueError), shown(10, 1, stream=terminal, every=0.02):
        time.sleep(0.1)
        raise ValueError("no")
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().count(CLEAR) > 2


def test_durations_are_said_as_people_do():
    assert [duration(s) for s in (0, 59, 300, 12_000)] == ["0 s", "59 s", "5 min", "3 h 20 min"]
