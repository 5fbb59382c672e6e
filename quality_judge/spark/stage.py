"""Scores in a stage that asks for GPUs by itself, so that tasks of other stages neither wait for GPUs nor hold them.

A UDF cannot ask for resources; `mapInArrow` can. It takes every column through Python, which is why it is used only
where a stage has something to ask for. The tasks that score also write, and read too where no shuffle stands between.
(driver)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from quality_judge.errors import ConfigError
from quality_judge.judge import Judge
from quality_judge.spark.device import LOCAL_MASTER, TASK_GPUS
from quality_judge.spark.udf import STRUCT

EXECUTOR_GPUS = "spark.executor.resource.gpu.amount"


def stage_gpus(spark: SparkSession, asked: float | None) -> float | None:
    """How much of a GPU each task of the scoring stage asks for; None where the stage asks for nothing of its own.

    asked: more than 0 and at most 1; 0 for nothing; None for 1 where executors have GPUs and tasks do not ask for them.
    Raises ConfigError for another value, and where there are no GPUs to ask for.
    """
    of_executor, of_task = spark.conf.get(EXECUTOR_GPUS, None), spark.conf.get(TASK_GPUS, None)
    if asked is None:
        return 1.0 if of_executor is not None and of_task is None else None
    if not 0 <= asked <= 1:
        raise ConfigError(f"--gpus-per-task {asked}: expected 0 (off) to 1; 0.5 lets two tasks share a GPU")
    if asked == 0:
        return None
    if LOCAL_MASTER.fullmatch(spark.conf.get("spark.master", None) or "") or of_executor is None:
        raise ConfigError(
            f"--gpus-per-task {asked} needs a cluster whose executors have GPUs: name it with --master and set "
            f"{EXECUTOR_GPUS} 1, as in conf/spark/gpu.conf; on one machine leave the option out"
        )
    return asked


def gpu_profile(gpus_per_task: float) -> ResourceProfile:
    """What the tasks of the scoring stage ask for; everything else stays as the job's settings have it."""
    return ResourceProfileBuilder().require(TaskResourceRequests().resource("gpu", gpus_per_task)).build


def scored_in_stage(
    df: DataFrame, name: str, texts: Sequence[Column], judge: Judge, *, profile: ResourceProfile | None,
    gpus_per_task: float,
) -> DataFrame:  # fmt: skip
    """`df` and the struct of `udf` in the column `name`, as the UDF gives it to the last bit.

    texts: what the judge reads, as in `Scoring.texts`. profile: None asks for nothing, as on a local master.
    """
    folder, fingerprint = judge.folder, judge.fingerprint

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from quality_judge.spark.stage_worker import score_record_batches

        yield from score_record_batches(folder, fingerprint, batches, gpus_per_task)

    read = F.struct(*[text.cast("binary").alias(f"_{i}") for i, text in enumerate(texts)])
    numbered = [f"_{i}" for i in range(len(df.columns) + 1)]  # mapInArrow takes a dot in a name for a field
    shape = df.withColumn(name, F.lit(None).cast(f"struct<{STRUCT}>")).toDF(*numbered).schema
    with_texts: Any = df.withColumn(name, read).toDF(*numbered)
    scored: DataFrame = with_texts.mapInArrow(score, shape, profile=profile)
    return scored.toDF(*df.columns, name)
