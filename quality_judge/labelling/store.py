"""Answers on disk: a journal to which every answer is appended and synced, and the label file made from it.

`labels.jsonl.journal` is the truth. It only grows; an undo is a line of its own. `labels.jsonl` holds the answers that
stand and is what `load_labels` reads: an answer is appended to it as well, an undo and a start write it anew, and no
start goes on over lines that the journal does not know. One process at a time may write. It knows nothing of pages or
questions, only of events.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality_judge.errors import InputError, RunConflict
from quality_judge.files import local_path, write_beside

JOURNAL_SUFFIX = ".journal"
ANSWER, SKIP, UNDO = "answer", "skip", "undo"


class Store:
    """The events of one label file. Not for several threads at once: the caller holds a lock."""

    def __init__(self, output: str | Path) -> None:
        """Opens the journal of `output`, or begins one, and writes the label file anew.

        Raises RunConflict while another process has it, InputError for a label file without a journal, or with lines
        that were not written here, which stay as they are.
        """
        self.output = local_path(output)
        self.journal = self.output.with_name(self.output.name + JOURNAL_SUFFIX)
        if self.output.exists() and not self.journal.exists():
            raise InputError(f"{self.output} is there already and was not written here; choose another --output")
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.journal, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise RunConflict(f"another process writes {self.journal}; end it, or choose another --output") from None
        self.standing: dict[tuple[str, str], dict[str, Any]] = {}
        self._behind = False  # whether the label file lacks what the journal has
        try:
            self._take_up()
        except InputError:
            self.close()
            raise
        self._write_labels()
        _sync_folder(self.output.parent)

    def add(self, event: Mapping[str, Any]) -> None:
        """Keeps the event; when this returns it is on disk. Raises OSError when it is not, and then nothing changed.

        Where the journal could be written and the label file could not, the next event or start writes that anew.
        event: `event` (answer, skip or undo), `annotator`, `question`; of an answer the label `row` too. An undo takes
        back what the annotator said of that question.
        """
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        size = os.fstat(self._handle).st_size
        try:
            _write_whole(self._handle, line)
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, size)
            raise
        again = (event["annotator"], event["question"]) in self.standing
        self._apply(event)
        try:
            if again or self._behind:
                self._write_labels()
            elif event["event"] == ANSWER:
                with self.output.open("ab") as labels:
                    labels.write(_line(event["row"]))
            self._behind = False
        except (OSError, InputError):
            self._behind = True

    def close(self) -> None:
        """Ends the writing; another process may open the journal."""
        os.close(self._handle)

    def _take_up(self) -> None:
        events = self._read()
        self._refuse_foreign_lines(events)
        for event in events:
            self._apply(event)

    def _apply(self, event: Mapping[str, Any]) -> None:
        of = (event["annotator"], event["question"])
        self.standing.pop(of, None)  # said again, it stands last
        if event["event"] != UNDO:
            self.standing[of] = dict(event)

    def _read(self) -> list[dict[str, Any]]:
        """Every event; what stands after the last newline was never acknowledged and is cut off."""
        whole = os.pread(self._handle, os.fstat(self._handle).st_size, 0)
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.ftruncate(self._handle, end)
        events = []
        for number, line in enumerate(whole[:end].split(b"\n")[:-1], 1):
            try:
                event = json.loads(line)
                _ = event["event"], event["annotator"], event["question"]
                events.append(event)
            except (ValueError, TypeError, KeyError):
                raise InputError(
                    f"{self.journal}:{number} is damaged; set the file aside and choose another --output"
                ) from None
        return events

    def _refuse_foreign_lines(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Nothing, or an InputError when the label file holds what no answer in the journal ever said."""
        known = {_line(event["row"]).removesuffix(b"\n") for event in events if event["event"] == ANSWER}
        *lines, cut = self.output.read_bytes().split(b"\n") if self.output.exists() else [b""]
        odd = [number for number, line in enumerate(lines, 1) if line and line not in known]
        if not any(line.startswith(cut) for line in {b"", *known}):  # a crash may have cut off the last line
            odd.append(len(lines) + 1)
        if odd:
            raise InputError(
                f"{self.output} holds {len(odd)} lines that {self.journal.name} does not, the first in line {odd[0]}: "
                f"it was changed outside this page, which would write over them; move it away, and it is written "
                f"anew, or choose another --output"
            )

    def _write_labels(self) -> None:
        rows = [_line(event["row"]) for event in self.standing.values() if event["event"] == ANSWER]
        write_beside(self.output, b"".join(rows).decode())


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _write_whole(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
