"""Weights: a judge computes with exactly the base, adapter and head it was saved with, or not at all."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from quality_judge.bases import find_base
from quality_judge.engine.kinds import POOLED_STATES, ScalarModel
from quality_judge.engine.weights import (
    FULL,
    HEAD_BIAS,
    HEAD_WEIGHT,
    LORA_A,
    LORA_B,
    apply_adapter,
    fill,
    hidden_size,
    load_body,
    load_model,
    load_tokenizer,
    read_tensors,
)  # fmt: skip
from quality_judge.errors import BaseModelError, JudgeError
from quality_judge.judge import ADAPTER_FILE, HEAD_FILE, save_judge
from quality_judge.judge_spec import BaseReference, Lora

MODELS = ["bert", "llama"]
LORA = Lora(rank=4, alpha=12)
IDS = torch.arange(5, 25).reshape(2, 10)
LENGTHS = torch.tensor([10, 6])


@pytest.fixture
def copied(tiny_base, tmp_path):
    """A function from a model type to a folder of it that the test may damage."""

    def copy(model_type):
        return shutil.copytree(tiny_base(model_type), tmp_path / model_type)

    return copy


def states(body):
    with torch.inference_mode():
        return body.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).last_hidden_state


def layer_means(body, *, first=0):
    with torch.inference_mode():
        every = body.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS), output_hidden_states=True).hidden_states
    depth = len(every) - 1
    return torch.cat([every[depth * third // 3][:, first:].mean(1) for third in (1, 2, 3)], dim=1)


def expected_states(body, hidden, pooling):
    """What `pooling` makes of whole rows, given the body's last states of them."""
    last = hidden[:, -1]
    if pooling == "last":
        return last
    return layer_means(body) if pooling == "layers" else torch.cat([layer_means(body, first=1), last], dim=1)


def lora_tensors(body, *, seed=0):
    """An adapter over every linear layer of `body` as peft trains one: its tensors in our names; peft's merged body."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(
            body, peft.LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules="all-linear")
        )
    dice = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=dice) * 0.2
            module, part = name.removeprefix("base_model.model.").removesuffix(".default.weight").rsplit(".", 1)
            tensors[{"lora_A": LORA_A, "lora_B": LORA_B}[part] + module] = parameter.data.clone()
    return tensors, wrapped.merge_and_unload()


@pytest.mark.parametrize("model_type", [*MODELS, "gpt2"])
def test_a_merged_adapter_gives_the_states_that_pefts_own_merge_gives(tiny_base, model_type):
    base = find_base(str(tiny_base(model_type)))
    plain = load_body(base)
    before = states(plain)
    tensors, merged = lora_tensors(load_body(base))
    apply_adapter(plain, tensors, LORA)
    assert len(tensors) >= 2 * 2 * 4
    assert (states(plain) - before).abs().max() > 0.1
    torch.testing.assert_close(states(plain), states(merged), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", MODELS)
def test_a_full_adapter_replaces_the_parameters_it_names(tiny_base, model_type):
    base = find_base(str(tiny_base(model_type)))
    body, other = load_body(base), load_body(base)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.01
    apply_adapter(body, {FULL + name: parameter.detach() for name, parameter in other.named_parameters()}, None)
    assert torch.equal(states(body), states(other))


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize(
    "change",
    [
        lambda t, a, b: t.pop(b), lambda t, a, b: t.pop(a), lambda t, a, b: t.clear(), lambda t, a,
        b: t.update({a: t[a][:2]}),
        lambda t, a, b: t.update({b: t[b][:, :2]}), lambda t, a, b: t.update({LORA_A + "none": t[a],
        LORA_B + "none": t[b]}),
        lambda t, a, b: t.update(stranger=t[a]), lambda t, a, b: t.update({FULL + "none": t[a]}),
        lambda t, a, b: t.update({a: t[a].T.contiguous()}),
    ],
    ids=["no B", "no A", "empty", "short A", "short B", "unknown layer", "unknown tensor", "unknown parameter",
    "turned A"],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused(tiny_base, model_type, change):
    body = load_body(find_base(str(tiny_base(model_type))))
    tensors, _ = lora_tensors(load_body(find_base(str(tiny_base(model_type)))))
    first = next(name for name in tensors if name.startswith(LORA_A))
    change(tensors, first, LORA_B + first.removeprefix(LORA_A))
    with pytest.raises(JudgeError, match="adapter"):
        apply_adapter(body, tensors, LORA)


def test_an_adapter_without_its_rank_or_with_another_is_refused(tiny_base):
    base = find_base(str(tiny_base("bert")))
    tensors, _ = lora_tensors(load_body(base))
    for lora in (None, Lora(rank=8, alpha=12)):
        with pytest.raises(JudgeError, match="adapter"):
            apply_adapter(load_body(base), tensors, lora)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_number_that_is_not_finite_is_refused(tmp_path, value, dtype):
    save_file({"good": torch.ones(2), "bad": torch.tensor([1.0, value], dtype=dtype)}, tmp_path / ADAPTER_FILE)
    with pytest.raises(JudgeError, match="'bad'"):
        read_tensors(tmp_path / ADAPTER_FILE)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int32, torch.bool])
def test_a_number_of_another_kind_than_a_judge_is_saved_in_is_refused(tmp_path, dtype):
    save_file({"good": torch.ones(2), "bad": torch.zeros(2).to(dtype)}, tmp_path / ADAPTER_FILE)
    with pytest.raises(JudgeError, match="'bad' as"):
        read_tensors(tmp_path / ADAPTER_FILE)


def test_the_two_halves_of_a_lora_pair_may_be_of_two_precisions_and_their_sum_is_float32(tiny_base):
    base = find_base(str(tiny_base("bert")))
    mixed, alike = load_body(base), load_body(base)
    tensors, _ = lora_tensors(load_body(base))
    halved = {name: tensor.half() if name.startswith(LORA_A) else tensor for name, tensor in tensors.items()}
    apply_adapter(mixed, halved, LORA)
    apply_adapter(alike, {name: tensor.float() for name, tensor in halved.items()}, LORA)
    assert torch.equal(states(mixed), states(alike))


@pytest.mark.parametrize("cut", [0, 4, 8, 40, -1])
def test_a_truncated_tensor_file_is_refused(tmp_path, cut):
    (tmp_path / HEAD_FILE).write_bytes(save({"a": torch.ones(64)})[:cut])
    with pytest.raises(JudgeError, match="safetensors"):
        read_tensors(tmp_path / HEAD_FILE)


def test_filling_needs_every_parameter_in_its_shape():
    for tensors in ({"weight": torch.ones(1, 3), "bias": torch.ones(1)}, {"weight": torch.ones(1, 2)}):
        with pytest.raises((JudgeError, KeyError)):
            fill(torch.nn.Linear(2, 1), tensors)


@pytest.mark.parametrize("model_type", [*MODELS, "mpnet", "gpt2"])
def test_a_body_is_the_pretrained_one_and_pads_change_nothing(tiny_base, model_type):
    from transformers import AutoModel

    base = find_base(str(tiny_base(model_type)))
    body = load_body(base)
    assert torch.equal(
        states(body),
        states(AutoModel.from_pretrained(base.folder, attn_implementation=body.config._attn_implementation)),
    )
    for pooling in POOLED_STATES:
        model = ScalarModel(body, hidden_size(base), 1, pooling).eval()
        other = IDS.clone()
        other[1, 6:] = 3
        with torch.inference_mode():
            pooled, again, alone = model.pooled(IDS, LENGTHS), model.pooled(other, LENGTHS), states(body)
        assert torch.equal(pooled, again)
        torch.testing.assert_close(pooled[0], expected_states(body, alone, pooling)[0], rtol=1e-5, atol=1e-5)


def test_a_row_of_one_token_has_no_means_and_its_state(tiny_base):
    base = find_base(str(tiny_base("llama")))
    body = load_body(base)
    model = ScalarModel(body, hidden_size(base), 1, "layers_last").eval()
    with torch.inference_mode():
        pooled = model.pooled(IDS, torch.tensor([1, 10]))[0]
    assert torch.equal(pooled[:96], torch.zeros(96))
    torch.testing.assert_close(pooled[96:], states(body)[0, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", MODELS)
def test_a_base_with_a_missing_misshapen_or_damaged_tensor_is_refused(copied, model_type):
    folder = copied(model_type)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(("query.weight", "q_proj.weight")))
    for wrong in ({}, {name: torch.zeros(3, 3)}):
        save_file({**{key: tensor for key, tensor in tensors.items() if key != name}, **wrong}, path, {"format": "pt"})
        with pytest.raises(BaseModelError):
            load_body(find_base(str(folder)))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BaseModelError):
        load_body(find_base(str(folder)))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "1.0"}', None])
def test_a_base_with_a_damaged_tokenizer_or_none_is_refused(copied, text):
    folder = copied("bert")
    for path in folder.glob("*token*"):
        path.unlink()
    if text is not None:
        (folder / "tokenizer.json").write_text(text)
    with pytest.raises(BaseModelError, match="tokenizer"):
        load_tokenizer(find_base(str(folder)))


def test_a_configuration_without_a_width_is_refused(copied):
    folder = copied("bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if key != "hidden_size"})
    )
    with pytest.raises(BaseModelError, match="hidden_size"):
        hidden_size(find_base(str(folder)))


@pytest.fixture
def saved(tmp_path, tiny_base, make_spec, judge_files):
    """A function that saves a judge on a tiny base with these tensor files, and gives it."""

    def save_it(model_type, *, head, adapter=None, folder=None, **fields):
        base = find_base(str(folder or tiny_base(model_type)))
        reference = BaseReference(id=base.id, revision=None, architecture=base.architecture, sha256=base.sha256())
        files = {**judge_files, HEAD_FILE: save(head), **({ADAPTER_FILE: save(adapter)} if adapter else {})}
        return save_judge(tmp_path / "judge", make_spec(base=reference, **fields), files)

    return save_it


def head_of(width):
    return {HEAD_WEIGHT: torch.linspace(-1, 1, width)[None, :], HEAD_BIAS: torch.tensor([0.5])}


HEAD = head_of(3 * 32)


@pytest.mark.parametrize(("model_type", "pooling"), [("bert", "layers"), ("llama", "layers_last"), ("llama", "last")])
def test_a_loaded_judge_is_base_adapter_and_head(tiny_base, saved, model_type, pooling):
    tensors, merged = lora_tensors(load_body(find_base(str(tiny_base(model_type)))))
    head = head_of(POOLED_STATES[pooling] * 32)
    model = load_model(saved(model_type, head=head, adapter=tensors, method="lora", lora=LORA, pooling=pooling))
    assert not model.training
    pooled = expected_states(merged, states(merged), pooling)
    with torch.inference_mode():
        outputs = model(IDS, torch.tensor([10, 10]))
    np.testing.assert_allclose(outputs, pooled @ head[HEAD_WEIGHT].T + 0.5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ({HEAD_WEIGHT: HEAD[HEAD_WEIGHT]}, {}), ({HEAD_BIAS: HEAD[HEAD_BIAS]}, {}), ({**HEAD,
        HEAD_WEIGHT: torch.ones(1, 31)}, {}),
        (HEAD, {"categories": ("spam",)}), (HEAD, {"method": "full"}), (HEAD, {"method": "lora", "lora": LORA}),
        ({**HEAD, HEAD_BIAS: torch.tensor([float("nan")])}, {}),
    ],
    ids=["no bias", "no weight", "narrow", "no category row", "full without tensors", "lora without adapter", "nan"],
)  # fmt: skip
def test_a_judge_whose_tensors_do_not_fit_is_refused(saved, head, fields):
    with pytest.raises(JudgeError):
        load_model(saved("bert", head=head, **fields))


def test_a_judge_on_another_base_than_it_was_trained_on_is_refused(saved, copied):
    folder = copied("bert")
    judge = saved("bert", head=HEAD, folder=folder)
    load_model(judge)
    tensors = load_file(folder / "model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1e-3}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(JudgeError, match="not the base"):
        load_model(judge)
