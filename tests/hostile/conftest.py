"""What the hostile tests share: a sound judge with an adapter, and a watch on what Python does."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors
from torch import nn

WATCHED = (
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "os.system", "os.exec",
    "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen", "webbrowser.open",
    "shutil.unpack_archive", "urllib.Request",
)  # fmt: skip
_SEEN: list | None = None


def _watch(event, arguments):
    if _SEEN is None:
        return
    if event in WATCHED:
        _SEEN.append((event, arguments))
    elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        writes = isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        flags = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(arguments[2], int) else 0
        if (writes or flags) and os.fsdecode(arguments[0]) != os.devnull:
            _SEEN.append(("write", os.fsdecode(arguments[0])))
    elif event == "import" and str(arguments[0]).startswith(("evil", "kernels")):
        _SEEN.append((event, arguments[0]))


@pytest.fixture(scope="session")
def watched():
    """A function that calls another and gives (its result or exception, what it ran, opened, imported and wrote)."""
    sys.addaudithook(_watch)

    def call(function):
        global _SEEN
        _SEEN = []
        try:
            return function(), _SEEN
        except BaseException as error:
            return error, _SEEN
        finally:
            _SEEN = None

    return call


def random_adapter(body, *, rank=2, seed=5):
    """A LoRA pair for every linear layer of `body`."""
    dice, tensors = torch.Generator().manual_seed(seed), {}
    for name, module in body.named_modules():
        if isinstance(module, nn.Linear) and "pooler" not in name:
            tensors[f"lora_a.{name}"] = torch.randn(rank, module.in_features, generator=dice) * 0.3
            tensors[f"lora_b.{name}"] = torch.randn(module.out_features, rank, generator=dice) * 0.3
    return tensors


@pytest.fixture(scope="session")
def sound_judge(tiny_base, tmp_path_factory):
    """A function from a model type to (folder of a judge with a random adapter, folder of its base); once each."""
    made = {}

    def make(model_type="bert"):
        if model_type not in made:
            place = tmp_path_factory.mktemp(f"sound-{model_type}")
            base = shutil.copytree(tiny_base(model_type), place / "base")
            made[model_type] = (save_sound(place, base), base)
        return made[model_type]

    return make


def save_sound(place, base_folder):
    from quality_judge.bases import find_base
    from quality_judge.engine.encode import build_encoding
    from quality_judge.engine.golden import GOLDEN_TEXTS, golden_content
    from quality_judge.engine.kinds import ScalarModel
    from quality_judge.engine.scorer import load_scorer
    from quality_judge.engine.weights import load_body, load_tokenizer
    from quality_judge.judge import save_judge
    from quality_judge.judge_spec import BaseReference, JudgeSpec, Lora, Stack
    from quality_judge.rubric import NO_RUBRIC
    from quality_judge.stats.calibration import fit_platt

    base = find_base(str(base_folder))
    encoding, tokenizer_json = build_encoding(
        load_tokenizer(base), base.architecture, max_tokens=64, cut_at="head", limit=None
    )
    calibration = fit_platt(np.linspace(-1, 1, 40), np.arange(40) > 20).to_dict()
    spec = JudgeSpec(
        name="sound", kind="scalar", rubric=NO_RUBRIC, encoding=encoding, method="lora",
        pooling="layers" if base.architecture == "encoder" else "layers_last", lora=Lora(rank=2, alpha=4),
        base=BaseReference(id=base.id, revision=None, architecture=base.architecture, sha256=base.sha256()),
        stack=Stack(bias=0.1, model=1.0, surface=0.0), calibration=calibration, categories=("advert",),
        category_calibrations={"advert": calibration}, thresholds={"best": 0.5}, labels={"n": 40},
        created_with={"quality-judge": "0.1.0"}, files={},
    )  # fmt: skip
    dice = torch.Generator().manual_seed(3)
    width = ScalarModel(nn.Identity(), 32, 2, spec.pooling).head.in_features
    files = {
        "head.safetensors": to_safetensors(
            {"head.weight": torch.randn(2, width, generator=dice) * 0.3, "head.bias": torch.zeros(2)}
        ),
        "adapter.safetensors": to_safetensors(random_adapter(load_body(base))),
        "tokenizer.json": tokenizer_json.encode(), "golden.json": b"{}\n", "card.md": b"# sound\n",
        "metrics.json": b'{"test": {"n": 40, "roc_auc": 0.9}}\n',
    }  # fmt: skip
    draft = save_judge(place / "draft", spec, files)
    scorers = [load_scorer(draft, device="cpu", threads=1, precision=p, prove=False) for p in (torch.float32, None)]
    golden = golden_content({scorer.precision: scorer.score(GOLDEN_TEXTS).raw for scorer in scorers})
    files["golden.json"] = json.dumps(golden, ensure_ascii=False).encode()
    return Path(save_judge(place / "judge", spec, files).folder)
