"""What a programme's end means for its task: the last JSON line it printed, and its exit code.

It knows neither Airflow nor any one programme; it relies only on the manners in `quality_judge.programme`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quality_judge.errors import EXIT_BAD_INPUT, EXIT_CHECK_FAILED, EXIT_DONE


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a programme ended. `summary` is its last JSON line, or None when it died before it could print one."""

    programme: str
    exit_code: int
    summary: Mapping[str, Any] | None

    @property
    def done(self) -> bool:
        """True when it exited 0 and said so."""
        return self.exit_code == EXIT_DONE and self.summary is not None and self.summary["ok"] is True

    @property
    def final(self) -> bool:
        """True when a second try would end the same way: the programme itself said no, or refused what it was given.

        Exit 1 without a summary is a crash (Python and spark-submit exit 1 for those as well): a retry may help, as it
        may after a signal, and wherever the summary says so.
        """
        said = self.summary or {}
        if self.exit_code not in (EXIT_CHECK_FAILED, EXIT_BAD_INPUT) or said.get("retry") is True:
            return False
        return said.get("ok") is False or self.exit_code == EXIT_BAD_INPUT

    def __str__(self) -> str:
        said = str((self.summary or {}).get("message") or "")
        if self.exit_code == EXIT_CHECK_FAILED and self.final:
            return f"{self.programme}: the check did not hold (exit 1): {said or 'see its report'}"
        if self.final:
            return f"{self.programme}: bad input or arguments (exit {self.exit_code}): {said or 'see the task log'}"
        return f"{self.programme} ended before its work did (exit {self.exit_code}): {said or 'see the task log'}"


def last_summary(lines: Iterable[str]) -> dict[str, Any] | None:
    """The last of `lines` that is a JSON object with a boolean `ok`, or None; log lines may stand around it."""
    found = None
    for line in lines:
        found = summary_in(line) or found
    return found


def summary_in(line: str) -> dict[str, Any] | None:
    """The summary in one line of output, or None when the line is something else."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("ok"), bool) else None


def numbers_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """`summary` with its numbers, booleans, lists of them and objects of them: what may lie in Airflow's database."""
    kept: dict[str, Any] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            kept[name] = numbers_of(value)
        elif is_number(value) or (isinstance(value, list) and value and all(is_number(item) for item in value)):
            kept[name] = value
    return kept


def is_number(value: object) -> bool:
    """True for a number or a boolean."""
    return isinstance(value, (bool, int, float))
