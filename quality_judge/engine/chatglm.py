"""ChatGLM3 becomes the native GlmForCausalLM of transformers: the same numbers under other names, no foreign code.

ChatGLM3's own modelling code no longer runs, and running it is refused anyway. Its arithmetic is GLM's: the fused
query_key_value is split by rows, everything else is renamed, and no number is changed. A setting under which that
would not be so (quantised weights, another norm, biases) is refused. Only safetensors are read: the publisher offers
them, and of pickles this package reads none, however carefully they are opened. It knows nothing of judges.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quality_judge.bases import CONFIG_FILE, INDEX_FILE, MAX_CONFIG_BYTES
from quality_judge.engine.chatglm_tokenizer import SENTENCEPIECE_FILE, fast_tokenizer
from quality_judge.engine.quiet import quiet
from quality_judge.errors import BaseModelError, InputError
from quality_judge.untrusted import bounded_json

GENERATION_FILE = "generation_config.json"
NEEDED = {  # the settings under which ChatGLM3 computes what GLM computes; all but the first may go unsaid
    "multi_query_attention": True, "rmsnorm": True, "post_layer_norm": True, "original_rope": True,
    "add_bias_linear": False, "apply_residual_connection_post_layernorm": False, "fp32_residual_connection": False,
    "pre_seq_len": None, "quantization_bit": 0, "quantization_config": None, "tie_word_embeddings": False,
}  # fmt: skip
RENAMED = (
    (r"^embedding\.word_embeddings\.", "model.embed_tokens."),
    (r"^encoder\.final_layernorm\.", "model.norm."),
    (r"^encoder\.layers\.", "model.layers."),
    (r"^output_layer\.", "lm_head."),
    (r"\.self_attention\.dense\.", ".self_attn.o_proj."),
    (r"\.self_attention\.", ".self_attn."),
    (r"\.mlp\.dense_h_to_4h\.", ".mlp.gate_up_proj."),
    (r"\.mlp\.dense_4h_to_h\.", ".mlp.down_proj."),
)
FUSED = ".query_key_value."
COMPUTED = "inv_freq"


def convert_chatglm(source: Path, output: Path) -> dict[str, Any]:
    """Writes the ChatGLM3 in folder `source` as a native GLM into the new folder `output`; what was written.

    One weight file is in memory at a time. Written beside, then renamed. Raises BaseModelError when anything in it
    cannot be converted without changing a number.
    """
    if os.path.lexists(output):
        raise InputError(f"{output} exists; choose a new folder")
    theirs = _read_config(source)
    config = native_config(theirs)
    files = _weight_files(source)
    with quiet():
        tokenizer = fast_tokenizer(source / SENTENCEPIECE_FILE)
    if len(tokenizer) > config["vocab_size"]:
        raise BaseModelError(f"{source} has {len(tokenizer)} tokens and only {config['vocab_size']} embeddings")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        shapes = _write_weights(files, scratch, config)
        _refuse_misfit(shapes, config)
        tokenizer.save_pretrained(scratch)
        stops = [tokenizer.convert_tokens_to_ids(token) for token in ("<|user|>", "<|observation|>")]
        _write_json(scratch / CONFIG_FILE, config)
        _write_json(scratch / GENERATION_FILE, {"eos_token_id": [config["eos_token_id"], *stops], "pad_token_id": 0})
        for path in scratch.iterdir():
            path.chmod(0o644)
        scratch.chmod(0o755)
        os.rename(scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "output": str(output),
        "tensors": len(shapes),
        "tokens": len(tokenizer),
        "layers": config["num_hidden_layers"],
    }


def native_config(theirs: dict[str, Any]) -> dict[str, Any]:
    """GLM's config.json for ChatGLM3's. Raises BaseModelError for settings that GLM does not compute."""
    if theirs.get("model_type") != "chatglm":
        raise BaseModelError(f"model_type is {theirs.get('model_type')!r}; only 'chatglm' is converted")
    wrong = [
        f"{name} is {theirs.get(name)!r}, not {value!r}" for name, value in NEEDED.items()
        if (theirs.get(name, name != "multi_query_attention" and value) or None) != (value or None)
    ]  # fmt: skip
    if wrong:
        raise BaseModelError(f"not a plain ChatGLM3: {'; '.join(wrong)}; give the published float16 or bfloat16 model")
    try:
        return {
            "architectures": ["GlmForCausalLM"], "model_type": "glm", "dtype": theirs.get("torch_dtype", "float16"),
            "attention_bias": bool(theirs["add_qkv_bias"]), "attention_dropout": 0.0, "hidden_act": "silu",
            "hidden_size": theirs["hidden_size"], "intermediate_size": theirs["ffn_hidden_size"],
            "num_hidden_layers": theirs["num_layers"], "num_attention_heads": theirs["num_attention_heads"],
            "num_key_value_heads": theirs["multi_query_group_num"], "head_dim": theirs["kv_channels"],
            "rms_norm_eps": theirs["layernorm_epsilon"], "vocab_size": theirs["padded_vocab_size"],
            "max_position_embeddings": theirs["seq_length"], "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10_000.0 * theirs.get("rope_ratio", 1),
                "partial_rotary_factor": 0.5,
            },
            "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
        }  # fmt: skip
    except KeyError as error:
        raise BaseModelError(f"{CONFIG_FILE} does not say {error}; is it that of a ChatGLM3?") from error


def native_tensors(theirs: dict[str, Tensor], config: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """ChatGLM3's tensors under GLM's names, the fused query, key and value apart; no number is changed."""
    heads, groups, width = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    for name, tensor in theirs.items():
        if name.endswith(COMPUTED):
            continue
        if not tensor.is_floating_point():
            raise BaseModelError(
                f"{name} is {tensor.dtype}: a quantised checkpoint; give the float16 or bfloat16 model"
            )
        renamed = name.removeprefix("transformer.")
        for pattern, replacement in RENAMED:
            renamed = re.sub(pattern, replacement, renamed)
        if FUSED not in renamed:
            yield renamed, tensor
            continue
        if len(tensor) != (heads + 2 * groups) * width:
            raise BaseModelError(
                f"{name} has {len(tensor)} rows; {CONFIG_FILE} asks for {(heads + 2 * groups) * width}"
            )
        parts = tensor.split([heads * width, groups * width, groups * width])
        for part, into in zip(parts, ("q_proj", "k_proj", "v_proj"), strict=True):
            yield renamed.replace(FUSED, f".{into}."), part.clone()


def _read_config(source: Path) -> dict[str, Any]:
    path = source / CONFIG_FILE
    try:
        return bounded_json(path.resolve(), most_bytes=MAX_CONFIG_BYTES)
    except (InputError, OSError) as error:
        raise BaseModelError(f"{path}: {error}; give the folder of a ChatGLM3") from error


def _weight_files(source: Path) -> list[Path]:
    files = sorted(source.glob("*.safetensors"))
    if files:
        return files
    found = "only pickled weights (.bin), which are never read" if any(source.glob("*.bin")) else "no weights"
    raise BaseModelError(
        f"{source} holds {found}; fetch the safetensors that its publisher offers beside them, or write them where you "
        "trust the file: safetensors.torch.save_file(torch.load(file, weights_only=True), new_file)"
    )


def _write_weights(files: list[Path], folder: Path, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Writes one file for each given one, and the index; the shape of every tensor written."""
    shapes: dict[str, tuple[int, ...]] = {}
    where: dict[str, str] = {}
    size = 0
    for at, path in enumerate(files, start=1):
        target = f"model-{at:05d}-of-{len(files):05d}.safetensors" if len(files) > 1 else "model.safetensors"
        try:
            tensors = dict(native_tensors(load_file(path), config))
        except (OSError, SafetensorError) as error:
            raise BaseModelError(f"{path} cannot be read as safetensors: {type(error).__name__}") from error
        twice = set(tensors) & set(shapes)
        if twice:
            raise BaseModelError(f"{path} holds {sorted(twice)[0]} a second time")
        save_file(tensors, folder / target, {"format": "pt"})
        shapes |= {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        where |= dict.fromkeys(tensors, target)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if len(files) > 1:
        _write_json(folder / INDEX_FILE, {"metadata": {"total_size": size}, "weight_map": where})
    return shapes


def _refuse_misfit(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> None:
    """Raises BaseModelError unless the tensors are exactly those of the native model."""
    from transformers import GlmConfig, GlmForCausalLM

    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in GlmForCausalLM(GlmConfig(**config)).state_dict().items()}
    faults = [
        *(f"{name} is missing" for name in sorted(set(wanted) - set(shapes))),
        *(f"{name} is unknown" for name in sorted(set(shapes) - set(wanted))),
        *(
            f"{name} is {shapes[name]}, not {wanted[name]}"
            for name in sorted(set(wanted) & set(shapes))
            if wanted[name] != shapes[name]
        ),
    ]
    if faults:
        raise BaseModelError(f"the weights do not fit {CONFIG_FILE}: {'; '.join(faults[:5])}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
