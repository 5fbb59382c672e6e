"""What a training task leaves beside its judge, so that another try of the same task run knows that judge as its own.

A judge that stands already is taken for done only when this task run asked for the same one, with the same arguments,
the same contents of the files it names and of the rubric, and the same corpus, when its programme said that all was
well, and when the folder passes `load_judge` with the fingerprint that was said. Anything else is left to the
programme, which overwrites no judge.
It knows neither Airflow nor what a judge holds.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_judge.airflow.outcome import numbers_of

VERIFY = "import sys; from quality_judge.judge import load_judge; print(load_judge(sys.argv[1]).fingerprint)"

# Airflow's Python need not have a reader of YAML; the one line wanted is plain, or quoted.
RUBRIC = re.compile(
    r"""^["']?rubric["']?[ ]*:[ ]+(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"'#].*?))[ ]*(?:[ ]\#.*)?$""", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt of the judge at `judge`. request: what `request_of` makes of the task run that asks for it."""

    judge: str
    request: str

    @property
    def file(self) -> Path:
        """Where it lies: a hidden file beside the judge, for a judge folder holds nothing else."""
        path = Path(self.judge)
        return path.with_name(f".{path.name}.receipt.json")

    def leave(self, summary: Mapping[str, Any] | None) -> None:
        """Writes down the fingerprint and the numbers of a programme that said that all was well; nothing otherwise."""
        if not summary or summary["ok"] is not True or "fingerprint" not in summary:
            return
        said = {"request": self.request, "fingerprint": summary["fingerprint"], "numbers": numbers_of(summary)}
        beside = self.file.with_name(f"{self.file.name}.partial")
        with suppress(OSError):  # the judge stands without it; only a later try would ask for it
            beside.write_text(json.dumps(said) + "\n", encoding="utf-8")
            beside.replace(self.file)

    def numbers(self, python: str, environment: Mapping[str, str]) -> dict[str, Any] | None:
        """The numbers an earlier try left, when its judge stands there whole; else None. python: has quality_judge."""
        try:
            said = json.loads(self.file.read_text(encoding="utf-8"))
            request, fingerprint, numbers = said["request"], said["fingerprint"], dict(said["numbers"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if request != self.request:
            return None
        verified = subprocess.run(
            [python, "-c", VERIFY, self.judge], capture_output=True, encoding="utf-8", errors="replace", env=environment
        )
        return numbers if verified.returncode == 0 and verified.stdout.strip() == fingerprint else None


def request_of(run: Sequence[object], arguments: Sequence[str], files: Iterable[str], *, corpus: str = "") -> str:
    """One hash over the task run, the programme's command line, the contents of the files it names, and its corpus."""
    read = [file for path in map(Path, files) for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in read if file.is_file()]
    asked = [list(run), list(arguments), contents, *_listed(corpus)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def rubric_of(config: str) -> list[str]:
    """The rubric file that a configuration names, from the configuration's folder; nothing where it names none."""
    try:
        found = RUBRIC.search(Path(config).read_text(encoding="utf-8")) if config else None
    except (OSError, ValueError):
        return []
    return [str(Path(config).parent / next(filter(None, found.groups())))] if found else []


def _listed(corpus: str) -> list[tuple[str, int, int]]:
    """Name, size and time of each file of a corpus, which is too large to be read for this; nothing without one."""
    root = Path(corpus)
    found = [] if not corpus else sorted(root.rglob("*")) if root.is_dir() else [root]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found if file.is_file()]
