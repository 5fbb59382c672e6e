"""Distils a judge: a teacher scores unlabelled rows, and a smaller student learns its probabilities.

    python training/distill_judge.py --judge judges/large-1 --input corpus.jsonl --output judges/small-1 --rows 5000

The input is Parquet, JSON lines or CSV. A fifth of the scored rows is held out to measure the agreement with the
teacher. With --labels (of experts, such as the teacher did not learn from) the student is calibrated, measured and
certified by them; without, its probability is that of the teacher, and it promises nothing. The last line on stdout is
one JSON object. Exit 0: the judge is saved. 2: bad input.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from typing import Any

from quality_judge.config import conf_folder, load_judge_config
from quality_judge.distillation import drawn_rows, teacher_agreement, teacher_labels, teacher_threshold
from quality_judge.engine.scorer import load_scorer
from quality_judge.evaluation import recalibrated, refuse_too_few, save_with_report, score_labels
from quality_judge.judge import load_judge, refuse_existing
from quality_judge.labels import LabelSet, clean_labels, flatten, load_labels, split_labels
from quality_judge.programme import as_typed, parser, progress_bars, run, tell
from quality_judge.stats.certificate import Targets
from quality_judge.tables import read_table
from quality_judge.train.fit import fit_judge
from quality_judge.train.save import draft_judge

HELD_OUT_SHARE = 0.2


def main(options: Namespace) -> dict[str, Any]:
    """Scores with the teacher, fits the student, measures their agreement, saves; returns the summary."""
    started = time.perf_counter()
    refuse_existing(options.output)
    config = load_judge_config(options.config, options.set)
    experts = clean_labels(load_labels(options.labels), measuring=True)[0] if options.labels else None
    if experts is not None:  # before hours go into training
        flat = flatten(experts)
        refuse_too_few(flat.label[flat.labelled] == 1)
    labels, said = taught(options, experts, seed=config.train.seed)
    labels, held_out = split_labels(labels, [1 - HELD_OUT_SHARE, HELD_OUT_SHARE], seed=config.train.seed)
    with progress_bars() as progress, tempfile.TemporaryDirectory() as scratch:
        fitted = fit_judge(labels, config, progress=progress)
        for warning in fitted.training["warnings"]:
            tell(f"training warning: {warning}")
        origin = {"distilled_from": said["teacher"], "command": as_typed()}
        fitted = replace(fitted, training={**fitted.training, **origin})
        draft = draft_judge(scratch, fitted, config, labels)
        threshold = said["teacher"]["threshold"]
        agreement = teacher_agreement(score_labels(load_scorer(draft), held_out), held_out, threshold=threshold)
        metrics = {
            "test": {}, "baselines": {}, "certificate": None, "distillation": {**said, "agreement": agreement},
            "labels": {"train": labels.counts(), "agreement_rows": held_out.counts()},
            "seconds": {"fit": fitted.training["seconds"], "total": time.perf_counter() - started},
        }  # fmt: skip
        own = {"thresholds": {"best": threshold, "certified": None}}
        student = save_with_report(draft, f"{scratch}/student" if experts else options.output, metrics, own)
        if experts:
            targets = Targets(config.target_precision, config.target_npv, config.target_recall, config.confidence)
            student, metrics = recalibrated(student, load_scorer(student), experts, options.output, targets)
    return {
        "judge": student.folder, "fingerprint": student.fingerprint, "method": student.spec.method,
        "teacher": said["teacher"]["fingerprint"], "rows": len(labels), "agreement": agreement,
        "calibrated_by": said["calibrated_by"], "roc_auc": metrics["test"].get("roc_auc"),
        "threshold": student.spec.threshold, "certified": student.spec.thresholds.get("certified") is not None,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def taught(options: Namespace, experts: LabelSet | None, *, seed: int) -> tuple[LabelSet, dict[str, Any]]:
    """The rows with what the teacher says of them, without those that experts labelled; and who taught how many."""
    judge = load_judge(options.judge)
    teacher = load_scorer(judge)
    origin = {"name": judge.spec.name, "fingerprint": judge.fingerprint, "threshold": teacher_threshold(teacher)}
    table = drawn_rows(read_table(options.input), options.input, rows=options.rows, seed=seed)
    labels, codes = teacher_labels(teacher, table, text_column=options.text_column, prompt_column=options.prompt_column)
    labels, report = clean_labels(labels, test=experts)
    report.raise_for_failures()
    tell(f"{judge.spec.name} scored {len(table)} rows, {len(labels)} of use")
    by = "teacher" if experts is None else "experts"
    return labels, {"teacher": origin, "codes": codes, "calibrated_by": by}


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--judge", required=True, help="folder of the teacher")
    arguments.add_argument("--input", required=True, help="unlabelled rows: Parquet, JSON lines or CSV")
    arguments.add_argument("--output", required=True, help="folder of the student; it must not exist yet")
    arguments.add_argument(
        "--config", default=conf_folder() / "judges" / "default.yaml", help="YAML file of the student"
    )
    arguments.add_argument("--labels", nargs="+", help="expert labels to calibrate, measure and certify the student on")
    arguments.add_argument("--rows", type=int, default=5000, help="at most so many rows, drawn at random (5000)")
    arguments.add_argument("--text-column", default="text", help="column with the text (text)")
    arguments.add_argument("--prompt-column", help="column with the prompt; none by default")
    arguments.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override a setting"
    )
    options = arguments.parse_args()
    run(lambda: main(options))
