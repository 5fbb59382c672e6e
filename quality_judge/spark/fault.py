"""Turns a failed Spark action into one sentence without row text: which file, or which kind of failure. (driver)"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException

from quality_judge.errors import CorpusError, JudgeError, QualityJudgeError, SparkFailed, UnreadableFile

FILE = re.compile(r"(?:file|hdfs|s3a?|abfss?|gs):/[^\s,;'\"\])]+")
SPACED_FILES = (  # where what stands around it says how far a name with spaces goes
    re.compile(r"while reading file (\S[^\n]*?)\.(?:\s+[A-Z]|\s*$)", re.M),
    re.compile(r"((?:file|hdfs|s3a?|abfss?|gs):/[^\n]*?) is not a Parquet file"),
)
CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\]")
REFUSED_JUDGE = re.compile(r"quality_judge\.errors\.(?:JudgeError|BaseModelError): ([^\n]{1,500})")
STOPPED_JUDGE = re.compile(r"quality_judge\.errors\.CheckFailed: ([^\n]{1,500})")
READING = (
    "FAILED_READ_FILE", "CANNOT_READ_FILE_FOOTER", "CANNOT_MERGE_SCHEMAS", "Could not read footer",
    "is not a Parquet file", "EOFException", "ParquetDecodingException",
)  # fmt: skip
WRITING = (
    "AccessControlException",
    "Permission denied",
    "Mkdirs failed",
    "Read-only file system",
    "ParentNotDirectory",
    "No space left on device",
    "File too large",
    "Disk quota exceeded",
)
CHECK_ALL = "check the path, the format and the columns"
ADVICE = {
    "CANNOT_MERGE_SCHEMAS": "a column has one type in some files and another, or none, in others; write them alike",
    "COLUMN_ALREADY_EXISTS": "two columns, or two names in one record, are alike but for their capitals; rename one",
}


@contextmanager
def refused_read(what: str = "the input") -> Iterator[None]:
    """Within it a Spark failure becomes a CorpusError, a JudgeError or a SparkFailed. what: what is read, and how."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise explained(error, what) from None


def explained(error: Exception, what: str) -> QualityJudgeError:
    """The error of ours that says what `error` means. Of its text only a file's name or a judge's fault is quoted."""
    text = str(error)
    judge, stopped = REFUSED_JUDGE.search(text), STOPPED_JUDGE.search(text)
    if judge:
        return JudgeError(judge.group(1))
    if stopped:
        return SparkFailed(f"{stopped.group(1)}; nothing was published")
    files = [found for pattern in SPACED_FILES for found in pattern.findall(text)]
    files += [found.rstrip(".") for found in FILE.findall(text)]
    condition = CONDITION.search(text)
    kind = condition.group(1) if condition else _kind(error)
    if any(sign in text for sign in WRITING):
        return CorpusError(
            f"{files[0] if files else 'the output'} cannot be reached or written: check its folder, its permissions "
            "and the space left"
        )
    if files and any(sign in text for sign in READING):
        said = f"{files[0]} cannot be read ({kind}): it is damaged or unlike the other files; replace or remove it"
        return UnreadableFile(files[0], kind, said)
    if isinstance(error, AnalysisException) or kind.startswith(("CONFLICTING_", "CANNOT_MERGE_")):
        return CorpusError(f"{what} cannot be read ({kind}); {ADVICE.get(kind, CHECK_ALL)}")
    return SparkFailed(f"Spark failed ({kind}); nothing was published. Its own log says which task and why")


def _kind(error: Exception) -> str:
    java = error.java_exception.getClass().getSimpleName() if isinstance(error, Py4JJavaError) else None
    return java or type(error).__name__
