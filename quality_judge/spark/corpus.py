"""Reads a corpus from Parquet, JSON lines, CSV or text, so that no record is dropped on the way in. (driver)"""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError
from quality_judge.spark.fault import refused_read
from quality_judge.spark.publish import located
from quality_judge.spark.score import CORRUPT_COLUMN

FORMATS = ("parquet", "json", "csv", "text")
# Files whose header differs are refused: by default Spark reads them in the first file's order.
CSV: dict[str, Any] = {"header": True, "multiLine": True, "escape": '"', "enforceSchema": False, "mode": "PERMISSIVE"}


def read_corpus(spark: SparkSession, path: str, *, format: str = "parquet", text_column: str = "text") -> DataFrame:
    """The rows at `path`. Malformed JSON and CSV records stay as rows, what stood there in `_corrupt_record`.

    Parquet files may differ in their columns; a column that a file lacks is null. A text file gives one row a line,
    in `text_column`. Raises CorpusError when nothing is there or it cannot be read.
    """
    with refused_read(f"{path} as {format}"):
        if format == "json":
            return spark.read.json(path, mode="PERMISSIVE", columnNameOfCorruptRecord=CORRUPT_COLUMN)
        if format == "csv":
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


def _read_csv(spark: SparkSession, path: str) -> DataFrame:
    """A column of corrupt records is there only when some record is corrupt, as Spark does it for JSON."""
    plain = spark.read.csv(path, **CSV)
    if CORRUPT_COLUMN in plain.columns:
        return plain
    schema = plain.schema.add(CORRUPT_COLUMN, "string")
    marked = spark.read.schema(schema).csv(path, columnNameOfCorruptRecord=CORRUPT_COLUMN, **CSV)
    return marked if marked.where(F.col(CORRUPT_COLUMN).isNotNull()).take(1) else spark.read.csv(path, **CSV)
