"""What a very large run costs: the driver's own work measured here in real Spark jobs, the rest simulated from it.

    python benchmarks/scale_sim.py --rows 10_000_000_000 --slots 100 --rows-per-second 5000

Measured: what planning, starting, counting and acknowledging a shard cost, with a judge that does nothing (its scores
are a hash), on this machine. Assumed, and said so in the output: rows per second of a slot and how often one is lost.
Simulated: shards of three tasks for each slot, as `quality_judge.spark.score.balanced` cuts them, two at a time as
`quality_judge.spark.shards` runs them, with task times that differ and slots that are lost.
"""

import argparse
import heapq
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TASKS_PER_SLOT, ROWS_PER_SLOT = 3, 250_000  # as score.PARTITIONS_PER_CORE and plan.MAX_ROWS_PER_SLOT
BYTES_PER_ROW = {"read": 1_500, "written": 1_600}


def stub(df):
    """Every row with a score that is a hash of its text: what a judge gives, without a judge."""
    from pyspark.sql import functions as F

    score = (F.pmod(F.xxhash64("text"), F.lit(1000)) / 1000.0).alias("quality_score")
    empty = F.array().cast("array<string>")
    return df.select(
        "*", score, (F.col("id") * 0.0).alias("quality_raw"), F.lit("OK").alias("quality_code"),
        empty.alias("quality_flags"), empty.alias("quality_categories"), F.lit("stub").alias("quality_judge"),
    )  # fmt: skip


class Silent:
    def landed(self, receipt):
        """Nobody watches."""


def measured(shards, tasks):
    """Seconds of the driver for each shard and each task: two real runs that differ in the number of tasks only."""
    from pyspark.sql import functions as F

    from quality_judge.spark import spark_session
    from quality_judge.spark.places import Place
    from quality_judge.spark.plan import cut, input_files, named_plan
    from quality_judge.spark.shards import gather, write_shards

    spark = spark_session("scale_sim")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = spark.range(0, shards * tasks * 20, 1, shards).withColumn("text", F.repeat(F.lit("a text "), 60))
        corpus.write.parquet(f"{folder}/corpus")
        table = spark.read.parquet(f"{folder}/corpus")
        for name, parts in (("warm", 2), ("few", 2), ("many", tasks)):
            run = Place.at(spark, f"{folder}/run-{name}")
            started = time.perf_counter()
            plan = cut(named_plan(input_files(table), {"name": name}), table, run, shards=shards)
            planned = time.perf_counter()
            receipts = write_shards(spark, plan, run, table, lambda df, n=parts: stub(df.repartition(n)), Silent())
            written = time.perf_counter()
            gather(run, receipts)
            rows = sum(receipt.rows for receipt in receipts)
            assert rows == plan.rows == shards * tasks * 20
            found[name] = {
                "plan": planned - started, "write": written - planned, "gather": time.perf_counter() - written,
                "files": sum(len(receipt.files) for receipt in receipts),
            }  # fmt: skip
    spark.stop()
    more = found["many"]["write"] - found["few"]["write"]
    per_task = max(more / (shards * (tasks - 2)), 1e-4)
    return {
        "shards": shards, "tasks_of_a_shard": [2, tasks], "runs": found,
        "seconds_per_task": round(per_task, 5),
        "seconds_per_shard": round(max(found["few"]["write"] / shards - 2 * per_task, 0.0), 4),
        "seconds_per_file_gathered": round(found["many"]["gather"] / found["many"]["files"], 5),
        "seconds_to_plan_a_file": round(found["many"]["plan"] / shards, 5),
    }  # fmt: skip


def simulated(
    *, rows, slots, speed, spread, lost_per_slot_hour, driver, at_once=2, rows_per_slot=ROWS_PER_SLOT, seed=0
):
    """The course of a run as events: the driver starts tasks one after another, slots work, some are lost."""
    chance = random.Random(seed)
    shards = -(-rows // (slots * rows_per_slot))
    free, started, driver_free, repeated, busy = [0.0] * slots, 0, 0.0, 0, 0.0
    heapq.heapify(free)
    ends, running = [], []
    while started < shards:
        if len(running) == at_once:
            driver_free = max(driver_free, heapq.heappop(running))
        driver_free += driver["seconds_per_shard"]
        end = 0.0
        for _ in range(slots * TASKS_PER_SLOT):
            driver_free += driver["seconds_per_task"]
            at = max(heapq.heappop(free), driver_free)
            seconds = rows_per_slot / TASKS_PER_SLOT / speed * chance.lognormvariate(-(spread**2) / 2, spread)
            while chance.random() < seconds / 3600 * lost_per_slot_hour:  # lost at a random moment, begun anew
                at += seconds * chance.random()
                repeated += rows_per_slot // TASKS_PER_SLOT
            heapq.heappush(free, at + seconds)
            busy += seconds
            end = max(end, at + seconds)
        heapq.heappush(running, end)
        ends.append(end)
        started += 1
    total = max(ends)
    return {
        "shards": shards, "tasks": shards * slots * TASKS_PER_SLOT, "hours": round(total / 3600, 2),
        "then_gathered_hours": round(shards * slots * TASKS_PER_SLOT * driver["seconds_per_file_gathered"] / 3600, 2),
        "ideal_hours": round(rows / speed / slots / 3600, 2), "slots_busy": round(busy / (total * slots), 4),
        "rows_repeated_share": round(repeated / rows, 5),
        "kill_repeats_at_most_rows": at_once * slots * rows_per_slot,
        "kill_repeats_at_most_share": round(at_once / shards, 5),
    }  # fmt: skip


def main(options):
    if options.measured:
        driver = json.loads(Path(options.measured).read_text(encoding="utf-8"))["measured_here"]
    else:
        driver = measured(options.shards, options.tasks)
    assumed = {"rows": options.rows, "slots": options.slots, "rows_per_second_of_a_slot": options.rows_per_second,
        "spread_of_task_times": options.spread, "losses_per_slot_and_hour": options.losses}  # fmt: skip
    common = {"rows": options.rows, "driver": driver, "spread": options.spread}
    lossy = {"lost_per_slot_hour": options.losses, **common}
    small = {"rows_per_slot": ROWS_PER_SLOT // 5, **lossy}
    runs = {
        "as assumed": simulated(slots=options.slots, speed=options.rows_per_second, **lossy),
        "nothing lost": simulated(slots=options.slots, speed=options.rows_per_second, lost_per_slot_hour=0.0, **common),
        "shards a fifth as large": simulated(slots=options.slots, speed=options.rows_per_second, **small),
        "ten times the slots": simulated(slots=10 * options.slots, speed=options.rows_per_second, **lossy),
    }
    seconds = runs["as assumed"]["hours"] * 3600
    commit = os.environ.get("GIT_COMMIT") or subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()  # fmt: skip
    found = {
        "measured_here": driver, "assumed": assumed, "simulated": runs,
        "bytes_per_second": {name: round(options.rows * size / seconds) for name, size in BYTES_PER_ROW.items()},
        "terabytes": {name: round(options.rows * size / 1e12, 1) for name, size in BYTES_PER_ROW.items()},
        "machine": platform.machine(), "cores": os.cpu_count(), "commit": commit,
    }  # fmt: skip
    Path(options.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"ok": True, "output": options.output, **runs["as assumed"]}))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=10_000_000_000)
    arguments.add_argument("--slots", type=int, default=100)
    arguments.add_argument("--rows-per-second", type=float, default=5000.0)
    arguments.add_argument("--spread", type=float, default=0.2, help="standard deviation of log task time")
    arguments.add_argument("--losses", type=float, default=0.02, help="how often a slot is lost in an hour")
    arguments.add_argument("--shards", type=int, default=12, help="shards of the measured run")
    arguments.add_argument("--tasks", type=int, default=100, help="tasks in each shard of the measured run")
    arguments.add_argument("--measured", help="output of an earlier run whose measured figures to take; no Spark then")
    arguments.add_argument("--output", default="benchmarks/scale.json")
    main(arguments.parse_args())
