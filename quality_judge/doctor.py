"""Spark settings judged by a table of rules: what is unsafe or slow, and the line to change.

It reads properties files and a mapping of settings, and needs neither Spark nor torch. It does not know what the
cluster's own spark-defaults.conf says: a protection that is not set where it looks is a warning, one that is switched
off there is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from quality_judge.errors import ConfigError

Severity = Literal["error", "warning"]
Settings = Mapping[str, str]
LEAST_JAVA = 17
MUST_BE_HIDDEN = ("my.secret", "my.password", "my.token")


@dataclass(frozen=True)
class Finding:
    """One setting that should change; `line` is what to write in the properties file. Values are never repeated."""

    rule: str
    severity: Severity
    why: str
    line: str


@dataclass(frozen=True)
class Rule:
    """`unsafe` says whether settings break the rule; `unset`, if given, is the severity where `key` is not set."""

    key: str
    unsafe: Callable[[Settings], bool]
    why: str
    line: str
    severity: Severity = "error"
    unset: Severity | None = None


def _is(key: str, *values: str) -> Callable[[Settings], bool]:
    return lambda settings: settings.get(key, "").strip().lower() in values


def _is_set(key: str) -> Callable[[Settings], bool]:
    return lambda settings: key in settings


def _more_than_one(key: str) -> Callable[[Settings], bool]:
    return lambda settings: bool(re.fullmatch(r"\d+(\.\d+)?", settings.get(key, ""))) and float(settings[key]) > 1


def _open_event_log(settings: Settings) -> bool:
    """Whether event logs go where everybody reads: Spark's default is /tmp/spark-events."""
    where = settings.get("spark.eventLog.dir", "/tmp/spark-events").removeprefix("file:")  # noqa: S108
    shared = re.match(r"/+(var/)?tmp(/|$)", where) is not None
    return _is("spark.eventLog.enabled", "true")(settings) and shared


def _shows_secrets(settings: Settings) -> bool:
    """Whether a redaction pattern of one's own no longer hides what Spark's hides, or is no pattern at all."""
    if "spark.redaction.regex" not in settings:
        return False
    try:
        pattern = re.compile(settings["spark.redaction.regex"])
    except re.error:
        return True
    return not all(pattern.search(name) for name in MUST_BE_HIDDEN)


def _gpu_on_local(settings: Settings) -> bool:
    local = re.match(r"local(\[|$)", settings.get("spark.master", "")) is not None
    return local and "spark.task.resource.gpu.amount" in settings


def _weak_cipher(settings: Settings) -> bool:
    return "GCM" not in settings.get("spark.network.crypto.cipher", "GCM").upper()


def _switch(
    key: str, why: str, *, good: str = "true", severity: Severity = "error", unset: Severity | None = None
) -> Rule:
    bad = "false" if good == "true" else "true"
    return Rule(key, _is(key, bad), why, f"{key} {good}", severity, unset)


COMMITTER = "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version"
RULES = (
    _switch("spark.authenticate", "anyone who reaches the ports can run code in the executors", unset="warning"),
    _switch("spark.network.crypto.enabled", "rows cross the network in the clear", unset="warning"),
    Rule(
        "spark.network.crypto.cipher", _weak_cipher, "traffic can be altered unseen",
        "spark.network.crypto.cipher AES/GCM/NoPadding", unset="warning",
    ),
    _switch("spark.io.encryption.enabled", "shuffled and spilled rows lie on disk in the clear", unset="warning"),
    _switch("spark.acls.enable", "everyone may see and stop the application in the UI", unset="warning"),
    Rule(
        "spark.eventLog.dir", _open_event_log, "event logs lie in a folder that everybody reads",
        "spark.eventLog.dir hdfs:///private/spark-events",
    ),
    Rule(
        "spark.redaction.regex", _shows_secrets, "secrets show in the UI and in event logs",
        "spark.redaction.regex (?i)secret|password|token|access[.]?key",
    ),
    Rule(
        "spark.authenticate.secret", _is_set("spark.authenticate.secret"), "a secret stands in the settings",
        "spark.authenticate.secret.file /path/only/the/owner/reads",
    ),
    _switch("spark.sql.files.ignoreCorruptFiles", "rows of damaged files vanish unsaid", good="false"),
    _switch("spark.sql.files.ignoreMissingFiles", "rows of missing files vanish unsaid", good="false"),
    _switch("spark.speculation", "the same rows are scored twice", good="false"),
    Rule(COMMITTER, _is(COMMITTER, "2"), "a failed task leaves half its output", f"{COMMITTER} 1"),
    Rule(
        "spark.task.maxFailures", _is("spark.task.maxFailures", "1"), "one lost executor ends the job",
        "spark.task.maxFailures 4",
    ),
    Rule(
        "spark.executor.pyspark.memory", _is_set("spark.executor.pyspark.memory"),
        "it limits address space, which mapped weights and CUDA use up", "spark.executor.memoryOverhead 12g",
    ),
    Rule("spark.master", _gpu_on_local, "a local master knows no GPUs: the job waits for ever", "spark.master yarn"),
    Rule(
        "spark.executor.resource.gpu.amount", _more_than_one("spark.executor.resource.gpu.amount"),
        "each Python process ends up with a model on every GPU", "spark.executor.resource.gpu.amount 1", "warning",
    ),
    _switch("spark.python.worker.reuse", "every task loads the model again", severity="warning"),
    _switch("spark.sql.execution.arrow.pyspark.enabled", "frames cross to Python row by row", severity="warning"),
)  # fmt: skip


def read_properties(path: Path) -> dict[str, str]:
    """The settings of one Spark properties file; `ConfigError` if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__}); give a Spark properties file") from None
    found = {}
    for line in lines:
        parts = re.split(r"\s*[=:\s]\s*", line.strip(), maxsplit=1)
        if parts[0] and parts[0][0] not in "#!":
            found[parts[0]] = parts[1] if len(parts) > 1 else ""
    return found


def check_settings(settings: Settings) -> list[Finding]:
    """One finding for each rule that `settings` break, in the order of the table."""
    found = []
    for rule in RULES:
        if rule.unsafe(settings):
            found.append(Finding(rule.key, rule.severity, rule.why, rule.line))
        elif rule.unset and rule.key not in settings:
            found.append(Finding(rule.key, rule.unset, f"not set here: {rule.why}", rule.line))
    return found


def check_environment() -> list[Finding]:
    """Findings about Java and the installed packages of this machine."""
    found = []
    if (version := java_version()) is None or version < LEAST_JAVA:
        why = f"Spark needs Java {LEAST_JAVA} or later; found {version or 'none'}"
        found.append(Finding("java", "error", why, f"install Java {LEAST_JAVA}"))
    if both_installed({item.metadata["Name"] or "" for item in metadata.distributions()}):
        why = "pyspark and pyspark-client overwrite each other's files"
        found.append(Finding("pyspark-client", "error", why, "pip uninstall pyspark-client"))
    return found


def both_installed(names: Sequence[str] | set[str]) -> bool:
    """Whether both of Spark's Python packages are among `names`."""
    return {"pyspark", "pyspark-client"} <= {name.lower().replace("_", "-") for name in names}


def java_version() -> int | None:
    """The major version of the `java` on the path; None if there is none or it does not say."""
    java = shutil.which("java")
    if java is None:
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    match = re.search(r'version "(\d+)', said)
    return int(match[1]) if match else None
