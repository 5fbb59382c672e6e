"""Turns a failed Spark action into one sentence without row text: which file, or which kind of failure. (driver)"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from quality_judge.errors import CheckFailed, CorpusError, JudgeError

FILE = re.compile(r"(?:file|hdfs|s3a?|abfss?|gs):/[^\s,;'\"\])]+")
CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\]")
REFUSED_JUDGE = re.compile(r"quality_judge\.errors\.(JudgeError|BaseModelError): ([^\n]{1,500})")
READING = ("FAILED_READ_FILE", "CANNOT_READ_FILE_FOOTER", "Could not read footer", "is not a Parquet file", "EOFException", "ParquetDecodingException")


@contextmanager
def refused_read() -> Iterator[None]:
    """Within it a Spark failure becomes a CorpusError (an unreadable file), a JudgeError or a CheckFailed."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        judge = REFUSED_JUDGE.search(text)
        if judge:
            raise JudgeError(judge.group(2)) from None
        files = list(dict.fromkeys(FILE.findall(text)))
        condition = CONDITION.search(text)
        kind = condition.group(1) if condition else type(error).__name__
        if files and any(sign in text for sign in READING):
            raise CorpusError(f"{files[0]} cannot be read ({kind}): it is damaged or of another format; replace or remove it") from None
        raise CheckFailed(f"Spark failed ({kind}); nothing was published. Its own log says which task and why") from None
