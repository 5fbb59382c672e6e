"""From a judge folder to a model on a device: the base's weights, the adapter merged into them, the head on top.

Only safetensors are read, every expected tensor must be there, and every number must be finite. Nothing is ever
initialised at random and left so. It knows nothing of scoring or training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from quality_judge.bases import PACKAGED, Base
from quality_judge.engine.attention import set_scoring_attention
from quality_judge.engine.controls import refuse_forgotten
from quality_judge.engine.gguf import ready_base
from quality_judge.engine.implicit import load_implicit
from quality_judge.engine.kinds import ScalarModel, VerdictModel
from quality_judge.engine.precision import stored_precision
from quality_judge.engine.quiet import quiet, said
from quality_judge.engine.verdict import row_ids
from quality_judge.errors import BaseModelError, JudgeError
from quality_judge.judge import ADAPTER_FILE, HEAD_FILE, Judge
from quality_judge.judge_spec import BaseReference, JudgeSpec, Lora

LORA_A = "lora_a."
LORA_B = "lora_b."
FULL = "full."
HEAD_WEIGHT = "head.weight"
HEAD_BIAS = "head.bias"
VERDICT_ROWS = "verdict.rows"
VERDICT_BIAS = "verdict.bias"
UNUSED_TENSORS = ("pooler.",)
NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64)  # what sums and products know
POSITION_TABLE = re.compile(r"(^|\.)(wpe|\w*position\w*)$")  # wpe: GPT-2 and those that came of it
TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")  # without one transformers makes a tokenizer of no words


def load_tokenizer(base: Base) -> Any:
    """The base's fast tokenizer. Raises BaseModelError when there is none."""
    from transformers import AutoTokenizer

    if not any(path for pattern in TOKENIZER_FILES for path in base.folder.glob(pattern)):
        raise BaseModelError(f"{base.folder} holds no tokenizer; give a folder with a tokenizer.json")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(  # a folder of this machine  # nosec B615
                str(base.folder), trust_remote_code=False, local_files_only=True
            )
    except Exception as error:
        raise BaseModelError(
            f"the tokenizer of {base.id} cannot be loaded from {base.folder}: {said(error)}"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise BaseModelError(f"{base.id} has no fast tokenizer (tokenizer.json); convert it with transformers first")
    return tokenizer


def load_body(
    base: Base, *, attention: str = "sdpa", quantization: Any = None, precision: torch.dtype = torch.float32
) -> nn.Module:
    """The base without any head, on the CPU. Raises BaseModelError when a tensor is missing or misshapen.

    attention: transformers' name of the kernel; `eager` where the model has no other. quantization: transformers'
    settings for weights in fewer bits, which are on the GPU at once where there is one. precision: what the weights are
    held in; as they are stored, they stay mapped to their file.
    """
    from transformers import AutoModel

    try:
        with quiet():
            body, info = AutoModel.from_pretrained(  # a folder of this machine  # nosec B615
                str(base.folder), dtype=precision, attn_implementation=attention, trust_remote_code=False,
                use_safetensors=True, local_files_only=True, output_loading_info=True, quantization_config=quantization,
                device_map={"": "cuda" if torch.cuda.is_available() else "cpu"} if quantization else None,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if attention != "eager" and "attention implementation" in str(error):  # MPNet and DeBERTa have no other
            return load_body(base, attention="eager", quantization=quantization, precision=precision)
        raise BaseModelError(f"the weights of {base.id} cannot be loaded from {base.folder}: {said(error)}") from error
    faults = {
        key: sorted(name for name in info[key] if not str(name).startswith(UNUSED_TENSORS))
        for key in ("missing_keys", "mismatched_keys")
    }
    if any(faults.values()):
        raise BaseModelError(f"the weights of {base.id} do not fit its configuration: {faults}")
    if hasattr(body, "pooler"):
        body.pooler = None
    return body


def hidden_size(base: Base) -> int:
    """The width of the base's hidden states."""
    config = base.config.get("text_config", base.config)
    sizes = [config[key] for key in ("hidden_size", "d_model", "dim", "n_embd") if config.get(key)]
    if not sizes:
        raise BaseModelError(f"{base.folder / 'config.json'} names no hidden_size; is it a text model?")
    return int(sizes[0])


def position_limit(base: Base) -> int | None:
    """The most tokens the base can see, None when its positions have no limit. Raises BaseModelError.

    A table with a row for padding (RoBERTa, MPNet) counts from behind that row: those up to it are no positions.
    """
    from transformers import AutoConfig, AutoModel

    try:
        with quiet(), torch.device("meta"):  # the modules without their numbers
            config = AutoConfig.from_pretrained(  # a folder of this machine  # nosec B615
                str(base.folder), trust_remote_code=False, local_files_only=True
            )
            text = AutoModel.from_config(config, trust_remote_code=False).get_decoder()
    except Exception as error:
        raise BaseModelError(f"{base.id} in {base.folder} is no model of transformers: {said(error)}") from error
    limits = [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for name, table in text.named_modules()
        if isinstance(table, nn.Embedding) and POSITION_TABLE.search(name)
    ]
    limits.append(getattr(config.get_text_config(), "max_position_embeddings", None) or 0)
    return min((limit for limit in limits if limit > 0), default=None)


def load_model(judge: Judge, precision: torch.dtype = torch.float32) -> ScalarModel:
    """The judge's model, adapter merged, on the CPU, in eval mode. Raises JudgeError on any misfit.

    precision: what it will be cast to; what the adapter changes is in it already, the rest in what the base is stored
    in. Sums with the adapter are float32.
    """
    spec = judge.spec
    base = ready_base(spec.base.id, spec.base.revision, fetch=may_fetch(spec.base))
    if base.sha256() != spec.base.sha256:
        raise JudgeError(
            f"{spec.base.id} found in {base.folder} is not the base this judge was trained on (its sha256 differs); "
            "install the same revision"
        )
    refuse_forgotten(base, spec.encoding)
    head = read_tensors(judge.path(HEAD_FILE))
    held = torch.float32 if precision == torch.float32 else stored_precision(base)
    model: ScalarModel
    if spec.kind == "verdict":
        model = _verdict_model(spec, base, head, held)
    elif spec.kind == "implicit":
        model = load_implicit(spec, base)
    else:
        body = load_body(base, precision=held)
        model = ScalarModel(body, hidden_size(base), 1 + len(spec.categories), spec.pooling)
    if spec.method != "frozen":
        apply_adapter(model.body, read_tensors(judge.path(ADAPTER_FILE)), spec.lora, precision)
    if not {HEAD_WEIGHT, HEAD_BIAS} <= set(head):
        raise JudgeError(f"{HEAD_FILE} does not hold {HEAD_WEIGHT} and {HEAD_BIAS}")
    fill(model.head, {"weight": head[HEAD_WEIGHT], "bias": head[HEAD_BIAS]})
    for body in model.bodies:
        set_scoring_attention(body)
    return model.eval()


def may_fetch(reference: BaseReference) -> bool:
    """Whether a judge may send this machine to the hub for its base: only for one commit, or for a base we know."""
    return reference.id in PACKAGED or re.fullmatch(r"[0-9a-f]{40}", reference.revision or "") is not None


def _verdict_model(spec: JudgeSpec, base: Base, head: Mapping[str, Tensor], held: torch.dtype) -> VerdictModel:
    if spec.verdict is None:
        raise JudgeError("judge.json names no verdict to read; the judge is incomplete")
    expected = len(row_ids(spec.verdict))
    shapes = {VERDICT_ROWS: (expected, hidden_size(base)), VERDICT_BIAS: (expected,)}
    for name, shape in shapes.items():
        if name not in head or tuple(head[name].shape) != shape:
            raise JudgeError(f"{HEAD_FILE} does not hold {name!r} of shape {shape}")
    body = load_body(base, precision=held)
    reference = load_body(base, precision=held) if spec.verdict.reference else None
    rows, bias = head[VERDICT_ROWS], head[VERDICT_BIAS]
    return VerdictModel(body, spec.verdict, rows, bias, len(spec.categories), reference)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises JudgeError when it is damaged or holds what is no finite number."""
    try:
        tensors = load_file(str(path))
    except Exception as error:
        raise JudgeError(f"{path.name} cannot be read as safetensors: {type(error).__name__}") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in NUMBERS:
            raise JudgeError(
                f"{path.name} holds {name!r} as {str(tensor.dtype).removeprefix('torch.')}; a judge's numbers are "
                f"{', '.join(str(kind).removeprefix('torch.') for kind in NUMBERS)}: save it again"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise JudgeError(f"{path.name} holds numbers that are not finite, in {name!r}")
    return tensors


@torch.no_grad()
def apply_adapter(
    body: nn.Module, tensors: Mapping[str, Tensor], lora: Lora | None, precision: torch.dtype = torch.float32
) -> None:
    """Merges the adapter into `body`: W + (alpha / rank) · B A for each LoRA pair, or the full tensor itself.

    Sums are float32; what they give is held in `precision`.
    """
    from transformers.pytorch_utils import Conv1D

    parameters = dict(body.named_parameters())
    used = set()
    for name in tensors:
        if name.startswith(FULL):
            fill_parameter(parameters, name.removeprefix(FULL), tensors[name], precision)
            used.add(name)
        elif name.startswith(LORA_A):
            module = name.removeprefix(LORA_A)
            if lora is None or LORA_B + module not in tensors:
                raise JudgeError(f"the adapter is incomplete: {LORA_B + module!r} or its rank is missing")
            a, b = tensors[name], tensors[LORA_B + module]
            if f"{module}.weight" not in parameters:
                raise JudgeError(f"the adapter does not fit the base at {module!r}")
            parameter = parameters[f"{module}.weight"]
            flipped = isinstance(body.get_submodule(module), Conv1D)  # GPT-2 keeps its weights as (in, out)
            weight = parameter.T if flipped else parameter
            if a.shape != (lora.rank, weight.shape[1]) or b.shape != (weight.shape[0], lora.rank):
                raise JudgeError(f"the adapter does not fit the base at {module!r}")
            merged = weight.float() + (lora.alpha / lora.rank) * (b.float() @ a.float())
            parameter.data = (merged.T if flipped else merged).to(precision).contiguous()
            used |= {name, LORA_B + module}
    if used != set(tensors) or not used:
        raise JudgeError(
            f"the adapter holds tensors that fit nothing: {sorted(set(tensors) - used)[:5] or 'it is empty'}"
        )


def fill_parameter(
    parameters: Mapping[str, Tensor], name: str, value: Tensor, precision: torch.dtype = torch.float32
) -> None:
    """Puts `value` in the place of the parameter of that name. Raises JudgeError when there is none of that shape."""
    if name not in parameters or parameters[name].shape != value.shape:
        raise JudgeError(f"the adapter does not fit the base at {name!r}")
    parameters[name].data = value.to(precision)


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies `tensors` into all parameters of `module`."""
    parameters = dict(module.named_parameters())
    for name in parameters:
        fill_parameter(parameters, name, tensors[name])
