"""Implicit judges on tiny decoders: trained by TRL, saved, loaded, scored alike in any layout, equal to its reward."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from quality_judge.bases import find_base
from quality_judge.config import JudgeConfig
from quality_judge.engine.encode import Encoder
from quality_judge.engine.implicit import completion_mark
from quality_judge.engine.scorer import load_scorer
from quality_judge.engine.stacking import stacked
from quality_judge.engine.weights import load_tokenizer
from quality_judge.errors import BaseModelError, ConfigError, JudgeError
from quality_judge.judge import ADAPTER_FILE, load_judge, save_judge
from quality_judge.stats.metrics import roc_auc
from quality_judge.train.fit import fit_judge
from quality_judge.train.forward import padded_ids
from quality_judge.train.implicit_fit import completion_starts, implicit_base
from quality_judge.train.save import draft_judge

pytest.importorskip("trl", reason="pip install 'quality-judge[implicit]'")
BETA = 0.2


def samples(made, count):
    """Every one under a prompt of its own: rows that share one are never split over folds."""
    return [replace(row, prompt=f"question {at}") for at, row in enumerate(made.samples(count))]


def configured(base, *, length="sum", **train):
    settings = {
        "folds": 2, "epochs": 4, "batch_size": 4, "lora_rank": 4, "lora_alpha": 8, "surface": False, "beta": BETA,
        "learning_rate": 0.02,
    }  # fmt: skip
    return JudgeConfig(
        name="implicit", base=str(base), kind="implicit", length=length, max_tokens=48, train=settings | train
    )


@pytest.fixture(scope="module")
def judged(tiny_base, tiny_guard, made, tmp_path_factory):
    """A function from a base's name, rows and settings to (the saved draft, what was fitted); made once each."""
    known = {}

    def make(base="llama", rows="samples", length="sum"):
        key = (base, rows, length)
        if key not in known:
            makers = {
                "samples": lambda: samples(made, 48), "orders": lambda: made.preferences(24),
                "mixed": lambda: [*made.samples(16), *made.preferences(8), *made.category_rows(24)],
            }  # fmt: skip
            labels = made.label_set(makers[rows]())
            config = configured(tiny_guard if base == "guard" else tiny_base(base), length=length)
            found = fit_judge(labels, config)
            known[key] = draft_judge(tmp_path_factory.mktemp("judge"), found, config, labels), found
        return known[key]

    return make


def exact(judge):
    return load_scorer(judge, device="cpu", precision=torch.float32, threads=1)


@torch.no_grad()
def log_ratio_by_transformers(fitted, rows):
    """Of each row's completion, by the written model of transformers and peft alone, as TRL adds it up."""
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(fitted.base.folder).eval()
    policy = AutoModelForCausalLM.from_pretrained(fitted.base.folder).eval()
    policy.base_model.load_state_dict(fitted.model.body.state_dict())
    starts = completion_starts(fitted.examples, fitted.encoding)
    tokens, found = fitted.examples.tokens, []
    for row in rows:
        at = tokens.offsets()[row]
        ids = torch.from_numpy(tokens.ids[at : at + tokens.lengths[row]].astype(np.int64))[None]
        each = [
            model(input_ids=ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[0, :, 0]
            for model in (policy, reference)
        ]
        found.append((each[0] - each[1])[starts[row] - 1 :].sum().item())
    return np.array(found)


@pytest.mark.parametrize("base", ["llama", "guard"])
def test_the_reward_is_beta_times_the_log_ratio_of_the_completions_tokens(judged, base):
    _, fitted = judged(base)
    rows = np.arange(0, len(fitted.examples), 5)
    ids, lengths = padded_ids(fitted.examples, rows)
    with torch.no_grad():
        reward = fitted.model.float()(ids, lengths)[:, 0].numpy()
    np.testing.assert_allclose(reward, BETA * log_ratio_by_transformers(fitted, rows), rtol=1e-4, atol=1e-4)
    assert np.ptp(reward) > 0.05


def test_the_reward_is_trls_own_on_the_same_rows(judged, tmp_path):
    """TRL's trainer logs the reward of what it is handed; ours of the same rows is the same number."""
    from transformers import AutoModelForCausalLM

    from quality_judge.train.trl_trainers import kto_trainer

    _, fitted = judged()
    starts, tokens = completion_starts(fitted.examples, fitted.encoding), fitted.examples.tokens
    rows = np.arange(4)
    turns = []
    for row in rows:
        at = tokens.offsets()[row]
        ids = tokens.ids[at : at + tokens.lengths[row]].tolist()
        turns.append((ids[: starts[row]], ids[starts[row] :], True))
    model = AutoModelForCausalLM.from_pretrained(fitted.base.folder)
    trainer = kto_trainer(
        model, turns, fitted.config.train, tmp_path, beta=BETA, batch=4, learning_rate=1e-3, weights=(1.0, 1.0), pad=0,
        limit=None,
    )  # fmt: skip
    load_adapter(trainer.model, fitted.adapter)
    trainer._compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())), return_outputs=False)
    logged = trainer._metrics["train"]
    ids, lengths = padded_ids(fitted.examples, rows)
    with torch.no_grad():
        reward = fitted.model.float()(ids, lengths)[:, 0].numpy()
    assert float(np.mean(logged["rewards/chosen"])) == pytest.approx(float(reward.mean()), rel=1e-3, abs=1e-4)


@torch.no_grad()
def load_adapter(model, tensors):
    filled = 0
    for name, parameter in model.named_parameters():
        for part, prefix in ((".lora_A.default.weight", "lora_a."), (".lora_B.default.weight", "lora_b.")):
            if name.endswith(part):
                parameter.copy_(tensors[prefix + name.removeprefix("base_model.model.model.").removesuffix(part)])
                filled += 1
    assert filled == len(tensors)


@pytest.mark.parametrize("rows", ["samples", "orders", "mixed"])
def test_it_learns_what_experts_prefer(judged, made, rows):
    judge, fitted = judged(rows=rows)
    assert fitted.training["trainer"] == ("dpo" if rows == "orders" else "kto")
    said = made.samples(40, seed=9)
    scores = exact(judge).score([row.completion for row in said])
    assert roc_auc([row.label for row in said], scores.raw) > 0.75
    assert judge.spec.categories == (("advert", "empty") if rows == "mixed" else ())
    assert (judge.spec.calibration is None) == (rows == "orders")


@pytest.mark.parametrize("length", ["sum", "mean"])
def test_a_saved_judge_scores_as_what_was_fitted(judged, length):
    judge, fitted = judged(length=length)
    texts, rows = fitted.examples.texts, np.arange(len(fitted.examples))
    ids, lengths = padded_ids(fitted.examples, rows)
    with torch.no_grad():
        outputs = fitted.model.float()(ids, lengths)[:, 0].double().numpy()
    scores = exact(load_judge(judge.folder)).score(texts, [f"question {at}" for at in rows])
    np.testing.assert_allclose(scores.raw, stacked(fitted.stack, outputs, None), atol=1e-3)
    assert judge.spec.kind == "implicit"
    assert judge.spec.implicit.length == length
    assert ADAPTER_FILE in judge.spec.files


def test_the_mean_divides_the_sum_by_the_completions_tokens(judged):
    _, fitted = judged()
    rows = np.arange(8)
    ids, lengths = padded_ids(fitted.examples, rows)
    model = fitted.model.float()
    before = model.implicit
    try:
        with torch.no_grad():
            total = model(ids, lengths)[:, 0].numpy()
            model.implicit = before.model_copy(update={"length": "mean"})
            mean = model(ids, lengths)[:, 0].numpy()
    finally:
        model.implicit = before
    count = fitted.examples.tokens.lengths[rows] - completion_starts(fitted.examples, fitted.encoding)[rows]
    np.testing.assert_allclose(mean * count, total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, None])
def test_neighbours_and_order_change_no_bit(judged, made, precision):
    judge, _ = judged()
    scorer = load_scorer(judge, device="cpu", precision=precision, threads=2)
    dice = np.random.default_rng(4)
    texts = [made.text(dice, line % 2 == 0, length=int(dice.integers(1, 30))) for line in range(90)]
    whole = scorer.score(texts).raw
    order = dice.permutation(len(texts))
    again = np.empty_like(whole)
    again[order] = scorer.score([texts[at] for at in order]).raw
    assert np.array_equal(whole, again)
    assert np.array_equal(whole[:1], scorer.score(texts[:1]).raw)
    assert np.array_equal(whole[40:50], scorer.score(texts[40:50]).raw)


def test_no_text_moves_the_place_where_its_completion_begins(tiny_guard, tiny_base):
    """Whatever a prompt spells: the marks between the turns are control ids, and content holds none."""
    for folder in (tiny_guard, tiny_base("llama")):
        ready = implicit_base(find_base(str(folder)), configured(folder))
        prefix, mark, past = completion_mark(ready.encoding)
        spelled = ready.encoding.control_tokens
        prompts = ["", "plain", *spelled, "".join(spelled) * 2]
        tokens = Encoder(ready.tokenizer_json, ready.encoding).encode(["the answer"] * len(prompts), prompts).tokens
        tails = set()
        for start, length in zip(tokens.offsets(), tokens.lengths, strict=True):
            row = tokens.ids[start : start + length].tolist()
            begins = row.index(mark, prefix) + past
            tails.add(tuple(row[begins:]))
        assert len(tails) == 1
        assert len(next(iter(tails))) > len(ready.encoding.suffix)


def test_a_template_whose_turns_are_parted_by_plain_text_is_refused_before_the_base_reads_a_row(tiny_guard, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(tiny_guard, folder)
    plain = load_tokenizer(find_base(str(folder)))
    plain.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
    )
    plain.save_pretrained(folder)
    with pytest.raises(BaseModelError, match="parts turns by plain text"):
        implicit_base(find_base(str(folder)), configured(folder))


def test_the_same_labels_make_the_same_judge(judged, made, tiny_base):
    _, fitted = judged()
    again = fit_judge(made.label_set(samples(made, 48)), configured(tiny_base("llama")))
    assert all(torch.equal(tensor, again.adapter[name]) for name, tensor in fitted.adapter.items())


def test_a_killed_run_goes_on_and_makes_the_same_judge(judged, made, tiny_base, tmp_path, monkeypatch):
    from quality_judge.train import implicit_fit

    _, fitted = judged()
    labels, config = made.label_set(samples(made, 48)), configured(tiny_base("llama"))
    made_before, calls = implicit_fit.kto_trainer, []

    def killed(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return made_before(*args, **options)

    monkeypatch.setattr(implicit_fit, "kto_trainer", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_judge(labels, config, output=tmp_path / "judge")
    again = fit_judge(labels, config, output=tmp_path / "judge")
    assert len(calls) == 4
    assert all(torch.equal(tensor, again.adapter[name]) for name, tensor in fitted.adapter.items())


@pytest.mark.parametrize(("change", "said"), [({"method": "full"}, "lora"), ({"method": "frozen"}, "lora")])
def test_methods_that_it_has_not_are_refused(tiny_base, made, change, said):
    with pytest.raises(ConfigError, match=said):
        fit_judge(made.label_set(made.samples(20)), configured(tiny_base("llama"), **change))


def test_an_encoder_writes_nothing(tiny_base, made):
    with pytest.raises(BaseModelError, match="writes nothing"):
        fit_judge(made.label_set(made.samples(20)), configured(tiny_base("bert")))


def test_a_judge_that_does_not_say_how_it_is_read_is_refused(judged, tmp_path):
    judge, _ = judged()
    spec = judge.spec.model_copy(update={"implicit": None})
    edited = save_judge(tmp_path / "edited", spec, {name: judge.path(name) for name in judge.spec.files})
    with pytest.raises(JudgeError, match="implicit"):
        exact(edited)
