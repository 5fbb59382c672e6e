"""Reads a corpus from Parquet, JSON lines, CSV or text, so that no record is dropped on the way in. (driver)"""

from __future__ import annotations

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from quality_judge.errors import CorpusError
from quality_judge.spark.fault import refused_read
from quality_judge.spark.score import CORRUPT_COLUMN

FORMATS = ("parquet", "json", "csv", "text")


def read_corpus(spark: SparkSession, path: str, *, format: str = "parquet", text_column: str = "text") -> DataFrame:
    """The rows at `path`. Malformed JSON and CSV records stay, as rows with nulls and `_corrupt_record`.

    A text file gives one row a line, in `text_column`. Raises CorpusError when nothing is there or it cannot be read.
    """
    reader = spark.read.option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", CORRUPT_COLUMN)
    with refused_read():
        try:
            if format == "json":
                return reader.json(path)
            if format == "csv":
                return reader.csv(path, header=True, multiLine=True, escape='"')
            if format == "text":
                return reader.text(path).withColumnRenamed("value", text_column)
            return reader.parquet(path)
        except AnalysisException as error:
            condition = error.getCondition() or "AnalysisException"
            raise CorpusError(f"{path} cannot be read as {format} ({condition}); check the path and --format") from None
