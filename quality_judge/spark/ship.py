"""A judge goes with the job, and is unpacked once on every node; executors never download one. (driver and executor)

What travels in a UDF is still a folder and a fingerprint. A folder named by an archive's sha256 is looked for in the
cache of the node at hand; where it is not there, the archive that the driver added to the job is unpacked. A folder
that is not there at all is looked for by its fingerprint among what `--archives` brought the executor.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspark import SparkFiles
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from quality_judge.archive import SUFFIX, cache_folder, judge_folder, unpacked
from quality_judge.errors import JudgeError
from quality_judge.judge import JUDGE_FILE, load_judge
from quality_judge.pinned import judge_file

SHIPPED = re.compile(rf"([0-9a-f]{{64}}){re.escape(SUFFIX)}")
ARCHIVES = ("spark.archives", "spark.yarn.dist.archives")


def ship_judge(spark: SparkSession, judge: str | Path) -> Path:
    """The judge's folder here, once executors can have it too. Raises JudgeError and InputError. (driver)

    judge: a folder that every executor sees, or that `--archives` brings it; a zip file of `quality-judge pack`; a
    version in a place, as in hf://org/name@COMMIT; or the NAME of `--archives judge.zip#NAME`.
    """
    if (arrived := _arrived(spark, str(judge))) is not None:
        return arrived
    file = judge_file(judge)
    folder = judge_folder(file)
    found = SHIPPED.fullmatch(folder.name)
    if found is not None and not file.is_dir() and file.name not in _archives(spark).values():
        named = cache_folder() / f"{found[1]}.zip"
        if not named.exists():
            beside = Path(shutil.copyfile(file, named.with_suffix(".partial")))
            beside.replace(named)
        if is_remote():
            session: Any = spark
            session.addArtifact(str(named), file=True)
        else:
            spark.sparkContext.addFile(str(named))
    return folder


def folder_here(folder: str, fingerprint: str) -> str:
    """Where the judge that the driver has at `folder` lies on this node. Raises JudgeError. (executor)"""
    found = SHIPPED.fullmatch(Path(folder).name)
    if found is not None:
        here = cache_folder() / Path(folder).name
        if here.is_dir():
            return str(here)
        sent = Path(SparkFiles.get(f"{found[1]}.zip"))
        if sent.is_file():
            return str(unpacked(sent, found[1]))
    if not Path(folder).is_dir():
        for came in _came():
            if load_judge(came).fingerprint == fingerprint:
                return str(came)
    return folder


def _came() -> Iterator[Path]:
    """The folders of judges that Spark unpacked for this executor."""
    for file in Path(SparkFiles.getRootDirectory()).glob(f"*/{JUDGE_FILE}"):
        yield file.parent


def _archives(spark: SparkSession) -> dict[str, str]:
    """The archives that the job was submitted with: the name each is unpacked under, and the name of its file."""
    entries = [entry for key in ARCHIVES for entry in (spark.conf.get(key, None) or "").split(",") if entry]
    pairs = [entry.partition("#") for entry in entries]
    return {name or Path(uri).name: Path(uri).name for uri, _, name in pairs}


def _arrived(spark: SparkSession, name: str) -> Path | None:
    """Where the archive of that name lies unpacked on the driver; None when `name` is none, or a path."""
    if Path(name).exists() or name not in _archives(spark):
        return None
    folder = Path(SparkFiles.get(name))
    if not folder.is_dir():
        raise JudgeError(f"the archive {name!r} was unpacked for executors only; give its zip file as --judge instead")
    return folder
