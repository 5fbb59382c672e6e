"""Processes apart, where there is a nursery forked from one that has imported what each would import for itself.
(executor)

A worker cannot fork: it has computed, and its threads would not be in the fork. So Spark's daemon, which has done
neither, forks a nursery before its first worker; that waits, and forks a process for whoever asks. Elsewhere one is
started from nothing. It knows nothing of judges.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

BORN_SECONDS = 10.0
_asking: socket.socket | None = None  # inherited by the forks of the process that opened the nursery


@dataclass(frozen=True)
class Process:
    """A process apart. line: what it has as stdin and stdout. kill: ends it, whatever it does."""

    line: socket.socket
    kill: Callable[[], None]

    def end(self) -> None:
        """Kills it and closes the line."""
        self.kill()
        self.line.close()


def apart(module: str, arguments: Sequence[str]) -> Process:
    """A process that runs `module.serve(*arguments)`, with this one's environment and search path."""
    return _born(module, arguments) or _started(module, arguments)


def open_nursery() -> None:
    """Forks the nursery of this process and of its forks to come. It ends with the last of them; only Linux has one."""
    global _asking
    if not hasattr(os, "pidfd_open"):
        return
    asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        asked.close()
        _asking = asking
        return
    try:
        asking.close()
        _tend(asked)
    finally:
        os._exit(0)


def _started(module: str, arguments: Sequence[str]) -> Process:
    # What comes with --py-files a worker alone is told of.
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *sys.path]))
    line, other = socket.socketpair()
    with other:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=other.fileno(), stdout=other.fileno(),
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

    def kill() -> None:
        process.kill()
        process.wait()

    return Process(line, kill)


def _born(module: str, arguments: Sequence[str]) -> Process | None:
    """A fork of the nursery; None where there is no nursery, or it forks none within BORN_SECONDS."""
    if _asking is None:
        return None
    line, other = socket.socketpair()
    line.settimeout(BORN_SECONDS)
    said = json.dumps([module, list(arguments), sys.path, dict(os.environ)])  # in ASCII, and one line
    try:
        with other:
            socket.send_fds(_asking, [b"1"], [other.fileno()])
        line.sendall(f"{said}\n".encode())
        _, (handle,), *_ = socket.recv_fds(line, 1, 1)
    except (OSError, ValueError):
        line.close()
        return None
    line.settimeout(None)

    def kill() -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)

    return Process(line, kill)


def _tend(asked: socket.socket) -> None:
    """Forks for each that asks, until nobody is left who could."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a number of a process is nobody's here: who asks holds a handle
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # those of the daemon, on which Spark waits for its end
        os.dup2(nowhere, descriptor)
    while True:
        message, descriptors, *_ = socket.recv_fds(asked, 1, 1)
        if not message:
            return
        if os.fork():
            os.close(descriptors[0])
            continue
        asked.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _live(descriptors[0])
        return


def _live(descriptor: int) -> None:
    """Runs what is asked for, the line in place of stdin and stdout."""
    with socket.socket(fileno=descriptor) as line, line.makefile("rb") as said:
        module, arguments, path, environment = json.loads(said.readline())  # nothing follows until it is answered
        socket.send_fds(line, [b"1"], [os.pidfd_open(os.getpid())])
        for standard in (0, 1):
            os.dup2(line.fileno(), standard)
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)
    import_module(module).serve(*arguments)
