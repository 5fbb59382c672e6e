"""A corpus scored with a store: what it lacks is scored once and added, then every row finds its score. (driver)

    contents   what the judge would read, each once, that the store does not have: written into the run's folder
    shards     those are scored as any corpus is, with receipts; a killed run goes on where it ended
    store      the verified shards are added to it in one step
    rows       each row of the corpus is joined to its score by the key of its content

No row is joined to another row: a key stands once on the side of the scores, so that none is lost or doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from quality_judge.spark.fault import refused_read
from quality_judge.spark.places import Place
from quality_judge.spark.plan import cut, input_files, named_plan
from quality_judge.spark.progress import shown
from quality_judge.spark.publish import CONTENTS_FOLDER, refuse_loss
from quality_judge.spark.score import KEY_COLUMN, STRUCT_COLUMN, Scoring, balanced, score
from quality_judge.spark.shards import Receipt, summed, write_shards
from quality_judge.spark.store import (
    FAULTS,
    FORMAT,
    SCHEMA,
    ScoreStore,
    Segment,
    content_key,
    new_name,
    storable,
    with_struct,
)  # fmt: skip
from quality_judge.spark.udf import STRUCT

CONTENTS_FILE = "contents.json"
PROMPT, TEXT = "prompt", "text"


class Reuse:
    """One run over one corpus with a store. Call `fill`, then use `scores`."""

    def __init__(
        self, store: ScoreStore, scoring: Scoring, corpus: DataFrame, run: Place, *, hang_seconds: float | None = None
    ) -> None:
        self.store = store
        self.scoring = scoring
        self.corpus = corpus
        self.place = run.child(CONTENTS_FOLDER)
        self.hang_seconds = hang_seconds
        self._segments: list[Segment] = []
        self._scored: list[str] = []

    def fill(self, *, shards: int | None = None) -> dict[str, Any]:
        """Scores what the store lacks and adds it; gives what the manifest says of that."""
        self._segments, contents = self._contents()
        receipts = self._score(contents, shards)
        counts = summed(receipts)
        faults = sum(counts["codes"].get(code, 0) for code in FAULTS)
        if new := contents["rows"] - faults:
            self.store.add(contents["folder"], self._fresh(), rows=new)
        known = sum(segment.rows for segment in self._segments)
        return {"folder": self.store.folder, "contents_known": known, "contents_scored": contents["rows"], "added": new}

    @contextmanager
    def scores(self) -> Iterator[Callable[[DataFrame], DataFrame]]:
        """Within it, a function like `Scoring` that takes scores from the store and from this run."""
        fault = F.raise_error(F.lit("a row has no score in the store")).cast(f"struct<{STRUCT}>")
        both = self.store.scores(self._segments)
        if self._scored:
            both = both.unionByName(with_struct(storable(self._fresh()), self.store.judge)).unionByName(self._faults())
        once = both.groupBy(KEY_COLUMN).agg(F.min(STRUCT_COLUMN).alias(STRUCT_COLUMN))
        known = once.persist(StorageLevel.MEMORY_AND_DISK)

        def transform(df: DataFrame) -> DataFrame:
            self.scoring.refuse(df)
            keyed = df.withColumn(KEY_COLUMN, content_key(self.scoring.texts(df)))
            joined = keyed.join(known, KEY_COLUMN, "left")
            return self.scoring.finished(df, joined.withColumn(STRUCT_COLUMN, F.coalesce(STRUCT_COLUMN, fault)))

        try:
            yield transform
        finally:
            known.unpersist()

    def _contents(self) -> tuple[list[Segment], dict[str, Any]]:
        """(the segments that are used, what was written of the contents they lack), as an earlier try left them or new.

        Contents that were told apart by a segment which is damaged by now are told apart anew.
        """
        whole = self.store.segments()
        known = self.place.child(CONTENTS_FILE).read_json()
        fits = known is not None and known.get("format") == FORMAT
        if known is not None and fits and set(known["segments"]) <= {segment.name for segment in whole}:
            return [segment for segment in whole if segment.name in known["segments"]], known
        self.place.delete()
        folder = new_name()
        where = self.place.child(folder).text
        with refused_read():
            self._missing(whole).write.mode("errorifexists").parquet(where)
            rows = self._read([where]).count()
        names = [segment.name for segment in whole]
        known = {"format": FORMAT, "folder": folder, "rows": rows, "segments": names}
        self.place.child(CONTENTS_FILE).write_json(known)
        return whole, known

    def _missing(self, segments: Sequence[Segment]) -> DataFrame:
        """Key and texts of each content once that is in none of the segments."""
        texts = self.scoring.texts(self.corpus)
        names = [PROMPT, TEXT][-len(texts) :]
        columns = [text.cast("binary").alias(name) for text, name in zip(texts, names, strict=True)]
        keyed = self.corpus.select(content_key(texts).alias(KEY_COLUMN), *columns)
        if segments:
            keyed = keyed.join(self.store.scores(segments).select(KEY_COLUMN), KEY_COLUMN, "left_anti")
        return keyed.dropDuplicates([KEY_COLUMN]).withColumnRenamed(KEY_COLUMN, "key")

    def _score(self, contents: dict[str, Any], shards: int | None) -> list[Receipt]:
        if not contents["rows"]:
            return []
        spark, table = self.corpus.sparkSession, self._read([self.place.child(contents["folder"]).text])
        plan = cut(named_plan(input_files(table), {"contents": contents}), table, self.place, shards=shards)
        prompt = PROMPT if PROMPT in table.columns else None  # chats have one, too
        asks = self.scoring.gpus_per_task
        scoring = score(self.store.judge, text_column=TEXT, prompt_column=prompt, gpus_per_task=asks)
        with shown(plan.rows, len(plan.shards)) as progress:
            receipts = write_shards(
                spark, plan, self.place, table, lambda df: scoring(balanced(df)), progress,
                threshold=self.store.judge.spec.threshold, hang_seconds=self.hang_seconds,
            )  # fmt: skip
        refuse_loss(contents["rows"], sum(receipt.rows for receipt in receipts))
        self._scored = [self.place.child(r.folder).child(name).text for r in receipts for name in r.files]
        return receipts

    def _read(self, paths: Sequence[str]) -> DataFrame:
        return self.corpus.sparkSession.read.parquet(*paths)

    def _fresh(self) -> DataFrame:
        """What this run has scored, from its verified shards."""
        return self._read(self._scored).withColumnRenamed("key", KEY_COLUMN)

    def _faults(self) -> DataFrame:
        """The rows of this run that are not stored, as they came out."""
        kept = self._fresh().where(F.col("quality_code").isin(*FAULTS))
        names = [word.split()[0] for word in SCHEMA.split(", ")]
        return with_struct(kept.select(*names), self.store.judge)
