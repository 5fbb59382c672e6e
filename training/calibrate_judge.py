"""Calibrates and certifies a judge anew on fresh labels, and saves it as a new judge; its weights stay.

    python training/calibrate_judge.py --judge judges/mine-1 --labels uniform.jsonl --output judges/mine-1b
    python training/calibrate_judge.py --judge judges/mine-1 --fresh drawn.jsonl --labels said.jsonl --output judges/1c

The first form takes labels of rows drawn from everything: all of them calibrate, certify and, cross-fitted, measure.
The second form takes rows that sample_for_labels.py --strategy kept drew at a cut that was fixed before anybody saw a
label, and certifies that cut; calibration and scores stay, so that scored tables stay valid. --fresh is the file as it
was drawn, --labels what experts made of it, in any form, with rows they left open. Draw once: a cut that failed is not
tested on the same rows.
The last line on stdout is one JSON object. Exit 0: saved. 2: bad input.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from quality_judge.engine.scorer import load_scorer
from quality_judge.evaluation import certified_fresh, recalibrated
from quality_judge.judge import load_judge, refuse_existing
from quality_judge.labels import clean_labels, load_labels
from quality_judge.labels.drawn import read_drawing
from quality_judge.programme import as_typed, parser, run, tell
from quality_judge.stats.certificate import Targets

MOST_COPIES = 0.05


def main(options: Namespace) -> dict[str, Any]:
    """Loads, recalibrates or certifies at a cut fixed before, saves; returns the summary."""
    refuse_existing(options.output)
    targets = Targets(options.target_precision, options.target_npv, options.target_recall, options.confidence)
    judge, labels = load_judge(options.judge), load_labels(options.labels, open_rows=bool(options.fresh))
    if options.fresh:
        drawing = read_drawing(options.fresh)
        if drawing.copies > MOST_COPIES:
            tell(
                f"{drawing.copies:.0%} of the rows from the cut on repeat another: the certificate counts each text "
                "once, so leave out the copies of what you keep"
            )
        judge, promise = certified_fresh(judge, drawing, labels, options.output, targets, command=as_typed())
        said = {"message": promise.keep.message}
    else:
        labels, report = clean_labels(labels, measuring=True)
        report.raise_for_failures()
        scorer = load_scorer(judge)
        judge, metrics = recalibrated(judge, scorer, labels, options.output, targets, command=as_typed())
        said = {"ece": metrics["test"]["ece"], "roc_auc": metrics["test"]["roc_auc"]}
    certified = judge.spec.thresholds["certified"] is not None
    return {
        "judge": judge.folder, "fingerprint": judge.fingerprint, **said, "threshold": judge.spec.threshold,
        "certified": certified, "drop_below": judge.spec.drop_below,
    }  # fmt: skip


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--judge", required=True, help="folder of the judge")
    arguments.add_argument("--labels", nargs="+", required=True, help="label files; binary labels are needed")
    arguments.add_argument("--fresh", help="rows drawn by --strategy kept, as they were drawn: certify their cut only")
    arguments.add_argument("--output", required=True, help="folder of the new judge; it must not exist yet")
    arguments.add_argument("--target-precision", type=float, default=0.9, help="good share of the rows kept")
    arguments.add_argument("--target-npv", type=float, help="bad share of the rows dropped; review lies between")
    arguments.add_argument("--target-recall", type=float, help="share of the good rows that is not dropped")
    arguments.add_argument("--confidence", type=float, default=0.9, help="with which confidence all of it holds")
    options = arguments.parse_args()
    run(lambda: main(options))
