"""Cuts a corpus into shards: the same input, judge and options always give the same plan, by which a run resumes.

A shard is a set of input files of about equal bytes. Where files are too few, too unlike in size or no Parquet, the
corpus is first rewritten as even Parquet parts, once. It knows nothing of judges; `shards` writes the shards. (driver)
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from quality_judge.errors import CheckFailed
from quality_judge.spark.fault import refused_read
from quality_judge.spark.places import Place

SHARDS = 32  # a run killed at any moment repeats at most the shards in flight: 2 of 32
MIN_SHARD_ROWS = 2_000
MIN_JOINED_ROWS = 200_000  # of rows that only find their score: each shard costs about half a second of jobs
MAX_ROWS_PER_SLOT = 250_000  # so that its tasks outlast the driver's starting one for every slot: docs/scale.md
UNEVEN = 1.5  # a shard may hold this many times the bytes of an even one
PLAN_FILE = "plan.json"
FORMAT = 1  # of plans and receipts; a run of another one is not taken up
UNSAFE_IN_PATHS = frozenset("[]{}*?\\,=%")  # Spark would take them for a pattern or a partition


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that was read. modified: milliseconds since 1970."""

    path: str
    bytes: int
    modified: int
    rows: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Some files of the corpus; none means all of it."""

    index: int
    files: tuple[str, ...]
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do. `id` stands for the inputs and everything given to `make_plan`."""

    id: str
    inputs: tuple[InputFile, ...]
    rows: int
    shards: tuple[Shard, ...] = ()


def input_files(df: DataFrame) -> tuple[InputFile, ...]:
    """Every file that `df` is read from and has rows, with how many: one pass that reads no column."""
    of_file = df.metadataColumn("_metadata")
    columns = [of_file[f"file_{name}"].alias(name) for name in ("path", "size", "modification_time")]
    with refused_read():
        found = df.select(*columns).groupBy("path", "size", F.unix_millis("modification_time").alias("at")).count()
        rows = found.collect()
    return tuple(sorted((_input_file(df.sparkSession, row) for row in rows), key=lambda file: file.path))


def named_plan(inputs: Sequence[InputFile], said: Mapping[str, Any]) -> Plan:
    """The plan without its shards. said: whatever else decides the result, such as the judge's fingerprint."""
    content = {"format": FORMAT, "inputs": [asdict(file) for file in inputs], "said": dict(said)}
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return Plan(name, tuple(inputs), sum(file.rows for file in inputs))


def cut(
    plan: Plan, corpus: DataFrame, run: Place, *, shards: int | None = None, least_rows: int = MIN_SHARD_ROWS
) -> Plan:
    """The plan with its shards, as an earlier run in the folder `run` cut it, or anew.

    shards: how many; by the rows and the cores when None, and then of `least_rows` or more where there are so many.
    """
    known = run.child(PLAN_FILE).read_json()
    if known is not None:
        return _with_shards(plan, [Shard(**{**shard, "files": tuple(shard["files"])}) for shard in known["shards"]])
    slots = corpus.sparkSession.sparkContext.defaultParallelism
    number = (shards or shard_count(plan.rows, slots, least_rows=least_rows)) if plan.rows else 1
    if number == 1:
        made = [Shard(0, (), plan.rows, sum(file.bytes for file in plan.inputs))]
    else:
        packed = pack(plan.inputs, number) if _readable_by_name(corpus, plan.inputs) else None
        files = plan.inputs if packed else _rewritten(corpus, run, parts=number * slots, rows=plan.rows)
        made = packed or pack(files, number, uneven=float("inf")) or []
    run.child(PLAN_FILE).write_json({"shards": [asdict(shard) for shard in made], "rows": plan.rows})
    return _with_shards(plan, made)


def shard_count(rows: int, slots: int, *, least_rows: int = MIN_SHARD_ROWS) -> int:
    """How many shards: enough that little is repeated after a kill, each large enough to keep all slots busy."""
    most = max(least_rows, slots * MAX_ROWS_PER_SLOT)
    return max(1, -(-rows // min(max(-(-rows // SHARDS), least_rows), most)))


def pack(files: Sequence[InputFile], number: int, *, uneven: float = UNEVEN) -> list[Shard] | None:
    """The files in at most `number` shards, the largest file first into the lightest shard.

    None when one of them would hold more than `uneven` times the bytes of an even one.
    """
    bins: list[list[InputFile]] = [[] for _ in range(number)]
    weights = [0] * number
    for file in sorted(files, key=lambda file: (-file.bytes, file.path)):
        lightest = weights.index(min(weights))
        bins[lightest].append(file)
        weights[lightest] += file.bytes
    even = sum(weights) / number
    if max(weights) > uneven * even:
        return None
    kept = [sorted(held, key=lambda file: file.path) for held in bins if held]
    return [
        Shard(i, tuple(file.path for file in held), sum(file.rows for file in held), sum(file.bytes for file in held))
        for i, held in enumerate(kept)
    ]


def shard_rows(spark: SparkSession, shard: Shard, corpus: DataFrame) -> DataFrame:
    """The rows of one shard, with the columns of `corpus`."""
    return spark.read.schema(_nullable(corpus.schema)).parquet(*shard.files) if shard.files else corpus


def _rewritten(corpus: DataFrame, run: Place, *, parts: int, rows: int) -> tuple[InputFile, ...]:
    """The corpus as `parts` even Parquet files in `run`. Raises CheckFailed when a row is missing or doubled there."""
    folder = run.child("input").child(uuid.uuid4().hex[:12])
    with refused_read():
        corpus.repartition(parts).write.mode("errorifexists").parquet(folder.text)
        files = input_files(corpus.sparkSession.read.parquet(folder.text))
    found = sum(file.rows for file in files)
    if found != rows:
        raise CheckFailed(f"{rows} rows were counted in the input and {found} read; it changed meanwhile: run again")
    return files


def _readable_by_name(corpus: DataFrame, files: Sequence[InputFile]) -> bool:
    """Whether the files are Parquet whose paths say nothing but where they are."""
    return all(file.path.endswith(".parquet") and not UNSAFE_IN_PATHS & set(file.path) for file in files)


def _with_shards(plan: Plan, shards: Sequence[Shard]) -> Plan:
    return Plan(plan.id, plan.inputs, plan.rows, tuple(shards))


def _input_file(spark: SparkSession, row: Any) -> InputFile:
    java: Any = spark._jvm
    path = java.org.apache.hadoop.fs.Path(java.java.net.URI(row["path"])).toString()  # Spark gives it percent-encoded
    return InputFile(path, row["size"], row["at"], row["count"])


def _nullable(schema: StructType) -> StructType:
    return StructType.fromJson(json.loads(schema.json()))
