"""Files written on this machine, whole or not at all. It does not know what they hold.

Tables of a corpus, which may lie anywhere, are Spark's to write.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from quality_judge.errors import InputError

LOCAL_FILE = re.compile(r"^file:(?:///|/(?!/))")
ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path has lost one of two slashes


def write_beside(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8 under another name in the same folder, then renames it: no half file is ever seen.

    A folder that is not there is made. Raises InputError as `local_path` does.
    """
    path = local_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def local_path(path: str | Path) -> Path:
    """The path of a file to write, without its `file://`. Raises InputError for one on another file system, and for
    one where a folder stands."""
    text = LOCAL_FILE.sub("/", str(path), count=1)
    if ELSEWHERE.match(text):
        raise InputError(
            f"the file is written on this machine; got {path}; give a local path, and copy the file from there"
        )
    if (path := Path(text)).is_dir():
        raise InputError(f"{path} is a folder; name a file, such as {path / 'result.json'}")
    return path
