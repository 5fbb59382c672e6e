"""A judge: one folder that says everything about itself in `judge.json`, verified before anything uses it.

The folder (format 1): judge.json, head.safetensors, adapter.safetensors when the base was changed, tokenizer.json,
golden.json, card.md, metrics.json, and signature.json when somebody signed it. `judge.json` lists the sha256 of every
other file and the name and shape of every tensor; an extra, missing or changed file, tensor or byte, a symlink or a
sub-folder is refused. Saved beside, then renamed. `Judge` is small, frozen and picklable: it travels to executors,
the weights do not. It knows neither torch nor what the numbers mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from quality_judge.config import Strict, parse
from quality_judge.errors import InputError, JudgeError, unknown
from quality_judge.judge_spec import JudgeSpec, Sha256
from quality_judge.untrusted import bounded_json, bounded_text, json_object, plain_files, tensor_shapes

JUDGE_FILE = "judge.json"
ADAPTER_FILE = "adapter.safetensors"
HEAD_FILE = "head.safetensors"
TOKENIZER_FILE = "tokenizer.json"
GOLDEN_FILE = "golden.json"
CARD_FILE = "card.md"
METRICS_FILE = "metrics.json"
SIGNATURE_FILE = "signature.json"
REQUIRED_FILES = (HEAD_FILE, TOKENIZER_FILE, GOLDEN_FILE, CARD_FILE, METRICS_FILE)
ALLOWED_FILES = (*REQUIRED_FILES, ADAPTER_FILE)
TENSOR_FILES = (ADAPTER_FILE, HEAD_FILE)
MAX_JSON_BYTES = 16_000_000
MAX_TOKENIZER_BYTES = 256_000_000
MAX_TENSOR_BYTES = 64 << 30
MAX_BYTES = {TOKENIZER_FILE: MAX_TOKENIZER_BYTES, ADAPTER_FILE: MAX_TENSOR_BYTES, HEAD_FILE: 1 << 30}

SCORE_CHANGING = (
    "format_version", "kind", "base", "rubric", "encoding", "method", "pooling", "lora", "stack", "verdict", "implicit",
    "categories", "calibration", "category_calibrations",
)  # fmt: skip
SCORE_CHANGING_FILES = (ADAPTER_FILE, HEAD_FILE, TOKENIZER_FILE)


@dataclass(frozen=True)
class Judge:
    """A verified judge folder. `fingerprint`, a hash of all that can change a score, stands on every scored row."""

    folder: str
    spec: JudgeSpec

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal characters."""
        return fingerprint(self.spec)

    def path(self, file: str) -> Path:
        """Where the file of that name lies."""
        return Path(self.folder) / file


def fingerprint(spec: JudgeSpec) -> str:
    """The first 16 hexadecimal characters of the sha256 over what can change a score."""
    content = spec.model_dump(mode="json", include=set(SCORE_CHANGING))
    content["files"] = {name: spec.files.get(name) for name in SCORE_CHANGING_FILES}
    return hashlib.sha256(canonical_json(content)).hexdigest()[:16]


def canonical_json(content: Any) -> bytes:
    """The one spelling of `content` as JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def checksum_of(content: Mapping[str, Any]) -> str:
    """The sha256, hexadecimal, over what judge.json holds beside its own checksum."""
    return hashlib.sha256(canonical_json({key: content[key] for key in content if key != "checksum"})).hexdigest()


def save_judge(folder: str | Path, spec: JudgeSpec, files: Mapping[str, bytes | Path]) -> Judge:
    """The judge saved at `folder` (which must not exist yet), its hashes filled in; `files` are bytes or paths to copy.

    Written to a sibling folder and renamed, so that a reader sees a whole judge or none.
    """
    folder = Path(folder)
    refuse_existing(folder)
    foreign = sorted(set(files) - set(ALLOWED_FILES))
    if foreign:
        raise InputError(unknown("file of a judge", foreign[0], ALLOWED_FILES))
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, scratch / name)
            else:
                (scratch / name).write_bytes(content)
        described = described_by_files(spec, scratch, sorted(files)).model_dump(mode="json")
        (scratch / JUDGE_FILE).write_text(
            spelled(described | {"checksum": checksum_of(described)}), encoding="utf-8", newline="\n"
        )
        for path in scratch.iterdir():
            path.chmod(0o644)
        scratch.chmod(0o755)
        load_judge(scratch)
        os.rename(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return load_judge(folder)


def described_by_files(spec: JudgeSpec, folder: Path, names: Sequence[str]) -> JudgeSpec:
    """`spec` with the sha256 of each of the files `names` in `folder` and the shape of every tensor in them."""
    try:
        tensors = {name: tensor_shapes(folder / name) for name in TENSOR_FILES if name in names}
    except InputError as error:
        raise JudgeError(f"{error}; the judge was not saved") from error
    return spec.model_copy(update={"files": {name: sha256_of(folder / name) for name in names}, "tensors": tensors})


def refuse_existing(folder: str | Path) -> None:
    """Raises InputError when something stands at `folder`: a judge is never overwritten."""
    if os.path.lexists(folder):
        raise InputError(
            f"{folder} exists; a judge is never overwritten: choose a new name, such as one with a version"
        )


def load_judge(folder: str | Path) -> Judge:
    """The judge in `folder`, every file of it checked against judge.json. Raises JudgeError; loads no weights."""
    folder = Path(folder)
    if not folder.is_dir():
        raise JudgeError(f"{folder} is not a folder; give the folder that holds {JUDGE_FILE}")
    try:
        spec = _read_spec(folder)
        found = plain_files(folder, most_bytes=MAX_BYTES, otherwise=MAX_JSON_BYTES)
        faults = _wrong_names(spec, found) or _wrong_content(spec, folder)
        if SIGNATURE_FILE in found:
            read_signature(folder)
    except (InputError, OSError) as error:
        raise JudgeError(f"judge folder {folder} is refused: {error}") from error
    if faults:
        raise JudgeError(f"judge folder {folder} is refused: " + "; ".join(faults))
    return Judge(str(folder.resolve()), spec)


def _wrong_names(spec: JudgeSpec, found: set[str]) -> list[str]:
    """What is wrong with the names of the files that are there."""
    declared, found = set(spec.files), found - {JUDGE_FILE, SIGNATURE_FILE}
    adapted = spec.method != "frozen"
    return [
        *(f"{name} is missing" for name in sorted(declared - found)),
        *(f"{name!r} is not listed in {JUDGE_FILE}" for name in sorted(found - declared)),
        *(f"{name!r} has no place in a judge" for name in sorted(declared - set(ALLOWED_FILES))),
        *(f"{JUDGE_FILE} does not list {name}" for name in sorted(set(REQUIRED_FILES) - declared)),
        *([f"method {spec.method} and the presence of {ADAPTER_FILE} contradict one another"]
          if adapted != (ADAPTER_FILE in declared) else []),
    ]  # fmt: skip


def _wrong_content(spec: JudgeSpec, folder: Path) -> list[str]:
    """What is wrong with the files themselves: their bytes first, then what they hold."""
    damaged = [
        f"{name} does not match its sha256 in {JUDGE_FILE}; the copy is damaged or was edited"
        for name, expected in sorted(spec.files.items())
        if sha256_of(folder / name) != expected
    ]
    if damaged:
        return damaged
    for name in (GOLDEN_FILE, METRICS_FILE):
        bounded_json(folder / name, most_bytes=MAX_JSON_BYTES)
    held = {name: tensor_shapes(folder / name) for name in TENSOR_FILES if name in spec.files}
    return [
        f"{name} does not hold the tensors that {JUDGE_FILE} names; it misses, adds or reshapes {_first(differing)}"
        for name in sorted(held.keys() | spec.tensors.keys())
        if (differing := held.get(name, {}).items() ^ spec.tensors.get(name, {}).items())
    ]


def _first(differing: set[tuple[str, tuple[int, ...]]]) -> str:
    return repr(min(differing)[0][:100])


class Signature(Strict):
    """signature.json: who vouches for a judge.json. All hexadecimal; `checksum` is over the rest."""

    judge_sha256: str = Sha256
    public_key: str = Sha256
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")
    checksum: str = Sha256


def read_signature(folder: Path) -> Signature:
    """The signature in `folder`, whole and of this judge.json; whether it is genuine, `signing` says.

    Raises InputError.
    """
    text = bounded_text(folder / SIGNATURE_FILE, most_bytes=MAX_JSON_BYTES)
    data = json_object(text, what=SIGNATURE_FILE)
    found = parse(Signature, data, where=SIGNATURE_FILE)
    if spelled(data) != text or found.checksum != checksum_of(data):
        raise InputError(f"{SIGNATURE_FILE} is damaged; sign the judge again")
    if found.judge_sha256 != sha256_of(folder / JUDGE_FILE):
        raise InputError(f"{SIGNATURE_FILE} was made for another {JUDGE_FILE}; sign the judge again")
    return found


def spelled(content: Mapping[str, Any]) -> str:
    """The one spelling of a JSON file of a judge, so that no byte of it can change unseen."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _read_spec(folder: Path) -> JudgeSpec:
    text = bounded_text(folder / JUDGE_FILE, most_bytes=MAX_JSON_BYTES)
    data = json_object(text, what=JUDGE_FILE)
    try:
        whole = data.get("checksum") == checksum_of(data) and spelled(data) == text
    except ValueError:  # a number such as 1e999
        whole = False
    if not whole:
        raise InputError(f"{JUDGE_FILE} does not match its own checksum; the copy is damaged or was edited")
    return parse(JudgeSpec, data, where=JUDGE_FILE)
