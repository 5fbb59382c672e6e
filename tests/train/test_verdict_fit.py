"""Verdict judges on a tiny guard: what is measured of the base, zero-shot and trained judges, saved and scored."""

import numpy as np
import pytest
import torch
from tiny_guard import GUARD_RUBRIC, guard_rows

from quality_judge.bases import find_base
from quality_judge.config import JudgeConfig
from quality_judge.engine.encode import Encoder
from quality_judge.engine.kinds import MOST_SPECIALS, ScalarModel
from quality_judge.engine.output_layer import load_generator
from quality_judge.engine.precision import precision_here
from quality_judge.engine.scorer import load_scorer
from quality_judge.engine.stacking import stacked
from quality_judge.engine.weights import hidden_size, load_body
from quality_judge.errors import BaseModelError, CorpusError
from quality_judge.judge import ADAPTER_FILE, load_judge
from quality_judge.labels import flatten
from quality_judge.rubric import Rubric
from quality_judge.samples import CategoryRow, Sample
from quality_judge.stats.metrics import roc_auc
from quality_judge.train.baselines import baseline_answers
from quality_judge.train.fit import fit_judge
from quality_judge.train.forward import padded_ids, predicted
from quality_judge.train.save import draft_judge
from quality_judge.train.verdict_base import coverage, verdict_base

COUNT = 60


def samples(count=COUNT, *, seed=11):
    return [Sample("", text, not codes) for text, codes in guard_rows(count, seed=seed)]


def the_opposite(count=60, *, seed=13):
    """Experts who call good what the guard calls unsafe."""
    return [Sample("", text, bool(codes)) for text, codes in guard_rows(count, seed=seed)]


def category_rows(count=COUNT, *, seed=12):
    return [
        CategoryRow("", text, {"S1": "S1" in codes, "S2": "S2" in codes})
        for text, codes in guard_rows(count, seed=seed)
    ]


@pytest.fixture(scope="module")
def rubric_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rubric") / "guard.yaml"
    path.write_text(
        "name: guard\ncriteria: Adverts and code are unsafe.\ngood: safe\nbad: unsafe\ncategories:\n"
        "  - {code: S1, name: Adverts}\n  - {code: S2, name: Code}\n"
    )
    assert Rubric.load(path) == GUARD_RUBRIC
    return path


@pytest.fixture(scope="module")
def configured(tiny_guard, rubric_file):
    def make(prompt="llama_guard_3", **train):
        settings = {"folds": 2, "epochs": 2, "batch_size": 8, "lora_rank": 4, "lora_alpha": 8, "surface": False}
        return JudgeConfig(
            name="guard", base=str(tiny_guard), kind="verdict", rubric=str(rubric_file), prompt=prompt, max_tokens=48,
            train=settings | train,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def judged(configured, made, tmp_path_factory):
    """A function from rows, prompt and settings to (the saved draft, what was fitted); made once each."""
    known = {}

    def make(rows="samples", prompt="llama_guard_3", **train):
        key = (rows, prompt, tuple(sorted(train.items())))
        if key not in known:
            makers = {"samples": samples, "categories": category_rows, "the opposite": the_opposite}
            labels = made.label_set(makers[rows]())
            config = configured(prompt, **train)
            found = fit_judge(labels, config)
            known[key] = draft_judge(tmp_path_factory.mktemp("judge"), found, config, labels), found
        return known[key]

    return make


@pytest.fixture(scope="module")
def ready(tiny_guard, configured):
    return verdict_base(find_base(str(tiny_guard)), GUARD_RUBRIC, configured(), with_prompts=False)


def exact(judge):
    return load_scorer(judge, device="cpu", precision=torch.float32, threads=1)


def test_where_memory_is_small_every_row_pays_for_its_prompt_and_the_judge_is_the_same(
    configured, made, judged, monkeypatch
):
    """Layers that compute twice forget the keys and values of the prompt, so that it is not shared."""
    from quality_judge.train import parts

    _, plain = judged(method="lora")
    monkeypatch.setattr(parts, "memory_bytes", lambda: 10**5)
    small = fit_judge(made.label_set(samples()), configured(method="lora"))
    assert "computed twice" in small.training["activations"]
    assert (small.model.shared, plain.model.shared > MOST_SPECIALS) == (0, True)
    np.testing.assert_allclose(small.raw, plain.raw, atol=1e-3 if float32_here() else 0.1)


def test_what_the_base_writes_before_its_verdict_is_found_and_forced(ready):
    from quality_judge.engine.encode import content_tokenizer

    assert content_tokenizer(ready.tokenizer_json).decode(list(ready.verdict.opening)) == "\n\n"
    assert ready.encoding.suffix[-len(ready.verdict.opening) :] == ready.verdict.opening


def test_the_coverage_is_the_probability_of_the_first_tokens_over_the_whole_vocabulary(ready, tiny_guard):
    from transformers import AutoModelForCausalLM

    tokens = Encoder(ready.tokenizer_json, ready.encoding).encode([text for text, _ in guard_rows(6)]).tokens
    body, _ = load_generator(find_base(str(tiny_guard)))
    found = coverage(body, ready, tokens, device="cpu")
    model = AutoModelForCausalLM.from_pretrained(tiny_guard).eval()
    firsts = sorted({*ready.verdict.steps[0].good, *ready.verdict.steps[0].bad})
    expected = []
    for start, length in zip(tokens.offsets(), tokens.lengths, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens.ids[start : start + length].tolist()])).logits[0, -1]
        expected.append(float(torch.softmax(logits, 0)[firsts].sum()))
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-4)
    assert np.median(found) > 0.9


def test_the_base_generates_the_word_whose_side_the_margin_is_on(judged, tiny_guard):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    judge, found = judged(method="frozen")
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_guard), AutoModelForCausalLM.from_pretrained(tiny_guard)
    encoding = found.encoding
    opening = len(judge.spec.verdict.opening)
    texts = [text for text, _ in guard_rows(12, seed=5)]
    tokens = Encoder(found.tokenizer_json, encoding).encode(texts).tokens
    raw = exact(judge).score(texts).raw
    for row, start, length in zip(range(12), tokens.offsets(), tokens.lengths, strict=True):
        asked = torch.tensor([tokens.ids[start : start + length - opening].tolist()])
        answer = model.generate(asked, max_new_tokens=opening + 4, do_sample=False, pad_token_id=4)
        said = tokenizer.decode(answer[0, asked.shape[1] :]).strip()
        margin = (raw[row] - found.stack.bias) / found.stack.model
        assert said.startswith("safe" if margin > 0 else "unsafe")


def test_a_zero_shot_judge_learns_nothing_but_its_calibration(judged):
    judge, found = judged(method="frozen")
    assert judge.spec.kind == "verdict"
    assert judge.spec.method == "frozen"
    assert ADAPTER_FILE not in judge.spec.files
    scores = exact(judge).score([text for text, _ in guard_rows(40, seed=21)])
    assert roc_auc(np.array([not codes for _, codes in guard_rows(40, seed=21)]), scores.raw) > 0.95
    assert found.training["out_of_fold"]["frozen"] > 0.95
    assert found.training["coverage"]["before"] > 0.9
    assert found.training["coverage"]["after"] is None


def test_a_zero_shot_judge_of_a_rubric_with_codes_writes_them_for_bad_rows_only(judged, tiny_guard):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    judge, found = judged(method="frozen")
    rows = guard_rows(30, seed=22)
    texts = [text for text, _ in rows]
    scores = exact(judge).score([*texts, "", None])
    assert scores.category_names == ("S1", "S2")
    assert scores.category_raw.shape == (32, 2)
    named = scores.category_lists()
    bad = scores.probability < 0.5
    assert all(bool(codes) == is_bad for codes, is_bad in zip(named, bad, strict=True))
    assert np.mean([set(codes) == set(named[row]) for row, (_, codes) in enumerate(rows)]) > 0.8
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_guard), AutoTokenizer.from_pretrained(tiny_guard)
    tokens = Encoder(found.tokenizer_json, found.encoding).encode(texts).tokens
    for row in np.flatnonzero(bad[:30])[:6]:
        start, length = tokens.offsets()[row], tokens.lengths[row]
        answer = model.generate(
            torch.tensor([tokens.ids[start : start + length].tolist()]),
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=4,
        )
        said = tokenizer.decode(answer[0, length:], skip_special_tokens=True)
        if said.startswith("unsafe\n"):
            assert set(said.removeprefix("unsafe\n").split(",")) == set(named[row])


def test_each_row_whose_codes_are_written_counts_as_progress(judged, monkeypatch):
    judge, _ = judged(method="frozen")
    told = []
    monkeypatch.setattr("quality_judge.engine.forward_pool.progressed", lambda: told.append(1))
    scores = exact(judge).score([text for text, _ in guard_rows(30, seed=22)])
    assert len(told) > (scores.probability < 0.5).sum()


def test_a_judge_of_one_message_takes_no_prompts_and_a_judge_of_answers_does(judged):
    judge, _ = judged(method="frozen")
    assert not judge.spec.encoding.takes_prompts
    with pytest.raises(CorpusError, match="leave the prompts out"):
        exact(judge).score(["Eight minutes."], ["How long do I boil an egg?"])
    alone = exact(judge).score(["Eight minutes."])
    assert np.array_equal(exact(judge).score(["Eight minutes."] * 2, [None, ""]).raw, np.repeat(alone.raw, 2))
    assert judged(prompt="chat", method="frozen")[0].spec.encoding.takes_prompts


def test_a_judge_that_names_no_category_says_why(judged, configured, made):
    assert judged(method="frozen")[1].training["warnings"] == []
    few = made.label_set([*samples(), *category_rows(2)])
    (warning,) = fit_judge(few, configured(method="frozen")).training["warnings"]
    assert "leave the category rows out" in warning
    warnings = judged(method="lora")[1].training["warnings"]
    assert ["is asked for its verdict alone" in warning for warning in warnings] == [True]


def test_the_bases_states_behind_the_rubrics_prompt_are_those_of_whole_rows(judged, tiny_guard):
    _, found = judged(method="frozen")
    assert len(found.encoding.prefix) > MOST_SPECIALS
    ids, lengths = padded_ids(found.examples, np.arange(len(found.examples)))
    base = find_base(str(tiny_guard))
    with torch.inference_mode():
        whole = ScalarModel(load_body(base).eval(), hidden_size(base), 1, "last").pooled(ids, lengths).double().numpy()
    apart = 1e-4 if precision_here("cpu") == torch.float32 else 0.05
    np.testing.assert_allclose(found.states, whole, atol=apart * np.abs(whole).max())


def test_what_a_model_in_training_says_behind_a_prompt_computed_once_is_what_it_says_of_whole_rows(judged):
    _, found = judged("the opposite", method="lora", learning_rate=1e-2, epochs=5)
    model, rows = found.model.float(), np.arange(len(found.examples))
    assert model.shared > MOST_SPECIALS
    behind = predicted(model, found.examples, rows)
    shared, model.shared = model.shared, 0
    whole = predicted(model, found.examples, rows)
    model.shared = shared
    tolerance = 1e-4 if float32_here() else 0.1
    np.testing.assert_allclose(behind, whole, atol=tolerance)
    assert np.std(whole[:, 0]) > 3 * tolerance


def test_a_prompt_too_short_to_be_computed_once_leaves_rows_whole(judged):
    _, found = judged("the opposite", method="lora", learning_rate=1e-2, epochs=5)
    model, rows = found.model, np.arange(8)
    shared, outputs = model.shared, {}
    for model.shared in (0, MOST_SPECIALS):
        outputs[model.shared] = predicted(model, found.examples, rows)
    model.shared = shared
    np.testing.assert_allclose(outputs[MOST_SPECIALS], outputs[0], atol=1e-4 if float32_here() else 0.1)


def float32_here():
    return precision_here("cpu") == torch.float32


def test_a_trained_judge_scores_as_the_parts_it_was_fitted_from(judged):
    judge, found = judged("the opposite", method="lora", learning_rate=1e-2, epochs=5)
    texts = found.examples.texts
    ids, lengths = padded_ids(found.examples, np.arange(len(texts)))
    with torch.inference_mode():
        expected = found.model.float().eval()(ids, lengths).double().numpy()[:, 0]
    scores = exact(load_judge(judge.folder)).score(texts)
    np.testing.assert_allclose(scores.raw, stacked(found.stack, expected, None), atol=1e-3)
    assert ADAPTER_FILE in judge.spec.files
    assert judge.spec.verdict.written is None
    assert {"before", "after"} <= set(found.training["coverage"])


def test_training_teaches_the_base_what_the_experts_mean(judged):
    _, found = judged("the opposite", method="lora", learning_rate=1e-2, epochs=5)
    out_of_fold = found.training["out_of_fold"]
    assert out_of_fold["frozen"] < 0.1
    assert out_of_fold["lora"] > 0.8


def test_trained_categories_are_named_for_bad_rows_only(judged):
    judge, _ = judged("categories", method="lora", learning_rate=1e-3)
    assert judge.spec.categories == ("S1", "S2")
    rows = guard_rows(40, seed=23)
    scores = exact(judge).score([text for text, _ in rows])
    named = scores.category_lists()
    good = scores.probability > 0.5
    assert not any(codes for codes, is_good in zip(named, good, strict=True) if is_good)
    assert any(named)
    for index, code in enumerate(("S1", "S2")):
        assert roc_auc(np.array([code in codes for _, codes in rows]), scores.category_raw[:, index]) > 0.75


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_neighbours_order_and_threads_change_no_bit_of_a_verdict(judged, precision):
    judge, _ = judged("categories", method="lora", learning_rate=1e-3)
    texts = [text + " and so on" * (row % 4) for row, (text, _) in enumerate(guard_rows(24, seed=24))]
    one, two = (load_scorer(judge, threads=threads, precision=precision) for threads in (1, 2))
    together = one.score(texts)
    assert len(set(together.raw)) > 12
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = two.score([texts[i] for i in order])
    assert (shuffled.raw == together.raw[order]).all()
    assert (shuffled.category_raw == together.category_raw[order]).all()
    assert all(one.score([text]).raw[0] == raw for text, raw in zip(texts, together.raw, strict=True))


def test_the_untouched_base_is_a_baseline(judged, made):
    _, found = judged(method="frozen")
    held_out = flatten(made.label_set(samples(24, seed=31)))
    answers = baseline_answers(found, held_out)["zero_shot"]
    assert roc_auc(held_out.label == 1, answers.raw) > 0.95
    assert ((answers.probability > 0.5) == (answers.raw > 0)).all()


def test_an_encoder_gives_no_verdict(tiny_base, configured, made):
    config = configured().model_copy(update={"base": str(tiny_base("bert"))})
    with pytest.raises(BaseModelError, match="needs a decoder"):
        fit_judge(made.label_set(samples(20)), config.model_copy(update={"prompt": "chat"}))


def test_a_reference_is_kept_only_where_it_orders_unseen_rows_better(judged):
    from quality_judge.train.verdict_fit import VerdictFitter

    judge, found = judged("the opposite", method="lora", learning_rate=1e-2, epochs=5)
    assert judge.spec.verdict.reference == 0
    dice = np.random.default_rng(0)
    many = made_examples(found, 300)
    truth = many.label * 2 - 1
    fitter = object.__new__(VerdictFitter)
    fitter.examples, fitter.untouched = many, truth + dice.normal(size=300)
    assert fitter._reference_share(truth + dice.normal(size=300)) > 0.3
    assert fitter._reference_share(fitter.untouched * 0.001 + truth * 5) == 0
    fitter.examples, fitter.untouched = made_examples(found, 40), fitter.untouched[:40]
    assert fitter._reference_share(truth[:40] + dice.normal(size=40)) == 0


def made_examples(found, count):
    from dataclasses import replace

    from quality_judge.engine.encode import Ragged

    examples = found.examples
    tokens = Ragged(np.arange(count, dtype=np.int32), np.ones(count, np.int64))
    return replace(
        examples, texts=list(map(str, range(count))), tokens=tokens, label=np.arange(count) % 2 * 1.0,
        weight=np.ones(count), categories=np.zeros((count, 0)), unit=np.arange(count), rank=np.zeros(count, int),
        groups=tuple(map(str, range(count))),
    )  # fmt: skip
