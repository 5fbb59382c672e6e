"""Large bases: activations may be computed twice without changing a judge; quantised weights need a GPU and say so."""

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError

from quality_judge.bases import find_base
from quality_judge.config import TrainConfig
from quality_judge.engine.weights import apply_adapter, load_body
from quality_judge.errors import ConfigError
from quality_judge.judge_spec import Lora
from quality_judge.train import adapters
from quality_judge.train.fit import fit_judge
from quality_judge.train.large import quantization, recompute_activations, training_attention, weights_in

IDS = torch.arange(5, 45).reshape(2, 20)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


@pytest.mark.parametrize(("model_type", "method"), [("bert", "full"), ("llama", "lora"), ("gpt2", "lora")])
def test_activations_computed_twice_give_the_very_same_gradients(tiny_base, model_type, method):
    found, calls = [], []
    for twice in (False, True):
        body = load_body(find_base(str(tiny_base(model_type))), attention="eager").eval()
        body = adapters.prepared(body, method, TrainConfig(lora_rank=4))
        for name, parameter in body.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.01)
        if twice:
            recompute_activations(body)
        inner = next(
            module for name, module in body.named_modules() if name.endswith(("attention", "self_attn", "attn"))
        )
        count = []
        inner.register_forward_hook(lambda *_, count=count: count.append(1))
        body(input_ids=IDS, use_cache=False).last_hidden_state.square().mean().backward()
        found.append({name: p.grad for name, p in body.named_parameters() if p.grad is not None})
        calls.append(len(count))
    assert calls == [1, 2]
    assert found[0].keys() == found[1].keys() != set()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_judge_trained_with_recomputed_activations_is_the_same_judge(fitted, made, tiny_base):
    first, _, labels = fitted("bert", method="lora")
    again = fit_judge(labels, made.judge_config(tiny_base("bert"), gradient_checkpointing=True))
    assert all(torch.equal(first.adapter[name], again.adapter[name]) for name in first.adapter)


def test_a_body_that_cannot_recompute_is_refused():
    with pytest.raises(ConfigError, match="gradient_checkpointing"):
        recompute_activations(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("method", ["auto", "full", "frozen"])
def test_quantised_weights_take_adapters_only(method):
    with pytest.raises(ValidationError, match="lora"):
        TrainConfig(method=method, quantize_bits=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_quantised_weights_are_refused_without_a_gpu():
    assert quantization(TrainConfig()) is None
    with pytest.raises(ConfigError, match="no GPU"):
        quantization(TrainConfig(method="lora", quantize_bits=4))


@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_trained_through_quantised_weights_fits_the_full_ones(tmp_path, bits):
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    transformers.LlamaModel(transformers.LlamaConfig(**shape, vocab_size=128)).save_pretrained(tmp_path)
    base = find_base(str(tmp_path))
    body = load_body(base, attention="eager", quantization=weights_in(bits)).eval()
    assert body.layers[0].mlp.up_proj.weight.dtype in (torch.uint8, torch.int8)
    body = adapters.prepared(body, "lora", TrainConfig(method="lora", lora_rank=4, lora_alpha=8))
    optimiser = torch.optim.AdamW([p for p in body.parameters() if p.requires_grad], lr=1e-2)
    ids = IDS.to(next(body.parameters()).device)

    def loss(model):
        return (model(input_ids=ids, use_cache=False).last_hidden_state.float() - 1).square().mean()

    before = loss(body).item()
    for _ in range(10):
        optimiser.zero_grad()
        loss(body).backward()
        optimiser.step()
    full = load_body(base).eval().to(ids.device)
    apply_adapter(full, adapters.extracted(body, "lora"), Lora(rank=4, alpha=8))
    with torch.inference_mode():
        assert loss(body).item() < 0.8 * before
        assert loss(full).item() == pytest.approx(loss(body).item(), rel=0.1)


@GPU
@pytest.mark.parametrize("bits", [4, 8])
def test_a_judge_is_trained_through_quantised_weights(made, tiny_base, bits):
    config = made.judge_config(tiny_base("llama"), quantize_bits=bits, learning_rate=1e-3)
    found = fit_judge(made.label_set(made.samples(60)), config)
    assert found.training["out_of_fold"]["judge"] > 0.8


def test_attention_that_keeps_no_scores_is_taken_for_long_rows_and_on_a_gpu(tiny_base):
    base = find_base(str(tiny_base("llama")))
    assert training_attention(base, 64, "cpu") == "eager"
    assert training_attention(base, 100_000, "cpu") == "sdpa"
    assert training_attention(base, 64, "cuda") == "sdpa"


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_judge_trained_without_kept_scores_is_the_one_trained_with_them(made, tiny_base, monkeypatch, model_type):
    labels = made.label_set(made.samples(48))
    plain = fit_judge(labels, made.judge_config(tiny_base(model_type), method="full"))
    monkeypatch.setattr("quality_judge.train.large.MOST_KEPT_BYTES", 0)
    fused = fit_judge(labels, made.judge_config(tiny_base(model_type), method="full"))
    np.testing.assert_allclose(fused.raw, plain.raw, atol=0.02)
