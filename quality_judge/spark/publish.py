"""Writes a result beside the old one, counts what was really written, and only then puts it in its place. (driver)

A failed or killed run leaves the previous output as it was: nothing is appended to it and nothing in it deleted
before the new one is complete. Paths go through Hadoop's file system. It knows nothing of judges.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession

from quality_judge.errors import CheckFailed, CorpusError
from quality_judge.redact import redacted_values
from quality_judge.spark.fault import refused_read

PASSWORD = re.compile(r"://[^\s/@:]*:[^\s/@]+@")
MANIFEST_FILE = "_quality_manifest.json"
PROFILE_FILE = "_quality_profile.json"


class Staging:
    """A folder beside `output` that takes its place with `publish`, or vanishes with `discard`.

    Making one tidies up after runs that were killed: their unfinished folders go, an output moved aside comes back.
    """

    def __init__(self, spark: SparkSession, output: str) -> None:
        self.spark = spark
        self.output = output.rstrip("/") or "/"
        self._files, self._final = located(spark, self.output)
        self._parent, self._name = self._final.getParent(), self._final.getName()
        if self._parent is None:
            raise CorpusError(f"{output} cannot be an output; give a folder of its own")
        run = uuid.uuid4().hex[:12]
        self._new = self._beside(f"new-{run}")
        self._old = self._beside(f"old-{run}")
        self._recover()
        self._refuse_foreign()

    @property
    def path(self) -> str:
        """Where to write."""
        return str(self._new.toString())

    def write(self, df: DataFrame, name: str = "") -> DataFrame:
        """`df` written as Parquet under `name`; gives what was written. Raises CorpusError for a bad input file."""
        where = f"{self.path}/{name}".rstrip("/")
        with refused_read():
            df.write.mode("errorifexists").parquet(where)
            return self.spark.read.parquet(where)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """`content` as a JSON file; names that begin with an underscore are not data to Spark."""
        text = json.dumps(redacted_values(content), indent=1, ensure_ascii=False, allow_nan=False)
        stream = self._files.create(_path(self.spark, self._new, name), True)
        try:
            stream.write(bytearray(text.encode("utf-8")))
        finally:
            stream.close()

    def publish(self) -> None:
        """Puts what was written in the output's place. The old output is gone only when the new one stands."""
        replaced = self._files.exists(self._final)
        if replaced and not self._renamed(self._final, self._old):
            raise CheckFailed(f"{self.output} could not be moved aside; nothing was published, the old output stands")
        if not self._renamed(self._new, self._final):
            if replaced:
                self._renamed(self._old, self._final)
            raise CheckFailed(f"{self.path} could not be renamed to {self.output}; the old output stands")
        if replaced:
            self._files.delete(self._old, True)

    def discard(self) -> None:
        """Removes what was written."""
        self._files.delete(self._new, True)

    def _renamed(self, here: Any, there: Any) -> bool:
        """Whether it worked; some file systems say no by an exception."""
        try:
            return bool(self._files.rename(here, there))
        except Py4JJavaError:
            return False

    def _beside(self, name: str) -> Any:
        return _path(self.spark, self._parent, f".{self._name}.{name}")

    def _recover(self) -> None:
        """Brings back what a run killed between two renames had moved aside; removes what killed runs left."""
        if not self._files.exists(self._parent):
            return
        listed = [(status.getPath(), status.getModificationTime()) for status in self._files.listStatus(self._parent)]
        aside = [at for at in listed if at[0].getName().startswith(f".{self._name}.old-")]
        if aside and not self._files.exists(self._final):
            newest = max(aside, key=lambda at: at[1])
            self._files.rename(newest[0], self._final)
            aside.remove(newest)
        unfinished = [at for at in listed if at[0].getName().startswith(f".{self._name}.new-")]
        for path, _ in aside + unfinished:
            self._files.delete(path, True)

    def _refuse_foreign(self) -> None:
        """Raises CorpusError when something stands at the output that no run of ours wrote: it would be deleted."""
        if not self._files.exists(self._final):
            return
        is_folder = self._files.getFileStatus(self._final).isDirectory()
        manifest = _path(self.spark, self._final, MANIFEST_FILE)
        if not is_folder or (self._files.listStatus(self._final) and not self._files.exists(manifest)):
            raise CorpusError(
                f"{self.output} exists and holds no {MANIFEST_FILE}, so it is no earlier output of this job and is not "
                "replaced; choose another --output, or remove it"
            )


def published(
    spark: SparkSession, output: str, write: Callable[[Staging], dict[str, Any]], *, inputs: Sequence[str] = ()
) -> dict[str, Any]:
    """What `write` gives, its result then standing at `output`; when it raises, `output` is as it was before.

    inputs: what `write` reads. Raises CorpusError when the output lies in an input, or an input in the output.
    """
    with refused_read():
        for path in inputs:
            refuse_overlap(spark, path, output)
        staging = Staging(spark, output)
        try:
            summary = write(staging)
            staging.publish()
        except BaseException:
            staging.discard()
            raise
    return summary


def refuse_overlap(spark: SparkSession, given: str, output: str) -> None:
    """Raises CorpusError when one of the two paths is, or lies within, the other. given: may be a pattern."""
    files, pattern = located(spark, given)
    found = [status.getPath().toUri().getPath() for status in files.globStatus(pattern) or []]
    there = located(spark, output)[1].toUri().getPath()
    for here in found:
        if here == there or here.startswith(f"{there}/") or there.startswith(f"{here}/"):
            raise CorpusError(
                f"the output {output} and the input {given} lie within one another; choose another --output"
            )


def refuse_loss(rows_in: int, rows_out: int) -> None:
    """Raises CheckFailed unless every row that came in went out."""
    if rows_in != rows_out:
        raise CheckFailed(f"{rows_in} rows in and {rows_out} rows out; nothing was published, the old output stands")


def read_json(spark: SparkSession, folder: str, name: str, *, keys: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON file that `write_json` wrote. Raises CorpusError when it is missing or damaged, or lacks one of `keys`."""
    with refused_read():
        files, file = located(spark, f"{folder.rstrip('/')}/{name}")
        if not files.exists(file):
            raise CorpusError(f"{folder} holds no {name}; give a folder that score_corpus.py wrote")
        stream = files.open(file)
        try:
            content = bytes(_java(spark).org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CorpusError(f"{folder}/{name} is damaged; run the job that wrote it again")
    if missing := [key for key in keys if key not in found]:
        raise CorpusError(f"{folder}/{name} has no {', '.join(missing)}; give a folder that score_corpus.py wrote")
    return found


def refuse_password(path: str) -> None:
    """Raises CorpusError for an address with a password in it: Spark writes paths into its log."""
    if PASSWORD.search(path):
        raise CorpusError(
            "the path holds a password, and Spark logs paths; give it in the settings, such as "
            "spark.hadoop.fs.s3a.access.key and .secret.key, or by the environment"
        )


def located(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """The file system that `path` is on, and the full path. Raises CorpusError when a password stands in it."""
    refuse_password(path)
    given = _java(spark).org.apache.hadoop.fs.Path(path)
    files = given.getFileSystem(spark._jsc.hadoopConfiguration())
    return files, files.makeQualified(given)


def _path(spark: SparkSession, parent: Any, name: str) -> Any:
    return _java(spark).org.apache.hadoop.fs.Path(parent, name)


def _java(spark: SparkSession) -> Any:
    return spark._jvm
