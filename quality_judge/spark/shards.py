"""Writes the shards of a plan, counts what was written of each, and leaves a receipt; a rerun skips those. (driver)

A shard is written to a folder of its own for every try, so nothing that a dead run left there is ever published. Only
what a receipt names goes into the table. Counts come from the written files, never from accumulators.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Container, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructType, VariantType

from quality_judge.errors import CheckFailed
from quality_judge.scores import CODE_COLUMN, FLAGS, FLAGS_COLUMN, SCORE_COLUMN
from quality_judge.spark.fault import refused_read
from quality_judge.spark.isolate import HANG_PROPERTY, ISOLATE_PROPERTY
from quality_judge.spark.places import Place
from quality_judge.spark.plan import Plan, Shard, shard_rows
from quality_judge.spark.publish import RECEIPTS_FOLDER, refuse_loss

AT_ONCE = 2  # the next shard's tasks fill the cores that the last tasks of this one leave idle
Transform = Callable[[DataFrame], DataFrame]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A shard that was written and counted. digest: sum of row hashes modulo 2^64, whatever the order of rows.

    above: rows with a score at or above the threshold, None without one.
    """

    shard: int
    folder: str
    files: tuple[str, ...]
    rows: int
    bytes: int
    codes: dict[str, int]
    flags: dict[str, int]
    digest: str
    seconds: float
    above: int | None = None
    reused: bool = field(default=False)


class Landing(Protocol):
    """Who is told of every receipt, in the order they come in."""

    def landed(self, receipt: Receipt) -> None: ...


def write_shards(
    spark: SparkSession, plan: Plan, run: Place, corpus: DataFrame, transform: Transform, progress: Landing,
    *, threshold: float | None = None, hang_seconds: float | None = None,
) -> list[Receipt]:  # fmt: skip
    """A receipt for each shard of the plan, those of an earlier run with the same plan included.

    A shard that failed is tried once more, apart. Raises CheckFailed when that fails too, InputError at once.
    """
    gathered = {place.name for place in run.child("table").listed()}
    receipts = [known for shard in plan.shards if (known := receipt_of(run, shard, gathered)) is not None]
    for receipt in receipts:
        progress.landed(receipt)
    done = {receipt.shard for receipt in receipts}
    waiting = [shard for shard in plan.shards if shard.index not in done]
    tag = f"quality-judge-{uuid.uuid4().hex[:12]}"
    ended = threading.Event()

    def write(shard: Shard) -> Receipt | None:
        if ended.is_set():
            return None
        spark.sparkContext.addJobTag(tag)
        _set_property(spark, HANG_PROPERTY, None if hang_seconds is None else str(hang_seconds))
        df = transform(shard_rows(spark, shard, corpus))
        try:
            return _written(spark, shard, run, df, threshold)
        except CheckFailed:
            if ended.is_set():
                return None
        return _written(spark, shard, run, df, threshold, apart=True)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        pending = {pool.submit(write, shard) for shard in waiting}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for receipt in _results(finished):
                    receipts.append(receipt)
                    progress.landed(receipt)
        except BaseException:
            ended.set()
            spark.sparkContext.cancelJobsWithTag(tag)
            raise
    return sorted(receipts, key=lambda receipt: receipt.shard)


def receipt_of(run: Place, shard: Shard, gathered: Container[str]) -> Receipt | None:
    """The receipt of a shard that an earlier run wrote; None unless all its files are there or among `gathered`."""
    found = _receipt_file(run, shard).read_json()
    if found is None:
        return None
    receipt = Receipt(**{**found, "files": tuple(found["files"]), "reused": True})
    at = {place.name for place in run.child(receipt.folder).listed()}
    whole = all(name in at or name in gathered for name in receipt.files)
    return receipt if whole and receipt.rows == shard.rows else None


def gather(run: Place, receipts: Sequence[Receipt]) -> None:
    """Moves the files that the receipts name into the table, and whatever else lies there out of it."""
    table = run.child("table")
    table.make_folder()
    named = {name for receipt in receipts for name in receipt.files}
    there = set()
    for place in table.listed():
        if place.name in named:
            there.add(place.name)
        elif not place.name.startswith("."):
            place.delete()
    for receipt in receipts:
        for name in receipt.files:
            if name not in there and not run.child(receipt.folder).child(name).moved(table.child(name)):
                raise CheckFailed(f"{name} of shard {receipt.shard} could not be moved; nothing was published")


def summed(receipts: Sequence[Receipt]) -> dict[str, Any]:
    """rows, codes, flags, bytes, files and the digest of all receipts together."""
    codes, flags = Counter[str](), Counter[str]()
    for receipt in receipts:
        codes.update(receipt.codes)
        flags.update(receipt.flags)
    digest = sum(int(receipt.digest, 16) for receipt in receipts) % 2**64
    return {
        "rows": sum(receipt.rows for receipt in receipts), "codes": dict(codes), "flags": dict(flags),
        "bytes": sum(receipt.bytes for receipt in receipts), "files": sum(len(receipt.files) for receipt in receipts),
        "digest": f"{digest:016x}",
    }  # fmt: skip


def _written(
    spark: SparkSession, shard: Shard, run: Place, df: DataFrame, threshold: float | None, *, apart: bool = False
) -> Receipt:
    """The shard written, counted and acknowledged. apart: rows are scored in processes that they cannot harm."""
    folder = f"shards/{shard.index:05d}/{uuid.uuid4().hex[:12]}"
    _set_property(spark, ISOLATE_PROPERTY, "true" if apart else None)
    started = time.perf_counter()
    with refused_read():
        df.write.mode("errorifexists").parquet(run.child(folder).text)
        found = _counted(spark.read.parquet(run.child(folder).text), threshold)
    refuse_loss(shard.rows, found["rows"])
    data = [place for place in run.child(folder).listed() if place.name[0] not in "._"]
    receipt = Receipt(
        shard.index, folder, tuple(place.name for place in data), bytes=sum(place.size() for place in data),
        seconds=round(time.perf_counter() - started, 3), **found,
    )  # fmt: skip
    content = asdict(receipt)
    del content["reused"]
    _receipt_file(run, shard).write_json(content)
    return receipt


def _counted(written: DataFrame, threshold: float | None) -> dict[str, Any]:
    """rows, codes, flags, above and digest of what stands in the files: one pass."""
    hashed = [F.col(f"`{f.name.replace('`', '``')}`") for f in written.schema.fields if not _has_no_hash(f.dataType)]
    flags = [F.sum(F.array_contains(FLAGS_COLUMN, flag).cast("long")).alias(flag) for flag in FLAGS]
    above = F.sum((F.col(SCORE_COLUMN) >= F.lit(threshold)).cast("long")) if threshold is not None else F.lit(None)
    digest = F.sum(F.xxhash64(*hashed).cast("decimal(38,0)"))
    columns = [F.count("*").alias("rows"), digest.alias("digest"), above.alias("above"), *flags]
    rows = written.groupBy(CODE_COLUMN).agg(*columns).collect()
    flag_counts = {flag: sum(row[flag] or 0 for row in rows) for flag in FLAGS}
    return {
        "rows": sum(row["rows"] for row in rows),
        "codes": {row[CODE_COLUMN]: row["rows"] for row in sorted(rows, key=lambda row: -row["rows"])},
        "flags": {flag: n for flag, n in flag_counts.items() if n},
        "above": None if threshold is None else sum(row["above"] or 0 for row in rows),
        "digest": f"{sum(int(row['digest']) for row in rows) % 2**64:016x}",
    }


def _set_property(spark: SparkSession, name: str, value: str | None) -> None:
    """Sets it for the jobs of this thread; None takes it away."""
    spark.sparkContext.setLocalProperty(name, value)  # type: ignore[arg-type]


def _results(finished: set[Future[Receipt | None]]) -> list[Receipt]:
    return [receipt for future in finished if (receipt := future.result()) is not None]


def _receipt_file(run: Place, shard: Shard) -> Place:
    return run.child(RECEIPTS_FOLDER).child(f"{shard.index:05d}.json")


def _has_no_hash(kind: DataType) -> bool:
    if isinstance(kind, ArrayType):
        return _has_no_hash(kind.elementType)
    if isinstance(kind, StructType):
        return any(_has_no_hash(inner.dataType) for inner in kind.fields)
    return isinstance(kind, MapType | VariantType)
