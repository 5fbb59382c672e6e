"""Calibrates and certifies a judge anew on fresh labels, and saves it as a new judge; its weights stay.

    python training/calibrate_judge.py --judge judges/mine-1 --labels fresh.jsonl --output judges/mine-1b

Half of the labels fits the calibration, the other half certifies and measures it. The last line on stdout is one
JSON object. Exit 0: saved. 2: bad input.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from quality_judge.engine.scorer import load_scorer
from quality_judge.evaluation import recalibrated
from quality_judge.judge import load_judge, refuse_existing
from quality_judge.labels import clean_labels, load_labels
from quality_judge.programme import parser, run


def main(options: Namespace) -> dict[str, Any]:
    """Loads, recalibrates, saves; returns the summary."""
    refuse_existing(options.output)
    judge = load_judge(options.judge)
    labels, report = clean_labels(load_labels(options.labels))
    report.raise_for_failures()
    judge, metrics = recalibrated(
        judge,
        load_scorer(judge),
        labels,
        options.output,
        target=options.target_precision,
        confidence=options.confidence,
    )
    return {
        "judge": judge.folder, "fingerprint": judge.fingerprint, "ece": metrics["test"]["ece"],
        "roc_auc": metrics["test"]["roc_auc"], "threshold": judge.spec.threshold,
        "certified": (metrics["certificate"] or {}).get("granted", False),
    }  # fmt: skip


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--judge", required=True, help="folder of the judge")
    arguments.add_argument("--labels", nargs="+", required=True, help="label files; binary labels are needed")
    arguments.add_argument("--output", required=True, help="folder of the new judge; it must not exist yet")
    arguments.add_argument("--target-precision", type=float, default=0.9, help="what the certificate promises")
    arguments.add_argument("--confidence", type=float, default=0.9, help="with which confidence")
    options = arguments.parse_args()
    run(lambda: main(options))
