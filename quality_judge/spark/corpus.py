"""Reads a corpus from Parquet, JSON lines, CSV or text, so that no record is dropped on the way in. (driver)"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError, listed
from quality_judge.spark.fault import refused_read
from quality_judge.spark.publish import located, refuse_password
from quality_judge.spark.score import CORRUPT_COLUMN

MAX_HEADER_BYTES = 1 << 16
FORMATS = ("parquet", "json", "csv", "text")
# Files whose header differs are refused: by default Spark reads them in the first file's order.
CSV: dict[str, Any] = {"header": True, "multiLine": True, "escape": '"', "enforceSchema": False, "mode": "PERMISSIVE"}


def read_corpus(spark: SparkSession, path: str, *, format: str = "parquet", text_column: str = "text") -> DataFrame:
    """The rows at `path`. Malformed JSON and CSV records stay as rows, what stood there in `_corrupt_record`.

    Parquet files may differ in their columns; a column that a file lacks is null. A text file gives one row a line,
    in `text_column`. Raises CorpusError when nothing is there or it cannot be read.
    """
    refuse_password(path)
    with refused_read(f"{path} as {format}"):
        if format == "json":
            return spark.read.json(path, mode="PERMISSIVE", columnNameOfCorruptRecord=CORRUPT_COLUMN)
        if format == "csv":
            refuse_headless(spark, path, text_column)
            return _read_csv(spark, path)
        if format == "text":
            return spark.read.text(path).withColumnRenamed("value", text_column)
        if format == "parquet":
            found = spark.read.parquet(path, mergeSchema=True)
            refuse_empty_files(spark, path)
            return found
    raise CorpusError(f"format {format!r} is not known; choose one of: {', '.join(FORMATS)}")


def refuse_empty_files(spark: SparkSession, path: str) -> None:
    """Raises CorpusError for a file of no bytes: Spark skips it without a word, and its rows with it."""
    files, pattern = located(spark, path)
    for status in files.globStatus(pattern) or []:
        if status.isDirectory():
            refuse_empty_files(spark, f"{status.getPath().toString()}/[!._]*")
        elif status.getLen() == 0:
            raise CorpusError(
                f"{status.getPath().toString()} has no bytes, as an interrupted copy leaves it; replace or remove it"
            )


def refuse_headless(spark: SparkSession, path: str, text_column: str) -> None:
    """Raises CorpusError unless every CSV file begins with the same names, `text_column` among them.

    Spark itself would take a first row of text for names, and put it into plans, logs and the event log.
    """
    first: list[str] | None = None
    for status in _files(spark, path):
        header = _header(spark, status.getPath())
        names = [name.strip().lower() for name in header]
        name = status.getPath().toString()
        if text_column.lower() not in names:
            near = get_close_matches(text_column, header, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise CorpusError(f"{name} names no column {text_column!r} in its first line, but {listed(header)}{hint}")
        if first is not None and names != first:
            raise CorpusError(f"{name} has other columns than the files before: {listed(header)}; score it alone")
        first = names


def _files(spark: SparkSession, path: str) -> Iterator[Any]:
    """The status of every data file under `path`, a folder, a file or a pattern; hidden ones are none."""
    files, pattern = located(spark, path)
    for status in files.globStatus(pattern) or []:
        if status.isDirectory():
            yield from _files(spark, f"{status.getPath().toString()}/[!._]*")
        elif status.getLen():
            yield status


def _header(spark: SparkSession, file: Any) -> list[str]:
    """The cells of the first line of a CSV file, unpacked when its name says that it is packed."""
    java: Any = spark._jvm
    configuration = spark._jsc.hadoopConfiguration()
    codec = java.org.apache.hadoop.io.compress.CompressionCodecFactory(configuration).getCodec(file)
    stream = file.getFileSystem(configuration).open(file)
    try:
        unpacked = stream if codec is None else codec.createInputStream(stream)
        text = bytes(unpacked.readNBytes(MAX_HEADER_BYTES)).decode("utf-8", "replace")
    finally:
        stream.close()
    return next(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")), [])


def _read_csv(spark: SparkSession, path: str) -> DataFrame:
    """A column of corrupt records is there only when some record is corrupt, as Spark does it for JSON."""
    plain = spark.read.csv(path, **CSV)
    if CORRUPT_COLUMN in plain.columns:
        return plain
    schema = plain.schema.add(CORRUPT_COLUMN, "string")
    marked = spark.read.schema(schema).csv(path, columnNameOfCorruptRecord=CORRUPT_COLUMN, **CSV)
    return marked if marked.where(F.col(CORRUPT_COLUMN).isNotNull()).take(1) else spark.read.csv(path, **CSV)
