"""The programmes as Airflow operators: thin, because the programmes have the arguments and do the work.

    ScoreCorpus(task_id="score", home=H, python=P, judge=J, input_path=I, output_path=O)

`home` is a checkout with `training/` and `jobs/`; `python` is the interpreter that has quality_judge and its
dependencies, and need not be Airflow's. Every field is a template, so command lines are put together in `execute`.
A task that failed because a check did not hold, or because its input is bad, is not tried again; one that crashed, met
another run at its output, or was ended, is. A training that is run again after its judge was made is done at once.
XComs hold numbers only. It knows neither torch nor pyspark, and no programme beyond its arguments.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar, NoReturn

from quality_judge.airflow.outcome import Outcome, last_summary, numbers_of, summary_in
from quality_judge.airflow.receipt import Receipt, request_of, rubric_of
from quality_judge.errors import MissingExtra

try:
    from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
    from airflow.sdk import BaseOperator
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("airflow"):
        raise
    raise MissingExtra("apache-airflow with its apache-spark provider", "airflow") from None

# A longer line on stderr is not one a programme of ours writes; what would stand in it is cut.
MOST_LOGGED_CHARACTERS = 500


class SparkJob(SparkSubmitOperator):
    """Runs one programme of `jobs/` under spark-submit and returns the numbers of its summary.

    python: sets PYSPARK_PYTHON and PYSPARK_DRIVER_PYTHON. spark_binary: full path of spark-submit, or its name
    on the PATH. Everything else (`conn_id`, `conf`, `properties_file`, `py_files`, …) goes to SparkSubmitOperator.
    """

    programme: ClassVar[str]
    env_vars: dict[str, Any] | None
    template_fields: Sequence[str] = (*SparkSubmitOperator.template_fields, "home", "python", "spark_binary")

    def __init__(self, *, home: str, python: str = "", spark_binary: str = "", **kwargs: Any) -> None:
        super().__init__(**{"name": f"quality_judge.{PurePath(self.programme).stem}", **kwargs})
        self.home = home
        self.python = python
        self.spark_binary = spark_binary
        self.summary: dict[str, Any] | None = None

    @abstractmethod
    def arguments(self) -> list[str]:
        """The programme's own command line."""

    def execute(self, context: Any) -> dict[str, Any]:
        """Submits the programme and waits for it; returns what `numbers_of` leaves of its summary."""
        self.application = f"{self.home}/jobs/{self.programme}"
        self.application_args = self.arguments()
        self._spark_binary = self.spark_binary or None
        if self.python:
            self.env_vars = {
                **(self.env_vars or {}),
                "PYSPARK_PYTHON": self.python,
                "PYSPARK_DRIVER_PYTHON": self.python,
            }
        try:
            super().execute(context)
        except AirflowException as error:
            raise_failure(Outcome(self.programme, exit_code_in(str(error)), self.summary), cause=error)
        # In cluster mode the driver's output, and so its summary, stays on the cluster.
        return numbers_of(self.summary or {})

    def _get_hook(self) -> Any:
        hook = super()._get_hook()
        # The hook has no public way to read what the programme prints; the provider is pinned, and a test holds this.
        process = hook._process_spark_submit_log
        hook._process_spark_submit_log = lambda lines: process(self._listen(lines))
        return hook

    def _listen(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self.summary = summary_in(line) or self.summary
            yield line


class ScoreCorpus(SparkJob):
    """jobs/score_corpus.py: every row of `input_path` with its score and code, at `output_path`."""

    programme = "score_corpus.py"
    template_fields = (
        *SparkJob.template_fields, "judge", "input_path", "output_path", "input_format", "text_column", "prompt_column",
    )  # fmt: skip

    def __init__(
        self,
        *,
        judge: str,
        input_path: str,
        output_path: str,
        input_format: str = "",
        text_column: str = "",
        prompt_column: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.judge = judge
        self.input_path = input_path
        self.output_path = output_path
        self.input_format = input_format
        self.text_column = text_column
        self.prompt_column = prompt_column

    def arguments(self) -> list[str]:
        """The programme's own command line; what was left empty is left to its defaults."""
        return [
            *("--judge", self.judge, "--input", self.input_path, "--output", self.output_path),
            *option("--format", self.input_format),
            *option("--text-column", self.text_column),
            *option("--prompt-column", self.prompt_column),
        ]


class ValidateCorpus(SparkJob):
    """jobs/validate_corpus.py: holds a scored table against a suite; the quality gate when other tasks follow it."""

    programme = "validate_corpus.py"
    template_fields = (*SparkJob.template_fields, "scored", "suite", "output_path")

    def __init__(self, *, scored: str, suite: str, output_path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scored = scored
        self.suite = suite
        self.output_path = output_path

    def arguments(self) -> list[str]:
        """The programme's own command line."""
        return ["--scored", self.scored, "--suite", self.suite, "--output", self.output_path]


class FilterCorpus(SparkJob):
    """jobs/filter_corpus.py: a scored table as kept/ review/ dropped/ unscored/, by a policy."""

    programme = "filter_corpus.py"
    template_fields = (*SparkJob.template_fields, "scored", "policy", "output_path")

    def __init__(self, *, scored: str, policy: str, output_path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scored = scored
        self.policy = policy
        self.output_path = output_path

    def arguments(self) -> list[str]:
        """The programme's own command line."""
        return ["--scored", self.scored, "--policy", self.policy, "--output", self.output_path]


class SampleForLabels(SparkJob):
    """jobs/sample_for_labels.py: `count` scored rows that are worth an expert's time, as JSONL."""

    programme = "sample_for_labels.py"
    template_fields = (*SparkJob.template_fields, "scored", "count", "strategy", "output_path")

    def __init__(
        self, *, scored: str, output_path: str, count: int | str = 200, strategy: str = "uncertain", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.scored = scored
        self.output_path = output_path
        self.count = count
        self.strategy = strategy

    def arguments(self) -> list[str]:
        """The programme's own command line."""
        return [
            *("--scored", self.scored, "--count", str(self.count)),
            *("--strategy", self.strategy, "--output", self.output_path),
        ]


class TrainJudge(BaseOperator):
    """training/train_judge.py on the worker's machine; returns the numbers of its summary.

    labels, test_labels: files, as a list or as one string with a file on each line. config: empty for the shipped
    default. unlabelled: the corpus, or a part of it on the worker's machine, if it is to teach which words go together.
    settings: key → value, each given as --set. env_vars: added to the worker's environment.
    """

    programme: ClassVar[str] = "train_judge.py"
    template_fields: Sequence[str] = (
        "home", "python", "labels", "output_path", "config", "test_labels", "unlabelled", "settings", "env_vars",
    )  # fmt: skip

    def __init__(
        self,
        *,
        home: str,
        python: str,
        labels: str | Sequence[str],
        output_path: str,
        config: str = "",
        test_labels: str | Sequence[str] = (),
        unlabelled: str = "",
        settings: Mapping[str, str] | None = None,
        env_vars: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.home = home
        self.python = python
        self.labels = labels
        self.output_path = output_path
        self.config = config
        self.test_labels = test_labels
        self.unlabelled = unlabelled
        self.settings = settings
        self.env_vars = env_vars
        self._process: subprocess.Popen[str] | None = None

    def arguments(self) -> list[str]:
        """The programme's own command line; what was left empty is left to its defaults."""
        return [
            *option("--config", self.config),
            *("--labels", *files(self.labels)),
            *option("--test-labels", *files(self.test_labels)),
            *option("--unlabelled", self.unlabelled),
            *("--output", self.output_path),
            *(word for key, value in (self.settings or {}).items() for word in ("--set", f"{key}={value}")),
        ]

    def execute(self, context: Any) -> dict[str, Any]:
        """Runs the programme and returns `numbers_of` its summary, or those of the try that made the judge before."""
        receipt = self._receipt(context["ti"])
        made = receipt.numbers(self.python, self._environment())
        if made is not None:
            self.log.info("An earlier try of this run made the judge; it was verified and stands: %s", self.output_path)
            return {**made, "made_before": True}
        outcome = self._run()
        receipt.leave(outcome.summary)
        if not outcome.done:
            raise_failure(outcome)
        return numbers_of(outcome.summary or {})

    def _receipt(self, ti: Any) -> Receipt:
        run = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
        rubric = files((self.settings or {}).get("rubric", "")) or rubric_of(self.config)
        named = [*files(self.labels), *files(self.test_labels), *files(self.config), *rubric]
        return Receipt(self.output_path, request_of(run, self.arguments(), named, corpus=self.unlabelled))

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **(self.env_vars or {})}

    def _run(self) -> Outcome:
        """How the programme ended; its stderr goes to the task log."""
        command = [self.python, f"{self.home}/training/{self.programme}", *self.arguments()]
        self.log.info("Training: %s", command)
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
            self._process = subprocess.Popen(
                command,
                stdout=printed,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=self._environment(),
            )
            with self._process as process:
                for line in process.stderr or ():
                    self.log.info("%s", line.rstrip()[:MOST_LOGGED_CHARACTERS])
            printed.seek(0)
            return Outcome(self.programme, process.returncode, last_summary(printed))

    def on_kill(self) -> None:
        """Ends the programme when the task is ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


def raise_failure(outcome: Outcome, *, cause: Exception | None = None) -> NoReturn:
    """Raises what ends the task: for good where a second try would end the same way, else so that it is retried."""
    kind = AirflowFailException if outcome.final else AirflowException
    raise kind(str(outcome)) from cause


def exit_code_in(message: str) -> int:
    """The exit code the hook names in its error, or 1 when it names none, as with a driver on a cluster."""
    found = re.search(r"Error code is: (-?\d+)", message)
    return int(found.group(1)) if found else 1


def option(name: str, *values: str) -> list[str]:
    """`name` and its values, or nothing when there is no value or it is empty."""
    return [name, *values] if any(values) else []


def files(paths: str | Sequence[str]) -> list[str]:
    """The paths in a list, or in a string with one on each line."""
    lines = paths.splitlines() if isinstance(paths, str) else paths
    return [line.strip() for line in lines if line.strip()]
