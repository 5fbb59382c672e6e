"""Scores a table without Spark: Parquet, JSON lines or CSV in, the same rows with the quality_* columns out as Parquet.

The scores are the same bits as in Spark. It knows nothing of policies or reports.
"""

from __future__ import annotations

import os
import uuid
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from quality_judge.engine.scorer import Scorer
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

READERS = {
    ".parquet": pyarrow.parquet.read_table,
    ".jsonl": pyarrow.json.read_json,
    ".json": pyarrow.json.read_json,
    ".csv": pyarrow.csv.read_csv,
}
ROWS_AT_ONCE = 10_000


def score_table(
    scorer: Scorer, table: pa.Table, *, text_column: str = "text", prompt_column: str | None = None
) -> pa.Table:
    """`table` with the columns of SCORED_COLUMNS. Raises CorpusError for a missing column or a name that is taken."""
    for column in filter(None, (text_column, prompt_column)):
        if column not in table.column_names:
            near = get_close_matches(column, table.column_names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise CorpusError(f"there is no column {column!r}; the table has {listed(table.column_names)}{hint}")
    taken = sorted(name for name in table.column_names if name.lower() in SCORED_COLUMNS)
    if taken:
        raise CorpusError(
            f"the table already has {', '.join(taken)}; rename or drop them, scores never overwrite a column"
        )
    parts = [
        _scored(scorer, table.slice(at, ROWS_AT_ONCE), text_column, prompt_column)
        for at in range(0, max(len(table), 1), ROWS_AT_ONCE)
    ]
    return pa.concat_tables(parts)


def read_table(path: str | Path) -> pa.Table:
    """The table in a Parquet, JSON lines or CSV file. Raises CorpusError when it is neither or is damaged."""
    path = Path(path)
    if path.suffix not in READERS:
        raise CorpusError(f"{path} ends in {path.suffix or 'nothing'}; expected one of {', '.join(sorted(READERS))}")
    try:
        return READERS[path.suffix](path)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path} cannot be read ({type(error).__name__}); it is missing, damaged or of another format"
        ) from None


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
    prompts = part.column(prompt_column) if prompt_column else None
    scores = scorer.score(part.column(text_column), prompts)
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
