"""How well a default judge finds what breaks a moderation policy: all labels in five parts, each scored by the others.

    python benchmarks/moderation_folds.py [--folds 5] [--output FILE]

The labels are those of ../shared/data/openai_moderation, both files together; a row is unsafe where one of its
categories applies. Average precision of the unsafe rows, as published for guard models, and ROC AUC, over all rows
scored out of fold; the baselines come from the same runs. A run that was stopped goes on with the missing parts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from quality_judge.config import conf_folder, load_judge_config
from quality_judge.engine.scorer import load_scorer
from quality_judge.evaluation import score_labels
from quality_judge.labels import LabelSet, clean_labels, flatten, load_labels
from quality_judge.train.baselines import baseline_answers
from quality_judge.train.fit import fit_judge
from quality_judge.train.save import draft_judge

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data" / "openai_moderation"
SETTINGS = ["train.below_baseline=allow"]


def decided_rows() -> LabelSet:
    """Every row of which somebody said that a category applies, or that none of those known does."""
    labels, _ = clean_labels(load_labels([DATA / "train.jsonl", DATA / "test.jsonl"]))
    rows, origins, decided = labels.rows(), labels.origins(), flatten(labels).labelled
    return LabelSet.of([rows[at] for at in decided], [origins[at] for at in decided])


def part(labels: LabelSet, learnt: np.ndarray, asked: np.ndarray) -> dict[str, list[float]]:
    """method -> the probability that a row is unsafe, or what orders rows as one would, of the rows `asked`."""
    rows, origins = labels.rows(), labels.origins()
    train, test = (LabelSet.of([rows[at] for at in some], [origins[at] for at in some]) for some in (learnt, asked))
    config = load_judge_config(conf_folder() / "judges" / "default.yaml", SETTINGS)
    fitted = fit_judge(train, config)
    with tempfile.TemporaryDirectory() as scratch:
        scored = score_labels(load_scorer(draft_judge(scratch, fitted, config, train)), test)
    found = {"ours": scored.probability}
    for name, answer in baseline_answers(fitted, scored.flat).items():
        if answer is not None:
            found[name] = answer.probability
    return {name: (1 - probability).tolist() for name, probability in found.items()}


def main(options: argparse.Namespace) -> None:
    """Runs the parts that are missing, keeping each beside the output, and prints both figures of every method."""
    labels, beside = decided_rows(), options.output.with_suffix(".parts")
    unsafe = flatten(labels).label < 0.5
    parts = json.loads(beside.read_text()) if beside.exists() else {}
    folds = StratifiedKFold(options.folds, shuffle=True, random_state=0)
    scores: dict[str, np.ndarray] = {}
    for fold, (learnt, asked) in enumerate(folds.split(unsafe, unsafe)):
        if str(fold) not in parts:
            parts[str(fold)] = part(labels, learnt, asked)
            beside.write_text(json.dumps(parts))
        for name, values in parts[str(fold)].items():
            scores.setdefault(name, np.full(len(unsafe), np.nan))[asked] = values
        there = ~np.isnan(scores["ours"])
        found = {
            "rows": int(there.sum()), "unsafe": int(unsafe[there].sum()), "folds": f"{fold + 1} of {options.folds}",
            "average_precision": figures(average_precision_score, unsafe, scores, there),
            "roc_auc": figures(roc_auc_score, unsafe, scores, there),
        }  # fmt: skip
        print(json.dumps(found), flush=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    beside.unlink()


def figures(
    metric: Callable[..., float], unsafe: np.ndarray, scores: dict[str, np.ndarray], there: np.ndarray
) -> dict[str, float]:
    """method -> the metric of its scores, on the rows that have one."""
    return {name: round(float(metric(unsafe[there], found[there])), 4) for name, found in scores.items()}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--output", type=Path, default=HERE / "moderation_folds.json")
    main(arguments.parse_args())
