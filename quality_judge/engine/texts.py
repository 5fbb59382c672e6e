"""From a column of bytes to text that can be scored: each row gets a code, flags, and the part of it that is read.

Whole-column Arrow work; Python looks only at rows that are too long or not UTF-8. A bad row never disturbs
another. It knows nothing of tokens or models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quality_judge.errors import CorpusError
from quality_judge.samples import UNSEEN_MARKS
from quality_judge.scores import BINARY_TEXT, CODES, EMPTY_TEXT, NULL_TEXT, OK

MAX_CONTROL_SHARE = 0.3
CHARACTERS_AT_ONCE = 1 << 16
SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # half an emoji is one unreadable character, not three
BLANK = rf"^[\p{{Z}}\p{{C}}{UNSEEN_MARKS}]*$"
NOT_TEXT = r"[\x00-\x08\x0b\x0e-\x1f\x7f\x{FFFD}]"
HIDDEN = (
    r"[\x{00AD}\x{180E}\x{200B}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2064}\x{2066}-\x{206F}"
    r"\x{E0000}-\x{E007F}\x{F0000}-\x{FFFFD}]"
)
Column: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str | bytes | None]


@dataclass(frozen=True, slots=True)
class Texts:
    """n rows made ready. strings: large_string (n,), "" where the code is not OK. code: int8 (n,), an index of CODES.

    truncated, invalid_utf8, hidden: bool (n,).
    """

    strings: pa.Array
    code: np.ndarray
    truncated: np.ndarray
    invalid_utf8: np.ndarray
    hidden: np.ndarray


def read_texts(column: Column, *, head_bytes: int, tail_bytes: int) -> Texts:
    """`Texts` of a column of strings or bytes; of a longer text only the first and last bytes are read.

    The cut comes before any other look at the row, so a row of any size costs the same. Raises CorpusError for a
    column of another type.
    """
    raw = as_bytes(column)
    null = raw.is_null().to_numpy(zero_copy_only=False)
    raw = raw.fill_null(b"")
    strings, truncated, invalid = _decoded(raw, head_bytes, tail_bytes)
    blank = _matches(strings, BLANK)
    length = pc.utf8_length(strings).to_numpy(zero_copy_only=False)
    broken = pc.count_substring_regex(strings, NOT_TEXT).to_numpy(zero_copy_only=False)
    code = np.full(len(raw), CODES.index(OK), np.int8)
    code[broken > MAX_CONTROL_SHARE * np.maximum(length, 1)] = CODES.index(BINARY_TEXT)
    code[blank] = CODES.index(EMPTY_TEXT)
    code[blank & (broken > 0) & (broken > MAX_CONTROL_SHARE * length)] = CODES.index(BINARY_TEXT)
    code[null] = CODES.index(NULL_TEXT)
    usable = code == CODES.index(OK)
    strings = pc.if_else(pa.array(usable), strings, pa.scalar("", pa.large_string()))
    return Texts(strings, code, truncated & usable, invalid & ~null, _matches(strings, HIDDEN))


def portions(*columns: Sequence[str]) -> list[slice]:
    """The rows of columns of the same length, cut into some that hold about CHARACTERS_AT_ONCE; one slice at least.

    What is known on the way of each token or n-gram takes a hundred times the memory of what comes out.
    """
    ends = np.cumsum([sum(map(len, row)) for row in zip(*columns, strict=True)])
    bounds = [0, *(np.flatnonzero(np.diff(ends // CHARACTERS_AT_ONCE)) + 1).tolist(), len(columns[0])]
    return [slice(first, last) for first, last in pairwise(bounds)]


def distinct(columns: Sequence[pa.Array]) -> tuple[np.ndarray, np.ndarray]:
    """Where each row that differs from all before it stands, int64 (m,), and which of those each row equals, (n,)."""
    key = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        coded = column.dictionary_encode()
        key = key * len(coded.dictionary) + coded.indices.to_numpy()
    _, first, back = np.unique(key, return_index=True, return_inverse=True)
    return first, back


def spells(strings: pa.Array, tokens: Sequence[str]) -> np.ndarray:
    """Whether each text spells one of `tokens`, bool (n,)."""
    if not tokens:
        return np.zeros(len(strings), bool)
    return _matches(strings, "|".join(re.escape(token) for token in tokens))


def as_bytes(column: pa.Array | pa.ChunkedArray | Sequence[str | bytes | None]) -> pa.Array:
    """The column as large_binary. Raises CorpusError for a column, or a value, of another type, and for one text."""
    if isinstance(column, str | bytes):
        raise CorpusError(f"got one {type(column).__name__} in the place of a column; put the text into a list")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not isinstance(column, pa.Array):
        column = pa.array([_encoded(value) for value in column], pa.large_binary())
    if pa.types.is_null(column.type):
        return column.cast(pa.large_binary())
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise CorpusError(f"the text column is of type {column.type}; expected string or binary")
    return column.cast(pa.large_binary())


def _encoded(value: str | bytes | None) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if value is None or isinstance(value, bytes):
        return value
    raise CorpusError(f"a text is of type {type(value).__name__}; expected str, bytes or None")


def _decoded(raw: pa.Array, head_bytes: int, tail_bytes: int) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Texts cut and decoded, large_string (n,); whether each was cut; whether each held bytes that are not UTF-8."""
    size = pc.binary_length(raw).to_numpy(zero_copy_only=False)
    truncated = size > head_bytes + tail_bytes
    if truncated.any():
        raw = _replaced(raw, np.flatnonzero(truncated), lambda value: _cut(value, head_bytes, tail_bytes))
    invalid = np.zeros(len(raw), bool)
    try:
        return raw.cast(pa.large_string()), truncated, invalid
    except pa.ArrowInvalid:
        invalid = ~np.fromiter((_is_utf8(value.as_buffer()) for value in raw), bool, len(raw))
        raw = _replaced(
            raw,
            np.flatnonzero(invalid),
            lambda value: SURROGATE.sub(b"\xff", value).decode("utf-8", "replace").encode(),
        )
        return raw.cast(pa.large_string()), truncated, invalid


def _replaced(raw: pa.Array, rows: np.ndarray, change: object) -> pa.Array:
    """`raw` with `change(bytes)` in place of each of `rows`; only those rows become Python objects."""
    mask = np.zeros(len(raw), bool)
    mask[rows] = True
    changed = pa.array([change(raw[int(row)].as_py()) for row in rows], pa.large_binary())  # type: ignore[operator]
    return pc.replace_with_mask(raw, pa.array(mask), changed)


def _cut(value: bytes, head_bytes: int, tail_bytes: int) -> bytes:
    """The first and last bytes of `value`, a line break between, no character cut in two."""
    head = value[:head_bytes]
    for back in range(1, min(4, len(head)) + 1):
        if head[-back] & 0xC0 != 0x80:
            needed = 1 if head[-back] < 0x80 else 2 if head[-back] < 0xE0 else 3 if head[-back] < 0xF0 else 4
            head = head[:-back] if needed > back else head
            break
    if not tail_bytes:
        return head
    tail = value[-tail_bytes:]
    start = next((i for i, byte in enumerate(tail[:4]) if byte & 0xC0 != 0x80), 0)
    return head + b"\n" + tail[start:]


def _is_utf8(value: object) -> bool:
    try:
        bytes(value).decode("utf-8")  # type: ignore[call-overload]
    except UnicodeDecodeError:
        return False
    return True


def _matches(strings: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(strings, pattern).to_numpy(zero_copy_only=False)
