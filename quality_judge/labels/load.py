"""Label files become a `LabelSet`: JSONL (plain or gzip), JSON, Parquet and CSV, each row's kind told by its columns.

Every fault of every file is gathered and raised once, with file and line and never a word of row text. It does not
know whether the labels agree with one another (`validate`) nor what they are used for.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quality_judge.errors import InputError, LabelError, unknown
from quality_judge.samples import (
    ANNOTATOR,
    CATEGORIES,
    CHOSEN,
    COMPLETION,
    COMPLETIONS,
    LABEL,
    PROMPT,
    REJECTED,
    ROW_ID,
    SOURCE,
    TEXT,
    WEIGHT,
    CategoryRow,
    Preference,
    Ranking,
    Sample,
)

Row = Sample | Preference | Ranking | CategoryRow
Messages = list[tuple[str, str]]

KIND_COLUMNS = (PROMPT, COMPLETION, TEXT, LABEL, CHOSEN, REJECTED, COMPLETIONS, CATEGORIES)
KNOWN_COLUMNS = (*KIND_COLUMNS, ROW_ID, ANNOTATOR, SOURCE, WEIGHT)
EXPECTED_COLUMNS = (
    f"{COMPLETION} (or {TEXT}) + {LABEL}, {CHOSEN} + {REJECTED}, {COMPLETIONS}, "
    f"or {TEXT} (or {COMPLETION}) + {CATEGORIES}"
)
MAX_FILE_BYTES = 2**31  # unpacked; expert labels are thousands of rows, so more than this is a mistake or a gzip bomb
MAX_SHOWN = 20  # a longer odd value may be row text in the wrong column, and row text never stands in an error

BINARY_VALUES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
LABEL_WORDS = {"good": True, "yes": True, "好": True, "是": True, "bad": False, "no": False, "坏": False, "否": False}
LABEL_VALUES = BINARY_VALUES | LABEL_WORDS
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Neither space nor control by their Unicode category, and yet nothing is drawn: fillers, blank braille, selectors.
BLANK_MARKS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")


@dataclass(frozen=True)
class LabelSet:
    """Labels of the four kinds, and parallel to each its origins: `file name:line`.

    In Parquet files and JSON lists the number is that of the row, from 1.
    """

    samples: tuple[Sample, ...] = ()
    preferences: tuple[Preference, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    categories: tuple[CategoryRow, ...] = ()
    sample_origins: tuple[str, ...] = ()
    preference_origins: tuple[str, ...] = ()
    ranking_origins: tuple[str, ...] = ()
    category_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rows()) != len(self.origins()):
            raise InputError(f"a LabelSet needs one origin a row; got {len(self.origins())} for {len(self.rows())}")

    @classmethod
    def of(cls, rows: Sequence[Row], origins: Sequence[str]) -> LabelSet:
        """The set of `rows`, of any kinds in any order, with the origin of each."""
        pairs = list(zip(rows, origins, strict=True))
        return cls(
            samples=tuple(row for row in rows if isinstance(row, Sample)),
            preferences=tuple(row for row in rows if isinstance(row, Preference)),
            rankings=tuple(row for row in rows if isinstance(row, Ranking)),
            categories=tuple(row for row in rows if isinstance(row, CategoryRow)),
            sample_origins=tuple(origin for row, origin in pairs if isinstance(row, Sample)),
            preference_origins=tuple(origin for row, origin in pairs if isinstance(row, Preference)),
            ranking_origins=tuple(origin for row, origin in pairs if isinstance(row, Ranking)),
            category_origins=tuple(origin for row, origin in pairs if isinstance(row, CategoryRow)),
        )

    def rows(self) -> tuple[Row, ...]:
        """All rows: samples, preferences, rankings, category rows."""
        return (*self.samples, *self.preferences, *self.rankings, *self.categories)

    def origins(self) -> tuple[str, ...]:
        """The origin of each of `rows()`."""
        return (*self.sample_origins, *self.preference_origins, *self.ranking_origins, *self.category_origins)

    def __len__(self) -> int:
        return len(self.samples) + len(self.preferences) + len(self.rankings) + len(self.categories)

    @cached_property
    def sha256(self) -> str:
        """Hash of all rows, hexadecimal; the same for any file names, file formats and row order."""
        return hashlib.sha256(b"".join(sorted(map(_digest, self.rows())))).hexdigest()

    def counts(self) -> dict[str, int]:
        """How many rows of each kind, and how many samples and category rows are desirable or not."""
        labels = [label_of(row) for row in self.rows()]
        return {
            "rows": len(self),
            "samples": len(self.samples),
            "preferences": len(self.preferences),
            "rankings": len(self.rankings),
            "categories": len(self.categories),
            "desirable": labels.count(True),
            "undesirable": labels.count(False),
        }


def label_of(row: Row) -> bool | None:
    """Whether the row is desirable; None for pairs, rankings, and category rows that nobody judged."""
    return row.label if isinstance(row, Sample | CategoryRow) else None


def completions_of(row: Row) -> tuple[str, ...]:
    """Every judged text of the row: one of a sample or category row, two of a preference, all of a ranking."""
    if isinstance(row, Preference):
        return row.chosen, row.rejected
    return row.completions if isinstance(row, Ranking) else (row.completion,)


def load_labels(paths: Sequence[str | Path]) -> LabelSet:
    """The labels of all files, in the order given. Raises one LabelError that names every fault in every file."""
    files = [Path(path) for path in paths]
    rows: list[Row] = []
    origins: list[str] = []
    faults: list[str] = [] if files else ["no label file was given"]
    for file in files:
        name = file.name if sum(file.name == other.name for other in files) == 1 else str(file)
        before = len(rows) + len(faults)
        try:
            for line, cells in _read(file):
                row, wrong = parse_row(cells)
                faults += [f"{name}:{line}: {fault}" for fault in wrong]
                if row is not None:
                    rows.append(row)
                    origins.append(f"{name}:{line}")
            if len(rows) + len(faults) == before:
                faults.append(f"{name}: holds no rows; expected at least one label")
        except InputError as error:
            faults.append(f"{name}: {error}")
        except OSError as error:
            faults.append(f"{name}: cannot be read ({error.strerror or type(error).__name__}); check the path")
    if faults:
        raise LabelError(f"{len(faults)} faults in {len(files)} label files; correct them and load again", faults)
    return LabelSet.of(rows, origins)


class Unreadable(str):
    """In the place of a row: why it could not be read."""

    __slots__ = ()


def parse_row(cells: object) -> tuple[Row | None, list[str]]:
    """The label that one row of a file says, or None, and what is wrong with it."""
    if isinstance(cells, Unreadable):
        return None, [str(cells)]
    if not isinstance(cells, Mapping):
        return None, [f"the row is {_type(cells)}; expected an object with columns {EXPECTED_COLUMNS}"]
    parser = _Parser(cells)
    row = parser.row()
    return (None if parser.faults else row), parser.faults


class _Parser:
    """One row on its way to a label; what is wrong with it gathers in `faults`."""

    def __init__(self, cells: Mapping[Any, Any]) -> None:
        # A table that mixes kinds has every column on every row, so null is the same as absent.
        self.cells = {name: cells[name] for name in KNOWN_COLUMNS if cells.get(name) is not None}
        self.faults: list[str] = []

    def row(self) -> Row | None:
        kinds = self.kinds()
        if len(kinds) != 1:
            found = ", ".join(name for name in KIND_COLUMNS if name in self.cells) or "none of these"
            problem = f"columns of {' and '.join(kinds)} at once" if kinds else "columns of no kind of label"
            self.faults.append(f"{problem} (filled: {found}); expected one of: {EXPECTED_COLUMNS}")
            return None
        builders: dict[str, Callable[[], Row | None]] = {
            "sample": self.sample,
            "preference": self.preference,
            "ranking": self.ranking,
            "categories": self.category_row,
        }
        return builders[kinds[0]]()

    def kinds(self) -> list[str]:
        has = self.cells.keys()
        judged = COMPLETION in has or TEXT in has
        complete = {
            "sample": judged and LABEL in has,
            "preference": CHOSEN in has and REJECTED in has,
            "ranking": COMPLETIONS in has,
            "categories": judged and CATEGORIES in has,
        }
        return [kind for kind, stands in complete.items() if stands]

    def sample(self) -> Sample:
        prompt, (completion,) = self.texts([self.completion_column()])
        label = self.binary(LABEL, self.cells[LABEL], LABEL_VALUES)
        marks = {name: self.name(name) for name in (ROW_ID, ANNOTATOR, SOURCE)}
        return Sample(prompt, completion, label, marks[ROW_ID], marks[ANNOTATOR], marks[SOURCE], self.weight())

    def preference(self) -> Preference:
        prompt, (chosen, rejected) = self.texts([(CHOSEN, self.cells[CHOSEN]), (REJECTED, self.cells[REJECTED])])
        if chosen == rejected:
            self.faults.append(f"{CHOSEN} and {REJECTED} are the same text; expected two different ones")
        return Preference(prompt, chosen, rejected, self.name(ROW_ID), self.name(ANNOTATOR))

    def ranking(self) -> Ranking | None:
        values = self.unpacked(COMPLETIONS)
        if not isinstance(values, list) or len(values) < 2:
            got = f"a list of {len(values)}" if isinstance(values, list) else _type(values)
            self.faults.append(f"{COMPLETIONS} is {got}; expected a list of at least 2 texts, best first")
            return None
        prompt, completions = self.texts([(f"{COMPLETIONS}[{place}]", value) for place, value in enumerate(values)])
        return Ranking(prompt, tuple(completions), self.name(ROW_ID), self.name(ANNOTATOR))

    def category_row(self) -> CategoryRow:
        prompt, (completion,) = self.texts([self.completion_column()])
        said = self.unpacked(CATEGORIES)
        if not isinstance(said, Mapping) or not said or not all(isinstance(name, str) and name for name in said):
            expected = "expected categories with 0, 1 or null each"
            self.faults.append(
                f"{CATEGORIES} is {_type(said)}; {expected} (one label for the whole text goes in {LABEL})"
            )
            said = {}
        categories = {
            _clean(name): None if value is None else self.binary(f"{CATEGORIES}[{_shown(name)}]", value, BINARY_VALUES)
            for name, value in said.items()
        }
        return CategoryRow(prompt, completion, categories, self.name(ROW_ID), self.name(ANNOTATOR))

    def completion_column(self) -> tuple[str, object]:
        name = COMPLETION if COMPLETION in self.cells else TEXT
        return name, self.cells[name]

    def texts(self, columns: Sequence[tuple[str, object]]) -> tuple[str, list[str]]:
        """The prompt and the text of each column. Chats without a prompt: what all of them begin with is the prompt."""
        prompt = _joined(self.messages(PROMPT, self.cells.get(PROMPT, "")))
        chats = [self.messages(name, value) for name, value in columns]
        shared = 0
        while all(len(chat) > shared + 1 and chat[shared] == chats[0][shared] for chat in chats):
            shared += 1
        opening = _joined(chats[0][:shared])
        if shared and prompt in ("", opening):
            prompt, chats = opening, [chat[shared:] for chat in chats]
        completions = [_joined(chat) for chat in chats]
        for (name, _), chat, text in zip(columns, chats, completions, strict=True):
            if chat and is_blank(text):
                self.faults.append(f"{name} is empty or holds only invisible characters; expected text")
        return prompt, completions

    def messages(self, name: str, value: object) -> Messages:
        """A string as one message, a chat as its messages; [] and a fault for anything else."""
        if isinstance(value, str):
            return [("", _clean(value))]
        if (
            isinstance(value, list)
            and value
            and all(isinstance(message, Mapping) and isinstance(message.get("content"), str) for message in value)
        ):
            return [(str(message.get("role", "")), _clean(message["content"])) for message in value]
        self.faults.append(
            f"{name} is {_type(value)}; expected text, or chat messages with a role and a content in text"
        )
        return []

    def unpacked(self, name: str) -> object:
        """The cell, or what it says in JSON where a format has no lists and objects (CSV)."""
        value = self.cells[name]
        return _parsed_json(value) if isinstance(value, str) else value

    def binary(self, name: str, value: object, allowed: Mapping[str, bool]) -> bool:
        label = allowed.get(str(value).strip().casefold()) if isinstance(value, bool | int | float | str) else None
        if label is None:
            self.faults.append(f"{name} is {_shown(value)}; expected true or false, or one of: {', '.join(allowed)}")
        return bool(label)

    def name(self, column: str) -> str | None:
        value = self.cells.get(column, "")
        if isinstance(value, str):
            return _clean(value) or None
        if isinstance(value, float) and value.is_integer():  # pandas turns whole numbers beside a null into floats
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        self.faults.append(f"{column} is {_type(value)}; expected text or a whole number")
        return None

    def weight(self) -> float:
        value = self.cells.get(WEIGHT, 1.0)
        try:
            weight = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            weight = math.nan
        if not 0 < weight < math.inf:
            self.faults.append(f"{WEIGHT} is {_shown(value)}; expected a number above 0")
        return weight


def is_blank(text: str) -> bool:
    """Whether nothing of `text` would be seen: spaces, controls, format characters, fillers."""
    return all(unicodedata.category(mark)[0] in "ZC" or BLANK_MARKS.match(mark) for mark in text)


def _read(file: Path) -> Iterator[tuple[int, object]]:
    """Each row of the file with its line; for Parquet and a JSON list, with its number, from 1."""
    readers = {".jsonl": _jsonl, ".jsonl.gz": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
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


def _text(file: Path) -> str:
    try:
        return _bytes(file).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _jsonl(file: Path) -> Iterator[tuple[int, object]]:
    # Lines end at \n alone: str.splitlines would also cut at U+2028, which JSON strings may hold.
    for line, data in enumerate(_bytes(file).split(b"\n"), 1):
        if data.strip():
            try:
                yield line, _parsed_json(data.decode())
            except UnicodeDecodeError:
                yield line, Unreadable("not UTF-8; save the file as UTF-8")


def _json(file: Path) -> Iterator[tuple[int, object]]:
    text = _text(file)
    if text.lstrip().startswith("{"):  # Spark and many others call JSON lines .json
        yield from _jsonl(file)
        return
    rows = _parsed_json(text) if text.strip() else []
    if not isinstance(rows, list):
        raise InputError(f"{rows if isinstance(rows, Unreadable) else _type(rows)}; expected a list of objects")
    yield from enumerate(rows, 1)


def _csv(file: Path) -> Iterator[tuple[int, object]]:
    text = _text(file)
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


def _parsed_json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return Unreadable(f"not valid JSON ({error.msg}, character {error.pos + 1})")
    except (ValueError, RecursionError):
        return Unreadable("not usable JSON (a number of too many digits, or nested too deep)")


def _joined(messages: Messages) -> str:
    return "\n".join(content for _, content in messages)


def _clean(text: str) -> str:
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text)


def _shown(value: object) -> str:
    """The value when it is short; otherwise its type and length, because it may be row text."""
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else f"{_type(value)} of {len(shown)} characters"


def _type(value: object) -> str:
    names = {str: "text", Unreadable: "text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _digest(row: Row) -> bytes:
    said = {name: getattr(row, name) for name in row.__slots__}
    if isinstance(row, CategoryRow):  # Parquet fills in every category of the file, so null is the same as absent
        said["categories"] = {name: value for name, value in row.categories.items() if value is not None}
    return hashlib.sha256(json.dumps([type(row).__name__, said], sort_keys=True).encode()).digest()
