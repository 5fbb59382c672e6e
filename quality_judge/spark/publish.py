"""Writes a result beside the old one and only then puts it in its place; until then the old one stands. (driver)

A failed or killed run leaves the previous output as it was. What a killed run had finished stays in a hidden folder
beside the output, under the name of its plan, and only a run with the same plan takes it up. One run at a time.
It knows nothing of judges; `shards` fills the folder, `switch` is the last step.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from quality_judge.errors import CheckFailed, CorpusError, InputError
from quality_judge.redact import redacted_values
from quality_judge.spark.fault import refused_read
from quality_judge.spark.lock import held
from quality_judge.spark.places import Place
from quality_judge.spark.switch import LOG_FOLDER, aside, switch

MANIFEST_FILE = "_quality_manifest.json"
PROFILE_FILE = "_quality_profile.json"
CONTENTS_FOLDER = "contents"


class Staging:
    """A folder beside `output` that takes its place with `publish`, or vanishes with `discard`.

    Making one tidies up after runs that were killed. The lock of the output must be held.
    """

    def __init__(self, spark: SparkSession, output: str) -> None:
        self.spark = spark
        self.output = output.rstrip("/") or "/"
        self._final = Place.at(spark, self.output)
        self._run: Place | None = None
        self._published = False
        self._new = self._beside(f"new-{uuid.uuid4().hex[:12]}")
        self._recover()
        self._refuse_foreign()

    @property
    def path(self) -> str:
        """Where to write."""
        return self._new.text

    def write(self, df: DataFrame, name: str = "") -> DataFrame:
        """`df` written as Parquet under `name`; gives what was written. Raises CorpusError for a bad input file."""
        where = f"{self.path}/{name}".rstrip("/")
        with refused_read():
            df.write.mode("errorifexists").parquet(where)
            return self.spark.read.parquet(where)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """`content` as a JSON file; names that begin with an underscore are not data to Spark."""
        self._new.child(name).write_json(redacted_values(content))

    def resume(self, plan: str) -> Place:
        """The folder of the run with that plan, whatever it holds already; the folders of other plans go."""
        self._run = self._beside(f"run-{plan}")
        for place in self._hidden("run-"):
            if place.name != self._run.name:
                place.delete()
        self._new = self._run.child("table")
        return self._run

    def already_published(self, plan: str) -> dict[str, Any] | None:
        """The manifest of the output when the run with that plan was killed after its switch and before it tidied.

        Then `publish` only tidies.
        """
        run = self._beside(f"run-{plan}")
        found = self._final.child(MANIFEST_FILE).read_json() if run.exists() else None
        if found is None or found.get("plan") != plan:
            return None
        self._run, self._published = run, True
        return found

    def publish(self, *, tables: Sequence[str] = ("",)) -> None:
        """Puts what was written in the output's place. The old output is gone only when the new one stands."""
        if not self._published:
            if not self._new.exists():
                raise CheckFailed(f"nothing was written for {self.output}; the old output stands")
            switch(self._new, self._final, tables=tables)
        self.discard()

    def discard(self, *, keep_shards: bool = False) -> None:
        """Removes what was written; with `keep_shards`, shards that are whole stay for the next run with this plan."""
        if self._run is None:
            self._new.delete()
        elif not (keep_shards and _acknowledged(self._run)):
            self._run.delete()

    def _beside(self, name: str) -> Place:
        parent = self._final.parent
        if parent is None:
            raise CorpusError(f"{self.output} cannot be an output; give a folder of its own")
        return parent.child(f".{self._final.name}.{name}")

    def _hidden(self, kind: str) -> list[Place]:
        start = self._beside(kind).name
        parent = self._final.parent
        return [place for place in parent.listed() if place.name.startswith(start)] if parent is not None else []

    def _recover(self) -> None:
        """Brings back what a run killed between two renames had moved aside; removes what killed runs left."""
        old = aside(self._final)
        if old.exists():
            if self._final.exists():
                old.delete()
            else:
                old.moved(self._final)
        for place in self._hidden("new-"):
            place.delete()

    def _refuse_foreign(self) -> None:
        """Raises CorpusError when something stands at the output that no run of ours wrote: it would be deleted."""
        if not self._final.exists():
            return
        known = {place.name for place in self._final.listed()} if self._final.is_folder() else {"a file"}
        if known and MANIFEST_FILE not in known and LOG_FOLDER not in known:
            raise CorpusError(
                f"{self.output} exists and holds no {MANIFEST_FILE}, so it is no earlier output of this job and is not "
                "replaced; choose another --output, or remove it"
            )


def _acknowledged(run: Place) -> bool:
    """Whether some shard of the run has a receipt, of its table or of the contents that a store lacked."""
    return any(place.child("receipts").listed() for place in (run, run.child(CONTENTS_FOLDER)))


def published(
    spark: SparkSession,
    output: str,
    write: Callable[[Staging], dict[str, Any]],
    *,
    inputs: Sequence[str] = (),
    tables: Sequence[str] = ("",),
) -> dict[str, Any]:
    """What `write` gives, its result then standing at `output`; when it raises, `output` is as it was before.

    inputs: what `write` reads. tables: the folders within the output that hold a table. Raises CorpusError when the
    output lies in an input or an input in the output, RunConflict when another run is writing the output.
    """
    with refused_read():
        for path in inputs:
            refuse_overlap(spark, path, output)
        try:
            with held(lock_of(spark, output)):
                return _published(spark, output, write, tables)
        except ConnectionError:
            raise CheckFailed("the Java process of Spark ended; nothing was published") from None
        except OSError as error:
            raise CorpusError(
                f"{output} cannot be reached or written ({type(error).__name__}): check its folder, its permissions "
                "and the space left"
            ) from None


def _published(
    spark: SparkSession, output: str, write: Callable[[Staging], dict[str, Any]], tables: Sequence[str]
) -> dict[str, Any]:
    staging = Staging(spark, output)
    try:
        summary = write(staging)
        staging.publish(tables=tables)
    except InputError:
        staging.discard()
        raise
    except BaseException:
        staging.discard(keep_shards=True)
        raise
    return summary


def lock_of(spark: SparkSession, output: str) -> Place:
    """The file that the run which writes `output` holds."""
    final = Place.at(spark, output.rstrip("/") or "/")
    if final.parent is None:
        raise CorpusError(f"{output} cannot be an output; give a folder of its own")
    return final.parent.child(f".{final.name}.lock")


def refuse_overlap(spark: SparkSession, given: str, output: str, *, option: str = "output") -> None:
    """Raises CorpusError when one of the two paths is, or lies within, the other. given: may be a pattern."""
    pattern = Place.at(spark, given)
    found = [status.getPath().toUri().getPath() for status in pattern.files.globStatus(pattern.path) or []]
    there = Place.at(spark, output).path.toUri().getPath()
    for here in found:
        if here == there or here.startswith(f"{there}/") or there.startswith(f"{here}/"):
            raise CorpusError(
                f"the {option} {output} and the input {given} lie within one another; choose another --{option}"
            )


def refuse_loss(rows_in: int, rows_out: int) -> None:
    """Raises CheckFailed unless every row that came in went out."""
    if rows_in != rows_out:
        raise CheckFailed(f"{rows_in} rows in and {rows_out} rows out; nothing was published, the old output stands")


def read_json(spark: SparkSession, folder: str, name: str, *, keys: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON file that `write_json` wrote. Raises CorpusError when it is missing or damaged, or lacks one of `keys`."""
    with refused_read():
        file = Place.at(spark, f"{folder.rstrip('/')}/{name}")
        if not file.exists():
            raise CorpusError(f"{folder} holds no {name}; give a folder that score_corpus.py wrote")
        found = file.read_json()
    if found is None:
        raise CorpusError(f"{folder}/{name} is damaged; run the job that wrote it again")
    if missing := [key for key in keys if key not in found]:
        raise CorpusError(f"{folder}/{name} has no {', '.join(missing)}; give a folder that score_corpus.py wrote")
    return found
