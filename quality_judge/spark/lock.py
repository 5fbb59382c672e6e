"""One run at a time for an output: the first holds it, any other ends at once and says who holds it. (driver)

On a local disk the kernel holds the lock and drops it with the process, however that ends. Elsewhere it is a file that
its holder touches every few seconds; one that was not touched for a minute belonged to a run that is dead. A run that
only stood still so long finds another name there: it never writes its own again, and publishes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JError

from quality_judge.errors import RunConflict
from quality_judge.spark.places import Place

TOUCHED_EVERY_SECONDS = 10.0
DEAD_AFTER_SECONDS = 60.0


@contextmanager
def held(place: Place) -> Iterator[Callable[[], None]]:
    """A function that raises RunConflict once this run has lost the lock file at `place`, which it alone holds.

    Raises RunConflict when another one holds it. Call the function before a step that cannot be undone.
    """
    with _kernel_lock(place.local) if place.local is not None else _lease(place) as refuse_lost:
        yield refuse_lost


@contextmanager
def _kernel_lock(path: Path) -> Iterator[Callable[[], None]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace")
            os.close(descriptor)
            raise _conflict(path.as_posix(), holder) from None
        if _still_names(path, descriptor):  # else its last holder removed it between our two calls
            break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _who().encode())
        yield lambda: None  # the kernel gives it to nobody else
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _still_names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _lease(place: Place) -> Iterator[Callable[[], None]]:
    mine = _who()
    _take(place, mine)
    ended, busy = threading.Event(), threading.Lock()

    def refuse_lost() -> None:
        with busy:
            found = _kept(place, mine)
        if found != mine:
            raise RunConflict(
                f"{place.text} was taken by {_named(found)}: this run had not touched it for more than "
                f"{DEAD_AFTER_SECONDS:.0f} s. It published nothing; start it again when no other is writing this output"
            )

    def touch() -> None:
        while not ended.wait(TOUCHED_EVERY_SECONDS):
            with contextlib.suppress(Py4JError, OSError), busy:  # a hiccup of the store must not end the run
                if _kept(place, mine) != mine:
                    return
                place.write(mine.encode())

    thread = threading.Thread(target=touch, name="quality-judge-lease", daemon=True)
    thread.start()
    try:
        yield refuse_lost
    finally:
        ended.set()
        thread.join()
        if _holder(place) == mine:
            place.delete()


def _kept(place: Place, mine: str) -> str:
    """Who holds the lease. Where there is none, on a store that deletes a file before it replaces it, it is kept."""
    if not (found := _holder(place)):
        with contextlib.suppress(FileExistsError):
            place.write(mine.encode(), replace=False)
        found = _holder(place)
    return found


def _take(place: Place, mine: str) -> None:
    """Writes the lease. Raises RunConflict when a living run holds it, or took it at the same moment."""
    for _ in range(2):
        try:
            place.write(mine.encode(), replace=False)
            break
        except FileExistsError:
            if _age_seconds(place) < DEAD_AFTER_SECONDS:
                raise _conflict(place.text, _holder(place)) from None
            place.delete()
    if (found := _holder(place)) != mine:
        raise _conflict(place.text, found)


def _holder(place: Place) -> str:
    """What its holder wrote into the lease; nothing when there is none."""
    return place.read().decode(errors="replace") if place.exists() else ""


def _age_seconds(place: Place) -> float:
    """How long ago it was touched, by the clock of its own file system."""
    probe = place.parent.child(f".{uuid.uuid4().hex}")  # type: ignore[union-attr]
    probe.write(b"")
    try:
        return (probe.modified() - place.modified()) / 1000
    finally:
        probe.delete()


def _who() -> str:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since, "run": uuid.uuid4().hex[:12]})


def _named(holder: str) -> str:
    try:
        known = json.loads(holder)
        return f"process {known['pid']} on {known['host']}, since {known['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _conflict(path: str, holder: str) -> RunConflict:
    said = _named(holder)
    return RunConflict(f"{path} is held by {said}: a run is writing this output; wait for its end, or end it first")
