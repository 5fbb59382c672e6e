"""Puts a finished folder in the place of the output in one step, as far as the file system has such a step. (driver)

| file system | the step | whoever lists the output meanwhile sees |
|---|---|---|
| local, Linux | two folders are exchanged in one system call (`renameat2`) | the old files or the new ones |
| local, where that call is missing (NFS, macOS) | two renames | the old, for a moment nothing, then the new |
| any other (hdfs, s3a, abfs …) | one new file in `_spark_metadata/` names the files | with Spark the old or the new |

Spark reads a folder with `_spark_metadata/` by the newest file there and not by what lies in the folder; that is how
its own streaming sink publishes. Other readers of such a folder list it, and may meet both while the switch lasts.
A reader whose listing and opening lie on two sides of the switch gets an error, never a mixture or a part. One case
is silent: with a schema given, a listing that the exchange of folders cuts in two may find nothing (Hadoop skips names
that vanish while it lists).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from quality_judge.errors import CheckFailed, RunConflict
from quality_judge.spark.places import Place

LOG_FOLDER = "_spark_metadata"
AT_CURRENT_FOLDER = -100
EXCHANGE = 2
LISTING_SECONDS = 0.5
LOG_STEP = 10  # Spark takes every tenth file of its log for a whole listing


def switch(new: Place, output: Place, *, tables: Sequence[str] = ("",)) -> None:
    """What is in `new` then stands at `output`. tables: the folders within that hold a table, "" the output itself.

    Raises CheckFailed when it cannot; then what stood there before still stands.
    """
    if output.local is None or new.local is None:
        _by_log(new, output, tables)
    elif not output.exists():
        _rename(new, output)
    elif exchanged(new.local, output.local):
        time.sleep(LISTING_SECONDS)  # `new` is the old folder now, and who has just opened it still lists it
    else:
        _by_two_renames(new, output)


def exchanged(one: Path, other: Path) -> bool:
    """Whether the two folders could change places in one step; False where the system cannot do that."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    paths = (ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other)))
    return call(AT_CURRENT_FOLDER, paths[0], AT_CURRENT_FOLDER, paths[1], ctypes.c_uint(EXCHANGE)) == 0


def tidy(output: Place, tables: Sequence[str]) -> None:
    """Removes what a switch by a log has replaced; the next run calls it for one that was killed before it had."""
    for table in tables:
        _tidy_log_table(output.child(table) if table else output)


def data_files(folder: Place) -> list[Place]:
    """The files directly in the folder that are rows to Spark."""
    return [file for file in folder.listed() if file.name[0] not in "._" and not file.is_folder()]


def of_switches(output: Place) -> bool:
    """Whether the log in the folder is of switches alone, and not that of a stream, which counts its batches."""
    names = [place.name for place in output.child(LOG_FOLDER).listed() if place.name[0].isdigit()]
    return output.local is None and all(re.fullmatch(r"\d*9\.compact", name) for name in names)


def aside(output: Place) -> Place:
    """Where two renames put the old output for a moment."""
    return output.parent.child(f".{output.name}.old")  # type: ignore[union-attr]


def _by_two_renames(new: Place, output: Place) -> None:
    old = aside(output)
    if not output.moved(old):
        raise CheckFailed(f"{output.text} could not be moved aside; nothing was published, the old output stands")
    try:
        _rename(new, output)
    except CheckFailed:
        old.moved(output)
        raise
    old.delete()


def _rename(new: Place, output: Place) -> None:
    if not new.moved(output):
        raise CheckFailed(f"{new.text} could not be renamed to {output.text}; the old output stands")


def _by_log(new: Place, output: Place, tables: Sequence[str]) -> None:
    """Moves the new files in, names them in the log, then removes the old ones.

    Until the log names them no Spark reader sees them; each table of several is switched by itself.
    """
    for table in tables:
        here, there = (new.child(table), output.child(table)) if table else (new, output)
        there.make_folder()
        old = data_files(there)
        log = there.child(LOG_FOLDER)
        if not log.exists():  # with a log that names nothing, a first output is not there until it is whole
            log.make_folder()
            _commit(log, old)
        arrived = []
        for file in data_files(here):
            if not file.moved(there.child(file.name)):
                raise CheckFailed(f"{file.text} could not be moved to {there.text}; the old output stands")
            arrived.append(there.child(file.name))
        _commit(log, arrived)
    for file in new.listed():
        if file.name.startswith("_") and not file.is_folder():
            output.child(file.name).write(file.read())
    tidy(output, tables)
    new.delete()


def _commit(log: Place, files: Sequence[Place]) -> None:
    """The one step: a new file in the log that names `files` and nothing else."""
    numbers = [int(place.name.partition(".")[0]) for place in log.listed() if place.name[0].isdigit()]
    if not files and not numbers:
        return
    number = (max(numbers) // LOG_STEP + 2) * LOG_STEP - 1 if numbers else LOG_STEP - 1
    lines = [json.dumps(_entry(file), separators=(",", ":")) for file in files]
    try:
        log.child(f"{number}.compact").write("\n".join(["v1", *lines]).encode(), replace=False)
    except FileExistsError:
        raise RunConflict(f"{log.text} was changed by another run at the same moment; the old output stands") from None


def _entry(file: Place) -> dict[str, object]:
    status = file.files.getFileStatus(file.path)
    return {
        "path": file.text, "size": status.getLen(), "isDir": False, "modificationTime": status.getModificationTime(),
        "blockReplication": 1, "blockSize": max(1, status.getBlockSize()), "action": "add",
    }  # fmt: skip


def _tidy_log_table(table: Place) -> None:
    """Removes the data files that the newest file of the log does not name, and the older files of the log."""
    log = [place for place in table.child(LOG_FOLDER).listed() if place.name.endswith(".compact")]
    log.sort(key=lambda place: int(place.name.partition(".")[0]))
    if not log:
        return
    named = {Path(json.loads(line)["path"]).name for line in log[-1].read().decode().splitlines()[1:]}
    for file in data_files(table):
        if file.name not in named:
            file.delete()
    for older in log[:-1]:
        older.delete()
