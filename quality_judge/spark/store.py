"""A folder that keeps scores by content, so that no judge reads the same text twice. (driver)

    STORE/judge=<fingerprint>/segment=<name>/part-….parquet    key, score, raw score, code, flags, categories
                                            /_segment.json     which files, how many rows, a digest of them

A segment is never changed. It counts from the moment its `_segment.json` is there, which is written last: what a killed
run left without one is not seen. Before scores are used every row of them is read and compared with the digest; a
segment that is not as it was written is left out, and said so. Another judge has another fingerprint, and finds none.

The key is the SHA-256 of what the judge reads. A hash of 64 bits would give two texts the same key once in a few
billion rows, and whoever writes for a corpus could look for such a pair to borrow a good score.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from quality_judge.errors import CheckFailed, UnreadableFile
from quality_judge.judge import Judge
from quality_judge.programme import tell
from quality_judge.scores import (
    BAD_RECORD,
    CATEGORIES_COLUMN,
    CODE_COLUMN,
    FLAGS_COLUMN,
    JUDGE_COLUMN,
    NEAR_THRESHOLD,
    NULL_TEXT,
    OOM_ROW,
    RAW_COLUMN,
    SCORE_COLUMN,
    SCORER_ERROR,
    SKIPPED_CRASH,
    TIMEOUT_ROW,
    TOO_LONG,
)  # fmt: skip
from quality_judge.spark.fault import refused_read
from quality_judge.spark.places import Place
from quality_judge.spark.score import KEY_COLUMN, STRUCT_COLUMN, flags_at_threshold

FORMAT = 2  # stores of format 1 hold chats scored without their prompts
SEGMENT_FILE = "_segment.json"
FAULTS = (OOM_ROW, TIMEOUT_ROW, SCORER_ERROR, SKIPPED_CRASH)  # of the machine, perhaps; the next run tries them again
OF_ROWS = (BAD_RECORD, TOO_LONG)  # of the record or an option, not of what the judge read: that was nothing
STORED = (SCORE_COLUMN, RAW_COLUMN, CODE_COLUMN, FLAGS_COLUMN, CATEGORIES_COLUMN)
SCHEMA = (
    f"{KEY_COLUMN} binary, {SCORE_COLUMN} double, {RAW_COLUMN} double, {CODE_COLUMN} string, "
    f"{FLAGS_COLUMN} array<string>, {CATEGORIES_COLUMN} array<string>"
)
ROWS_PER_FILE = 1_000_000


@dataclass(frozen=True, slots=True)
class Segment:
    """Some scores that were added at once. files: bytes by name. digest: sum of row hashes modulo 2^64."""

    name: str
    judge: str
    files: dict[str, int]
    rows: int
    digest: str
    format: int = FORMAT


class ScoreStore:
    """The scores of one judge in the folder of a store. Several runs may add to it at once."""

    def __init__(self, spark: SparkSession, folder: str, judge: Judge) -> None:
        self.spark = spark
        self.folder = folder
        self.judge = judge
        self._place = Place.at(spark, folder).child(f"judge={judge.fingerprint}")

    def segments(self) -> list[Segment]:
        """Those that are as they were written. Tells of every other one; reads all scores to know."""
        found = [self._described(place) for place in self._place.listed() if place.name.startswith("segment=")]
        whole = [segment for segment in found if segment is not None]
        while whole:
            try:
                held = self._digests(whole)
            except UnreadableFile as error:
                bad = [segment for segment in whole if segment.name in error.file]
                if not bad:
                    raise
                self._refuse(bad[0].name, "a file of it cannot be read")
                whole.remove(bad[0])
                continue
            for segment in [each for each in whole if held.get(each.name, (0, "")) != (each.rows, each.digest)]:
                self._refuse(segment.name, "its rows are not those that were written")
                whole.remove(segment)
            break
        return whole

    def scores(self, segments: Sequence[Segment]) -> DataFrame:
        """(KEY_COLUMN, STRUCT_COLUMN as `udf` gives it) of the segments; a key may be in several."""
        return with_struct(self._read(segments), self.judge)

    def add(self, name: str, scored: DataFrame, *, rows: int) -> None:
        """Adds the rows of `scored` (KEY_COLUMN and the scored columns) that are no fault; all of them or none.

        Nothing happens when the segment is there. Raises CheckFailed unless `rows` rows were written.
        """
        if self._described(self._place.child(f"segment={name}")) is not None:
            return
        place = self._place.child(f"segment={name}")
        place.delete()  # what a killed run left; no other run uses this name
        kept = storable(scored).coalesce(rows // ROWS_PER_FILE + 1)
        with refused_read("the store"):
            kept.write.mode("errorifexists").parquet(place.text)
        files = {file.name: file.size() for file in place.listed() if file.name[0] not in "._"}
        segment = Segment(name, self.judge.fingerprint, files, rows, "")
        written, digest = self._digests([segment]).get(name, (0, f"{0:016x}"))
        if written != rows:
            raise CheckFailed(f"{rows} scores to store and {written} stored in {self.folder}; nothing was published")
        place.child(SEGMENT_FILE).write_json(asdict(segment) | {"digest": digest})

    def _described(self, place: Place) -> Segment | None:
        """What `_segment.json` says, when the files are there as it says; None for one that was never finished."""
        file = place.child(SEGMENT_FILE)
        if not file.exists():
            return None
        name = place.name.partition("=")[2]
        try:
            segment = Segment(**(file.read_json() or {}))
        except TypeError:
            self._refuse(name, f"its {SEGMENT_FILE} is damaged")
            return None
        there = {each.name: each.size() for each in place.listed() if each.name[0] not in "._"}
        if segment.format != FORMAT:
            self._refuse(name, f"it is of format {segment.format}, and {FORMAT} is read: chats had lost their prompts")
            return None
        if (segment.name, segment.judge) != (name, self.judge.fingerprint):
            self._refuse(name, "it was written for another place or judge")
            return None
        if there != segment.files:
            self._refuse(name, "a file of it is missing, cut or foreign")
            return None
        return segment

    def _refuse(self, name: str, why: str) -> None:
        tell(
            f"the store {self.folder} has a segment that cannot be used, {name}: {why}; it is left out, and what it "
            "held is scored anew. Remove its folder"
        )

    def _read(self, segments: Sequence[Segment]) -> DataFrame:
        folders = [self._place.child(f"segment={segment.name}").text for segment in segments if segment.files]
        if not folders:
            return self.spark.createDataFrame([], SCHEMA)
        return self.spark.read.schema(SCHEMA).parquet(*folders)

    def _digests(self, segments: Sequence[Segment]) -> dict[str, tuple[int, str]]:
        """(rows, digest) of what stands in the files of each segment that has any."""
        held = self._read(segments)
        if not any(segment.files for segment in segments):
            return {segment.name: (0, f"{0:016x}") for segment in segments}
        name = F.regexp_extract(held.metadataColumn("_metadata")["file_path"], r"/segment=([^/]+)/[^/]*$", 1)
        hashed = F.xxhash64(*[F.col(column) for column in held.columns]).cast("decimal(38,0)")
        with refused_read("the store"):
            found = held.groupBy(name.alias("name")).agg(F.count("*").alias("n"), F.sum(hashed).alias("sum")).collect()
        return {row["name"]: (row["n"], f"{int(row['sum']) % 2**64:016x}") for row in found}


def content_key(texts: Sequence[Column]) -> Column:
    """The SHA-256, 32 bytes, of what a judge reads of a row: each text behind its length; a null is unlike any text."""
    parts = []
    for text in texts:
        content = text.cast("binary")
        length = F.coalesce(F.octet_length(content).cast("string"), F.lit("null"))
        parts += [F.concat(length, F.lit(":")).cast("binary"), F.coalesce(content, F.lit("").cast("binary"))]
    return F.unhex(F.sha2(F.concat(*parts), 256))


def storable(scored: DataFrame) -> DataFrame:
    """The rows that say something of the content alone, with the columns of SCHEMA.

    NEAR_THRESHOLD is left out: a judge's threshold may move and its fingerprint stay.
    """
    code = F.when(F.col(CODE_COLUMN).isin(*OF_ROWS), NULL_TEXT).otherwise(F.col(CODE_COLUMN))
    flags = F.array_remove(FLAGS_COLUMN, NEAR_THRESHOLD)
    kept = scored.where(~F.col(CODE_COLUMN).isin(*FAULTS))
    return kept.select(KEY_COLUMN, SCORE_COLUMN, RAW_COLUMN, code.alias(CODE_COLUMN), flags.alias(FLAGS_COLUMN),
                       CATEGORIES_COLUMN)  # fmt: skip


def with_struct(stored: DataFrame, judge: Judge) -> DataFrame:
    """(KEY_COLUMN, STRUCT_COLUMN) of rows with the columns of SCHEMA; NEAR_THRESHOLD is told by today's threshold."""
    columns: dict[str, Any] = {name: F.col(name) for name in STORED} | {FLAGS_COLUMN: flags_at_threshold(judge)}
    parts = [column.alias(name) for name, column in columns.items()]
    struct = F.struct(*parts, F.lit(judge.fingerprint).alias(JUDGE_COLUMN))
    return stored.select(KEY_COLUMN, struct.alias(STRUCT_COLUMN))


def new_name() -> str:
    """A name for a segment that no other run has."""
    return uuid.uuid4().hex[:16]
