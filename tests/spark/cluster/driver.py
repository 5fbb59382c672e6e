"""A driver of its own on the cluster of test_cluster.py: asks tasks for their GPU, and scores with a judge.

    python driver.py tasks MASTER JUDGE.zip ROWS.parquet OUTPUT.json EXECUTOR_CACHE
    python driver.py stage MASTER JUDGE.zip ROWS.parquet OUTPUT.json EXECUTOR_CACHE

Its last act is one JSON file: what every task saw, what every row got, and whether torch came where it must not be.
With `stage` the job asks for no GPU, and the scoring stages of score_corpus.py ask for half of one.
"""

import json
import os
import runpy
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pyspark import SparkFiles, TaskContext
from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[3]
EXECUTORS = 3
TASKS = 6
GPUS = 4
KINDS = "rows long, addresses array<string>, device string, executor string, torch_in_daemon boolean, gpus double"
QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def on_gpus(batches):
    """One row for the task: the addresses Spark gave it, the device we chose, the executor, its daemon."""
    from quality_judge.spark.device import DEVICE_VARIABLE, task_device, task_gpus

    rows = sum(batch.num_rows for batch in batches)
    time.sleep(0.3)  # so that no executor takes all tasks
    addresses = TaskContext.get().resources()["gpu"].addresses
    chosen = os.environ.pop(DEVICE_VARIABLE)  # without it: what a task with CUDA would use
    device = task_device(GPUS)
    os.environ[DEVICE_VARIABLE] = chosen
    daemon = Path(f"/proc/{os.getppid()}/maps").read_text()
    yield pa.RecordBatch.from_pylist(
        [{
            "rows": rows, "addresses": list(addresses), "device": device, "executor": Path.cwd().name,
            "torch_in_daemon": "libtorch" in daemon, "gpus": task_gpus(None),
        }]
    )  # fmt: skip


def session(master, cache, **changed):
    settings = {
        "spark.cores.max": EXECUTORS, "spark.executor.cores": 1, "spark.executor.memory": "512m",
        "spark.executor.resource.gpu.amount": 1, "spark.task.resource.gpu.amount": 1,
        "spark.scheduler.minRegisteredResourcesRatio": 1.0, "spark.scheduler.maxRegisteredResourcesWaitingTime": "90s",
        "spark.python.factory.idleWorkerMaxPoolSize": 1, "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.memory": "512m", "spark.ui.enabled": "false",
        "spark.executorEnv.QUALITY_JUDGE_CACHE": cache, "spark.executorEnv.QUALITY_JUDGE_DEVICE": "cpu",
        "spark.sql.adaptive.enabled": "false", "spark.sql.shuffle.partitions": 2,
        "spark.executor.extraJavaOptions": QUICK, "spark.driver.extraJavaOptions": QUICK,
    }  # fmt: skip
    settings = {key: value for key, value in {**settings, **changed}.items() if value is not None}
    builder = SparkSession.builder.master(master).appName("cluster")
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def tasks(master, judge, rows, output, cache):
    from quality_judge.spark import score_udf
    from quality_judge.spark.ship import ship_judge

    spark = session(master, cache)
    judge_here = ship_judge(spark, judge)
    corpus = spark.read.parquet(rows).repartition(TASKS, "id")
    scored = corpus.withColumn("quality", score_udf(judge_here)("text"))
    found = scored.selectExpr("id", "quality.quality_raw raw", "quality.quality_code code").collect()
    tasks = spark.range(0, TASKS * 5, 1, TASKS).mapInArrow(on_gpus, KINDS).collect()
    said = {
        "tasks": [task.asDict() for task in tasks], "rows": [row.asDict() for row in found],
        "torch_in_driver": "torch" in sys.modules,
    }  # fmt: skip
    Path(output).write_text(json.dumps(said), encoding="utf-8")
    spark.stop()


def stage(master, judge, rows, output, cache):
    from quality_judge.judge import load_judge
    from quality_judge.spark import score_udf
    from quality_judge.spark.stage import gpu_profile

    changed = {
        "spark.cores.max": 2, "spark.executor.cores": 2, "spark.task.resource.gpu.amount": None,
        "spark.executor.memory": "1g", "spark.python.factory.idleWorkerMaxPoolSize": 2,
        "spark.archives": f"{judge}#judge",
    }  # fmt: skip
    spark = session(master, cache, **changed)
    elsewhere = replace(load_judge(SparkFiles.get("judge")), folder="/a folder of the driver/alone")
    few = spark.read.parquet(rows).limit(5).select(score_udf(elsewhere)("text").alias("q")).select("q.*").collect()
    scored = Path(output).with_suffix(".scored")
    words = ["--judge", "judge", "--input", rows, "--output", scored, "--shards", "1", "--gpus-per-task", "0.5"]
    sys.argv = ["score_corpus.py", *map(str, words)]
    try:
        runpy.run_path(str(ROOT / "jobs" / "score_corpus.py"), run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    java = spark._jsc.sc()
    java.listenerBus().waitUntilEmpty()
    none, nothing = spark._jvm.java.util.ArrayList(), spark.sparkContext._gateway.new_array(spark._jvm.double, 0)
    known = java.statusStore().stageList(none, False, False, nothing, none)
    stages = [known.apply(i) for i in range(known.size())]
    tasks = spark.range(0, TASKS * 5, 1, TASKS).mapInArrow(on_gpus, KINDS, profile=gpu_profile(0.5)).collect()
    said = {
        "stages": [
            {"own": stage.resourceProfileId() != 0, "read": stage.inputRecords(), "written": stage.outputRecords()}
            for stage in stages if str(stage.status()) == "COMPLETE"
        ],
        "tasks": [task.asDict() for task in tasks], "by_archive": len(few), "scored": str(scored),
    }  # fmt: skip
    Path(output).write_text(json.dumps(said), encoding="utf-8")
    spark.stop()


if __name__ == "__main__":
    {"tasks": tasks, "stage": stage}[sys.argv[1]](*sys.argv[2:])
