"""The live line of a long run: rows, rows a second, time left, kept so far. (driver)

On a terminal it is one line that changes; in a log it is a new line every half minute. It counts rows of finished
shards, as their receipts say, and goes to stderr. It shows numbers only.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from quality_judge.spark.shards import Receipt

TERMINAL_SECONDS = 0.5
LOG_SECONDS = 30.0
CLEAR = "\r\x1b[K"


class Progress:
    """Told of receipts by `landed`, it knows the line to show."""

    def __init__(self, rows: int, shards: int, *, now: float) -> None:
        self.rows = rows
        self.shards = shards
        self._started = now
        self._lock = threading.Lock()
        self._rows_done = self._rows_new = self._shards_done = self._above = 0
        self._knows_above = False

    def landed(self, receipt: Receipt) -> None:
        """One more shard stands."""
        with self._lock:
            self._rows_done += receipt.rows
            self._rows_new += 0 if receipt.reused else receipt.rows
            self._shards_done += 1
            if receipt.above is not None:
                self._knows_above, self._above = True, self._above + receipt.above

    def line(self, now: float) -> str:
        """`scored 12,000 of 80,000 rows (15%), 141 rows/s, 8 min left, 31.0% at or above the threshold`."""
        with self._lock:
            done, new, above, shards = self._rows_done, self._rows_new, self._above, self._shards_done
        share = f" ({100 * done // self.rows}%)" if self.rows else ""
        said = [f"scored {done:,} of {self.rows:,} rows{share}", f"shard {shards} of {self.shards}"]
        seconds = max(now - self._started, 1e-9)
        if new:
            said += [f"{new / seconds:,.0f} rows/s", f"{duration((self.rows - done) * seconds / new)} left"]
        else:
            said.append(f"{duration(seconds)} so far")
        if self._knows_above and done:
            said.append(f"{100 * above / done:.1f}% at or above the threshold")
        return ", ".join(said)


@contextmanager
def shown(rows: int, shards: int, *, stream: TextIO | None = None, every: float | None = None) -> Iterator[Progress]:
    """A Progress whose line is shown until the end of the block, the last time at its end.

    stream: stderr when None. every: seconds between two lines; by what the stream is when None.
    """
    out = stream if stream is not None else sys.stderr
    terminal = out.isatty()
    progress, ended = Progress(rows, shards, now=time.monotonic()), threading.Event()

    def show(end: str = "") -> None:
        text = progress.line(time.monotonic())
        out.write(f"{CLEAR}{text}{end}" if terminal else f"{text}\n")
        out.flush()

    def keep_showing() -> None:
        while not ended.wait(every if every is not None else TERMINAL_SECONDS if terminal else LOG_SECONDS):
            show()

    thread = threading.Thread(target=keep_showing, name="quality-judge-progress", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        ended.set()
        thread.join()
        show("\n")


def duration(seconds: float) -> str:
    """`45 s`, `8 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
