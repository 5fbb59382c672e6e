"""Ends the process when scoring stands still, so that whoever watches over processes can try again elsewhere.

The timer is faulthandler's own thread, which a call that never gives back the interpreter cannot stop. It prints where
the process stood, as files and lines and no values. It knows nothing of models or Spark.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager

_REARM_SECONDS = 1.0
_limit: float | None = None
_armed = 0.0


@contextmanager
def watched(seconds: float) -> Iterator[None]:
    """Within it the process ends when `progressed` is not called for `seconds`. Not for two threads at once."""
    global _limit, _armed
    _limit, _armed = seconds, 0.0
    progressed()
    try:
        yield
    finally:
        _limit = None
        faulthandler.cancel_dump_traceback_later()


def progressed() -> None:
    """Says that scoring moves on: the time starts anew."""
    global _armed
    now, limit = time.monotonic(), _limit
    if limit is not None and now - _armed >= min(_REARM_SECONDS, limit / 10):
        _armed = now
        faulthandler.dump_traceback_later(limit, exit=True)
