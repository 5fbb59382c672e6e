"""A few rows of a large corpus drawn at random without reading it all, and how many rows there are.

    Parquet      rows are counted from the footers; the sample comes from row groups drawn in proportion to their rows
    JSON lines   whole lines from blocks at random places; the number of rows is estimated from bytes
    CSV          as many bytes from the beginnings of files; the number of rows is estimated from bytes

Every row has the same chance, however the rows are spread over files (of CSV: every row near the beginning of its
file), and none is drawn twice. Of JSON lines and CSV 4 MB are looked at, and up to 64 MB where these hold too few rows.
It knows nothing of judges. Files must lie on a file system of this machine.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quality_judge.errors import ConfigError, CorpusError, listed

ROW_GROUPS = 20  # that many draws of row groups give the sample when all are large; small ones are drawn more often
ROWS_READ_PER_ROW = 1000  # a draw takes one row of so many, so that 1,000 rows of small groups cost a million to read
BLOCKS = 256
BLOCK_BYTES = 1 << 14
MOST_BYTES = 64_000_000  # of lines that are looked at; a parsed one takes a multiple of its bytes in memory
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
TEXT_KINDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
Part: TypeAlias = tuple[dict[str, Any] | None, int, int]  # a record, None if it is broken; its bytes; where it was read
Block: TypeAlias = tuple[Path, int, int, int]  # a file, the first byte, how many bytes, and the number of the block


@dataclass(frozen=True)
class CorpusSample:
    """Rows of a corpus. columns: large_binary arrays by name.   rows: of the whole corpus, an estimate unless `exact`.

    cluster: int64 (n,), the same for rows that were read from one place and may be alike.
    drawn: in words, where the sample comes from.
    """

    columns: Mapping[str, pa.Array]
    cluster: np.ndarray
    rows: int
    exact: bool
    bytes: int
    files: int
    drawn: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def sample_corpus(
    path: str | Path, columns: Sequence[str], *, rows: int = 1000, seed: int = 0, format: str | None = None,
    rows_read_per_row: int = ROWS_READ_PER_ROW,
) -> CorpusSample:  # fmt: skip
    """About `rows` rows of `columns`; all of them when the corpus has no more. format: by the names when None.

    rows_read_per_row: of Parquet, at least 1; fewer read less, and take more rows from one place, which may be alike.
    Raises CorpusError when nothing is there, a file cannot be read, or a column is missing or no text.
    """
    if rows < 1:
        raise ConfigError(f"rows {rows} to sample: expected 1 or more")
    files = corpus_files(path)
    kind = format or _format_of(files)
    generator = np.random.default_rng(seed)
    try:
        if kind == "parquet":
            return _from_parquet(files, columns, rows, generator, rows_read_per_row)
        parts, looked = _looked_at(files, rows, generator, _json_parts if kind == "json" else _csv_parts)
    except (OSError, pa.ArrowException, ValueError, csv.Error) as error:
        raise CorpusError(f"{path} cannot be read as {kind} ({type(error).__name__}); check its format") from None
    return _from_lines(files, columns, rows, parts, looked, generator, csv_files=kind == "csv")


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
            f"{', '.join(FORMATS)} throughout, not packed; or name the format"
        )
    return kind


def _from_parquet(
    files: Sequence[Path], columns: Sequence[str], rows: int, generator: np.random.Generator, read_per_row: int
) -> CorpusSample:
    groups = [group for file in files for group in _row_groups(file)]
    counts = np.array([count for _, _, count in groups], dtype=np.int64)
    total = int(counts.sum())
    if total == 0:
        raise CorpusError(f"{files[0].parent} has no rows; there is nothing to draw")
    hits, each = _hits(counts, rows, generator, read_per_row)
    parts, clusters, before = [], [], np.cumsum(hits) - hits
    for file, chosen in groupby(np.flatnonzero(hits), key=lambda index: groups[index][0]):
        with pq.ParquetFile(file) as opened:
            _refuse_unfit(opened.schema_arrow, columns, file)
            for index in chosen:
                wanted = generator.permutation(counts[index])[: hits[index] * each[index]]
                parts.append(_row_group(opened, groups[index][1], columns).take(pa.array(wanted)))
                clusters.append(before[index] + np.arange(len(wanted)) // each[index])
    table = pa.concat_tables(parts)
    drawn = f"{len(table)} rows at random from {len(parts)} of {len(groups)} row groups"
    size = sum(file.stat().st_size for file in files)
    held = {name: table.column(name).combine_chunks() for name in columns}
    return CorpusSample(held, np.concatenate(clusters), total, True, size, len(files), drawn)


def _row_groups(file: Path) -> Iterator[tuple[Path, int, int]]:
    """(file, number, rows) of each of its row groups."""
    metadata = pq.read_metadata(file)
    for number in range(metadata.num_row_groups):
        yield file, number, metadata.row_group(number).num_rows


def _hits(
    counts: np.ndarray, rows: int, generator: np.random.Generator, read_per_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """How often each row group is drawn, and how many rows it gives each time; both int64 (groups,).

    Systematic sampling in random order: a group is drawn as often as `rows` and its size ask for, rounded down or up.
    So each row has the same chance, and no group is asked for more rows than it has.
    """
    share = min(1.0, rows / int(counts.sum()))
    most = -(-rows // ROW_GROUPS) if share < 0.5 else 1
    each = np.clip(-(-counts // read_per_row), 1, most)
    order = generator.permutation(len(counts))
    hits = np.empty_like(counts)
    hits[order] = np.diff(np.floor(np.cumsum((share * counts / each)[order]) + generator.random()), prepend=0)
    return hits, each


def _refuse_unfit(schema: pa.Schema, columns: Sequence[str], file: Path) -> None:
    _refuse_missing(columns, schema.names, file)
    for name in columns:
        kind = schema.field(name).type
        if not any(is_kind(kind.value_type if pa.types.is_dictionary(kind) else kind) for is_kind in TEXT_KINDS):
            raise CorpusError(f"column {name!r} is of type {kind}; expected string or binary")


def _row_group(opened: pq.ParquetFile, number: int, columns: Sequence[str]) -> pa.Table:
    """One row group as large_binary columns."""
    table = opened.read_row_group(number, columns=list(columns))
    return table.select(list(columns)).cast(pa.schema([(name, pa.large_binary()) for name in columns]))


def _refuse_missing(columns: Sequence[str], names: Sequence[str], file: Path) -> None:
    for name in columns:
        if name not in names:
            raise CorpusError(f"{file.name} has no column {name!r}; it has {listed(names)}")


def _looked_at(
    files: Sequence[Path], rows: int, generator: np.random.Generator, read: Callable[[Iterator[Block]], Iterator[Part]]
) -> tuple[list[Part], int]:
    """All that was read, and how many bytes were looked at for it.

    A look with too few rows is followed by a larger one at other places, of which it says the size and no more: were
    blocks extended until they hold enough, rows behind long ones would have the better chance.
    """
    looked, most = BLOCKS * BLOCK_BYTES, min(MOST_BYTES, sum(file.stat().st_size for file in files))
    parts = list(read(_blocks(files, generator, looked)))
    while len(parts) < rows and looked < most:
        looked = min(MOST_BYTES, 2 * looked * rows // max(1, len(parts)))
        parts = list(read(_blocks(files, generator, looked)))
    return parts, looked


def _from_lines(
    files: Sequence[Path], columns: Sequence[str], rows: int, parts: Sequence[Part], looked: int,
    generator: np.random.Generator, *, csv_files: bool,
) -> CorpusSample:  # fmt: skip
    """The sample from all that was read."""
    total = sum(file.stat().st_size for file in files)
    whole = total <= looked
    if not parts:
        few = f"no row that begins in the {looked / 1e6:g} MB looked at: its rows are very long; write it as Parquet"
        raise CorpusError(f"{files[0].parent} has {'no rows; there is nothing to draw' if whole else few}")
    records = [record or {} for record, _, _ in parts]
    _refuse_missing(columns, sorted({name for record in records for name in record}), files[0])
    picked = np.sort(generator.permutation(len(parts))[:rows])
    held = {name: _column([record.get(name) for record in records], name).take(pa.array(picked)) for name in columns}
    cluster = np.arange(len(picked)) if whole else np.array([parts[index][2] for index in picked])
    where = "the beginnings of files drawn at random" if csv_files else "blocks at random places"
    estimate = len(parts) if whole else round(len(parts) * total / sum(size for _, size, _ in parts))
    drawn = f"{len(picked)} of {len(parts)} rows read from {'all files' if whole else where}"
    return CorpusSample(held, cluster, estimate, whole, total, len(files), drawn)


def _blocks(files: Sequence[Path], generator: np.random.Generator, looked: int) -> Iterator[Block]:
    """BLOCKS at equal distances, the first at a random place of all files laid end to end; they do not overlap.

    Every byte has the same chance. A block that goes on in the next file comes in pieces. All files when they are no
    larger than the blocks together, `looked`.
    """
    sizes = [file.stat().st_size for file in files]
    total, ends = sum(sizes), np.cumsum(sizes)
    if total <= looked:
        yield from ((file, 0, size, 0) for file, size in zip(files, sizes, strict=True))
        return
    start = int(generator.integers(total))
    for block in range(BLOCKS):
        at, left = (start + block * total // BLOCKS) % total, looked // BLOCKS
        while left:
            index = int(np.searchsorted(ends, at, side="right"))
            length = min(left, int(ends[index]) - at)
            yield files[index], at - int(ends[index]) + sizes[index], length, block
            at, left = (at + length) % total, left - length


def _json_parts(blocks: Iterator[Block]) -> Iterator[Part]:
    """The lines that begin in a block."""
    for file, start, length, block in blocks:
        with file.open("rb") as opened:
            if start:
                opened.seek(start - 1)
                opened.readline(length + 1)  # the end of a line whose beginning lies before, or all of the block
            while opened.tell() < start + length and (line := opened.readline()):
                if line.strip():
                    yield _parsed(line), len(line), block


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or nested too deep
        return None
    return record if isinstance(record, dict) else None


def _csv_parts(blocks: Iterator[Block]) -> Iterator[Part]:
    """Records of as many bytes as the blocks have, from the beginnings of their files.

    A start in the middle is not possible: a line break in quotes looks like the end of a record.
    """
    lengths: Counter[Path] = Counter()
    for file, _, length, _ in blocks:
        lengths[file] += length
    usual = csv.field_size_limit(MOST_BYTES)  # 131,072 by default, and a document may be longer
    try:
        for place, (file, length) in enumerate(lengths.items()):
            for record, size in _csv_records(file, length):
                yield record, size, place
    finally:
        csv.field_size_limit(usual)


def _csv_records(file: Path, length: int) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """The records that begin in the first `length` bytes, None for one that is broken, with their bytes."""
    with file.open("rb") as opened:
        if opened.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            opened.seek(0)
        reader = csv.DictReader(line.decode("utf-8", "replace") for line in iter(opened.readline, b""))
        header, start = reader.fieldnames, 0  # after a broken header the next line must not pass for one
        while header is not None and start < length:
            try:
                record = {key: value for key, value in next(reader).items() if isinstance(key, str)}
            except StopIteration:
                return
            except csv.Error:
                record = None
            yield record, opened.tell() - start
            start = opened.tell()


def _column(values: Sequence[Any], name: str) -> pa.Array:
    """The values as large_binary; a number among texts is text, as Spark reads it, anything else counts as null."""
    kinds = {type(value).__name__ for value in values if value is not None}
    if kinds and "str" not in kinds:
        raise CorpusError(f"column {name!r} holds {listed(sorted(kinds))}; expected text")
    texts = [json.dumps(value) if isinstance(value, int | float) else value for value in values]
    encoded = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None for text in texts]
    return pa.array(encoded, pa.large_binary())
