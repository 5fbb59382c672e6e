"""The rows of a label file, as the file says them: JSONL (plain or gzip), JSON, Parquet and CSV.

It does not know what a row means or whether it is a label (`load`), only which columns a label may have. What it says
of a fault never holds a word of row text.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from quality_judge.errors import InputError, unknown
from quality_judge.samples import (
    ANNOTATOR,
    CATEGORIES,
    CHOSEN,
    COMPLETION,
    COMPLETIONS,
    CUT,
    GROUP,
    LABEL,
    LANGUAGE,
    MESSAGES,
    PROMPT,
    REJECTED,
    ROW_ID,
    SOURCE,
    TEXT,
    WEIGHT,
)

KIND_COLUMNS = (PROMPT, COMPLETION, TEXT, MESSAGES, LABEL, CHOSEN, REJECTED, COMPLETIONS, CATEGORIES)
KNOWN_COLUMNS = (*KIND_COLUMNS, CUT, ROW_ID, ANNOTATOR, SOURCE, GROUP, LANGUAGE, WEIGHT)
EXPECTED_COLUMNS = (
    f"{COMPLETION} (or {TEXT}, or {MESSAGES}) + {LABEL}, {CHOSEN} + {REJECTED}, {COMPLETIONS}, "
    f"or {TEXT} (or {COMPLETION}, or {MESSAGES}) + {CATEGORIES}"
)
MAX_FILE_BYTES = 2**31  # unpacked; expert labels are thousands of rows, so more than this is a mistake or a gzip bomb


class Unreadable(str):
    """In the place of a row: why it could not be read."""

    __slots__ = ()


def label_files(path: Path) -> list[Path]:
    """The file, or of a folder the files in it, sorted; what begins with a mark is no data, as to Spark."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and file.name[0] not in "._") or [path]


def read_rows(file: Path, *, encoding: str = "utf-8") -> Iterator[tuple[int, object]]:
    """Each row of the file with its line; for Parquet and a JSON list, with its number, from 1.

    encoding: of CSV, the rest is UTF-8. A row is whatever the file says, or an `Unreadable`. Raises InputError where
    the whole file cannot be used.
    """
    if file.is_dir():
        raise InputError("is a folder that holds no file; give label files")
    table = partial(_csv, encoding=encoding)
    readers: dict[str, Callable[[Path], Iterator[tuple[int, object]]]] = {
        ".jsonl": _jsonl, ".jsonl.gz": _jsonl, ".json": _json, ".csv": table, ".parquet": _parquet,
    }  # fmt: skip
    for suffix, reader in readers.items():
        if file.name.lower().endswith(suffix):
            return reader(file)
    raise InputError(unknown("type of label file", "".join(file.suffixes), readers))


def _bytes(file: Path) -> bytes:
    packed = file.name.lower().endswith(".gz")
    try:
        with gzip.open(file) if packed else file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError("is cut short or is not gzip; expected a whole .gz file") from error
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"is over {MAX_FILE_BYTES} bytes unpacked; expected a file of expert labels")
    return data.removeprefix(b"\xef\xbb\xbf")


def _text(file: Path, encoding: str = "utf-8") -> str:
    try:
        return _bytes(file).decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"is not {encoding.upper()} (byte {error.start}); save it as UTF-8") from error
    except LookupError:
        raise InputError(f"cannot be read: there is no encoding {encoding!r}; expected one such as gb18030") from None


def _jsonl(file: Path) -> Iterator[tuple[int, object]]:
    # Lines end at \n alone: str.splitlines would also cut at U+2028, which JSON strings may hold.
    for line, data in enumerate(_bytes(file).split(b"\n"), 1):
        if data.strip():
            try:
                yield line, parsed_json(data.decode())
            except UnicodeDecodeError:
                yield line, Unreadable("not UTF-8; save the file as UTF-8")


def _json(file: Path) -> Iterator[tuple[int, object]]:
    text = _text(file)
    if text.lstrip().startswith("{"):  # Spark and many others call JSON lines .json
        yield from _jsonl(file)
        return
    rows = parsed_json(text) if text.strip() else []
    if not isinstance(rows, list):
        raise InputError(f"{rows if isinstance(rows, Unreadable) else type_name(rows)}; expected a list of objects")
    yield from enumerate(rows, 1)


def _csv(file: Path, encoding: str) -> Iterator[tuple[int, object]]:
    text = _text(file, encoding)
    records: list[tuple[int, list[str] | Unreadable]] = []
    line = 1
    usual = csv.field_size_limit(max(len(text), 1))  # 131,072 by default, and a document may be longer
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for record in reader:
            records.append((line, record))
            line = reader.line_num + 1
    except csv.Error as error:
        advice = "quote cells that hold commas, quotes or newlines"
        records.append((line, Unreadable(f"not valid CSV ({error}) here or below; {advice}")))
    finally:
        csv.field_size_limit(usual)
    header = records[0][1] if records else []
    if isinstance(header, Unreadable):
        raise InputError(f"line 1: {header}")
    if records and (len(set(header)) < len(header) or not set(header) & set(KIND_COLUMNS)):
        raise InputError(f"line 1 is not a header of distinct column names; expected {EXPECTED_COLUMNS}")
    for line, cells in records[1:]:
        if isinstance(cells, Unreadable):
            yield line, cells
        elif len(cells) == len(header):
            yield line, {name: cell or None for name, cell in zip(header, cells, strict=True)}
        elif cells:
            yield line, Unreadable(f"{len(cells)} cells; expected {len(header)} as in the header")


def _parquet(file: Path) -> Iterator[tuple[int, object]]:
    import pyarrow as pa  # only where a Parquet file is read: it is slow to import
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            columns = [name for name in opened.schema_arrow.names if name in KNOWN_COLUMNS]
            rows = opened.read(columns=columns).to_pylist(maps_as_pydicts="strict")
    except (pa.ArrowException, UnicodeDecodeError, KeyError) as error:
        raise InputError("is not a whole and readable Parquet file; write it again") from error
    yield from enumerate(rows, 1)


def parsed_json(text: str) -> object:
    """What `text` says in JSON, or an `Unreadable`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return Unreadable(f"not valid JSON ({error.msg}, character {error.pos + 1})")
    except (ValueError, RecursionError):
        return Unreadable("not usable JSON (a number of too many digits, or nested too deep)")


def type_name(value: object) -> str:
    """What kind of thing `value` is, in words; never the value itself."""
    names = {str: "text", Unreadable: "text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
