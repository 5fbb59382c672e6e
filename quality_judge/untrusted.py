"""Files that somebody else wrote, read without trust: plain files only, bounded JSON, the headers of tensor files.

Everything here raises InputError that names the file and never what stands in it. It executes nothing, follows no
link and knows nothing of judges or models.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from quality_judge.config import MAX_DEPTH, depth
from quality_judge.errors import InputError

MAX_JSON_BYTES = 16_000_000
MAX_HEADER_BYTES = 100_000_000  # as the safetensors library itself allows
LENGTH_BYTES = 8
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
Shapes = dict[str, tuple[int, ...]]


def plain_files(folder: Path, *, most_bytes: Mapping[str, int], otherwise: int) -> set[str]:
    """The names of all files in `folder`. Raises InputError for a link, a sub-folder, a pipe, or a file too large.

    most_bytes: the limit of each name; otherwise: of every other.
    """
    names = set()
    for entry in os.scandir(folder):
        if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
            raise InputError(f"{entry.name!r} is a link or a folder; only plain files belong")
        limit = most_bytes.get(entry.name, otherwise)
        if entry.stat(follow_symlinks=False).st_size > limit:
            raise InputError(f"{entry.name!r} is larger than {limit} bytes")
        names.add(entry.name)
    return names


def bounded_text(path: Path, *, most_bytes: int = MAX_JSON_BYTES) -> str:
    """The file as UTF-8. Raises InputError for a link, a pipe, a file too large, and bytes that are not UTF-8."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(f"{path.name} is not a plain file")
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise InputError(f"{path.name} is larger than {most_bytes} bytes")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read: {type(error).__name__}") from error


def bounded_json(path: Path, *, most_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The object in the JSON file `path`. Raises InputError when it is none, too large or deep, or repeats a key."""
    return json_object(bounded_text(path, most_bytes=most_bytes), what=path.name)


def json_object(text: str, *, what: str) -> dict[str, Any]:
    """The object that `text` says in JSON; see `bounded_json`. what: its name in an error."""
    try:
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
        if not isinstance(data, dict):
            raise InputError(f"{what} does not hold a JSON object")
        if depth(data) > MAX_DEPTH:
            raise InputError(f"{what} is nested deeper than {MAX_DEPTH} levels")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} cannot be read as JSON: {type(error).__name__}") from error
    return data


def tensor_shapes(path: Path) -> Shapes:
    """The shape of every tensor in a safetensors file, by its header alone, which must describe every byte once.

    Raises InputError for a header that is cut, too large or not JSON, a type or shape that is none, and for tensors
    that overlap, leave a gap, or end before or after the file does.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            held = path.stat().st_size - LENGTH_BYTES - length
            if length > MAX_HEADER_BYTES or held < 0:
                raise InputError(f"{path.name} is cut short, or no safetensors file")
            header = json_object(file.read(length).decode("utf-8"), what=f"the header of {path.name}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read as safetensors: {type(error).__name__}") from error
    header.pop("__metadata__", None)
    spans, shapes = [], {}
    for name, said in header.items():
        start, end, shapes[name] = _span(said, f"{path.name}: tensor {name[:100]!r}")
        spans.append((start, end))
    at = 0
    for start, end in sorted(spans):
        if start != at:
            raise InputError(f"{path.name}: its tensors overlap or leave a gap at byte {at}")
        at = end
    if at != held:
        raise InputError(f"{path.name}: its header describes {at} bytes of tensors, {held} are there")
    return shapes


def _span(said: Any, what: str) -> tuple[int, int, tuple[int, ...]]:
    """Where a tensor begins and ends, and its shape."""
    if not isinstance(said, dict) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{what} is not described as safetensors does")
    numbers = [said["shape"], said["data_offsets"]]
    if not all(isinstance(row, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in row) for row in numbers):
        raise InputError(f"{what} has a shape or a place that is none")
    size = ITEM_BYTES.get(said["dtype"]) if isinstance(said["dtype"], str) else None
    offsets = said["data_offsets"]
    if (
        size is None
        or len(offsets) != 2
        or len(said["shape"]) > 16
        or (offsets[1] - offsets[0] != size * prod(said["shape"]))
    ):
        raise InputError(f"{what} is of an unknown type, or its size does not fit its shape")
    return offsets[0], offsets[1], tuple(said["shape"])


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        raise ValueError(f"{len(twice)} keys stand twice")
    return found
