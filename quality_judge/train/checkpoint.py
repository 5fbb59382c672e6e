"""What a killed training run leaves behind, so that the same command goes on from there and ends with the same judge.

A run has parts (a fold, the last fit on all labels); each is one safetensors file, replaced whole. Beside the tensors
it holds JSON: the epoch, the schedule, the state of the random numbers, the best so far. The folder's name carries a
hash of all that decides the outcome, so that nothing is ever taken from another run. It knows nothing of models.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import quality_judge
from quality_judge.config import JudgeConfig
from quality_judge.judge import canonical_json
from quality_judge.rubric import Rubric
from quality_judge.train.examples import Examples
from quality_judge.train.parallel import peers

STATE = "state"
MARK = ".training-"
SECONDS_BETWEEN = 30.0
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy", "scikit-learn")


@dataclass(frozen=True)
class State:
    """tensors: by name, on the CPU. values: what JSON can hold."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Checkpoint:
    """One part of a run: its state is saved at most every `seconds_between`, and always when it is finished."""

    def __init__(self, path: Path, seconds_between: float) -> None:
        self.path = path
        self.seconds_between = seconds_between
        self._saved = time.monotonic()

    def load(self) -> State | None:
        """The last state saved; None when there is none. A file that cannot be read counts as none."""
        try:
            with safe_open(str(self.path), framework="pt") as file:
                values = json.loads(file.metadata()[STATE])
                return State({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved >= self.seconds_between

    def save(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replaces the state; whoever reads sees the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(f".{os.getpid()}.part")
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(kept, beside, {STATE: json.dumps(values)})
        os.replace(beside, self.path)
        self._saved = time.monotonic()


class Checkpoints:
    """The parts of one run, in a hidden folder beside its output."""

    def __init__(self, output: str | Path, key: str, *, seconds_between: float = SECONDS_BETWEEN) -> None:
        output = Path(output)
        self.folder = output.parent / f".{output.name}{MARK}{key[:16]}"
        self._seconds_between = seconds_between

    def part(self, name: str) -> Checkpoint:
        """The part of that name, a file name."""
        return Checkpoint(self.folder / f"{name}.safetensors", self._seconds_between)


def remove_checkpoints(output: str | Path) -> None:
    """Removes what this run and earlier ones for the same output left: the judge is saved."""
    output = Path(output)
    for folder in output.parent.glob(f".{glob.escape(output.name)}{MARK}*"):
        shutil.rmtree(folder, ignore_errors=True)


def run_key(
    config: JudgeConfig, rubric: Rubric, examples: Examples, folds: np.ndarray, base_sha256: str, *,
    unlabelled: Sequence[str] = (),
) -> str:  # fmt: skip
    """A hash of all that decides how training ends: settings, texts, labels, base, code, libraries, threads, device."""
    said = [examples.texts, examples.groups, examples.category_names, list(unlabelled)]
    labels = hashlib.sha256(repr(said).encode())
    arrays = [value for value in vars(examples).values() if isinstance(value, np.ndarray)]
    for array in (examples.tokens.ids, examples.tokens.lengths, *arrays, folds):
        labels.update(repr((array.dtype.str, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    code = hashlib.sha256()
    root = Path(quality_judge.__file__).parent
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    content = {
        "config": config.model_dump(mode="json"), "rubric": rubric.sha256,
        "labels": labels.hexdigest(), "base": base_sha256,
        "code": code.hexdigest(), "versions": {name: version(name) for name in LIBRARIES},
        "threads": torch.get_num_threads(), "cuda": torch.cuda.device_count(), "processes": peers().count,
    }  # fmt: skip
    return hashlib.sha256(canonical_json(content)).hexdigest()
