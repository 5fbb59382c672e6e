"""Chooses rows of a scored table for experts to label, and writes them as JSON lines, without labels.

    spark-submit jobs/sample_for_labels.py --scored scored/ --count 200 --strategy uncertain --output rows.jsonl
    spark-submit jobs/sample_for_labels.py --scored scored/ --count 200 --strategy kept --output drawn.jsonl
    spark-submit jobs/sample_for_labels.py --scored scored/ --labelled labels.jsonl --output next-round.jsonl
    spark-submit jobs/sample_for_labels.py --scored s/ --other s2/ --strategy disagreement --output rows.jsonl

`quality-judge label` asks experts about them on a page. Or add a `label` of true or false to each line by other means:
the file trains or certifies a judge, and rows drawn by `kept` certify the cut they were drawn at (calibrate_judge.py
--fresh); of a cascade's table, which two judges scored, `kept` rows are refused. `review` gives the band that is
neither kept nor dropped, or, without --keep-at and --drop-below, the band around the judge's threshold that --count
texts fill. Texts of --labelled are not drawn again. The last line on stdout is one JSON object. Exit 0: written. 2: bad
input.
"""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from quality_judge.errors import ConfigError
from quality_judge.files import local_path, write_beside
from quality_judge.labels import flatten, load_labels
from quality_judge.labels.drawn import DROPPED, KEPT
from quality_judge.programme import parser, run
from quality_judge.spark import read_corpus, spark_session
from quality_judge.spark.fault import refused_read
from quality_judge.spark.scored_table import about_scored
from quality_judge.spark.select import STRATEGIES, Other, rows_for_labels


def main(options: Namespace) -> dict[str, Any]:
    """Reads, chooses, writes; returns the summary."""
    local_path(options.output)
    refuse_options(options)
    known = flatten(load_labels(options.labelled)) if options.labelled else None
    spark = spark_session("sample_for_labels")
    scored = read_corpus(spark, options.scored)
    judged = {"text_column": options.text_column, "prompt_column": options.prompt_column}
    manifest = about_scored(scored, options.scored, **judged)
    cuts = cuts_to_draw_at(options, manifest) if options.strategy == "kept" else None
    if options.strategy == "review" and options.keep_at is not None:
        cuts = options.keep_at, options.drop_below
    other = None
    if options.other is not None:
        table = read_corpus(spark, options.other)
        theirs = about_scored(table, options.other, **judged)
        other = Other(table, theirs["text_column"], theirs["prompt_column"])
    with refused_read():
        rows = rows_for_labels(
            scored, options.count, options.strategy, text_column=manifest["text_column"], seed=options.seed,
            prompt_column=manifest["prompt_column"], threshold=manifest["threshold"], stratum=options.stratum,
            cuts=cuts, other=other, labelled=list(zip(known.prompts, known.completions, strict=True)) if known else (),
            group=options.group_column,
        )  # fmt: skip
    write_beside(options.output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    drawn_as = [*STRATEGIES, DROPPED] if options.strategy == KEPT else STRATEGIES
    by_strategy: dict[str, Any] = {name: sum(row["strategy"] == name for row in rows) for name in drawn_as}
    if options.strategy in ("kept", "review"):
        by_strategy |= {name: rows[0][name] for name in ("keep_at", "drop_below")}
    return {"rows": len(rows), **by_strategy, "judge": manifest["judge"], "output": options.output}


def refuse_options(options: Namespace) -> None:
    """Raises ConfigError for options that do not go together."""
    if options.count < 1:
        raise ConfigError(f"--count {options.count}: expected 1 or more")
    if options.strategy == "stratified" and not options.stratum:
        raise ConfigError("--strategy stratified needs --stratum COLUMN, such as source or lang")
    if (options.strategy == "disagreement") != (options.other is not None):
        raise ConfigError("--strategy disagreement and --other SCORED go together: a second table of the same corpus")
    if options.strategy == "review" and (options.keep_at is None) != (options.drop_below is None):
        raise ConfigError("--strategy review takes both --keep-at and --drop-below, or neither")
    given = [option for option in ("keep_at", "drop_below") if getattr(options, option) is not None]
    if given and options.strategy not in ("kept", "review"):
        named = " and ".join(f"--{option.replace('_', '-')}" for option in given)
        raise ConfigError(f"--strategy {options.strategy} takes no {named}; those are for kept and review")


def cuts_to_draw_at(options: Namespace, manifest: dict[str, Any]) -> tuple[float, float]:
    """(keep_at, drop_below): those asked for, else the cut that the judge proposed before anybody saw these labels."""
    thresholds = manifest["judge_says"]["thresholds"]
    known = [options.keep_at, thresholds.get("proposed"), manifest["threshold"]]
    keep_at = next((cut for cut in known if cut is not None), None)
    if keep_at is None:
        raise ConfigError("the judge proposes no cut; give one with --keep-at, such as --keep-at 0.8")
    return keep_at, keep_at if options.drop_below is None else options.drop_below


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--scored", required=True, help="folder that score_corpus.py wrote, or a table scored inline"
    )
    arguments.add_argument("--text-column", help="column that was judged, of a table scored inline (text)")
    arguments.add_argument("--prompt-column", help="column of its prompts, of a table scored inline")
    arguments.add_argument("--count", type=int, default=200, help="how many rows")
    arguments.add_argument("--strategy", choices=STRATEGIES, default="uncertain", help="how they are chosen")
    arguments.add_argument("--stratum", help="column whose values are sampled evenly, for --strategy stratified")
    arguments.add_argument(
        "--keep-at",
        type=float,
        help="cut of --strategy kept (by default the one the judge proposes), or top of --strategy review",
    )
    arguments.add_argument("--drop-below", type=float, help="rows below it are drawn as dropped; by default --keep-at")
    arguments.add_argument("--other", help="the same corpus scored by another judge, for --strategy disagreement")
    arguments.add_argument("--group-column", help="column with what rows belong to, as a page; none of it is parted")
    arguments.add_argument("--labelled", nargs="+", help="label files whose texts are not drawn again")
    arguments.add_argument("--seed", type=int, default=0, help="another seed chooses other rows")
    arguments.add_argument("--output", required=True, help="JSON lines file")
    options = arguments.parse_args()
    run(lambda: main(options))
