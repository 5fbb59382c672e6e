"""The process of one contender, seen from outside, and what this machine is. It measures what contenders say."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
VERSIONS = (
    "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
)


def environment() -> dict[str, str]:
    """The variables of a process that uses this checkout."""
    return {**os.environ, "PYTHONPATH": str(HERE.parent), "TOKENIZERS_PARALLELISM": "true"}


class Contender:
    """The process of one contender. `failed` says why it cannot run; from then on it has no rounds and no scores."""

    def __init__(self, name: str, task: Path, python: str) -> None:
        self.name, self.task, self.seconds = name, task, []
        self.failed: str | None = None
        self._process: subprocess.Popen | None = None
        self._log = task / f"{name}.log"
        try:
            with self._log.open("w") as errors:
                self._process = subprocess.Popen(
                    [python, str(HERE / "contender.py"), name, str(task)], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(),
                )  # fmt: skip
        except OSError:
            self.failed = "its Python is not there; make .venv-bench/.installed"
            return
        if self._process.stdout.readline() != "ready\n":
            self.failed = self._why()

    def round(self) -> None:
        """Scores all rows once."""
        if self.failed is not None:
            return
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
            self.seconds.append(json.loads(self._process.stdout.readline())["seconds"])
        except (OSError, ValueError):
            self.failed = self._why()

    def end(self) -> np.ndarray | None:
        """Ends the process; the scores of its last round, None where it failed."""
        if self._process is None:
            return None
        try:
            self._process.communicate(timeout=120)  # closes its stdin
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        file = self.task / f"{self.name}.npy"
        return np.load(file) if self.failed is None and file.exists() else None

    def _why(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it ended without a word"


def installed(python: str, packages: list[str]) -> dict[str, str]:
    """The version of each package in the environment of that Python."""
    if not packages:
        return {}
    said = subprocess.run([python, "-c", VERSIONS, *packages], capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


def processor() -> str:
    """The processor's name as the system gives it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
