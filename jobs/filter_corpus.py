"""Splits a scored table by a policy into kept/ review/ dropped/ unscored/; every row goes to exactly one of them.

    spark-submit jobs/filter_corpus.py --scored scored/ --policy conf/policies/default.yaml --output filtered/

Each row carries quality_decision and quality_reason. Nothing is published unless
rows in = kept + review + dropped + unscored. The last line on stdout is one JSON object.
Exit 0: published. 1: a check did not hold. 2: bad input.
"""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from pyspark.sql import functions as F

from quality_judge.archive import judge_folder
from quality_judge.errors import JudgeError
from quality_judge.judge import Judge, load_judge
from quality_judge.pinned import judge_file
from quality_judge.policy import Policy
from quality_judge.programme import parser, run
from quality_judge.scores import DECISION_COLUMN, DECISION_FOLDERS, FLAGS_COLUMN
from quality_judge.spark import apply_policy, profile, spark_session
from quality_judge.spark.corpus import read_corpus
from quality_judge.spark.fault import refused_read
from quality_judge.spark.publish import PROFILE_FILE, Staging, published, refuse_loss
from quality_judge.spark.score import flags_at_threshold, rows_in
from quality_judge.spark.scored_table import about_scored


def main(options: Namespace) -> dict[str, Any]:
    """Decides, writes the four tables, counts them, publishes; returns the summary."""
    policy = Policy.load(options.policy)
    spark = spark_session("filter_corpus")
    scored = read_corpus(spark, options.scored)
    manifest = about_scored(scored, options.scored, text_column=options.text_column)
    text_column = manifest["text_column"]
    judge = named_judge(options.judge, manifest)
    if judge is not None and judge.spec.threshold != manifest["threshold"]:
        scored = scored.withColumn(FLAGS_COLUMN, flags_at_threshold(judge))
    resolved = policy.resolve(*judges_cuts(judge, manifest), probability=states_probability(manifest))
    with refused_read(f"{options.scored}, for the policy {policy.name},"):
        decided = apply_policy(scored, resolved, text_column=text_column)

    def write(staging: Staging) -> dict[str, Any]:
        before, started = rows_in(scored), time.perf_counter()
        written = [
            staging.write(decided.where(F.col(DECISION_COLUMN) == decision), folder)
            for decision, folder in DECISION_FOLDERS.items()
        ]
        counts = {folder: table.count() for folder, table in zip(DECISION_FOLDERS.values(), written, strict=True)}
        refuse_loss(before, sum(counts.values()))
        everything = written[0].unionByName(written[1]).unionByName(written[2]).unionByName(written[3])
        found = profile(everything, text_column=text_column)
        summary = {
            "rows": before, **counts, "reasons": dict(sorted(found.reasons.items(), key=lambda item: -item[1])),
            "policy": resolved.name, "keep_at": resolved.keep_at, "drop_below": resolved.drop_below,
            "judge": manifest["judge"], "seconds": round(time.perf_counter() - started, 2), "output": options.output,
        }  # fmt: skip
        staging.write_json(PROFILE_FILE, found.to_dict())
        said = {
            "scored": options.scored,
            "text_column": text_column,
            "policy": policy.model_dump(mode="json"),
            "slices": resolved.slices,
            "cascade": manifest.get("cascade"),
        }
        staging.write_manifest(summary | said)
        return summary

    return published(
        spark, options.output, write, inputs=[options.scored], tables=tuple(DECISION_FOLDERS.values()),
        job="filter_corpus",
    )  # fmt: skip


def states_probability(manifest: dict[str, Any]) -> bool:
    """Whether the judge that scored gives probabilities, and not raw scores alone."""
    return manifest["judge_says"]["calibration"] is not None


def named_judge(folder: str | None, manifest: dict[str, Any]) -> Judge | None:
    """The judge in `folder`, which has the same scores as the one that scored; None without a folder."""
    if folder is None:
        return None
    judge, cascade = load_judge(judge_folder(judge_file(folder))), manifest.get("cascade")
    if judge.fingerprint != manifest["judge"]:
        raise JudgeError(f"{folder} is {judge.fingerprint}, and {manifest['judge']} scored these rows; score them anew")
    if cascade and cascade["cut"] != judge.spec.threshold:
        raise JudgeError(
            f"{folder} keeps from {judge.spec.threshold} on, and the cascade that scored these rows, with its promise, "
            f"from {cascade['cut']}; make a cascade for that cut, or say it in the policy"
        )
    return judge


def judges_cuts(judge: Judge | None, manifest: dict[str, Any]) -> tuple[float | None, float | None]:
    """Where to keep and where to drop, as `judge` says, or without one the judge that scored."""
    alone = not manifest.get("cascade")  # where to drop was not certified for the scores of another judge
    if judge is None:
        return manifest["threshold"], manifest["judge_says"]["thresholds"].get("certified_drop") if alone else None
    return judge.spec.threshold, judge.spec.drop_below if alone else None


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--scored", required=True, help="folder that score_corpus.py wrote, or a table scored inline"
    )
    arguments.add_argument("--text-column", help="column that was judged, of a table scored inline (text)")
    arguments.add_argument("--policy", required=True, help="YAML file of the policy, such as those in conf/policies/")
    arguments.add_argument(
        "--judge", help="take the cuts of this judge, certified anew, instead of those at scoring time"
    )
    arguments.add_argument("--output", required=True, help="folder for kept/ review/ dropped/ unscored/")
    options = arguments.parse_args()
    run(lambda: main(options))
