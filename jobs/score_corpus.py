"""Scores every row of a corpus with a judge and writes the table with its quality_* columns as Parquet.

    spark-submit jobs/score_corpus.py --judge judges/mine-1 --input corpus/ --output scored/

A row that cannot be scored keeps its place, with a code that says why. Nothing is published unless as many rows came
out as went in; an output that stood there before stays until then. The last line on stdout is one JSON object.
Exit 0: published. 1: a check did not hold. 2: bad input.
"""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from quality_judge.programme import parser, run
from quality_judge.scores import CODE_COLUMN, OK
from quality_judge.signing import load_signed_judge
from quality_judge.spark import read_corpus, score, spark_session
from quality_judge.spark.corpus import FORMATS
from quality_judge.spark.profile import counted, flags_counted
from quality_judge.spark.publish import MANIFEST_FILE, Staging, published, refuse_loss
from quality_judge.spark.score import balanced, rows_in


def main(options: Namespace) -> dict[str, Any]:
    """Plans, scores, counts what was written, publishes; returns the summary."""
    judge = load_signed_judge(options.judge, options.require_signature)
    spark = spark_session("score_corpus")
    corpus = read_corpus(spark, options.input, format=options.format, text_column=options.text_column)
    scored = score(judge, text_column=options.text_column, prompt_column=options.prompt_column)(balanced(corpus))

    def write(staging: Staging) -> dict[str, Any]:
        before, started = rows_in(corpus), time.perf_counter()
        written = staging.write(scored)
        seconds = time.perf_counter() - started
        codes, flags = counted(written, CODE_COLUMN), flags_counted(written)
        refuse_loss(before, sum(codes.values()))
        summary = {
            "rows": before, "scored": codes.get(OK, 0), "codes": codes, "flags": flags, "seconds": round(seconds, 2),
            "rows_per_second": round(before / seconds, 1), "judge": judge.fingerprint, "input": options.input,
            "output": options.output,
        }  # fmt: skip
        said = judge.spec.model_dump(mode="json", exclude={"encoding", "files", "training"})
        staging.write_json(MANIFEST_FILE, {
            **summary, "judge_says": said, "text_column": options.text_column, "prompt_column": options.prompt_column,
            "threshold": judge.spec.threshold, "spark": spark.version,
        })  # fmt: skip
        return summary

    return published(spark, options.output, write, inputs=[options.input])


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--judge", required=True, help="folder of the judge; every executor must be able to read it")
    arguments.add_argument("--input", required=True, help="corpus: a file, a folder, or a pattern")
    arguments.add_argument("--output", required=True, help="folder of the scored table")
    arguments.add_argument("--format", choices=FORMATS, default="parquet", help="format of the input")
    arguments.add_argument("--text-column", default="text", help="column with the text, as in text or doc.text")
    arguments.add_argument("--prompt-column", help="column with the prompt, for judges of prompt and completion")
    arguments.add_argument("--require-signature", metavar="PUBKEY", help="PEM key that must have signed the judge")
    options = arguments.parse_args()
    run(lambda: main(options))
