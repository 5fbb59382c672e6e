"""Scores in a process of its own, which a row may crash or hang without harm to the worker that asked. (executor)

    python -m quality_judge.spark.isolate JUDGE FINGERPRINT DEVICE [SHARE]

SHARE is the part of a GPU's memory that it may use. Both sides speak Arrow over one line, each message with its length
before it. The child says when its judge is loaded and has proven its known answers, so a death after that is the fault
of the rows it was given. It writes to no log.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import IO

import pyarrow as pa

from quality_judge.errors import CheckFailed, InputError, JudgeError, QualityJudgeError
from quality_judge.nursery import Process, apart

ISOLATE_PROPERTY = "quality_judge.isolate"  # local properties of a job: score apart from the first try on
HANG_PROPERTY = "quality_judge.hang_seconds"
LOAD_SECONDS = 900.0
READY, DONE, FAILED = b"R", b"D", b"F"


class Died(Exception):
    """The child ended while it had rows."""


class Hung(Exception):
    """The child did not answer in time and was ended."""


class Child:
    """The asking side. Starts the process when it is first needed, and again after a death."""

    def __init__(self, folder: str, fingerprint: str, device: str, *, memory_share: float | None = None) -> None:
        self._arguments = [folder, fingerprint, device, *([] if memory_share is None else [str(memory_share)])]
        self._process: Process | None = None

    def score(self, columns: Sequence[pa.Array], *, seconds: float) -> pa.Table:
        """What the child made of the rows. Raises Died, Hung after `seconds`, or CheckFailed when it cannot load."""
        process = self._process or self._start()
        try:
            process.line.sendall(_message(_packed(pa.table(list(columns), [str(i) for i in range(len(columns))]))))
            kind, content = _answer(process, seconds)
        except (ConnectionError, EOFError):
            self.close()
            raise Died from None
        except TimeoutError:
            self.close()
            raise Hung from None
        if kind != DONE:
            self.close()
            raise _raised(content)
        return pa.ipc.open_stream(content).read_all()

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _start(self) -> Process:
        self._process = apart(__name__, self._arguments)
        try:
            kind, content = _answer(self._process, LOAD_SECONDS)
        except (ConnectionError, EOFError, TimeoutError):
            self.close()
            raise CheckFailed("a process for single rows could not load the judge") from None
        if kind != READY:
            self.close()
            raise _raised(content)
        return self._process


def serve(folder: str, fingerprint: str, device: str, share: str | None = None) -> None:
    """The answering side: loads the judge, then scores whatever comes until the pipe is closed."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # whatever a library prints must not reach the pipe, nor row text a log
        os.dup2(nowhere, descriptor)
    from quality_judge.engine.devices import limit_memory
    from quality_judge.spark.worker import answered, proven_scorer

    try:
        limit_memory(device, None if share is None else float(share))
        scorer = proven_scorer(folder, fingerprint, device)
    except Exception as error:
        _send(answers, FAILED + _said(error))
        return
    _send(answers, READY)
    while header := requests.read(8):
        rows = pa.ipc.open_stream(requests.read(struct.unpack(">Q", header)[0])).read_all()
        try:
            _send(answers, DONE + _packed(answered(scorer, [column.combine_chunks() for column in rows.columns])))
        except QualityJudgeError as error:
            _send(answers, FAILED + _said(error))


def _said(error: Exception) -> bytes:
    """The kind and the message of an error of ours; of any other its type alone."""
    if isinstance(error, InputError):
        return f"{JudgeError.__name__}\n{error}".encode()
    message = str(error) if isinstance(error, CheckFailed) else f"the judge cannot be loaded: {type(error).__name__}"
    return f"{CheckFailed.__name__}\n{message}".encode()


def _raised(content: bytes) -> QualityJudgeError:
    """What `_said` said, as an error."""
    kind, _, message = content.decode().partition("\n")
    return JudgeError(message) if kind == JudgeError.__name__ else CheckFailed(message)


def _message(content: bytes) -> bytes:
    return struct.pack(">Q", len(content)) + content


def _send(pipe: IO[bytes], content: bytes) -> None:
    left = memoryview(_message(content))
    while left:
        left = left[pipe.write(left) :]


def _answer(process: Process, seconds: float) -> tuple[bytes, bytes]:
    """(its kind, what it says). Raises EOFError or ConnectionError when the process has gone, TimeoutError."""
    until = time.monotonic() + seconds
    (size,) = struct.unpack(">Q", _read(process.line, 8, until))
    content = _read(process.line, size, until)
    return content[:1], content[1:]


def _read(line: socket.socket, size: int, until: float) -> bytes:
    parts, left = [], size
    while left:
        if not select.select([line], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        part = line.recv(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


if __name__ == "__main__":
    serve(*sys.argv[1:5])
