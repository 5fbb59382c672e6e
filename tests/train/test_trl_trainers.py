"""TRL computes our losses, with its own trainers, on the same log-probabilities; and trains what it is handed."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from quality_judge.bases import find_base
from quality_judge.config import TrainConfig
from quality_judge.train import losses

trl_trainers = pytest.importorskip("quality_judge.train.trl_trainers")
pytest.importorskip("trl", reason="pip install 'quality-judge[implicit]'")
PACKAGE = Path(trl_trainers.__file__).resolve().parents[1]
WEIGHTS = (1.3, 0.7)
CONFIG = TrainConfig(lora_rank=4, lora_alpha=8)


@pytest.fixture(scope="module")
def trainer(tiny_base, tmp_path_factory):
    """A function from `kto` or `dpo` to TRL's trainer of a model that has already moved away from its base."""
    from transformers import AutoModelForCausalLM

    def make(kind):
        dice = np.random.default_rng(0)
        model = AutoModelForCausalLM.from_pretrained(find_base(str(tiny_base("llama"))).folder)
        options = {"beta": 0.3, "batch": 4, "learning_rate": 1e-3, "pad": 0, "limit": None}
        folder = tmp_path_factory.mktemp(kind)
        if kind == "kto":
            rows = [(words(dice, 3), words(dice, 5), index % 3 > 0) for index in range(10)]
            made = trl_trainers.kto_trainer(model, rows, CONFIG, folder, weights=WEIGHTS, **options)
        else:
            rows = [(words(dice, 3), words(dice, 5), words(dice, 4)) for _ in range(8)]
            made = trl_trainers.dpo_trainer(model, rows, CONFIG, folder, **options)
        with torch.no_grad():
            for name, parameter in made.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
        return made, rows

    return make


def words(dice, most):
    return dice.integers(3, 500, dice.integers(1, most + 1)).tolist()


def log_probabilities(model, ids, attended, mask):
    """Of the completion's tokens, summed, (B,), by transformers alone."""
    logits = model(input_ids=ids, attention_mask=attended).logits[:, :-1]
    each = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[:, :, 0]
    return (each * mask[:, 1:]).sum(1)


def log_ratio(model, batch, prefix=""):
    given = [batch[prefix + name] for name in ("input_ids", "attention_mask", "completion_mask")]
    with model.disable_adapter(), torch.no_grad():
        reference = log_probabilities(model, *given)
    return log_probabilities(model, *given), reference


def slopes(loss, model):
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, learnt)])


def test_kto_is_trls_own_value_and_slope(trainer):
    made, _ = trainer("kto")
    for batch in made.get_train_dataloader():
        policy, reference = log_ratio(made.model, batch)
        shuffled = log_ratio(made.model, batch, "KL_")
        z = (shuffled[0] - shuffled[1]).mean().clamp(min=0).detach()
        good, bad = WEIGHTS
        ours = losses.kto(
            policy - reference, batch["label"].float(), beta=0.3, desirable=good, undesirable=bad, z=z
        ).mean()
        theirs = made._compute_loss(made.model, batch, return_outputs=False)
        assert (policy - reference).abs().min() > 1e-3
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        torch.testing.assert_close(slopes(ours, made.model), slopes(theirs, made.model), rtol=1e-4, atol=1e-6)


def test_dpo_is_trls_own_value_and_slope(trainer):
    made, _ = trainer("dpo")
    for batch in made.get_train_dataloader():
        policy, reference = (part.chunk(2) for part in log_ratio(made.model, batch))
        ours = losses.dpo(policy[0], policy[1], reference[0], reference[1], beta=0.3).mean()
        theirs = made._compute_loss(made.model, batch, return_outputs=False)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        torch.testing.assert_close(slopes(ours, made.model), slopes(theirs, made.model), rtol=1e-4, atol=1e-6)


def test_rows_are_trained_in_the_order_and_with_the_ids_they_came_in(trainer):
    """Neither shuffled nor tokenised anew; no row stands alone in its batch, for it would be its own reference."""
    made, rows = trainer("kto")
    seen = []
    for batch in made.get_train_dataloader():
        ids, kept, mask, label = (
            batch[name].tolist() for name in ("input_ids", "attention_mask", "completion_mask", "label")
        )
        for row in range(len(ids)):
            n, own = sum(kept[row]), sum(mask[row])
            seen.append((ids[row][: n - own], ids[row][n - own : n], label[row]))
    assert seen == rows[:8]


def test_training_moves_the_adapter_alone_and_tells_of_each_step(tiny_base, tmp_path):
    from transformers import AutoModelForCausalLM

    told = []
    model = AutoModelForCausalLM.from_pretrained(find_base(str(tiny_base("llama"))).folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = [([5, 6], [7, 8 + index % 2], index % 2 == 0) for index in range(24)]
    made = trl_trainers.kto_trainer(
        model, rows, CONFIG, tmp_path, beta=0.1, batch=4, learning_rate=0.02, weights=(1.0, 1.0), pad=0, limit=None,
        progress=lambda *said: told.append(said),
    )  # fmt: skip
    made.train()
    assert [said[:2] for said in told] == [(step, 6) for step in range(1, 7)]
    batch = next(iter(made.get_train_dataloader()))
    policy, reference = log_ratio(made.model, batch)
    moved = (policy - reference) * (batch["label"].float() * 2 - 1)
    assert moved.mean() > 0.01
    after = made.model.unload().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not list(tmp_path.rglob("*.bin"))


def test_trl_is_imported_in_one_place():
    def names(path):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or ""

    users = {path.name for path in PACKAGE.rglob("*.py") for name in names(path) if name.split(".")[0] == "trl"}
    assert users == {Path(trl_trainers.__file__).name}
