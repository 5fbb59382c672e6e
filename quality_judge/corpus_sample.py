"""A few rows of a large corpus drawn at random without reading it all, and how many rows there are.

    Parquet      rows are counted from the footers; the sample comes from row groups drawn in proportion to their rows
    JSON lines   whole lines from blocks at random places; the number of rows is estimated from bytes
    CSV          the first records of files drawn at random; the number of rows is estimated from bytes

It knows nothing of judges. Files must lie on a file system of this machine.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quality_judge.errors import ConfigError, CorpusError, listed

ROW_GROUPS = 20
FILES_READ = 16
BLOCK_BYTES = 1 << 18
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
TEXT_KINDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


@dataclass(frozen=True)
class CorpusSample:
    """Rows of a corpus. columns: large_binary arrays by name.   rows: of the whole corpus, an estimate unless `exact`.

    drawn: in words, where the sample comes from.
    """

    columns: Mapping[str, pa.Array]
    rows: int
    exact: bool
    bytes: int
    files: int
    drawn: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def sample_corpus(
    path: str | Path, columns: Sequence[str], *, rows: int = 1000, seed: int = 0, format: str | None = None
) -> CorpusSample:
    """About `rows` rows of `columns`; all of them when the corpus has no more. format: by the names when None.

    Raises CorpusError when nothing is there, a file cannot be read, or a column is missing or no text.
    """
    if rows < 1:
        raise ConfigError(f"rows {rows} to sample: expected 1 or more")
    files = corpus_files(path)
    kind = format or _format_of(files)
    generator = np.random.default_rng(seed)
    try:
        if kind == "parquet":
            return _from_parquet(files, columns, rows, generator)
        parts = list(_json_parts(files, generator) if kind == "json" else _csv_parts(files, rows, generator))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise CorpusError(f"{path} cannot be read as {kind} ({type(error).__name__}); check its format") from None
    return _from_lines(files, columns, rows, parts, generator, csv_files=kind == "csv")


def corpus_files(path: str | Path) -> list[Path]:
    """The data files at `path`, a file or a folder; hidden ones are none. Raises CorpusError when there is none."""
    path = Path(path)
    if path.is_file():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part[0] in "._" and "=" not in part for part in file.relative_to(path).parts)
    )
    if not found:
        raise CorpusError(
            f"{path} has no files on this machine; give a folder or file of the corpus, or a copy of some"
        )
    return found


def _format_of(files: Sequence[Path]) -> str:
    kinds = {FORMATS.get(file.suffix) for file in files}
    kind = kinds.pop()
    if kinds or kind is None:
        raise CorpusError(
            f"the files end in {listed(sorted({file.suffix[1:] or 'nothing' for file in files}))}; expected one of "
            f"{', '.join(FORMATS)} throughout, not packed; or say --format"
        )
    return kind


def _from_parquet(
    files: Sequence[Path], columns: Sequence[str], rows: int, generator: np.random.Generator
) -> CorpusSample:
    groups = [
        (file, number, metadata.row_group(number).num_rows)
        for file in files
        for metadata in [pq.read_metadata(file)]
        for number in range(metadata.num_row_groups)
    ]
    counts = np.array([count for _, _, count in groups], dtype=np.int64)
    total = int(counts.sum())
    if total == 0:
        raise CorpusError(f"{files[0].parent} has no rows; there is nothing to plan")
    some = min(ROW_GROUPS, int((counts > 0).sum()))
    chosen = np.sort(generator.choice(len(groups), size=some, replace=False, p=counts / total))
    every = counts[chosen].sum() == total  # else groups were drawn by their rows, and each gives as many
    shares = counts[chosen] / total if every else np.full(some, 1 / some)
    parts = []
    for index, share in zip(chosen, shares, strict=True):
        file, number, count = groups[index]
        wanted = np.sort(generator.permutation(count)[: math.ceil(rows * share)])
        parts.append(_row_group(file, number, columns).take(pa.array(wanted)))
    table = pa.concat_tables(parts)
    picked = table.take(pa.array(np.sort(generator.permutation(len(table))[:rows])))
    drawn = f"{len(picked)} rows at random from {some} of {len(groups)} row groups"
    size = sum(file.stat().st_size for file in files)
    held = {name: picked.column(name).combine_chunks() for name in columns}
    return CorpusSample(held, total, True, size, len(files), drawn)


def _row_group(file: Path, number: int, columns: Sequence[str]) -> pa.Table:
    """One row group as large_binary columns; a column that this file lacks is null, as Spark merges schemas."""
    with pq.ParquetFile(file) as opened:
        schema = opened.schema_arrow
        _refuse_missing(columns, schema.names, file)
        for name in columns:
            if not any(is_kind(schema.field(name).type) for is_kind in TEXT_KINDS):
                raise CorpusError(f"column {name!r} is of type {schema.field(name).type}; expected string or binary")
        table = opened.read_row_group(number, columns=list(columns))
    return table.select(list(columns)).cast(pa.schema([(name, pa.large_binary()) for name in columns]))


def _refuse_missing(columns: Sequence[str], names: Sequence[str], file: Path) -> None:
    for name in columns:
        if name not in names:
            raise CorpusError(f"{file.name} has no column {name!r}; it has {listed(names)}")


def _from_lines(
    files: Sequence[Path], columns: Sequence[str], rows: int, parts: Sequence[tuple[dict[str, Any] | None, int]],
    generator: np.random.Generator, *, csv_files: bool,
) -> CorpusSample:  # fmt: skip
    """The sample from (record, bytes it takes) of each record that was read; a record of None cannot be parsed."""
    records, read = [record for record, _ in parts], sum(size for _, size in parts)
    if not records:
        raise CorpusError(f"{files[0].parent} has no rows; there is nothing to plan")
    names = sorted({name for record in records if record for name in record})
    _refuse_missing(columns, names, files[0])
    total = sum(file.stat().st_size for file in files)
    picked = [records[index] or {} for index in np.sort(generator.permutation(len(records))[:rows])]
    held = {
        name: pa.array([_bytes(record.get(name), name) for record in picked], pa.large_binary()) for name in columns
    }
    where = "the beginnings of files drawn at random" if csv_files else "blocks at random places"
    estimate = len(records) if read >= total else round(len(records) * total / read)
    drawn = f"{len(picked)} of {len(records)} rows read from {where}"
    return CorpusSample(held, estimate, read >= total, total, len(files), drawn)


def _json_parts(files: Sequence[Path], generator: np.random.Generator) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Records of whole lines from up to FILES_READ blocks; all of them when the corpus is no larger."""
    sizes = np.array([file.stat().st_size for file in files], dtype=np.int64)
    if sizes.sum() <= FILES_READ * BLOCK_BYTES:
        places = [(file, 0, int(size)) for file, size in zip(files, sizes, strict=True)]
    else:
        chosen = generator.choice(len(files), size=FILES_READ, p=sizes / sizes.sum())
        places = [
            (files[index], int(generator.integers(0, max(1, sizes[index] - BLOCK_BYTES))), BLOCK_BYTES)
            for index in chosen
        ]
    for file, start, length in places:
        with file.open("rb") as opened:
            opened.seek(start)
            if start:
                opened.readline()  # the end of a line whose beginning lies before
            while opened.tell() < start + length and (line := opened.readline()):
                if line.strip():
                    yield _parsed(line), len(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _csv_parts(
    files: Sequence[Path], rows: int, generator: np.random.Generator
) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """The first records of up to FILES_READ files; quoted line breaks allow no start in the middle."""
    chosen = np.sort(generator.permutation(len(files))[:FILES_READ])
    for index in chosen:
        with files[index].open("rb") as opened:
            start = 0
            lines = (line.decode("utf-8", "replace") for line in iter(opened.readline, b""))
            for number, record in enumerate(csv.DictReader(lines)):
                yield {key: value for key, value in record.items() if isinstance(key, str)}, opened.tell() - start
                start = opened.tell()
                if number + 1 >= -(-rows // len(chosen)):
                    break


def _bytes(value: Any, name: str) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise CorpusError(f"column {name!r} holds {type(value).__name__}; expected text")
    return value.encode("utf-8", "surrogatepass")
