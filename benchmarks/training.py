"""How well judges learn, against what else could be done with the same labels: one table, same splits, same base.

    python benchmarks/training.py [--sets german_webtext …] [--sizes 64 200 600 all] [--seeds 3] [--methods ours …]
    python benchmarks/training.py --short --output /tmp/short.json

`ours` is `fit_judge` with the default configuration, ours_unlabelled the same with the texts of all training labels
beside them, as rows that nobody labelled; tfidf_logistic, frozen_base and length_only are its baselines,
which take as long as scoring the test labels does and are left out with `--methods ours`.
setfit and cross_encoder run in an environment of their own (`make bench-training` makes it), data_juicer is that
project's pipeline (tokenizer, HashingTF, logistic regression) on Spark, trl_reward learns from orders alone, trl_kto
trains SmolLM2 by KTO on the texts themselves. Cells that stand in the output are not run again, so a run can be stopped
and taken up. Labels are those of ../shared/data; with --short those of the demo.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from training_peers import LABELS_ALONE, OF_THIS_PROJECT, ORDERS_ALONE, PEERS
from training_table import write_table

from quality_judge.config import conf_folder, load_judge_config
from quality_judge.demo import demo_labels
from quality_judge.engine.scorer import load_scorer
from quality_judge.evaluation import ScoredLabels, measure, score_labels
from quality_judge.labels import LabelSet, clean_labels, flatten, load_labels, split_labels
from quality_judge.train.baselines import baseline_answers
from quality_judge.train.fit import fit_judge
from quality_judge.train.save import draft_judge

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
SETS = {
    "query_wellformed": (["query_wellformed"], "query_wellformed", []),
    "german_webtext": (["german_webtext"], "german_webtext", []),
    "cold_zh": (["cold_zh"], "cold_zh", []),
    "article_blocks": (["article_blocks"], "article_blocks", []),
    "openai_moderation": (["openai_moderation"], "openai_moderation", []),
    "convarg": (["convarg_pairs", "convarg_rankings"], "convarg_pairs", []),
    "gsm8k_solutions": (
        ["gsm8k_solutions"],
        "gsm8k_solutions",
        ["base=HuggingFaceTB/SmolLM2-135M-Instruct", "train.method=frozen"],  # to fine-tune it would take hours
    ),
}
SIZES = ("64", "200", "600", "all")
OURS = ("ours", "tfidf_logistic", "frozen_base", "length_only")
UNLABELLED = "ours_unlabelled"
METHODS = (*OURS, UNLABELLED, *PEERS)
LIBRARIES = ("torch", "transformers", "scikit-learn")


@dataclass(frozen=True)
class Cell:
    """One number of the table. size: how many labels, or `all`."""

    set: str
    size: str
    seed: int
    method: str


def wanted(options: argparse.Namespace) -> Iterator[Cell]:
    """The cells asked for, cheap sizes first; all labels are tried once."""
    for size in options.sizes:
        for seed in range(1 if size == "all" else options.seeds):
            for name in options.sets:
                for method in options.methods:
                    yield Cell(name, size, seed, method)


def can_run(cell: Cell) -> bool:
    """Whether the method learns from what the set holds: orders alone, or labels; and splits its language into words.

    Data-Juicer's Chinese classifier needs a tokenizer that no package ships; its other one splits at white space.
    """
    if cell.method == "data_juicer" and cell.set == "cold_zh":
        return False
    orders = cell.set == "convarg"
    return not (orders and cell.method in LABELS_ALONE) and (orders or cell.method not in ORDERS_ALONE)


def labels_of(cell: Cell) -> tuple[LabelSet, LabelSet, list[str]]:
    """The labels to learn from, those to measure on, and texts without their labels; none holds a row of the second."""
    if cell.set == "demo":
        train, test = split_labels(load_labels(demo_labels()), [0.6, 0.4], seed=0)
    else:
        files, tested, _ = SETS[cell.set]
        train = load_labels([DATA / name / "train.jsonl" for name in files])
        test = load_labels([DATA / tested / "test.jsonl"])
    train, rows, origins = clean_labels(train, test=test)[0], train.rows(), train.origins()
    unlabelled = flatten(train).completions if cell.method == UNLABELLED else []
    if cell.size != "all":
        chosen = np.sort(np.random.default_rng(cell.seed).permutation(len(rows))[: int(cell.size)])
        train = clean_labels(LabelSet.of([rows[i] for i in chosen], [origins[i] for i in chosen]), test=test)[0]
    return train, test, unlabelled


def our_answers(
    train: LabelSet, test: LabelSet, overrides: list[str], *, baselines: bool = True, unlabelled: Sequence[str] = ()
) -> tuple[dict[str, ScoredLabels], float, float]:
    """(method -> its answers to the test labels, the judge's threshold, seconds until it could score).

    The methods are `ours`, the default judge, and with `baselines` those that the same run gives.
    """
    started = time.perf_counter()
    config = load_judge_config(conf_folder() / "judges" / "default.yaml", overrides)
    fitted = fit_judge(train, config, unlabelled=unlabelled)
    with tempfile.TemporaryDirectory() as scratch:
        draft = draft_judge(scratch, fitted, config, train)
        seconds = time.perf_counter() - started
        scored = score_labels(load_scorer(draft), test)
    found = {"ours": scored}
    for name, answer in (baseline_answers(fitted, scored.flat) if baselines else {}).items():
        if answer is not None:
            found[name] = ScoredLabels(scored.flat, answer.raw, answer.probability, {})
    return found, draft.spec.thresholds["best"], seconds


def our_scores(
    train: LabelSet, test: LabelSet, overrides: list[str], *, baselines: bool, unlabelled: Sequence[str] = ()
) -> dict[str, tuple[dict, float]]:
    """method -> (metrics, seconds) of what `our_answers` gives; a baseline has no seconds of its own."""
    found, threshold, seconds = our_answers(train, test, overrides, baselines=baselines, unlabelled=unlabelled)
    measured = {name: (measure(scored, threshold=None), 0.0) for name, scored in found.items()}
    return measured | {"ours": (measure(found["ours"], threshold=threshold), seconds)}


def peer_scores(method: str, train: LabelSet, test: LabelSet, python: str) -> tuple[dict, float]:
    """(metrics, seconds) of a peer, run in its own process and environment; a peer sees texts and labels only."""
    flat, learnt = flatten(test), flatten(train)
    with tempfile.TemporaryDirectory() as scratch:
        task, answer = Path(scratch) / "task.json", Path(scratch) / "answer.json"
        at = learnt.labelled
        task.write_text(
            json.dumps({
                "train": [[learnt.prompts[i], learnt.completions[i], int(learnt.label[i])] for i in at],
                "pairs": [[learnt.prompts[a], learnt.completions[a], learnt.completions[b]] for a, b in learnt.pairs],
                "test": list(zip(flat.prompts, flat.completions, strict=True)),
            })
        )  # fmt: skip
        started = time.perf_counter()
        command = [python, str(HERE / "training_peers.py"), method, str(task), str(answer)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(HERE.parent)})
        seconds = time.perf_counter() - started
        raw = np.array(json.loads(answer.read_text()), float)
    probability = 1 / (1 + np.exp(-np.clip(raw, -500, 500)))
    return measure(ScoredLabels(flat, raw, probability, {}), threshold=None), seconds


def run_cell(cell: Cell, options: argparse.Namespace) -> dict[Cell, dict]:
    """The entries this cell gives: its own, and with `ours`, unless it is the only method, those of the baselines."""
    train, test, unlabelled = labels_of(cell)
    overrides = ["train.below_baseline=allow", *(SETS[cell.set][2] if cell.set in SETS else []), *options.set]
    if cell.method in OURS:
        results = our_scores(train, test, overrides, baselines=options.methods != ["ours"])
    elif cell.method == UNLABELLED:
        results = {UNLABELLED: our_scores(train, test, overrides, baselines=False, unlabelled=unlabelled)["ours"]}
    else:
        python = sys.executable if cell.method in OF_THIS_PROJECT else options.peer_python
        results = {cell.method: peer_scores(cell.method, train, test, python)}
    return {
        Cell(cell.set, cell.size, cell.seed, method): entry(metrics, seconds)
        for method, (metrics, seconds) in results.items()
    }


def entry(metrics: dict, seconds: float) -> dict:
    """What the table needs: the area under the ROC curve, or pair accuracy where there are only pairs."""
    name = "roc_auc" if metrics["roc_auc"] is not None else "pair_accuracy"
    return {
        "metric": name, "value": metrics[name], "ci": metrics[f"{name}_ci"], "ece": metrics["ece"],
        "average_precision": metrics["average_precision"], "seconds": round(seconds, 1),
    }  # fmt: skip


def main(options: argparse.Namespace) -> None:
    """Runs what is missing, writing after each cell."""
    output = Path(options.output)
    known = json.loads(output.read_text()) if output.exists() else {"machine": {}, "cells": []}
    done = {Cell(**{key: cell[key] for key in ("set", "size", "seed", "method")}): cell for cell in known["cells"]}
    for cell in wanted(options):
        if cell in done or not can_run(cell):
            continue
        for key, value in run_cell(cell, options).items():
            done[key] = {**key.__dict__, **value}
            print(f"{key.set:18} {key.size:>4} seed {key.seed} {key.method:15} {value['value']:.4f}", flush=True)
        known = {
            "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
                        "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
            "cells": sorted(done.values(), key=lambda cell: [str(cell[key]) for key in Cell.__annotations__]),
        }  # fmt: skip
        beside = output.with_suffix(".part")
        beside.write_text(json.dumps(known, indent=1) + "\n")
        beside.replace(output)
    write_table(known, output.with_suffix(".md"))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sets", nargs="+", default=list(SETS), choices=[*SETS, "demo"])
    arguments.add_argument("--sizes", nargs="+", default=list(SIZES))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of ours")
    arguments.add_argument("--peer-python", default=str(HERE.parent / ".venv-bench" / "bin" / "python"))
    arguments.add_argument("--output", default=str(HERE / "training.json"))
    arguments.add_argument("--short", action="store_true", help="one small cell on the demo's labels, ours only")
    chosen = arguments.parse_args()
    if chosen.short:
        chosen.sets, chosen.sizes, chosen.seeds, chosen.methods = ["demo"], ["64"], 1, ["ours"]
    elif not DATA.is_dir():
        sys.exit(f"{DATA} is not there; only --short can run")
    main(chosen)
