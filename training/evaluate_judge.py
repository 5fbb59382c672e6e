"""Measures a judge on labels and writes metrics.json.

    python training/evaluate_judge.py --judge judges/mine-1 --labels test.jsonl --output metrics.json --min roc_auc=0.8

The last line on stdout is one JSON object. Exit 0: every --min holds. 1: one does not. 2: bad input.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from typing import Any

from quality_judge.card import write_metrics
from quality_judge.engine.scorer import load_scorer
from quality_judge.errors import ConfigError, unknown
from quality_judge.evaluation import curves, measure, score_labels, shortcuts
from quality_judge.files import local_path
from quality_judge.judge import load_judge
from quality_judge.labels import clean_labels, load_labels
from quality_judge.metrics_file import LOWER_IS_BETTER
from quality_judge.programme import parser, run, tell
from quality_judge.stats.metrics import METRICS


def main(options: Namespace) -> dict[str, Any]:
    """Loads, scores, measures, writes; returns the summary."""
    started = time.perf_counter()
    least, most = dict(bar(text, "--min") for text in options.min), dict(bar(text, "--max") for text in options.max)
    local_path(options.output)
    judge = load_judge(options.judge)
    labels, report = clean_labels(load_labels(options.labels), measuring=True)
    report.raise_for_nothing_left()
    scored = score_labels(load_scorer(judge), labels)
    test = measure(scored, threshold=judge.spec.threshold)
    metrics = {
        "test": test, "baselines": {}, "certificate": judge.spec.certificate,
        "labels": {"test": labels.counts(), **report.found()},
        "shortcuts": shortcuts(scored, threshold=judge.spec.threshold), "curves": curves(scored),
        "seconds": {"total": time.perf_counter() - started},
    }  # fmt: skip
    write_metrics(options.output, metrics)
    missed = [
        *(f"{name} is {test[name]}, below {at}" for name, at in least.items() if test[name] is None or test[name] < at),
        *(f"{name} is {test[name]}, above {at}" for name, at in most.items() if test[name] is None or test[name] > at),
    ]
    for miss in missed:
        tell(miss)
    return {
        "ok": not missed, "judge": judge.folder, "fingerprint": judge.fingerprint, "n": test["n"],
        **{name: test[name] for name in METRICS}, "missed": missed, "output": str(options.output),
    }  # fmt: skip


def bar(text: str, option: str) -> tuple[str, float]:
    """(metric, bound) of `metric=value`: the least of one that should be high, the most of one that should be low."""
    name, _, value = text.partition("=")
    if name not in METRICS:
        raise ConfigError(f"{option}: {unknown('metric', name, METRICS)}")
    other = "--max" if name in LOWER_IS_BETTER else "--min"
    if option != other:
        raise ConfigError(f"{option} {text}: of {name} {'less' if other == '--max' else 'more'} is better; use {other}")
    try:
        bound = float(value)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ConfigError(f"{option} {text!r}: {value!r} is not a number; write {name}=0.8")
    return name, bound


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--judge", required=True, help="folder of the judge")
    arguments.add_argument("--labels", nargs="+", required=True, help="label files to measure on")
    arguments.add_argument("--output", required=True, help="JSON file the metrics are written to")
    arguments.add_argument(
        "--min", nargs="+", action="extend", default=[], metavar="METRIC=VALUE", help="exit 1 below this"
    )
    arguments.add_argument(
        "--max", nargs="+", action="extend", default=[], metavar="METRIC=VALUE", help="exit 1 above this, as ece=0.1"
    )
    options = arguments.parse_args()
    run(lambda: main(options))
