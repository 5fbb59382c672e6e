"""Precision: weights narrowed to the bits they had before, and what many processes need left in its file."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quality_judge.bases import find_base
from quality_judge.engine.precision import (
    MappedEmbedding,
    narrow,
    precision_here,
    precisions_here,
    stored_precision,
)
from quality_judge.engine.weights import apply_adapter, load_body
from quality_judge.judge_spec import Lora

IDS = torch.arange(5, 25).reshape(2, 10)


def states(body):
    with torch.inference_mode():
        mask = torch.ones_like(IDS)
        return body.eval()(input_ids=IDS, attention_mask=mask, use_cache=False).last_hidden_state


def mapped(tensor):
    """Whether the tensor's memory is a mapped safetensors file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return line.endswith(".safetensors")
    return False


@pytest.fixture
def in_bfloat16(tiny_base, tmp_path):
    """The folder of a tiny decoder whose weights are stored in bfloat16."""
    folder = shutil.copytree(tiny_base("llama"), tmp_path / "llama")
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "llama", "gpt2"])
def test_a_table_left_in_its_file_gives_the_bits_of_a_rounded_one(tiny_base, model_type):
    base = find_base(str(tiny_base(model_type)))
    shared, rounded = load_body(base), load_body(base)
    narrow(shared, torch.bfloat16, map_embedding=True)
    narrow(rounded, torch.bfloat16, map_embedding=False)
    assert isinstance(shared.get_input_embeddings(), MappedEmbedding)
    assert not isinstance(rounded.get_input_embeddings(), MappedEmbedding)
    found = states(shared)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, states(rounded))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps is Linux's")
def test_the_table_stays_mapped_and_the_layers_do_not(tiny_base):
    body = load_body(find_base(str(tiny_base("bert"))))
    narrow(body, torch.bfloat16, map_embedding=True)
    assert mapped(body.get_input_embeddings().weight)
    assert not mapped(body.encoder.layer[0].output.dense.weight)


def test_angles_of_positions_keep_their_precision(tiny_base):
    body = load_body(find_base(str(tiny_base("llama"))))
    exact = body.rotary_emb.inv_freq.clone()
    narrow(body, torch.bfloat16, map_embedding=True)
    assert torch.equal(body.rotary_emb.inv_freq, exact)
    assert {parameter.dtype for name, parameter in body.named_parameters() if "embed" not in name} == {torch.bfloat16}


def test_a_base_stored_in_bfloat16_is_held_so_and_any_other_in_float32(tiny_base, in_bfloat16):
    assert stored_precision(find_base(str(in_bfloat16))) == torch.bfloat16
    assert stored_precision(find_base(str(tiny_base("llama")))) == torch.float32


def test_an_adapter_merged_weight_by_weight_gives_the_bits_of_one_merged_in_float32(in_bfloat16):
    base = find_base(str(in_bfloat16))
    at_once, whole = load_body(base, precision=stored_precision(base)), load_body(base)
    generator = torch.Generator().manual_seed(0)
    linear = whole.layers[0].self_attn.q_proj
    a, b = (torch.randn(shape, generator=generator) for shape in ((2, linear.in_features), (linear.out_features, 2)))
    adapter = {"lora_a.layers.0.self_attn.q_proj": a, "lora_b.layers.0.self_attn.q_proj": b}
    apply_adapter(at_once, adapter, Lora(rank=2, alpha=4), torch.bfloat16)
    apply_adapter(whole, adapter, Lora(rank=2, alpha=4))
    for body in (at_once, whole):
        narrow(body, torch.bfloat16, map_embedding=False)
    for (name, found), expected in zip(at_once.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(found, expected), name


@pytest.mark.parametrize(
    ("processor", "faster"),
    [
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 amx_bf16 amx_tile", torch.bfloat16),
        ("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16", torch.float32),
        ("vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16", torch.bfloat16),
        ("vendor_id : AuthenticAMD\nflags : avx2", torch.float32),
        ("", torch.float32),
    ],
)
def test_bfloat16_is_taken_where_a_processor_multiplies_it_faster(monkeypatch, processor, faster):
    monkeypatch.setattr("quality_judge.engine.precision._processor", lambda: processor)
    assert precision_here("cpu") == faster
    assert precisions_here("cpu")[0] == torch.float32
    assert faster in precisions_here("cpu")
