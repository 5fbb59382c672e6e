"""Reads JSON lines so that nothing that stands in a line is lost without a word. (driver)

Spark's reader takes the first object of a line and drops whatever stands behind it: a second record, where two files
were joined without a line break. The pass that infers the schema therefore reads each line within brackets, which do
not close where something stands behind the object. Nearly every corpus is then known to be whole and is left to Spark's
reader, as is one whose lines are malformed otherwise. Only where a line holds more is each parsed within the brackets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StringType, StructField, StructType

from quality_judge.spark.score import CORRUPT_COLUMN, named

LINE, ROW, UNREAD = "_line", "_row", "_unread"
# Under a name of its own: a table that was read leniently before, and written, has records with CORRUPT_COLUMN.
LENIENT: dict[str, Any] = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": UNREAD}
NOTHING = "array<struct<_nothing: boolean>>"  # any object, or an array of them
BESIDE_RECORDS = ", \t\r]"  # what stands behind a record where the file is one array, with a record on each line


def read_json(spark: SparkSession, paths: Sequence[str], below: Mapping[str, Any]) -> DataFrame:
    """The records at `paths`, one or an array of them on each line; a line that is neither is in CORRUPT_COLUMN.

    below: options of the reader.
    """
    lines, reader = spark.read.options(**below).schema(f"{LINE} string").text(list(paths)), spark.read.options(**below)
    known, whole = _schema(lines)
    if known is not None:
        said = [] if whole else [StructField(UNREAD, StringType())]
        reader = reader.schema(StructType([*said, *_beside(lines, known)]))
    found = reader.json(list(paths), **LENIENT)
    if whole or not lines.where(_holds_more(F.col(LINE))).take(1):
        return _marked(found)
    plain = StructType([field for field in found.schema if field.name != UNREAD])
    return _marked(_told_apart(lines, _beside(lines, plain)))


def _marked(found: DataFrame) -> DataFrame:
    """`found` with UNREAD in CORRUPT_COLUMN, first and beside what a record itself says there."""
    if UNREAD not in found.columns:
        return found
    said = [named(found, name) for name in found.columns if name == CORRUPT_COLUMN]
    others = [named(found, name) for name in found.columns if name not in (UNREAD, CORRUPT_COLUMN)]
    return found.select(F.coalesce(F.col(UNREAD), *said).alias(CORRUPT_COLUMN), *others)


def _schema(lines: DataFrame) -> tuple[StructType | None, bool]:
    """(the columns of the records, None where a line is an array; whether every line is one object and nothing else).

    One pass.
    """
    spark, line = lines.sparkSession, F.col(LINE)
    java: Any = spark._jvm
    told = lines.select(F.when(F.trim(line).isin("", "null"), line).otherwise(_within(line)))
    texts = getattr(told._jdf, "as")(java.org.apache.spark.sql.Encoders.STRING())
    found = StructType.fromJson(json.loads(spark.read.options(**LENIENT)._jreader.json(texts).schema().json()))
    kind = found[LINE].dataType if LINE in found.names else None
    return (kind, found.names == [LINE]) if isinstance(kind, StructType) else (None, False)


def _beside(lines: DataFrame, fields: StructType) -> StructType:
    """`fields` without those that folder names give."""
    folders = {name.lower() for name in lines.columns[1:]}
    return StructType([field for field in fields if field.name.lower() not in folders])


def _holds_more(line: Column) -> Column:
    """Whether Spark's reader would take something from the line, and drop something that stands behind it."""
    text = _record(line)
    return F.from_json(_within(text), NOTHING).isNull() & F.from_json(text, NOTHING).isNotNull()


def _told_apart(lines: DataFrame, fields: StructType) -> DataFrame:
    """The records of the lines with the columns `fields`, and UNREAD with each line that is none."""
    line, text = F.col(LINE), _record(F.col(LINE))
    one, several = F.array(_parsed(text, fields)), _parsed(text, ArrayType(fields))
    rows = F.when(F.is_valid_utf8(line), F.when(text.startswith("["), several).otherwise(one))
    found = lines.where(line.rlike(r"\S")).withColumn(ROW, F.explode_outer(rows))
    corrupt = F.when(F.col(ROW).isNull(), line).alias(UNREAD)
    columns = [F.col(ROW)[name].alias(name) for name in fields.names]
    return found.select(corrupt, *columns, *[named(found, name) for name in lines.columns[1:]])


def _record(line: Column) -> Column:
    """The line without what stands beside a record and says nothing."""
    text = F.ltrim(line, F.lit("\ufeff \t"))
    told = F.when(text.startswith("["), text).otherwise(F.rtrim(text, F.lit(BESIDE_RECORDS)))
    return F.when(line.startswith("{") & line.endswith("}"), line).otherwise(told)


def _parsed(text: Column, kind: DataType) -> Column:
    """What stands in the text; null when something stands behind it, or when it is of another kind."""
    within = ArrayType(StructType([StructField(LINE, kind)]))
    return F.get(F.from_json(_within(text), within), F.lit(0))[LINE]


def _within(text: Column) -> Column:
    return F.concat(F.lit(f'[{{"{LINE}":'), text, F.lit("}]"))
