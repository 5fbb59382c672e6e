"""Scores a table without Spark: an Arrow table, a pandas DataFrame, or a Parquet, JSON lines or CSV file.

    scored = score_table(scorer, pyarrow.table({"text": texts}))    all columns, and the quality_* columns
    scored = score_frame(scorer, pandas.DataFrame({"text": texts})) the same of a frame, its index and types unchanged

The scores are the same bits as in Spark. It knows nothing of policies or reports.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from quality_judge.engine.chat import chat_columns, is_chat
from quality_judge.engine.scorer import Scorer
from quality_judge.engine.texts import as_bytes
from quality_judge.errors import CorpusError, listed
from quality_judge.scores import (
    CATEGORIES_COLUMN,
    CODE_COLUMN,
    FLAGS_COLUMN,
    JUDGE_COLUMN,
    RAW_COLUMN,
    SCORE_COLUMN,
    SCORED_COLUMNS,
)  # fmt: skip

MAX_ROW_BYTES = 2**27  # of CSV and JSON lines
ROWS_AT_ONCE = 10_000


def score_table(
    scorer: Scorer, table: pa.Table, *, text_column: str = "text", prompt_column: str | None = None
) -> pa.Table:
    """`table` with the columns of SCORED_COLUMNS. Raises CorpusError for a missing column or a name that is taken.

    text_column: strings, bytes or chats (see `engine.chat`); it may be a field within a column, as in `doc.text`.
    """
    _refuse_taken(table.column_names)
    for column in filter(None, (text_column, prompt_column)):
        _column(table, column)
    parts = [
        _scored(scorer, table.slice(at, ROWS_AT_ONCE), text_column, prompt_column)
        for at in range(0, max(len(table), 1), ROWS_AT_ONCE)
    ]
    return pa.concat_tables(parts)


def score_frame(scorer: Scorer, frame: Any, *, text_column: str = "text", prompt_column: str | None = None) -> Any:
    """A copy of the pandas DataFrame `frame` with the columns of SCORED_COLUMNS; a missing score is NaN.

    text_column: strings, bytes, or lists of messages with role and content; None, NaN and NA are null. Raises
    CorpusError as `score_table` does.
    """
    names = [str(name) for name in frame.columns]
    _refuse_taken(names)
    asked = {name: _cells(frame, name) for name in filter(None, (text_column, prompt_column))}
    scored = score_table(scorer, pa.table(asked), text_column=text_column, prompt_column=prompt_column)
    found = {name: scored.column(name) for name in SCORED_COLUMNS}
    numbers = {name: found.pop(name).to_numpy() for name in (SCORE_COLUMN, RAW_COLUMN)}
    others = {name: column.to_pylist() for name, column in found.items()}
    return frame.assign(**{name: (numbers | others)[name] for name in SCORED_COLUMNS})


def read_table(path: str | Path) -> pa.Table:
    """The table in a Parquet, JSON lines or CSV file.

    As in Spark, every column of CSV is text, an empty cell null, and a line break within quotes \\n where lines end in
    \\r\\n.

    Raises CorpusError when it is neither or is damaged.
    """
    path = Path(path)
    readers = {".parquet": pyarrow.parquet.read_table, ".jsonl": _read_json, ".json": _read_json, ".csv": _read_csv}
    if path.suffix not in readers:
        raise CorpusError(f"{path} ends in {path.suffix or 'nothing'}; expected one of {', '.join(sorted(readers))}")
    try:
        return readers[path.suffix](path)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path} cannot be read ({type(error).__name__}); it is missing, damaged or of another format"
        ) from None


def _read_csv(path: Path) -> pa.Table:
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    reading = pyarrow.csv.ReadOptions(block_size=MAX_ROW_BYTES)
    with pyarrow.csv.open_csv(path, reading, parsing) as opened:
        names = opened.schema.names
    as_text = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""],
        quoted_strings_can_be_null=True,
    )  # fmt: skip
    table = pyarrow.csv.read_csv(path, reading, parsing, as_text)
    with path.open("rb") as file:
        if not file.readline(MAX_ROW_BYTES).endswith(b"\r\n"):
            return table
    return pa.table(
        [pyarrow.compute.replace_substring(column, "\r\n", "\n") for column in table.columns], schema=table.schema
    )


def _read_json(path: Path) -> pa.Table:
    """The table, with what looks like a time left as the text that it is."""
    reading = pyarrow.json.ReadOptions(block_size=MAX_ROW_BYTES)
    table = pyarrow.json.read_json(path, reading)
    schema = pa.schema([(field.name, _with_texts(field.type)) for field in table.schema])
    if schema == table.schema:
        return table
    return pyarrow.json.read_json(path, reading, pyarrow.json.ParseOptions(explicit_schema=schema))


def _with_texts(kind: pa.DataType) -> pa.DataType:
    """The type, with text wherever Arrow has read a time out of text."""
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _with_texts(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_with_texts(kind.value_type))
    return pa.string() if pa.types.is_timestamp(kind) else kind


def write_table(table: pa.Table, path: str | Path) -> None:
    """`table` as a Parquet file: beside, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        pyarrow.parquet.write_table(table, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _scored(scorer: Scorer, part: pa.Table, text_column: str, prompt_column: str | None) -> pa.Table:
    completions, prompts = _column(part, text_column), _column(part, prompt_column) if prompt_column else None
    if is_chat(completions.type):
        if prompts is not None:
            raise CorpusError(f"column {text_column!r} holds chats, which have prompts of their own; leave prompts out")
        prompts, completions = chat_columns(completions)
    scores = scorer.score(completions, prompts)
    words = pa.list_(pa.string())
    columns = {
        SCORE_COLUMN: pa.array(scores.probability, pa.float64(), mask=np.isnan(scores.probability)),
        RAW_COLUMN: pa.array(scores.raw, pa.float64(), mask=np.isnan(scores.raw)),
        CODE_COLUMN: pa.array(scores.codes(), pa.string()),
        FLAGS_COLUMN: pa.array(scores.flag_lists(), words),
        CATEGORIES_COLUMN: pa.array(scores.category_lists(), words),
        JUDGE_COLUMN: pa.array([scorer.judge.fingerprint] * len(scores), pa.string()),
    }
    for name, column in columns.items():
        part = part.append_column(name, column)
    return part


def _column(table: pa.Table, path: str) -> pa.ChunkedArray:
    """The column of that name, else the field within a column. Raises CorpusError when there is none."""
    if path in table.column_names:
        return table.column(path)
    first, *rest = path.split(".")
    try:
        return pa.compute.struct_field(table.column(first), rest) if rest else table.column(first)
    except (KeyError, pa.ArrowException):
        near = get_close_matches(path, table.column_names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise CorpusError(f"there is no column {path!r}; the table has {listed(table.column_names)}{hint}") from None


def _cells(frame: Any, name: str) -> pa.Array:
    """The column of a DataFrame as Arrow has it. Raises CorpusError for what is neither text nor chats."""
    if list(frame.columns).count(name) != 1:
        near = get_close_matches(name, [str(other) for other in frame.columns], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise CorpusError(f"there is no single column {name!r}; the frame has {listed(frame.columns)}{hint}")
    missing = frame[name].isna()
    cells = [None if gone else cell for cell, gone in zip(frame[name], missing, strict=True)]
    first = next((cell for cell in cells if cell is not None), None)
    try:
        if hasattr(first, "__iter__") and not isinstance(first, str | bytes):
            return pa.array([None if cell is None else list(cell) for cell in cells])
        return as_bytes(cells)
    except (pa.ArrowException, TypeError, UnicodeEncodeError):
        raise CorpusError(f"column {name!r} holds neither texts nor chats throughout; expected one of them") from None


def _refuse_taken(names: Sequence[str]) -> None:
    taken = sorted(name for name in names if name.lower() in SCORED_COLUMNS)
    if taken:
        raise CorpusError(
            f"the table already has {', '.join(taken)}; rename or drop them, scores never overwrite a column"
        )
