"""What training keeps in memory is reckoned before it begins; where it does not fit, it takes less at a time."""

import numpy as np
import pytest
import torch

from quality_judge.bases import find_base
from quality_judge.engine.encode import Ragged
from quality_judge.engine.kinds import ScalarModel
from quality_judge.engine.weights import hidden_size, load_body
from quality_judge.train import adapters, model_fit, parts
from quality_judge.train.contrast import CONTRAST_TEXTS
from quality_judge.train.fit import fit_judge
from quality_judge.train.forward import autocast

ROWS, LENGTH = 6, 60


def saved_bytes(model, ids, lengths):
    """What autograd keeps of a batch, by its own account."""
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with autocast(torch.device("cpu")), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model.pooled(ids, lengths).sum()
    loss.backward()
    return sum(kept.values())


@pytest.fixture
def model_of(tiny_base, made):
    """A function from a model type and a method to a model that is ready to train."""

    def make(model_type, method):
        base = find_base(str(tiny_base(model_type)))
        body = adapters.prepared(load_body(base, attention="eager"), method, made.judge_config(base.folder).train)
        return ScalarModel(body, hidden_size(base), 1, "layers" if model_type == "bert" else "layers_last")

    return make


@pytest.mark.parametrize("model_type", ["bert", "llama"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_a_batch_keeps_is_reckoned_from_three_short_rows(model_of, model_type, method):
    model = model_of(model_type, method)
    tokens = Ragged(np.full(LENGTH, 7, np.int32), np.array([LENGTH]))
    once, of_token, of_pair = parts.kept_bytes(model, tokens)
    found = saved_bytes(model, torch.full((ROWS, LENGTH), 7), torch.full((ROWS,), LENGTH))
    assert once + ROWS * LENGTH * (of_token + of_pair * LENGTH) == pytest.approx(found, rel=0.1)


def test_fewer_parts_are_trained_at_once_where_memory_is_small(model_of, monkeypatch):
    model, tokens = model_of("bert", "full"), Ragged(np.full(32, 7, np.int32), np.array([32]))

    def room(memory, **of):
        monkeypatch.setattr(parts, "memory_bytes", lambda: memory)
        return parts.parts_at_once(model, tokens, **{"texts": 16} | of)

    assert room(10**12) > 100
    assert room(10**5) == 0
    assert room(10**8, texts=4) > room(10**8, texts=16) > room(10**8, texts=64)
    assert room(10**8, shared=24) > room(10**8)


def test_a_limit_of_the_container_counts_as_the_machines_memory(tmp_path, monkeypatch):
    whole = parts.memory_bytes()
    for text, expected in (("1000000\n", 1_000_000), ("max\n", whole)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(parts, "CGROUP_LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "none")))
        assert parts.memory_bytes() == expected


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_training_that_does_not_fit_computes_activations_twice_and_gives_the_same_judge(
    made, tiny_base, monkeypatch, model_type
):
    labels, config = made.label_set(made.samples(60)), made.judge_config(tiny_base(model_type), method="lora")
    plain = fit_judge(labels, config)
    assert "activations" not in plain.training
    monkeypatch.setattr(parts, "memory_bytes", lambda: 10**5)
    small = fit_judge(labels, config)
    assert "computed twice" in small.training["activations"]
    np.testing.assert_allclose(small.raw, plain.raw, rtol=1e-4, atol=1e-5)


def test_contrast_is_reckoned_with_the_texts_of_its_own_batches(made, tiny_base, monkeypatch):
    asked = []
    monkeypatch.setattr(model_fit, "parts_at_once", lambda *_, texts, shared: asked.append(texts) or 1)
    labels = made.label_set(made.samples(60))
    for method in ("contrastive", "full"):
        fit_judge(labels, made.judge_config(tiny_base("bert"), method=method))
    assert asked == [CONTRAST_TEXTS, made.judge_config(tiny_base("bert")).train.batch_size]
