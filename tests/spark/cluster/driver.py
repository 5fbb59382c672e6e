"""A driver of its own on the cluster of test_cluster.py: asks tasks for their GPU, and scores with a judge.

    python driver.py MASTER JUDGE.zip ROWS.parquet OUTPUT.json EXECUTOR_CACHE

Its last act is one JSON file: what every task saw, what every row got, and whether torch came where it must not be.
"""

import json
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import SparkSession

EXECUTORS = 3
TASKS = 6
GPUS = 4
QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def on_gpus(batches):
    """One row for the task: the addresses Spark gave it, the device we chose, the executor, its daemon."""
    from quality_judge.spark.device import DEVICE_VARIABLE, task_device

    os.environ.pop(DEVICE_VARIABLE, None)
    rows = sum(batch.num_rows for batch in batches)
    time.sleep(0.3)  # so that no executor takes all tasks
    addresses = TaskContext.get().resources()["gpu"].addresses
    daemon = Path(f"/proc/{os.getppid()}/maps").read_text()
    yield pa.RecordBatch.from_pylist(
        [{
            "rows": rows, "addresses": list(addresses), "device": task_device(GPUS), "executor": Path.cwd().name,
            "torch_in_daemon": "libtorch" in daemon,
        }]
    )  # fmt: skip


def session(master, cache):
    settings = {
        "spark.cores.max": EXECUTORS, "spark.executor.cores": 1, "spark.executor.memory": "512m",
        "spark.executor.resource.gpu.amount": 1, "spark.task.resource.gpu.amount": 1,
        "spark.scheduler.minRegisteredResourcesRatio": 1.0, "spark.scheduler.maxRegisteredResourcesWaitingTime": "90s",
        "spark.python.factory.idleWorkerMaxPoolSize": 1, "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.memory": "512m", "spark.ui.enabled": "false",
        "spark.executorEnv.QUALITY_JUDGE_CACHE": cache, "spark.executorEnv.QUALITY_JUDGE_DEVICE": "cpu",
        "spark.sql.adaptive.enabled": "false",
        "spark.executor.extraJavaOptions": QUICK, "spark.driver.extraJavaOptions": QUICK,
    }  # fmt: skip
    builder = SparkSession.builder.master(master).appName("cluster")
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def main(master, judge, rows, output, cache):
    from quality_judge.archive import judge_folder
    from quality_judge.spark import score_udf
    from quality_judge.spark.ship import ship_judge

    spark = session(master, cache)
    ship_judge(spark, judge)
    corpus = spark.read.parquet(rows).repartition(TASKS, "id")
    scored = corpus.withColumn("quality", score_udf(judge_folder(judge))("text"))
    found = scored.selectExpr("id", "quality.quality_raw raw", "quality.quality_code code").collect()
    kinds = "rows long, addresses array<string>, device string, executor string, torch_in_daemon boolean"
    tasks = spark.range(0, TASKS * 5, 1, TASKS).mapInArrow(on_gpus, kinds).collect()
    said = {
        "tasks": [task.asDict() for task in tasks], "rows": [row.asDict() for row in found],
        "torch_in_driver": "torch" in sys.modules,
    }  # fmt: skip
    Path(output).write_text(json.dumps(said), encoding="utf-8")
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
