"""Every error this package raises on purpose, and the exit code of a programme that meets it.

    QualityJudgeError
    ├── InputError            what was given cannot be used                  (exit 2)
    │   ├── ConfigError       a YAML file, an option, an override
    │   ├── LabelError        faults in label files, gathered and raised once
    │   ├── CorpusError       a table: missing column, wrong type, name clash
    │   │   └── UnreadableFile  one file of it is damaged or unlike the others
    │   ├── BaseModelError    a base model that cannot be found or used
    │   ├── JudgeError        a judge folder that is damaged, incomplete or foreign
    │   └── MissingExtra      a package that is not installed
    └── CheckFailed           everything ran, and the answer is no           (exit 1)
        ├── RunConflict       another run is writing the same output         (try again)
        └── SparkFailed       a Spark job, or Spark itself, came to no end   (try again)

It knows nothing of what any other module does. A message says what, what was got, what is allowed
and what to do next; row text never stands in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,39}")
EXIT_DONE = 0
EXIT_CHECK_FAILED = 1
EXIT_BAD_INPUT = 2


class QualityJudgeError(Exception):
    """The root; `exit_code` is what a programme returns when it meets one, `retry` whether another try may help."""

    exit_code = EXIT_BAD_INPUT
    retry = False


class InputError(QualityJudgeError):
    """What was given cannot be used."""


class ConfigError(InputError):
    """A configuration file, an option or an override is wrong."""


class LabelError(InputError):
    """Label files hold faults; `faults` is one line for each, with file and line number."""

    def __init__(self, summary: str, faults: Sequence[str] = ()) -> None:
        self.faults = tuple(faults)
        super().__init__(gathered(summary, self.faults))


class CorpusError(InputError):
    """A table to be scored or filtered has the wrong shape, or a file of it cannot be read."""


class UnreadableFile(CorpusError):
    """A file of a corpus cannot be read; `file` is its path, `reason` a word for why."""

    def __init__(self, file: str, reason: str, message: str) -> None:
        self.file = file
        self.reason = reason
        super().__init__(message)


class BaseModelError(InputError):
    """A base model cannot be found, or is not one we can judge with."""


class JudgeError(InputError):
    """A judge folder is damaged, incomplete, edited or foreign; nothing was scored with it."""


class MissingExtra(InputError):
    """A package that this part needs is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is needed here and is not installed; run: pip install 'quality-judge[{extra}]'")


class CheckFailed(QualityJudgeError):
    """Everything ran, and what had to hold does not."""

    exit_code = EXIT_CHECK_FAILED


class RunConflict(CheckFailed):
    """Another run is writing the same output; this one wrote nothing."""

    retry = True


class SparkFailed(CheckFailed):
    """A Spark job, a process of it or Spark itself ended before the work did; nothing was published."""

    retry = True


def unknown(what: str, got: object, allowed: Iterable[object]) -> str:
    """A sentence for a name that is not one of `allowed`, with the nearest one when there is one."""
    names = sorted(str(name) for name in allowed)
    near = get_close_matches(str(got), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {str(got)!r}; choose one of: {', '.join(names)}{hint}"


def listed(names: Iterable[object], *, most: int = 30) -> str:
    """The names that look like names, and how many others there are: in a table without a header they are row text."""
    every = [str(name) for name in names]
    shown = [name for name in every if NAME.fullmatch(name)][:most]
    left = len(every) - len(shown)
    return ", ".join([*shown, *([f"{left} more"] if left else [])]) or "none"


def gathered(summary: str, faults: Sequence[str], *, most: int = 20) -> str:
    """`summary` and the first `most` faults, one a line, with a count of those left out."""
    lines = [summary, *(f"  - {fault}" for fault in faults[:most])]
    if len(faults) > most:
        lines.append(f"  … and {len(faults) - most} more")
    return "\n".join(lines)
