"""What of a Spark configuration could lose rows, show them to others, hang or waste the machine, and the line to write.

The rules are data: a setting, the values that are fine, how bad another one is, and why. It reads settings only, from a
properties file, from what a session was started with, or both; it starts nothing. (driver)
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from quality_judge.errors import ConfigError

Severity = Literal["error", "warning"]
MIN_JAVA = 17
CLUSTER = "spark://|yarn|k8s:"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to change. line: what to write, or to run."""

    name: str
    severity: Severity
    got: str
    why: str
    line: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A setting and a pattern of the values that are fine; `default` is Spark's own value, None without one.

    only: the pattern that the master must match for the rule to hold.
    """

    key: str
    fine: str
    default: str | None
    severity: Severity
    why: str
    line: str
    only: str = ""


RULES = (
    Rule("spark.sql.files.ignoreCorruptFiles", "false", "false", "error",
         "damaged files would be left out without a word", "spark.sql.files.ignoreCorruptFiles false"),
    Rule("spark.sql.files.ignoreMissingFiles", "false", "false", "error",
         "files that vanish would be left out without a word", "spark.sql.files.ignoreMissingFiles false"),
    Rule("spark.speculation", "false", "false", "error",
         "slow rows would be scored twice, on a second GPU", "spark.speculation false"),
    Rule("spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version", "1", "1", "error",
         "a task that dies while it commits would leave rows behind that its next try writes again",
         "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version 1"),
    Rule("spark.executor.pyspark.memory", "(?!)", None, "error",
         "it limits address space, which memory-mapped weights and CUDA use up at once",
         "remove spark.executor.pyspark.memory and raise spark.executor.memoryOverhead"),
    Rule("spark.sql.execution.pyspark.udf.killOnIdleTimeout", "false", "false", "error",
         "it kills workers that are merely slow; the jobs have --hang-seconds",
         "spark.sql.execution.pyspark.udf.killOnIdleTimeout false"),
    Rule("spark.task.maxFailures", r"[2-9]|\d\d+", "4", "error",
         "the second try of a task is what finds a row that crashes or hangs", "spark.task.maxFailures 4"),
    Rule("spark.executor.resource.gpu.amount", "1", None, "error",
         "workers are pooled without regard to GPUs: with several each process ends up with a model on every one",
         "spark.executor.resource.gpu.amount 1"),
    Rule("spark.task.resource.gpu.amount", "(?!)", None, "error",
         "a local master knows no GPUs, and such a job waits for ever",
         "remove the gpu settings, or name a cluster with --master", only="local"),
    Rule("spark.authenticate", "true", "false", "error",
         "whoever reaches a port of the cluster can run code on it", "spark.authenticate true", only=CLUSTER),
    Rule("spark.network.crypto.enabled", "true", "false", "warning",
         "rows go over the network in plain", "spark.network.crypto.enabled true", only=CLUSTER),
    Rule("spark.io.encryption.enabled", "true", "false", "warning",
         "rows that spill lie on the executors' disks in plain", "spark.io.encryption.enabled true",
         only=CLUSTER),
    Rule("spark.acls.enable", "true", "false", "warning",
         "everybody who opens the web interface sees plans and settings", "spark.acls.enable true",
         only=CLUSTER),
    Rule("spark.redaction.regex", r".*(secret|password|token).*", "(?i)secret|password|token|access[.]?key", "error",
         "secrets in settings would stand in logs and in the web interface",
         "spark.redaction.regex (?i)secret|password|token|access[.]?key"),
    Rule("spark.sql.redaction.string.regex", ".+", None, "warning",
         "what a query quotes stands in plans and event logs as it is",
         "spark.sql.redaction.string.regex (?i)(hf_|sk-|AKIA)[A-Za-z0-9]+", only=CLUSTER),
    Rule("spark.sql.execution.arrow.pyspark.enabled", "true", "false", "warning",
         "tables go to and from pandas row by row", "spark.sql.execution.arrow.pyspark.enabled true"),
    Rule("spark.python.worker.reuse", "true", "true", "error",
         "every task would load the model again", "spark.python.worker.reuse true"),
    Rule("spark.python.worker.faulthandler.enabled", "true", "false", "warning",
         "a worker that crashes leaves no trace of where", "spark.python.worker.faulthandler.enabled true"),
    Rule("spark.python.factory.idleWorkerMaxPoolSize", r"[1-9]\d*", None, "warning",
         "idle Python workers would each keep a copy of the model on the GPU",
         "spark.python.factory.idleWorkerMaxPoolSize 1", only="gpu"),
)  # fmt: skip


def examine(settings: Mapping[str, str]) -> tuple[Finding, ...]:
    """What the rules find in `settings`, errors first. A key that is not there has Spark's own value."""
    master = settings.get("spark.master", "")
    kinds = (master, "gpu" if any(".resource.gpu." in key for key in settings) else "")
    found = []
    for rule in RULES:
        value = settings.get(rule.key, rule.default)
        holds = not rule.only or any(re.match(rule.only, kind) for kind in kinds)
        missing = value is None and rule.fine not in ("(?!)", "1") and holds and bool(rule.only)
        wrong = value is not None and not re.fullmatch(rule.fine, value, re.I)
        if holds and (missing or wrong):
            got = "nothing" if value is None else f"{value}{'' if rule.key in settings else ' (the default)'}"
            found.append(Finding(rule.key, rule.severity, got, rule.why, rule.line))
    return tuple(sorted(found, key=lambda finding: finding.severity != "error"))


def examine_machine() -> tuple[Finding, ...]:
    """What is wrong with Java and the Python packages here."""
    found = []
    java = java_version()
    if java is None or java < MIN_JAVA:
        found.append(
            Finding("java", "error", str(java or "none"), "Spark 4 needs Java 17", "install a JDK of 17 or newer")
        )
    if installed("pyspark") and installed("pyspark-client"):
        found.append(
            Finding(
                "pyspark-client", "error", f"{installed('pyspark-client')} beside pyspark {installed('pyspark')}",
                "both write into the same folder, and pandas UDFs break",
                "pip uninstall pyspark-client; pip install --force-reinstall --no-deps pyspark",
            )
        )  # fmt: skip
    if (installed("pandas") or "2").startswith("3"):
        found.append(
            Finding(
                "pandas",
                "warning",
                installed("pandas") or "",
                "pyspark supports pandas 2 only",
                "pip install 'pandas<3'",
            )
        )
    return tuple(found)


def read_properties(path: str | Path) -> dict[str, str]:
    """The settings in a properties file, a key and a value a line. Raises ConfigError when it is unreadable."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}); name a properties file of Spark") from None
    pairs = (re.split(r"[\s=:]+", line.strip(), maxsplit=1) for line in lines if line.strip()[:1] not in ("", "#", "!"))
    return {pair[0]: pair[1].strip() if len(pair) > 1 else "" for pair in pairs}


def in_words(findings: Sequence[Finding]) -> list[str]:
    """The findings for a terminal."""
    if not findings:
        return ["nothing unsafe or slow was found"]
    return [f"{f.severity}: {f.name} is {f.got}: {f.why}\n    {f.line}" for f in findings]


def java_version() -> int | None:
    """The major version of the Java on the PATH, None without one."""
    if shutil.which("java") is None:
        return None
    said = subprocess.run(
        ["java", "-version"], capture_output=True, text=True
    )  # the one on the PATH, as Spark starts it
    found = re.search(r'version "(\d+)', said.stderr + said.stdout)
    return int(found.group(1)) if found else None


def installed(package: str) -> str | None:
    """The version of an installed package, None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
