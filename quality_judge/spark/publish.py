"""Writes a result beside the old one and only then puts it in its place; until then the old one stands. (driver)

A failed or killed run leaves the previous output as it was. What it had finished stays in a hidden folder beside the
output, under the name of its plan, and only a run with the same plan takes it up. One run at a time.
It knows nothing of judges; `shards` fills the folder, `switch` is the last step.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from quality_judge.errors import CheckFailed, CorpusError, RunConflict, SparkFailed
from quality_judge.redact import redacted_values
from quality_judge.spark.fault import refused_read
from quality_judge.spark.lock import held
from quality_judge.spark.places import PATTERN_SIGN, Place, overlapping
from quality_judge.spark.switch import LOG_FOLDER, aside, data_files, of_switches, switch, tidy

MANIFEST_FILE = "_quality_manifest.json"
PROFILE_FILE = "_quality_profile.json"
BEGUN_FILE = "begun.json"
CONTENTS_FOLDER = "contents"
RECEIPTS_FOLDER = "receipts"


class Staging:
    """A folder beside `output` that takes its place with `publish`, or vanishes with `discard`.

    Making one tidies up after runs that were killed. The lock of the output must be held; refuse_lost: raises
    RunConflict when it is no longer.
    """

    def __init__(
        self, spark: SparkSession, output: str, refuse_lost: Callable[[], None] = lambda: None, job: str | None = None
    ) -> None:
        self.spark = spark
        self.output = output.rstrip("/") or "/"
        self.refuse_lost = refuse_lost
        self._job = job
        self._final = _final(spark, output)
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

    def write_manifest(self, content: Mapping[str, Any]) -> None:
        """Says beside the tables what they are, which job wrote them and, of a run with a plan, which run it was."""
        said = {} if self._job is None else {"job": self._job}
        said |= {} if self._run is None else _begun(self._run)
        self.write_json(MANIFEST_FILE, said | dict(content))

    def resume(self, plan: str) -> Place:
        """The folder of the run with that plan, whatever it holds already; the folders of other plans go."""
        self._run = self._beside(f"run-{plan}")
        for place in self._hidden("run-[0-9a-f]{16}"):
            if place.name != self._run.name:
                place.delete()
        self._new = self._run.child("table")
        if not _begun(self._run):
            self._run.child(BEGUN_FILE).write_json({"run": uuid.uuid4().hex})
        return self._run

    def already_published(self, plan: str) -> dict[str, Any] | None:
        """The manifest of the output when the run with that plan was killed after its switch and before it tidied.

        Then `publish` only tidies.
        """
        run = self._beside(f"run-{plan}")
        begun = _begun(run) if run.exists() else {}
        found = self._final.child(MANIFEST_FILE).read_json() if begun else None
        if found is None or found.get("run") != begun["run"]:  # an earlier run with that plan may have published, too
            return None
        self._run, self._published = run, True
        return found

    def publish(self, *, tables: Sequence[str] = ("",)) -> None:
        """Puts what was written in the output's place. The old output is gone only when the new one stands.

        Raises RunConflict when another run has taken the lock or changed the table meanwhile.
        """
        if not self._published:
            self._refuse_torn()
        self.refuse_lost()
        if self._published:
            tidy(self._final, tables)
        else:
            switch(self._new, self._final, tables=tables)
        self.discard()

    def discard(self, *, keep_shards: bool = False) -> None:
        """Removes what was written. keep_shards: those that are whole stay for the next run with this plan."""
        if self._run is None:
            self._new.delete()
        elif not (keep_shards and _acknowledged(self._run)):
            self._run.delete()

    def _beside(self, name: str) -> Place:
        return _parent(self._final).child(f".{self._final.name}.{name}")

    def _hidden(self, kind: str) -> list[Place]:
        """Those of this output whose names end as the pattern `kind` says; outputs beside it have theirs there too."""
        name = re.compile(re.escape(f".{self._final.name}.") + kind)
        return [place for place in _parent(self._final).listed() if name.fullmatch(place.name)]

    def _recover(self) -> None:
        """Brings back what a run killed between two renames had moved aside; removes what killed runs left."""
        old = aside(self._final)
        if old.exists():
            if self._final.exists():
                old.delete()
            else:
                old.moved(self._final)
        for place in self._hidden("new-[0-9a-f]{12}"):
            place.delete()

    def _refuse_torn(self) -> None:
        """Raises CheckFailed when nothing was written, RunConflict when not just the files that the receipts name."""
        if not self._new.exists():
            raise CheckFailed(f"nothing was written for {self.output}; the old output stands")
        if self._run is None:
            return
        receipts = [place for place in self._run.child(RECEIPTS_FOLDER).listed() if place.name.endswith(".json")]
        named = {name for receipt in receipts for name in (receipt.read_json() or {}).get("files", ())}
        there = {file.name for file in data_files(self._new)}
        if named != there:
            raise RunConflict(
                f"the receipts of the run name {len(named)} files and {len(there)} are in its table: another run "
                "changed it; nothing was published, the old output stands. Run again"
            )

    def _refuse_foreign(self) -> None:
        """Raises CorpusError when something stands at the output that no run of ours wrote: it would be deleted."""
        if not self._final.exists():
            return
        known = {place.name for place in self._final.listed()} if self._final.is_folder() else {"a file"}
        ours = MANIFEST_FILE in known or (LOG_FOLDER in known and of_switches(self._final))
        if known and not ours:
            raise CorpusError(
                f"{self.output} exists and holds no {MANIFEST_FILE}, so it is no earlier output of this job and is not "
                "replaced; choose another --output, or remove it"
            )
        wrote = (self._final.child(MANIFEST_FILE).read_json() or {}).get("job", self._job)
        if self._job not in (None, wrote):
            raise CorpusError(
                f"{self.output} is an output of {wrote} and is not replaced by one of {self._job}; choose another "
                "--output, or remove it"
            )


def _begun(run: Place) -> dict[str, Any]:
    """`run`, the name of this one run with its plan; nothing before it has one."""
    return run.child(BEGUN_FILE).read_json() or {}


def _acknowledged(run: Place) -> bool:
    """Whether some shard of the run has a receipt, of its table or of the contents that a store lacked."""
    return any(place.child(RECEIPTS_FOLDER).listed() for place in (run, run.child(CONTENTS_FOLDER)))


def published(
    spark: SparkSession,
    output: str,
    write: Callable[[Staging], dict[str, Any]],
    *,
    inputs: Sequence[str] = (),
    tables: Sequence[str] = ("",),
    job: str | None = None,
) -> dict[str, Any]:
    """What `write` gives, its result then standing at `output`; when it raises, `output` is as it was before.

    inputs: what `write` reads. tables: the folders within the output that hold a table. job: whose earlier outputs are
    replaced, and no other's. Raises CorpusError when the output lies in an input or an input in the output, RunConflict
    when another run is writing the output.
    """
    with refused_read():
        for path in inputs:
            refuse_overlap(spark, path, output)
        try:
            with held(lock_of(spark, output)) as refuse_lost:
                return _published(Staging(spark, output, refuse_lost, job), write, tables)
        except ConnectionError:
            raise SparkFailed("the Java process of Spark ended; nothing was published") from None
        except OSError as error:
            raise CorpusError(
                f"{output} cannot be reached or written ({type(error).__name__}): check its folder, its permissions "
                "and the space left"
            ) from None


def _published(staging: Staging, write: Callable[[Staging], dict[str, Any]], tables: Sequence[str]) -> dict[str, Any]:
    try:
        summary = write(staging)
        staging.publish(tables=tables)
    except BaseException:
        staging.refuse_lost()  # the folder of a plan is the other run's by then
        staging.discard(keep_shards=True)
        raise
    return summary


def lock_of(spark: SparkSession, output: str) -> Place:
    """The file that the run which writes `output` holds."""
    final = _final(spark, output)
    return _parent(final).child(f".{final.name}.lock")


def _final(spark: SparkSession, output: str) -> Place:
    """Where the output goes: a link to a folder stays, and what it names is replaced.

    Raises CorpusError for a root and for a pattern.
    """
    place = Place.at(spark, output.rstrip("/") or "/")
    if place.local is not None and place.local.is_symlink():
        place = Place.at(spark, f"file://{os.path.realpath(place.local)}")
    if place.parent is None:
        raise CorpusError(f"{output} cannot be an output; give a folder of its own")
    refuse_pattern(place)
    return place


def refuse_pattern(place: Place, *, option: str = "output") -> None:
    """Raises CorpusError for a path that Spark would take for a pattern."""
    if signs := set(PATTERN_SIGN.findall(place.path.toUri().getPath())):
        raise CorpusError(
            f"{place.text} cannot be the {option}: Spark takes {' '.join(sorted(signs))} for a pattern; choose another "
            f"--{option}"
        )


def _parent(place: Place) -> Place:
    """The folder of what `_final` gave."""
    return place.parent  # type: ignore[return-value]


def refuse_overlap(spark: SparkSession, given: str, output: str, *, option: str = "output") -> None:
    """Raises CorpusError when one of the two paths is, or lies within, the other.

    given: may be a pattern, or a path where nothing is yet.
    """
    pattern = Place.at(spark, given)
    java: Any = spark._jvm
    # In one call: a pattern may match 100,000 files.
    found = java.org.apache.spark.deploy.SparkHadoopUtil.get().globPath(pattern.files, pattern.path).mkString("\n")
    if overlapping([pattern.text, *filter(None, found.split("\n"))], Place.at(spark, output).text):
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
