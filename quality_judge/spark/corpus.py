"""Reads a corpus from Parquet, JSON lines, CSV or text, so that no record is dropped on the way in. (driver)"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from quality_judge.errors import CorpusError, UnreadableFile, listed
from quality_judge.spark.fault import refused_read
from quality_judge.spark.json_lines import read_json
from quality_judge.spark.places import PATTERN_SIGN, Place, refuse_password
from quality_judge.spark.score import CORRUPT_COLUMN

MAX_HEADER_BYTES = 1 << 16
FORMATS = ("parquet", "json", "csv", "text")
# Files whose header differs are refused: by default Spark reads them in the first file's order.
CSV: dict[str, Any] = {"header": True, "multiLine": True, "escape": '"', "enforceSchema": False, "mode": "PERMISSIVE"}


PACKED = (".gz", ".bz2", ".zst", ".lz4", ".snappy", ".deflate")
MAX_QUARANTINED = 100


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file that was left out because it cannot be read."""

    file: str
    bytes: int
    reason: str


def read_corpus(
    spark: SparkSession, path: str | Sequence[str], *, format: str = "parquet", text_column: str = "text",
    base: str | None = None,
) -> DataFrame:  # fmt: skip
    """The rows at `path`. Malformed JSON and CSV records stay as rows, what stood there in `_corrupt_record`.

    Parquet files may differ in their columns; a column that a file lacks is null. A text file gives one row a line,
    in `text_column`. base: the folder below which folder names are columns, when `path` names files. Raises CorpusError
    when no file is there, it cannot be read, or Spark would skip a file of it.
    """
    paths = [path] if isinstance(path, str) else list(path)
    for one in paths:
        refuse_password(one)
    below: dict[str, Any] = {"basePath": base} if base else {}
    with refused_read(f"{paths[0]} as {format}"):
        found = _read(spark, paths, format, text_column, below)
        refuse_unread(found, paths)
    return found


def _read(spark: SparkSession, paths: list[str], format: str, text_column: str, below: dict[str, Any]) -> DataFrame:
    if format == "json":
        return read_json(spark, paths, below)
    if format == "csv":
        for one in paths:
            refuse_headless(spark, one, text_column)
        return _read_csv(spark, paths, below)
    if format == "text":
        return spark.read.options(**below).text(paths).withColumnRenamed("value", text_column)
    if format == "parquet":
        found = spark.read.options(**below).parquet(*paths, mergeSchema=True)
        for one in paths:
            refuse_empty_files(Place.at(spark, one))
        return found
    raise CorpusError(f"format {format!r} is not known; choose one of: {', '.join(FORMATS)}")


def refuse_unread(found: DataFrame, paths: Sequence[str]) -> None:
    """Raises CorpusError when files lie at `paths` that are not among those of `found`: Spark skips them silently.

    It reads what lies in a folder itself or, where folders in it are named column=value, in those. One listing, by
    Spark, so that what is hidden, a pattern or a table with a log is here what it is to its readers. A file that is
    named like none of those that are read, such as a README, is no part of the corpus.
    """
    lines = found.sparkSession.read.schema("line string").text(list(paths), recursiveFileLookup=True)
    there, read = _file_names(lines), set(_file_names(found))
    if not read:  # text needs no file to tell its columns, and gives no row
        raise CorpusError(f"no file to read lies at {paths[0]}; check the path, and what should have written there")
    plan: Any = found._jdf.queryExecution().analyzed()
    if plan.collectLeaves().apply(0).relation().partitionSchema().nonEmpty():  # then `found` names those it skips, too
        most = max(map(_columns_in, there), default=0)
        read = {name for name in read if _columns_in(name) == most}
    kinds, hides = {_kind(name) for name in read}, _hidden_below(found.sparkSession, paths)
    alike = [name for name in there if (not kinds or _kind(name) in kinds) and not hides(name)]
    if unread := sorted(name for name in alike if name not in read):
        raise CorpusError(
            f"{unquote(unread[0])} would not be read ({len(unread)} of {len(there)} files): Spark reads the files that "
            "lie in a folder or, where it has folders named column=value, those in these. Move the files, or, where no "
            "folder is named column=value, give a pattern that names every folder, as in --input 'corpus/[!._]*'"
        )


def _kind(file: str) -> str:
    """How the file's name ends, packed or not; JSON lines go by several endings."""
    path = PurePosixPath(file.lower())
    ending = PurePosixPath(path.stem).suffix if path.suffix in PACKED else path.suffix
    return ".json" if ending in (".jsonl", ".ndjson") else ending


def _hidden_below(spark: SparkSession, paths: Sequence[str]) -> Callable[[str], bool]:
    """Whether a file lies in a hidden folder that a pattern among `paths` matched, where Spark would not look."""
    named = [PATTERN_SIGN.split(path)[0].rpartition("/")[0] for path in paths if PATTERN_SIGN.search(path)]
    starts = [f"{Place.at(spark, folder or '.').path.toUri().getPath().rstrip('/')}/" for folder in named]

    def hides(name: str) -> bool:
        path = unquote(urlsplit(name).path)
        below = [path.removeprefix(start).split("/") for start in starts if path.startswith(start)]
        return any(folder[0] in "._" and "=" not in folder for folders in below for folder in folders[:-1] if folder)

    return hides


def _file_names(df: DataFrame) -> list[str]:
    """The files that `df` names, percent-encoded; in one call, since each of 100,000 would take its own."""
    java: Any = df.sparkSession._jvm
    names = java.org.apache.hadoop.util.StringUtils.join("\n", df._jdf.inputFiles())
    return str(names).split("\n") if names else []


def _columns_in(file: str) -> int:
    """How many of the folders that a file lies in are named column=value."""
    return sum("=" in folder for folder in file.split("/")[:-1])


def refuse_empty_files(place: Place) -> None:
    """Raises CorpusError for a file of no bytes: Spark skips it without a word, and its rows with it."""
    for file, size in _files(place):
        if not size and file.name[0] not in "._":
            said = f"{file.text} has no bytes, as an interrupted copy leaves it; replace or remove it"
            raise UnreadableFile(file.text, "NO_BYTES", said)


def refuse_headless(spark: SparkSession, path: str, text_column: str) -> None:
    """Raises CorpusError unless every CSV file begins with the same names, `text_column` among them.

    Spark itself would take a first row of text for names, and put it into plans, logs and the event log.
    """
    first: list[str] | None = None
    for file, size in _files(Place.at(spark, path)):
        if not size:
            continue
        header, name = _header(file), file.text
        names = [name.strip().lower() for name in header]
        if text_column.lower() not in names:
            near = get_close_matches(text_column, header, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise CorpusError(f"{name} names no column {text_column!r} in its first line, but {listed(header)}{hint}")
        if first is not None and names != first:
            raise CorpusError(f"{name} has other columns than the files before: {listed(header)}; score it alone")
        first = names


def _files(pattern: Place) -> Iterator[tuple[Place, int]]:
    """Every data file at a path, in a folder or of a pattern, and its bytes; hidden ones are no data.

    What a folder holds goes by its name as it is: `x[1]` found there is a folder, and no pattern.
    """
    for status in pattern.files.globStatus(pattern.path) or []:
        yield from _files_at(pattern, status)


def _files_at(beside: Place, status: Any) -> Iterator[tuple[Place, int]]:
    place = Place(beside.spark, beside.files, status.getPath())
    if not status.isDirectory():
        yield place, int(status.getLen())
        return
    inner = {found.getPath().getName(): found for found in place.files.listStatus(place.path)}
    for name in sorted(inner):
        if name[0] not in "._" or "=" in name:
            yield from _files_at(place, inner[name])


def _header(file: Place) -> list[str]:
    """The cells of the first line of a CSV file, unpacked when its name says that it is packed.

    Raises UnreadableFile for one that is not what it was packed to.
    """
    java: Any = file.spark._jvm
    codecs = java.org.apache.hadoop.io.compress.CompressionCodecFactory(file.spark._jsc.hadoopConfiguration())
    codec, stream = codecs.getCodec(file.path), file.files.open(file.path)
    try:
        unpacked = stream if codec is None else codec.createInputStream(stream)
        text = bytes(unpacked.readNBytes(MAX_HEADER_BYTES)).decode("utf-8", "replace")
    except Py4JJavaError as error:
        kind = error.java_exception.getClass().getSimpleName()
        said = f"{file.text} cannot be read ({kind}): it is damaged; replace or remove it"
        raise UnreadableFile(file.text, kind, said) from None
    finally:
        stream.close()
    return next(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")), [])


def read_whole_files(
    spark: SparkSession, path: str, *, format: str = "parquet", text_column: str = "text"
) -> tuple[DataFrame, tuple[BadFile, ...]]:
    """(the rows of all files that can be read to their end, the files that cannot). Reads the corpus once to know.

    Raises CorpusError when no file or more than MAX_QUARANTINED would be left out, or for another fault.
    """
    place = Place.at(spark, path)
    base = place.text if place.is_folder() else None
    files = {file.text: size for file, size in _files(place)}
    bad: list[BadFile] = []
    while files and len(bad) <= MAX_QUARANTINED:
        try:
            named = [PATTERN_SIGN.sub(r"\\\g<0>", file) for file in files]
            found = read_corpus(spark, named, format=format, text_column=text_column, base=base)
            with refused_read():
                found.write.format("noop").mode("overwrite").save()
            return found, tuple(bad)
        except UnreadableFile as error:
            known = {_plain(file): file for file in files}
            if _plain(error.file) not in known:
                raise
            file = known[_plain(error.file)]
            bad.append(BadFile(file, files.pop(file), error.reason))
    raise CorpusError(f"{path} has {len(bad)} files that cannot be read and {len(files)} others; check what wrote them")


def _plain(path: str) -> str:
    """A path without what differs between two spellings of it."""
    scheme, _, rest = unquote(path).partition(":")
    return f"{scheme}:/{rest.lstrip('/')}"


def _read_csv(spark: SparkSession, paths: list[str], below: dict[str, Any]) -> DataFrame:
    """A column of corrupt records is there only when some record is corrupt, as Spark does it for JSON."""
    plain = spark.read.options(**below).csv(paths, **CSV)
    if CORRUPT_COLUMN in plain.columns:
        return plain
    schema = StructType([*plain.schema.fields, StructField(CORRUPT_COLUMN, StringType())])
    reader = spark.read.options(**below).schema(schema)
    marked = reader.csv(paths, columnNameOfCorruptRecord=CORRUPT_COLUMN, **CSV)
    return marked if marked.where(F.col(CORRUPT_COLUMN).isNotNull()).take(1) else plain
