"""A scoring run from plan to manifest: shards, live line, summary. (driver)"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

from pyspark.sql import DataFrame

from quality_judge.errors import ConfigError
from quality_judge.judge import Judge
from quality_judge.programme import tell
from quality_judge.scores import OK
from quality_judge.spark.corpus import BadFile
from quality_judge.spark.lineage import dataset, judge_facet, of_files, run_event, versions
from quality_judge.spark.places import Place
from quality_judge.spark.plan import MIN_JOINED_ROWS, MIN_SHARD_ROWS, Plan, cut, input_files, named_plan
from quality_judge.spark.progress import shown
from quality_judge.spark.publish import Staging, refuse_loss
from quality_judge.spark.reuse import Reuse
from quality_judge.spark.score import Scoring, balanced
from quality_judge.spark.shards import Receipt, gather, summed, write_shards
from quality_judge.spark.store import ScoreStore

SUMMARY_KEYS = (
    "rows", "scored", "codes", "flags", "seconds", "rows_per_second", "judge", "input", "output", "shards",
    "shards_reused", "files_quarantined",
)  # fmt: skip


class ScoringRun:
    """One run of a judge over a corpus into a staging folder."""

    def __init__(
        self, judge: Judge, corpus: DataFrame, staging: Staging, *, input: str, said: Mapping[str, Any],
        quarantined: Sequence[BadFile] = (), hang_seconds: float | None = None, store: ScoreStore | None = None,
    ) -> None:  # fmt: skip
        self.judge = judge
        self.corpus = corpus
        self.staging = staging
        self.input = input
        self.said = dict(said)
        self.quarantined = tuple(quarantined)
        self.hang_seconds = hang_seconds
        self.store = store
        self._reused: dict[str, Any] | None = None
        self._began = time.time()

    def write(self, scoring: Scoring, *, shards: int | None = None) -> dict[str, Any]:
        """Scores, counts what was written, writes the manifest; gives the summary. shards: see `plan.cut`.

        With a store only what it lacks is scored; then every row gets its score from there.
        Raises CheckFailed unless every row that came in went out.
        """
        spark, files = self.corpus.sparkSession, input_files(self.corpus)
        said = {"judge": self.judge.spec.checksum, "columns": self.corpus.schema.json()}  # flags depend on its cut, too
        plan = named_plan(files, {**self.said, **said})
        if done := self.staging.already_published(plan.id):
            tell("the run before this one had published and was ended before it tidied up; nothing is left to do")
            return _summary(done)
        run = self.staging.resume(plan.id)
        started = time.perf_counter()
        least = MIN_SHARD_ROWS if self.store is None else MIN_JOINED_ROWS
        plan = cut(plan, self.corpus, run, shards=shards, least_rows=least)
        with self._source(scoring, run, shards) as transform, shown(plan.rows, len(plan.shards)) as progress:
            receipts = write_shards(
                spark, plan, run, self.corpus, lambda df: transform(balanced(df)), progress,
                threshold=self.judge.spec.threshold, hang_seconds=self.hang_seconds,
            )  # fmt: skip
        self.staging.refuse_lost()  # from here on files are moved, and the folder may be another run's by now
        gather(run, receipts)
        refuse_loss(plan.rows, sum(receipt.rows for receipt in receipts))
        manifest = self._manifest(plan, receipts, seconds=time.perf_counter() - started)
        self.staging.write_manifest(manifest)
        return _summary(manifest)

    def _source(
        self, scoring: Scoring, run: Place, shards: int | None
    ) -> AbstractContextManager[Callable[[DataFrame], DataFrame]]:
        """What gives the rows of a shard their scores: the judge, or the store once it lacks nothing."""
        if self.store is None:
            return nullcontext(scoring)
        reuse = Reuse(self.store, scoring, self.corpus, run, hang_seconds=self.hang_seconds)
        self._reused = reuse.fill(shards=shards)
        return reuse.scores()

    def _manifest(self, plan: Plan, receipts: Sequence[Receipt], *, seconds: float) -> dict[str, Any]:
        """The summary, and all that says where the table comes from."""
        counts, judge = summed(receipts), self.judge
        rows_now = sum(receipt.rows for receipt in receipts if not receipt.reused)
        spark = self.corpus.sparkSession
        source = of_files(Place.at(spark, self.input), plan.inputs)
        target = dataset(
            Place.at(spark, self.staging.output), rows=counts["rows"], bytes=counts["bytes"], files=counts["files"],
            output=True,
        )  # fmt: skip
        event = run_event(
            job="score_corpus", run=str(uuid.uuid4()), started=self._began, ended=time.time(), inputs=[source],
            output=target, facets={"judge": judge_facet(judge), "versions": versions()},
        )  # fmt: skip
        return {
            "rows": counts["rows"], "scored": counts["codes"].get(OK, 0), "codes": counts["codes"],
            "flags": counts["flags"], "seconds": round(seconds, 2), "rows_per_second": round(rows_now / seconds, 1),
            "judge": judge.fingerprint, "input": self.input, "output": self.staging.output, "shards": len(receipts),
            "shards_reused": sum(receipt.reused for receipt in receipts), "files_quarantined": len(self.quarantined),
            "judge_says": judge.spec.model_dump(mode="json", exclude={"encoding", "files", "training"}),
            "threshold": judge.spec.threshold, "spark": spark.version, "plan": plan.id, "digest": counts["digest"],
            **self.said, "quarantined": [asdict(file) for file in self.quarantined],
            "receipts": [_short(receipt) for receipt in receipts], "lineage": event,
            **({} if self._reused is None else {"store": self._reused}),
        }  # fmt: skip


def refuse_zero(**options: float | None) -> None:
    """Raises ConfigError unless each of the options is missing, or 1 or more."""
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is not None and value < 1:
            raise ConfigError(f"{option} {value}: expected 1 or more")


def _summary(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in (*SUMMARY_KEYS, "store") if key in manifest}


def _short(receipt: Receipt) -> dict[str, Any]:
    return {
        "shard": receipt.shard, "rows": receipt.rows, "files": len(receipt.files), "bytes": receipt.bytes,
        "digest": receipt.digest, "seconds": receipt.seconds, "reused": receipt.reused,
    }  # fmt: skip
