"""### quality_judge: train → score → validate → filter

Trains a judge from expert labels, scores a corpus with it, holds the scored rows against a suite of expectations,
and splits them into `kept/`, `review/`, `dropped/` and `unscored/`. **Validation is the gate**: while it is closed,
nothing is filtered, and the run fails.

| what a run chooses (params) | environment variable its default comes from |
|---|---|
| `labels`, one file on each line | `QUALITY_JUDGE_LABELS` |
| `corpus`, a path Spark can read | `QUALITY_JUDGE_CORPUS` |
| `output`, the folder that runs write under | `QUALITY_JUDGE_OUTPUT` |
| `config`, `suite`, `policy` (empty: the shipped ones) | `QUALITY_JUDGE_CONFIG`, `…_SUITE`, `…_POLICY` |
| `input_format`, `text_column`, `prompt_column` (empty: the programme's defaults) | `…_INPUT_FORMAT`, … |

| what the deployment fixes (Airflow Variable) | environment variable used without it |
|---|---|
| `quality_judge_home`, a checkout with `training/`, `jobs/`, `conf/` | `QUALITY_JUDGE_HOME` (here: this checkout) |
| `quality_judge_python`, the Python that has quality_judge | `QUALITY_JUDGE_PYTHON` |
| `quality_judge_spark_submit`, full path of spark-submit | `QUALITY_JUDGE_SPARK_SUBMIT` |
| `quality_judge_spark_properties`, a file such as those in `conf/spark/` | `QUALITY_JUDGE_SPARK_PROPERTIES` |

The Spark master is that of the connection named by `QUALITY_JUDGE_SPARK_CONNECTION` (`spark_default`).
Each run writes to a folder of its own, `<output>/<time the run was created>/`: `judge/ scored/ validation.json
filtered/`. Neither task logs nor XComs of these tasks hold row text.

A task that crashed, was ended or met another run at its output is tried again; one whose check did not hold or whose
input is bad is not. Any task may be cleared: Spark's outputs are replaced, and the judge that a run made stands while
its labels, configuration, rubric and unlabelled rows are the same. With others, start a new run: a judge is never
overwritten.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from quality_judge.airflow.operators import FilterCorpus, ScoreCorpus, TrainJudge, ValidateCorpus


def chosen(name: str, description: str, *, required: bool = False) -> Param:
    """A text param that defaults to QUALITY_JUDGE_<name>; no line of it can be taken for an option."""
    default = os.environ.get(f"QUALITY_JUDGE_{name}", "")
    pattern = r"^[^-\s].*(\n[^-\s].*)*\n?$"
    return Param(default, type="string", description=description, pattern=pattern if required else rf"^$|{pattern}")


def deployed(name: str, default: str = "") -> str:
    """A template: the Airflow Variable quality_judge_<name>, else QUALITY_JUDGE_<NAME>, else `default`."""
    FALLBACKS[name] = os.environ.get(f"QUALITY_JUDGE_{name.upper()}", default)
    return f"{{{{ var.value.get('quality_judge_{name}', fallbacks.{name}) }}}}"


def or_shipped(name: str, path: str) -> str:
    """A template: the run's param, else the file at `path` in the checkout."""
    return f"{{% if params.{name} %}}{{{{ params.{name} }}}}{{% else %}}{HOME}/{path}{{% endif %}}"


FALLBACKS: dict[str, str] = {}
HOME = deployed("home", str(Path(__file__).resolve().parent.parent.parent))
PYTHON = deployed("python", "python3")
SPARK = {
    "home": HOME,
    "python": PYTHON,
    "spark_binary": deployed("spark_submit", "spark-submit"),
    "properties_file": deployed("spark_properties"),
    "conn_id": os.environ.get("QUALITY_JUDGE_SPARK_CONNECTION", "spark_default"),
}
# Not the run id, whose colons Spark cannot have in a path.
RUN = "{{ params.output }}/{{ dag_run.run_after | ts_nodash }}"

with DAG(
    dag_id="quality_judge",
    description="Expert labels become a judge; the judge scores a corpus; what holds is filtered.",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,
    tags=["quality-judge"],
    # Two: when a worker is lost and its job is not, the first meets that job at the output.
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    user_defined_macros={"fallbacks": FALLBACKS},
    params={
        "labels": chosen("LABELS", "Label files, one on each line", required=True),
        "corpus": chosen("CORPUS", "Corpus to score: a path Spark can read", required=True),
        "output": chosen("OUTPUT", "Folder that runs write under", required=True),
        "config": chosen("CONFIG", "Training configuration; empty for the shipped default"),
        "suite": chosen("SUITE", "Expectations on the scored rows; empty for the shipped suite"),
        "policy": chosen("POLICY", "Filter policy; empty for the shipped default"),
        "input_format": chosen("INPUT_FORMAT", "parquet, json, csv or text; empty for the programme's default"),
        "text_column": chosen("TEXT_COLUMN", "Column that is judged; empty for the programme's default"),
        "prompt_column": chosen("PROMPT_COLUMN", "Column of prompts; empty for the programme's default"),
    },
) as dag:
    train = TrainJudge(
        task_id="train",
        home=HOME,
        python=PYTHON,
        labels="{{ params.labels }}",
        config="{{ params.config }}",
        output_path=f"{RUN}/judge",
    )
    score = ScoreCorpus(
        task_id="score",
        judge=f"{RUN}/judge",
        input_path="{{ params.corpus }}",
        output_path=f"{RUN}/scored",
        input_format="{{ params.input_format }}",
        text_column="{{ params.text_column }}",
        prompt_column="{{ params.prompt_column }}",
        **SPARK,
    )
    validate = ValidateCorpus(
        task_id="validate",
        scored=f"{RUN}/scored",
        suite=or_shipped("suite", "conf/expectations/scored.yaml"),
        output_path=f"{RUN}/validation.json",
        **SPARK,
    )
    filtered = FilterCorpus(
        task_id="filter",
        scored=f"{RUN}/scored",
        policy=or_shipped("policy", "conf/policies/default.yaml"),
        output_path=f"{RUN}/filtered",
        **SPARK,
    )
    train >> score >> validate >> filtered
