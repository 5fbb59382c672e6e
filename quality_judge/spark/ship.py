"""A judge that came as a zip file goes with the job, and is unpacked once on every node. (driver and executor)

What travels in a UDF is still a folder and a fingerprint. A folder named by an archive's sha256 is looked for in the
cache of the node at hand; where it is not there, the archive that the driver added to the job is unpacked.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from quality_judge.archive import SUFFIX, cache_folder, judge_folder, unpacked

SHIPPED = re.compile(rf"([0-9a-f]{{64}}){re.escape(SUFFIX)}")


def ship_judge(spark: SparkSession, judge: str | Path) -> None:
    """Adds the zip file `judge` to the job, for every executor to fetch; does nothing for a folder. (driver)"""
    found = SHIPPED.fullmatch(judge_folder(judge).name)
    if found is None or Path(judge).is_dir():
        return
    named = cache_folder() / f"{found[1]}.zip"
    if not named.exists():
        beside = Path(shutil.copyfile(judge, named.with_suffix(".partial")))
        beside.replace(named)
    spark.sparkContext.addFile(str(named))


def folder_here(folder: str) -> str:
    """Where the judge that the driver has at `folder` lies on this node. Raises JudgeError. (executor)"""
    found = SHIPPED.fullmatch(Path(folder).name)
    if found is None:
        return folder
    here = cache_folder() / Path(folder).name
    return str(here if here.is_dir() else unpacked(Path(SparkFiles.get(f"{found[1]}.zip")), found[1]))
