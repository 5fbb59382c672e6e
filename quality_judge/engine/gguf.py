"""A base that a package holds as a GGUF file becomes a transformers folder, once, in the user's cache.

The numbers are kept as the file's own arithmetic gives them, in float32: scale * quantum + offset needs more digits
than bfloat16 or float16 have, and a rounded base would be another model. config.json holds a fixed set of fields, so
that every machine and library version makes the same bytes, and a judge finds the base it was trained on.
It knows nothing of judges.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from quality_judge.archive import kept_from_others
from quality_judge.bases import (
    CACHE_VARIABLE,
    CONFIG_FILE,
    Base,
    converted_folder,
    find_base,
    packaged_gguf,
    user_cache,
)
from quality_judge.engine.quiet import quiet
from quality_judge.errors import BaseModelError, MissingExtra

WEIGHTS_FILE = "model.safetensors"
CONFIG_FIELDS = (
    "attention_bias", "bos_token_id", "eos_token_id", "head_dim", "hidden_act", "hidden_size", "intermediate_size",
    "max_position_embeddings", "mlp_bias", "model_type", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "pad_token_id", "rms_norm_eps", "rope_parameters", "tie_word_embeddings", "vocab_size",
)  # fmt: skip
SMOLLM = "smollm"  # GGUF's name for: every digit by itself, then GPT-2's byte-level words
ARCHITECTURES = ("llama",)


def ready_base(name: str, revision: str | None = None, *, fetch: bool = True) -> Base:
    """The base model `name`, as `find_base` finds it, converted first where it comes as GGUF and has not been yet."""
    gguf = packaged_gguf(name)
    if gguf is not None and not converted_folder(gguf).is_dir():
        convert_gguf(gguf, converted_folder(gguf))
    return find_base(name, revision, fetch=fetch)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes `folder` from a GGUF file: config.json, model.safetensors in float32, the tokenizer and its template.

    Written beside, then renamed; of several processes one converts and the others wait. Raises BaseModelError when
    the file cannot be read or the folder not be written, MissingExtra without the `gguf` package.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("gguf", "embedded")
    try:
        if user_cache() in folder.parents:
            kept_from_others(user_cache())  # unpacked judges lie in the same folder, and are refused in an open one
        with _alone(kept_from_others(folder.parent) / f".{folder.name}.lock"):
            if not folder.is_dir():
                _convert(gguf, folder)
    except OSError as error:
        raise BaseModelError(
            f"{gguf.name} cannot be converted into {folder} ({error}); set {CACHE_VARIABLE} to a folder that can be "
            "written, with 600 MB free"
        ) from error


def _convert(gguf: Path, folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        model, tokenizer = _loaded(gguf)
        config = {field: getattr(model.config, field) for field in CONFIG_FIELDS}
        config |= {"architectures": [type(model).__name__], "dtype": "float32"}
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if _kept(name, config)}
        tokenizer.save_pretrained(scratch)
        save_file(tensors, scratch / WEIGHTS_FILE, {"format": "pt"})
        (scratch / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        for path in scratch.iterdir():
            path.chmod(0o644)
        scratch.chmod(0o755)
        os.rename(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _kept(name: str, config: dict[str, Any]) -> bool:
    return not (config["tie_word_embeddings"] and name == "lm_head.weight")


def _loaded(gguf: Path) -> tuple[Any, Any]:
    """The model in float32 and the tokenizer, as transformers reads them from the file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(gguf.parent)
    where: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # its bar asks nobody whether it is wanted
            # both are files of this machine
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, **where)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **where)
    except Exception as error:
        raise BaseModelError(f"{gguf} cannot be read as GGUF: {error}") from error
    if model.config.model_type not in ARCHITECTURES:
        raise BaseModelError(f"{gguf} holds a {model.config.model_type}; only {', '.join(ARCHITECTURES)} is converted")
    if _pre_tokenizer(gguf) == SMOLLM:
        _split_digits(tokenizer)
    return model, tokenizer


def _pre_tokenizer(gguf: Path) -> str:
    from gguf import GGUFReader

    field = GGUFReader(gguf).fields.get("tokenizer.ggml.pre")
    return str(field.contents()) if field is not None else ""


def _split_digits(tokenizer: Any) -> None:
    """Puts back what transformers' reader leaves out: without it blanks before a digit become other ids."""
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks: renaming keeps a half-made folder unseen
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
