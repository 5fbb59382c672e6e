"""Every programme on every path that fails, over rows full of canaries and secrets, in one interpreter and one session.

    python tests/hostile/leak_runs.py FOLDER

FOLDER holds `judge/`, `base labels.jsonl` and what `rows.py` planted; each run's exit code goes into FOLDER/codes.json.
It looks for nothing itself: the test that starts it reads all that was printed and written.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def runs(place: Path) -> dict[str, list[str]]:
    """Arguments of each run, by a name that says what is wrong; a first word without / is a job or a training."""
    out, plant = place / "out", place / "planted"
    score = ["jobs/score_corpus.py", "--judge", str(place / "judge")]
    scored, filtered = str(out / "scored"), str(out / "filtered")
    train = ["training/train_judge.py", "--config", str(ROOT / "conf/judges/demo.yaml")]
    labels = ["--labels", str(plant / "labels-good.jsonl")]
    evaluate = ["training/evaluate_judge.py", "--judge", str(place / "judge"), "--output", str(out / "metrics.json")]
    calibrate = ["training/calibrate_judge.py", "--judge", str(place / "judge"), "--output", str(out / "judge-2")]
    command = ["-m", "score", "--judge", str(place / "judge"), "--output", str(out / "one.parquet"), "--input"]

    def of(name: str) -> list[str]:
        return ["--input", str(plant / name), "--output", str(out / f"of-{name}")]

    return {
        "score": [*score, "--input", str(plant / "rows.parquet"), "--output", scored, "--prompt-column", "prompt"],
        "score again onto itself": [*score, "--input", str(plant / "rows.parquet"), "--output", scored],
        "broken JSON records": [*score, *of("broken.json"), "--format", "json"],
        "CSV without a header": [*score, *of("no-header.csv"), "--format", "csv"],
        "CSV of ragged rows": [*score, *of("ragged.csv"), "--format", "csv"],
        "CSV of other headers": [*score, *of("headers"), "--format", "csv"],
        "text lines": [*score, *of("lines.txt"), "--format", "text"],
        "cut Parquet": [*score, *of("cut.parquet")],
        "text that is no Parquet": [*score, *of("lines.parquet")],
        "numbers for text": [*score, *of("rows.parquet"), "--text-column", "number"],
        "no such column": [*score, *of("rows.parquet"), "--text-column", "txt"],
        "columns that are taken": [*score, *of("taken.parquet")],
        "Parquet of other types": [*score, *of("mixed")],
        "no judge": ["jobs/score_corpus.py", "--judge", str(plant), *of("rows.parquet")],
        "a judge that changed": ["jobs/score_corpus.py", "--judge", str(place / "drifted"), *of("rows.parquet")],
        "a secret in a path": [*score, "--input", (place / "secret-path").read_text(), "--output", str(out / "s3")],
        "filter": ["jobs/filter_corpus.py", "--scored", scored, "--policy", str(ROOT / "conf/policies/demo.yaml"),
                   "--output", filtered],
        "filter by a slice": ["jobs/filter_corpus.py", "--scored", scored, "--policy", str(plant / "sliced.yaml"),
                              "--output", str(out / "sliced")],
        "filter by a policy that is none": ["jobs/filter_corpus.py", "--scored", scored, "--policy",
                                            str(plant / "rows.parquet"), "--output", str(out / "f2")],
        "filter what was not scored": ["jobs/filter_corpus.py", "--scored", str(plant / "rows.parquet"), "--policy",
                                       str(ROOT / "conf/policies/demo.yaml"), "--output", str(out / "f3")],
        "validate": ["jobs/validate_corpus.py", "--scored", scored, "--suite",
                     str(ROOT / "conf/expectations/scored.yaml"), "--output", str(out / "v1.json")],
        "validate and fail": ["jobs/validate_corpus.py", "--scored", scored, "--suite", str(plant / "strict.yaml"),
                              "--output", str(out / "v2.json")],
        "validate without columns": ["jobs/validate_corpus.py", "--scored", str(plant / "rows.parquet"), "--suite",
                                     str(ROOT / "conf/expectations/scored.yaml"), "--output", str(out / "v3.json")],
        "sample": ["jobs/sample_for_labels.py", "--scored", scored, "--count", "3", "--output",
                   str(out / "sampled-rows.jsonl")],
        "sample by a column that is not there": ["jobs/sample_for_labels.py", "--scored", scored, "--strategy",
                                                 "stratified", "--stratum", "lang", "--output", str(out / "s.jsonl")],
        "report": ["-m", "report", "--filtered", filtered, "--judge", str(place / "judge"), "--output",
                   str(out / "report.html"), "--validation", str(out / "v1.json")],
        "command": [*command, str(plant / "rows.parquet")],
        "command on cut Parquet": [*command, str(plant / "cut.parquet")],
        "command on CSV without a header": [*command, str(plant / "no-header.csv")],
        "command on broken JSON": [*command, str(plant / "broken.json")],
        "command without a column": [*command, str(plant / "rows.parquet"), "--text-column", "none"],
        "train on broken labels": [*train, "--labels", str(plant / "labels-broken.jsonl"), "--output", str(out / "j1")],
        "train on CSV without header": [*train, "--labels", str(plant / "no-header.csv"), "--output", str(out / "j2")],
        "train on cut Parquet": [*train, "--labels", str(plant / "cut.parquet"), "--output", str(out / "j3")],
        "train on labels that contradict": [*train, "--labels", str(plant / "labels-contradict.jsonl"), "--output",
                                            str(out / "j4")],
        "train on one class": [*train, "--labels", str(plant / "labels-one.jsonl"), "--output", str(out / "j5")],
        "train on the test rows": [*train, *labels, "--test-labels", str(plant / "labels-good.jsonl"), "--output",
                                   str(out / "j6")],
        "train": [*train, *labels, "--output", str(out / "j7"), "--set", "train.method=frozen", "--set",
                  "train.below_baseline=allow"],
        "train on a setting that is none": [*train, *labels, "--output", str(out / "j8"), "--set",
                                            (place / "secret-setting").read_text()],
        "evaluate": [*evaluate, *labels, "--min", "roc_auc=1.0"],
        "evaluate on broken labels": [*evaluate, "--labels", str(plant / "labels-broken.jsonl")],
        "calibrate on too few": [*calibrate, "--labels", str(plant / "labels-few.jsonl")],
        "red team on labels": ["-m", "redteam", str(place / "judge"), "--labels", str(plant / "labels-good.jsonl"),
                               "--output", str(out / "r.json")],
    }  # fmt: skip


def run(arguments: list[str]) -> int | str:
    """The exit code of one programme; an exception that it lets through is printed as Python would."""
    module = arguments[0] == "-m"
    sys.argv = ["quality-judge" if module else str(ROOT / arguments[0]), *arguments[1:]]
    try:
        if module:
            from quality_judge.cli import main

            main()
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        return "exception"
    return 0


def main(place: Path) -> None:
    """Runs everything; Spark logs its events into place/events and works in place/work."""
    for name in ("events", "work", "out"):
        (place / name).mkdir(exist_ok=True)
    settings = {
        "spark.eventLog.enabled": "true", "spark.eventLog.dir": (place / "events").as_uri(),
        "spark.local.dir": str(place / "work"), "spark.sql.shuffle.partitions": "2", "spark.master": "local[2,2]",
        "spark.eventLog.compress": "false", "spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1", "spark.log.level": "WARN",
    }  # fmt: skip
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(f"--conf {key}={value}" for key, value in settings.items()) + (
        " pyspark-shell"
    )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    sys.path.insert(0, str(ROOT))
    codes = {name: run(arguments) for name, arguments in runs(place).items()}
    (place / "codes.json").write_text(json.dumps(codes, indent=1))
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is not None:
        session.stop()


if __name__ == "__main__":
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
    main(Path(sys.argv[1]))
