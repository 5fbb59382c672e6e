"""Measures a judge on labels and writes metrics.json.

    python training/evaluate_judge.py --judge judges/mine-1 --labels test.jsonl --output metrics.json --min roc_auc=0.8

The last line on stdout is one JSON object. Exit 0: every --min holds. 1: one does not. 2: bad input.
"""

from __future__ import annotations

import math
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from quality_judge.card import write_metrics
from quality_judge.engine.scorer import load_scorer
from quality_judge.errors import ConfigError, unknown
from quality_judge.evaluation import curves, measure, score_labels, shortcuts
from quality_judge.judge import load_judge
from quality_judge.labels import clean_labels, load_labels
from quality_judge.programme import parser, run, tell
from quality_judge.stats.metrics import METRICS


def main(options: Namespace) -> dict[str, Any]:
    """Loads, scores, measures, writes; returns the summary."""
    started = time.perf_counter()
    bars = dict(bar(text) for text in options.min)
    if not Path(options.output).absolute().parent.is_dir():
        raise ConfigError(f"--output {options.output}: its folder does not exist; make it first")
    judge, (labels, report) = load_judge(options.judge), clean_labels(load_labels(options.labels))
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
        f"{name} is {test[name]}, below {least}"
        for name, least in bars.items()
        if test[name] is None or test[name] < least
    ]
    for miss in missed:
        tell(miss)
    return {
        "ok": not missed, "judge": judge.folder, "fingerprint": judge.fingerprint, "n": test["n"],
        **{name: test[name] for name in METRICS}, "missed": missed, "output": str(options.output),
    }  # fmt: skip


def bar(text: str) -> tuple[str, float]:
    """(metric, least value) of `metric=value`."""
    name, _, value = text.partition("=")
    if name not in METRICS:
        raise ConfigError(f"--min: {unknown('metric', name, METRICS)}")
    try:
        least = float(value)
    except ValueError:
        least = math.nan
    if not math.isfinite(least):
        raise ConfigError(f"--min {text!r}: {value!r} is not a number; write {name}=0.8")
    return name, least


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--judge", required=True, help="folder of the judge")
    arguments.add_argument("--labels", nargs="+", required=True, help="label files to measure on")
    arguments.add_argument("--output", required=True, help="JSON file the metrics are written to")
    arguments.add_argument("--min", action="append", default=[], metavar="METRIC=VALUE", help="exit 1 below this")
    options = arguments.parse_args()
    run(lambda: main(options))
