"""How well a default judge finds what breaks a moderation policy: all labels in five parts, each scored by the others.

    python benchmarks/moderation_folds.py [--folds 5] [--output FILE]
    python benchmarks/moderation_folds.py --short --folds 2 --output /tmp/short.json

The labels are those of ../shared/data/openai_moderation, both files together; a row is unsafe where one of its
categories applies. Average precision of the unsafe rows, as published for guard models, and ROC AUC, over all rows
scored out of fold; the baselines come from the same runs. A run that was stopped goes on with the missing parts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from sklearn.model_selection import StratifiedKFold

from quality_judge.labels import LabelSet, clean_labels, flatten, load_labels
from quality_judge.stats.metrics import average_precision, roc_auc
from training import DATA, HERE, our_answers

FILES = [DATA / "openai_moderation" / name for name in ("train.jsonl", "test.jsonl")]
SETTINGS = ["train.below_baseline=allow"]
Metric: TypeAlias = Callable[[np.ndarray, np.ndarray], float | None]
SHORT_ROWS, SHORT_SETTINGS = 120, [*SETTINGS, "train.method=frozen", "max_tokens=64"]


def decided_rows(most: int | None) -> LabelSet:
    """The rows, `most` of them, of which somebody said that a category applies, or that none of those known does."""
    labels, _ = clean_labels(load_labels(FILES))
    rows, origins, decided = labels.rows(), labels.origins(), flatten(labels).labelled[:most]
    return LabelSet.of([rows[at] for at in decided], [origins[at] for at in decided])


def part(labels: LabelSet, learnt: np.ndarray, asked: np.ndarray, overrides: list[str]) -> dict[str, list[float]]:
    """method -> how unsafe it calls the rows `asked`, from -1 (safe) to 0, having learnt from those of `learnt`."""
    rows, origins = labels.rows(), labels.origins()
    train, test = (LabelSet.of([rows[at] for at in some], [origins[at] for at in some]) for some in (learnt, asked))
    answers, _, _ = our_answers(train, test, overrides)
    return {name: (-scored.probability).tolist() for name, scored in answers.items()}


def main(options: argparse.Namespace) -> None:
    """Runs the parts that are missing, keeping each beside the output, and prints both figures of every method."""
    labels, beside = decided_rows(SHORT_ROWS if options.short else None), options.output.with_suffix(".parts")
    unsafe = flatten(labels).label < 0.5
    parts = json.loads(beside.read_text()) if beside.exists() else {}
    folds = StratifiedKFold(options.folds, shuffle=True, random_state=0)
    scores: dict[str, np.ndarray] = {}
    for fold, (learnt, asked) in enumerate(folds.split(unsafe, unsafe)):
        if str(fold) not in parts:
            parts[str(fold)] = part(labels, learnt, asked, SHORT_SETTINGS if options.short else SETTINGS)
            beside.write_text(json.dumps(parts))
        for name, values in parts[str(fold)].items():
            scores.setdefault(name, np.full(len(unsafe), np.nan))[asked] = values
        there = ~np.isnan(scores["ours"])
        found = {
            "rows": int(there.sum()), "unsafe": int(unsafe[there].sum()), "folds": f"{fold + 1} of {options.folds}",
            "average_precision": figures(average_precision, unsafe, scores, there),
            "roc_auc": figures(roc_auc, unsafe, scores, there),
        }  # fmt: skip
        print(json.dumps(found), flush=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    beside.unlink()


def figures(metric: Metric, unsafe: np.ndarray, scores: dict[str, np.ndarray], there: np.ndarray) -> dict[str, float]:
    """method -> the metric of its scores, on the rows that have one."""
    return {name: round(metric(unsafe[there], found[there]) or 0.0, 4) for name, found in scores.items()}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--output", type=Path, default=HERE / "moderation_folds.json")
    arguments.add_argument("--short", action="store_true", help=f"{SHORT_ROWS} rows cut short, the base not trained")
    if not DATA.is_dir():
        sys.exit(f"{DATA} is not there, and the labels are in no package")
    main(arguments.parse_args())
