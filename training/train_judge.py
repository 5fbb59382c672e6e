"""Trains a judge from expert labels, calibrates it, measures it against its baselines, and saves it as a folder.

    python training/train_judge.py --config conf/judges/default.yaml --labels labels.jsonl --output judges/mine-1

Label files may mix samples, preferences, rankings and category rows, as JSONL, JSON, Parquet or CSV. Without
--test-labels a fifth of the labels is held out. A run that was killed goes on where it was when the same command is
given again, and ends with the same judge. The last line on stdout is one JSON object.
Exit 0: the judge is saved. 1: it is saved, but lies below its own best baseline, or its labels could not be audited; or
training collapsed twice, and none is saved (the line has no `judge`). 2: bad input.
"""

from __future__ import annotations

import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from quality_judge.config import conf_folder, load_judge_config
from quality_judge.corpus_sample import sample_corpus
from quality_judge.engine.scorer import load_scorer
from quality_judge.engine.texts import Column
from quality_judge.errors import EXIT_DONE
from quality_judge.evaluation import (
    ScoredLabels,
    certificate,
    curves,
    measure,
    promised_cut,
    save_certified,
    score_labels,
    shortcuts,
)  # fmt: skip
from quality_judge.files import local_path, write_beside
from quality_judge.judge import refuse_existing
from quality_judge.judge_spec import MISSING_LABELS
from quality_judge.labels import LabelReport, LabelSet, as_measured, clean_labels, load_labels, split_labels
from quality_judge.metrics_file import best_baseline, unlike
from quality_judge.programme import as_typed, frames, parser, progress_bars, run, tell
from quality_judge.stats.certificate import Promises, Targets
from quality_judge.train.audit import Audit, audit_labels
from quality_judge.train.baselines import baseline_answers
from quality_judge.train.checkpoint import remove_checkpoints
from quality_judge.train.examples import read_for
from quality_judge.train.fit import Fitted, fit_judge
from quality_judge.train.likeness import likeness
from quality_judge.train.parallel import peers
from quality_judge.train.save import draft_judge

HELD_OUT_SHARE = 0.2
UNLABELLED_ROWS, ROWS_READ_PER_ROW = 20_000, 50  # at most a million rows are read
BASELINE_MARGIN = 0.01


def main(options: Namespace) -> dict[str, Any]:
    """Loads, fits, measures, certifies, saves; returns the summary."""
    started = time.perf_counter()
    refuse_existing(options.output)
    if options.suspects:
        local_path(options.suspects)
    config = load_judge_config(options.config, options.set)
    labels, held_out, report = parted_labels(options, seed=config.train.seed)
    for warning in report.warnings[:5]:
        tell(f"label warning: {warning}")
    unlabelled = drawn_texts(options, seed=config.train.seed)
    with progress_bars() as progress, tempfile.TemporaryDirectory() as scratch:
        fitted = fit_judge(labels, config, unlabelled=unlabelled, progress=progress, output=options.output)
        if not peers().leads:  # it took its share of the training; the first process measures and saves
            raise SystemExit(EXIT_DONE)
        tell_bases(fitted)
        for warning in fitted.training["warnings"]:
            tell(f"training warning: {warning}")
        draft = draft_judge(scratch, fitted, config, labels)
        scored = score_labels(load_scorer(draft), held_out)
        threshold = draft.spec.thresholds["best"]
        targets = Targets(config.target_precision, config.target_npv, config.target_recall, config.confidence)
        promise = promised(scored, targets)
        answers = baseline_answers(fitted, scored.flat)
        audit = audited(labels, fitted, report.agreement.distrusted) if options.suspects else None
        metrics = {
            "test": measure(scored, threshold=threshold),
            "baselines": {
                name: answer and measure(ScoredLabels(scored.flat, answer.raw, answer.probability, {}), threshold=None)
                for name, answer in answers.items()
            },
            "certificate": promise and promise.to_dict(),
            "labels": {
                "train": labels.counts(),
                "held_out": held_out.counts(),
                "held_out_sha256": held_out.sha256,
                **report.found(),
                "suspects": audit and audit.to_dict(),
                "likeness": drawn_alike(fitted, scored, unlabelled),
            },
            "shortcuts": shortcuts(scored, threshold=promised_cut(promise, threshold)),
            "curves": curves(scored),
            "seconds": {"fit": fitted.training["seconds"], "total": time.perf_counter() - started},
        }
        judge = save_certified(
            draft, options.output, metrics, promise, scored=scored, targets=targets, command=as_typed(),
            license=fitted.base.license,
        )  # fmt: skip
    remove_checkpoints(options.output)
    if audit is not None:
        write_suspects(options.suspects, audit.lines(labels, include_text=options.include_text))
    found = summary(judge, metrics, allow=config.train.below_baseline == "allow")
    return found | {"ok": found["ok"] and (audit is not None or not options.suspects)}


def parted_labels(options: Namespace, *, seed: int) -> tuple[LabelSet, LabelSet, LabelReport]:
    """(labels to train on, held out, report of the first). Raises LabelError when either cannot serve.

    Copies are settled first, so that a held-out text is measured once, by what the majority of its annotators says.
    """
    labels, held_out = load_labels(options.labels), None
    if options.test_labels:
        held_out, tested = clean_labels(load_labels(options.test_labels), measuring=True)
        tested.raise_for_nothing_left()
    cleaned, report = clean_labels(labels, test=held_out)
    report.raise_for_failures()
    if held_out is None:
        cleaned, drawn = split_labels(cleaned, [1 - HELD_OUT_SHARE, HELD_OUT_SHARE], seed=seed)
        held_out = as_measured(drawn, labels)
    return cleaned, held_out, report


def promised(scored: ScoredLabels, targets: Targets) -> Promises | None:
    """The certificate of the held-out labels; says so where they are all of one class, and it is None."""
    promise = certificate(scored, targets)
    if promise is None and len(scored.flat.labelled):
        tell("the labels to measure on are all of one class: no order is measured and nothing promised; add others")
    return promise


def drawn_texts(options: Namespace, *, seed: int) -> Column:
    """Texts drawn from the corpus that nobody labelled; none without --unlabelled."""
    if not options.unlabelled:
        return ()
    sample = sample_corpus(
        options.unlabelled, [options.text_column], rows=UNLABELLED_ROWS, seed=seed, rows_read_per_row=ROWS_READ_PER_ROW
    )
    tell(f"unlabelled: {sample.drawn}")
    return sample.columns[options.text_column]


def drawn_alike(fitted: Fitted, held_out: ScoredLabels, unlabelled: Column) -> dict[str, Any] | None:
    """How far all labelled texts can be told from the corpus, as the judge reads both; None without a corpus."""
    labelled = [*fitted.examples.texts, *read_for(fitted.encoding, held_out.flat.completions)]
    found = likeness(labelled, read_for(fitted.encoding, unlabelled))
    if found is not None:
        so = "; what is promised holds for rows like the labels: label rows drawn at random from it" * unlike(found)
        tell(f"labels against the corpus: told apart with a ROC AUC of {found['roc_auc']:.3f}, drawn at random .5{so}")
    return found


def tell_bases(fitted: Fitted) -> None:
    """Which bases were compared, what they cost, and which was taken; nothing where there was no choice."""
    for name, found in fitted.training.get("bases", {}).items():
        tell(
            f"base {name}: orders unseen labels by {found['frozen']:.3f} untrained, reads a text for "
            f"{found['gigaflops_per_text']:.2g} billion operations{', taken' if name == fitted.base.id else ''}"
        )


def audited(labels: LabelSet, fitted: Fitted, distrusted: Sequence[str]) -> Audit | None:
    """What there is to say of the labels; None where finding it failed, for no list is worth a trained judge."""
    try:
        return audit_labels(labels, fitted, distrusted=distrusted)
    except Exception as error:
        places = "\n".join(f"  {place}" for place in frames(error))
        tell(f"{places}\nno suspects are listed: {type(error).__name__}, please report these lines")
        return None


def write_suspects(path: str, lines: list[dict[str, Any]]) -> None:
    """One JSON object a line, the likeliest mistake first."""
    write_beside(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    tell(f"{len(lines)} labels are worth a second look: {path}")


def summary(judge: Any, metrics: dict[str, Any], *, allow: bool) -> dict[str, Any]:
    """What is printed: where the judge is, how good, against what; not ok when a baseline is better."""
    measured = next((name for name in ("roc_auc", "pair_accuracy") if metrics["test"][name] is not None), "roc_auc")
    value, best = metrics["test"][measured], best_baseline(metrics, measured)
    below = best is not None and value < best[1] - BASELINE_MARGIN
    if below:
        tell(f"{measured} {value:.3f} is below the baseline {best[0]} {best[1]:.3f}: use more or better labels")
    missing = judge.spec.labels[MISSING_LABELS]
    if judge.spec.calibration is None:
        tell(f"no probability is stated: {missing} more texts called good or bad are needed; see the card")
    return {
        "ok": allow or not below, "judge": judge.folder, "fingerprint": judge.fingerprint, "method": judge.spec.method,
        measured: value, f"{measured}_ci": metrics["test"][f"{measured}_ci"],
        "best_baseline": {"name": best[0], measured: best[1]} if best else None,
        "probability": judge.spec.calibration is not None, "labels_missing": missing,
        "threshold": judge.spec.threshold, "certified": (metrics["certificate"] or {}).get("granted", False),
        "suspects": (metrics["labels"]["suspects"] or {}).get("listed"),
        "labels": metrics["labels"]["train"]["rows"], "held_out": metrics["labels"]["held_out"]["rows"],
        "seconds": round(metrics["seconds"]["total"], 1),
    }  # fmt: skip


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--config", default=conf_folder() / "judges" / "default.yaml", help="YAML file of the judge")
    arguments.add_argument("--labels", nargs="+", required=True, help="label files: JSONL, JSON, Parquet or CSV")
    arguments.add_argument("--test-labels", nargs="+", help="label files to measure on; by default a fifth is held out")
    arguments.add_argument("--output", required=True, help="folder of the new judge; it must not exist yet")
    arguments.add_argument(
        "--unlabelled", metavar="PATH", help="the corpus, or a part on this machine: which words go together is learnt "
        "from rows of it that nobody labelled (Parquet, JSON lines, CSV)",
    )  # fmt: skip
    arguments.add_argument("--text-column", default="text", help="column of --unlabelled (text)")
    arguments.add_argument("--suspects", metavar="FILE", help="write the labels worth a second look there, JSON lines")
    arguments.add_argument("--include-text", action="store_true", help="write their texts there too")
    arguments.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override a setting"
    )
    options = arguments.parse_args()
    run(lambda: main(options))
