"""Scores every row of a corpus with a judge and writes the table with its quality_* columns as Parquet.

    spark-submit jobs/score_corpus.py --judge judges/mine-1 --input corpus/ --output scored/

A row that cannot be scored keeps its place, with a code that says why. The work is done in shards: a run that was
killed goes on where it ended when it is started again with the same input, judge and options. Nothing is published
unless as many rows came out as went in; an output that stood there before stays until then. A line on stderr shows how
far it is; the last line on stdout is one JSON object. Exit 0: published. 1: a check did not hold, or another run is
writing this output. 2: bad input.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from quality_judge.cascade import load_cascade
from quality_judge.errors import ConfigError
from quality_judge.programme import parser, run
from quality_judge.signing import load_signed_judge
from quality_judge.spark import read_corpus, score, spark_session
from quality_judge.spark.cascade import rescore
from quality_judge.spark.corpus import FORMATS, read_whole_files
from quality_judge.spark.places import Place
from quality_judge.spark.publish import MANIFEST_FILE, Staging, published, read_json, refuse_overlap, refuse_pattern
from quality_judge.spark.run import ScoringRun, refuse_zero
from quality_judge.spark.ship import ship_judge
from quality_judge.spark.stage import stage_gpus
from quality_judge.spark.store import ScoreStore


def main(options: Namespace) -> dict[str, Any]:
    """Reads, plans, scores shard by shard, counts what was written, publishes; returns the summary."""
    refuse_zero(max_bytes=options.max_bytes, shards=options.shards, hang_seconds=options.hang_seconds)
    if Path(options.judge).is_dir():
        load_signed_judge(options.judge, options.require_signature)  # one that is refused need not wait for Spark
    spark = spark_session("score_corpus", scoring=True)
    judge = load_signed_judge(ship_judge(spark, options.judge), options.require_signature)
    gpus_per_task = stage_gpus(spark, options.gpus_per_task)
    how = {"format": options.format, "text_column": options.text_column}
    read = read_whole_files if options.quarantine else lambda *given, **kept: (read_corpus(*given, **kept), ())
    corpus, quarantined = read(spark, options.input, **how)
    columns = {"text_column": options.text_column, "prompt_column": options.prompt_column}
    scoring = score(judge, **columns, max_bytes=options.max_bytes, gpus_per_task=gpus_per_task)
    said = {**how, **columns}
    if options.cascade is not None:
        cascade = load_cascade(options.cascade)
        before = read_json(spark, options.input, MANIFEST_FILE, keys=("judge", *columns))
        if other := {name: before[name] for name in columns if before[name] != columns[name]}:
            raise ConfigError(f"the cheap judge read {other}; give the large one the same columns")
        scoring = rescore(scoring, cascade, scored_by=before["judge"])
        said["cascade"] = cascade.model_dump(mode="json")
    scoring(corpus.limit(0))  # what does not fit is refused before any row is read

    store = None
    if options.store is not None:
        refuse_overlap(spark, options.input, options.store, option="store")
        refuse_pattern(Place.at(spark, options.store), option="store")
        store = ScoreStore(spark, options.store, judge)

    def write(staging: Staging) -> dict[str, Any]:
        scored = ScoringRun(
            judge, corpus, staging, input=options.input, said={**said, "max_bytes": options.max_bytes},
            quarantined=quarantined, hang_seconds=options.hang_seconds, store=store,
        )  # fmt: skip
        return scored.write(scoring, shards=options.shards)

    kept = [options.store] if options.store is not None else []
    return published(spark, options.output, write, inputs=[options.input, *kept], job="score_corpus")


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--judge", required=True, help="folder, zip file of pack, or hf://org/name@COMMIT")
    arguments.add_argument("--input", required=True, help="corpus: a file, a folder, or a pattern")
    arguments.add_argument("--output", required=True, help="folder of the scored table")
    arguments.add_argument("--format", choices=FORMATS, default="parquet", help="format of the input")
    arguments.add_argument("--text-column", default="text", help="column with the text, as in text or doc.text")
    arguments.add_argument("--prompt-column", help="column with the prompt, for judges of prompt and completion")
    arguments.add_argument("--require-signature", metavar="PUBKEY", help="PEM key that must have signed the judge")
    arguments.add_argument("--max-bytes", type=int, help="longer texts get TOO_LONG; by default they are cut")
    arguments.add_argument("--shards", type=int, help="how many parts; by the rows and the cores when left out")
    arguments.add_argument("--hang-seconds", type=float, help="what a row that hangs may cost in all; 600 by default")
    arguments.add_argument(
        "--gpus-per-task", type=float, help="of a GPU, for tasks that score; 1 where executors have GPUs; 0: as the job"
    )
    arguments.add_argument("--quarantine", action="store_true", help="leave out and name files that cannot be read")
    arguments.add_argument("--cascade", help="file of make_cascade.py; the input is what the cheap judge has scored")
    arguments.add_argument("--store", help="folder that keeps scores by content: what it has is not scored again")
    options = arguments.parse_args()
    run(lambda: main(options))
