"""Writes a result beside the old one, counts what was really written, and only then puts it in its place. (driver)

A failed or killed run leaves the previous output as it was: nothing is appended to it and nothing in it deleted
before the new one is complete. Paths go through Hadoop's file system. It knows nothing of judges.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from quality_judge.errors import CheckFailed, CorpusError
from quality_judge.spark.fault import refused_read

MANIFEST_FILE = "_quality_manifest.json"
PROFILE_FILE = "_quality_profile.json"


class Staging:
    """A folder beside `output` that takes its place with `publish`, or vanishes with `discard`."""

    def __init__(self, spark: SparkSession, output: str) -> None:
        self.spark = spark
        self.output = output.rstrip("/")
        self._path = spark._jvm.org.apache.hadoop.fs.Path
        target = self._path(self.output)
        self._files = target.getFileSystem(spark._jsc.hadoopConfiguration())
        parent, name, run = target.getParent(), target.getName(), uuid.uuid4().hex[:12]
        self._final = target
        self._new = self._path(parent, f".{name}.new-{run}")
        self._old = self._path(parent, f".{name}.old-{run}")
        self._restore(parent, name)

    @property
    def path(self) -> str:
        """Where to write."""
        return str(self._new.toString())

    def write(self, df: DataFrame, name: str = "") -> DataFrame:
        """`df` written as Parquet under `name`; gives what was written, read back. Raises CorpusError for a bad input file."""
        where = f"{self.path}/{name}".rstrip("/")
        with refused_read():
            df.write.mode("errorifexists").parquet(where)
        return self.spark.read.parquet(where)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """`content` as a JSON file; names that begin with an underscore are not data to Spark."""
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        stream = self._files.create(self._path(self._new, name), True)
        try:
            stream.write(bytearray(text.encode("utf-8")))
        finally:
            stream.close()

    def publish(self) -> None:
        """Puts what was written in the output's place. The old output is gone only when the new one stands."""
        replaced = self._files.exists(self._final)
        if replaced and not self._files.rename(self._final, self._old):
            raise CheckFailed(f"{self.output} could not be moved aside; nothing was published, the old output stands")
        if not self._files.rename(self._new, self._final):
            if replaced:
                self._files.rename(self._old, self._final)
            raise CheckFailed(f"{self.path} could not be renamed to {self.output}; the old output stands")
        if replaced:
            self._files.delete(self._old, True)

    def discard(self) -> None:
        """Removes what was written."""
        self._files.delete(self._new, True)

    def _restore(self, parent: Any, name: str) -> None:
        """Brings back an output that a run killed between two renames had moved aside."""
        if self._files.exists(self._final) or not self._files.exists(parent):
            return
        aside = [status.getPath() for status in self._files.listStatus(parent) if status.getPath().getName().startswith(f".{name}.old-")]
        if aside:
            self._files.rename(aside[0], self._final)


def published(spark: SparkSession, output: str, write: Callable[[Staging], dict[str, Any]]) -> dict[str, Any]:
    """What `write` gives, its result then standing at `output`; when it raises, `output` is as it was before."""
    staging = Staging(spark, output)
    try:
        summary = write(staging)
        staging.publish()
    except BaseException:
        staging.discard()
        raise
    return summary


def refuse_loss(rows_in: int, rows_out: int) -> None:
    """Raises CheckFailed unless every row that came in went out."""
    if rows_in != rows_out:
        raise CheckFailed(f"{rows_in} rows in and {rows_out} rows out; nothing was published, the old output stands")


def read_json(spark: SparkSession, folder: str, name: str) -> dict[str, Any]:
    """A JSON file that `write_json` wrote. Raises CorpusError when it is missing."""
    path = f"{folder.rstrip('/')}/{name}"
    files = spark._jvm.org.apache.hadoop.fs.Path(path)
    system = files.getFileSystem(spark._jsc.hadoopConfiguration())
    if not system.exists(files):
        raise CorpusError(f"{path} is missing; {folder} was not written by score_corpus.py or filter_corpus.py")
    stream = system.open(files)
    try:
        return json.loads(bytes(spark._jvm.org.apache.commons.io.IOUtils.toByteArray(stream)).decode("utf-8"))
    finally:
        stream.close()
