"""Finds which rows a cheap judge may decide alone, so that the promise of a large judge still holds.

    python training/make_cascade.py --cheap judges/small --large judges/large --labels labels.jsonl --output c.json

The labels must be of rows drawn from the corpus at random (sample_for_labels.py --strategy uniform) that had no part in
training, calibrating or certifying either judge. One part of them orders the bands, the other certifies. Then score
with the cheap judge, and its output with the large one:

    spark-submit jobs/score_corpus.py --judge judges/small --input corpus --output scored-cheap
    spark-submit jobs/score_corpus.py --judge judges/large --cascade c.json --input scored-cheap --output scored

The last line on stdout is one JSON object. Exit 0: written. 1: nothing can be promised, and nothing is written. 2: bad
input.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from quality_judge.cascade import save_cascade
from quality_judge.engine.scorer import load_scorer
from quality_judge.evaluation import make_cascade
from quality_judge.judge import load_judge, refuse_existing
from quality_judge.labels import clean_labels, load_labels
from quality_judge.programme import parser, run


def main(options: Namespace) -> dict[str, Any]:
    """Scores the labels with both judges, chooses the band, writes the cascade; returns the summary."""
    refuse_existing(options.output)
    labels, report = clean_labels(load_labels(options.labels), measuring=True)
    report.raise_for_failures()
    scorers = [load_scorer(load_judge(folder)) for folder in (options.cheap, options.large)]
    targets = {"precision": options.target_precision, "recall": options.target_recall}
    cascade, choice = make_cascade(scorers[0], scorers[1], labels, **targets, confidence=options.confidence)
    if cascade is not None:
        save_cascade(options.output, cascade)
    return {
        "ok": cascade is not None, "message": choice.message,
        "band": choice.band and [choice.band.low, choice.band.high],
        "saving": choice.saving, "agreement": choice.agreement,
        "promises": [each.to_dict() for each in choice.promises],
        "output": None if cascade is None else options.output,
    }  # fmt: skip


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--cheap", required=True, help="folder of the cheap judge")
    arguments.add_argument("--large", required=True, help="folder of the large judge, whose threshold decides")
    arguments.add_argument("--labels", nargs="+", required=True, help="label files that neither judge has seen")
    arguments.add_argument("--output", required=True, help="JSON file to write; it must not exist yet")
    arguments.add_argument("--target-precision", type=float, default=0.9, help="good share of the rows kept")
    arguments.add_argument("--target-recall", type=float, help="share of the good rows that is kept")
    arguments.add_argument("--confidence", type=float, default=0.9, help="with which confidence all of it holds")
    options = arguments.parse_args()
    run(lambda: main(options))
