"""Spark's own classes, laid out once for Java, so that every later job on this machine starts sooner.

Java reads and checks some ten thousand classes before Spark does anything; from an archive it maps them (JEP 350). It
belongs to one Java and one Spark, lies in the user's cache, and is used by sessions that run on this machine alone. It
knows nothing of judges. (driver)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyspark

from quality_judge.archive import kept_from_others
from quality_judge.bases import user_cache
from quality_judge.errors import CheckFailed

QUIET = "-XX:+VerifySharedSpaces -Xlog:cds=off -Xlog:cds+dynamic=off"  # one that is damaged or unfit is left aside
OTHERS_MAY_WRITE = 0o022
RECORDED_SECONDS = 300
VARIABLE = "SPARK_SUBMIT_OPTS"  # what Spark's launcher hands to the driver's Java
JOB = """
import sys
from pyspark import SparkContext
from quality_judge.spark.session import spark_session
spark = spark_session("startup")
spark.range(64).selectExpr("id", "cast(id as string) as text").write.parquet(sys.argv[1])
rows = spark.read.parquet(sys.argv[1])
same = rows.repartition(2).mapInArrow(lambda batches: batches, rows.schema)
same.groupBy((same.id % 2).alias("id")).count().write.parquet(sys.argv[1] + "-counts")
process = SparkContext._gateway.proc
spark.stop()
SparkContext._gateway.shutdown()
process.stdin.close()
process.wait()
"""


def startup_options() -> str:
    """The options with which Java starts from the archive; empty without one, and where it is cut short or others may
    write to it."""
    for path in _archives():
        found = path.stat()
        whole, own = path.stem.endswith(f"-{found.st_size}"), found.st_uid == os.getuid()
        if whole and own and not found.st_mode & OTHERS_MAY_WRITE and " " not in str(path):
            return f"-XX:SharedArchiveFile={path} {QUIET}"
    return ""


def make_startup_archive(*, measured: bool = False) -> dict[str, Any]:
    """Records what a small job loads, unless that was done: path and bytes.

    measured: records it anyhow, and says how many seconds the same job takes before and after.
    """
    if startup_options() and not measured:
        return _described(_archives()[0])
    for old in _archives():
        old.unlink()
    before = _job_seconds() if measured else 0.0
    path = _recorded()
    if not measured:
        return _described(path)
    after = _job_seconds()
    return _described(path) | {
        "seconds_before": round(before, 1), "seconds_after": round(after, 1), "times_as_fast": round(before / after, 2),
    }  # fmt: skip


def _recorded() -> Path:
    folder = kept_from_others(kept_from_others(user_cache()) / "spark")  # unpacked judges lie in the same cache
    beside = folder / f".{os.getpid()}.jsa"
    try:
        _job_seconds(f"-XX:ArchiveClassesAtExit={beside} {QUIET}")
        if not beside.is_file():
            raise CheckFailed(
                "Java wrote no archive of its classes; it must be OpenJDK 13 or newer. Spark works as before"
            )
        beside.chmod(0o600)
        return beside.replace(folder / f"{_key()}-{beside.stat().st_size}.jsa")
    finally:
        beside.unlink(missing_ok=True)


def _described(path: Path) -> dict[str, Any]:
    return {"archive": str(path), "bytes": path.stat().st_size}


def _archives() -> list[Path]:
    """Those of this Java and this Spark: one, or none. A name ends in the file's size: Java dies of one cut short."""
    return sorted((user_cache() / "spark").glob(f"{_key()}-*.jsa"))


def _key() -> str:
    home, path = os.environ.get("JAVA_HOME"), os.environ.get("PATH", "")
    java = shutil.which("java", path=f"{home}/bin{os.pathsep}{path}" if home else path) or "java"
    spark = os.environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)
    return hashlib.sha256(repr([pyspark.__version__, spark, os.path.realpath(java)]).encode()).hexdigest()[:16]


def _job_seconds(options: str = "") -> float:
    """How long a process that runs JOB takes, its Java started with `options` too."""
    given = os.environ.get(VARIABLE, "")
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", JOB, f"{scratch}/rows"], env={**os.environ, VARIABLE: f"{given} {options}".strip()},
            capture_output=True, text=True, timeout=RECORDED_SECONDS,
        )  # fmt: skip
    if done.returncode:
        raise CheckFailed(f"Spark could not run a small job, so nothing was recorded: {done.stderr[-500:]}")
    return time.perf_counter() - started
