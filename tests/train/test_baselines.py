"""Baselines: fitted on the training labels alone, and good at what each of them can see."""

import numpy as np
import pytest

from quality_judge.labels import flatten
from quality_judge.samples import Sample
from quality_judge.stats.metrics import pair_accuracy, roc_auc
from quality_judge.train.baselines import NAMES, baseline_answers
from quality_judge.train.fit import fit_judge


@pytest.fixture(scope="module")
def answers(fitted, made):
    """The answers of baselines fitted to samples, and the held-out labels they are of."""
    found, _, _ = fitted("bert", method="frozen")
    held_out = flatten(made.label_set([*made.samples(40, seed=50), *made.preferences(8, seed=51)]))
    return baseline_answers(found, held_out), held_out


def test_each_baseline_answers_for_every_held_out_text(answers):
    found, held_out = answers
    assert tuple(found) == NAMES
    for name in ("tfidf_logistic", "frozen_base", "length_only"):
        assert found[name].raw.shape == (len(held_out.completions),)
        assert np.isfinite(found[name].raw).all()
        np.testing.assert_allclose(found[name].probability, 1 / (1 + np.exp(-found[name].raw)))


def test_a_scalar_judges_base_cannot_be_asked_for_a_verdict(answers):
    assert answers[0]["zero_shot"] is None


@pytest.mark.parametrize("name", ["tfidf_logistic", "frozen_base"])
def test_words_tell_good_from_bad_and_better_from_worse(answers, name):
    found, held_out = answers
    at, pairs = held_out.labelled, held_out.pairs
    assert roc_auc(held_out.label[at] == 1, found[name].raw[at]) > 0.9
    assert pair_accuracy(found[name].raw[pairs[:, 0]], found[name].raw[pairs[:, 1]]) > 0.8


def test_length_sees_length_and_nothing_else(made, tiny_base):
    dice = np.random.default_rng(0)
    rows = [Sample("", made.text(dice, True, length=30 if line % 2 else 4), bool(line % 2)) for line in range(30)]
    found = fit_judge(made.label_set(rows), made.judge_config(tiny_base("bert"), method="frozen"))
    answers = baseline_answers(found, flatten(made.label_set([
        Sample("", "z" * 200, True), Sample("", "q" * 200, True), Sample("", "q" * 9, False),
    ])))  # fmt: skip
    long, also_long, short = answers["length_only"].probability
    assert long == also_long > 0.5 > short


def test_the_frozen_baseline_is_the_frozen_judge_without_its_stack(fitted, made):
    """Both are a probe of the same states; the baseline chooses its own strength, so they agree, not exactly."""
    found, _, _ = fitted("bert", method="frozen")
    known = flatten(made.label_set(made.samples(60)))
    raw = baseline_answers(found, known)["frozen_base"].raw
    assert np.corrcoef(raw, found.raw)[0, 1] > 0.6


@pytest.mark.parametrize("rows", ["orders", "mixed"])
def test_baselines_learn_from_orders_and_mixtures_too(fitted, made, rows):
    found, _, _ = fitted(
        "bert", rows, **({"method": "lora"} if rows == "orders" else {"method": "lora", "learning_rate": 1e-3})
    )
    held_out = flatten(made.label_set(made.preferences(20, seed=60)))
    for name, answer in baseline_answers(found, held_out).items():
        if name in ("tfidf_logistic", "frozen_base"):
            assert pair_accuracy(answer.raw[held_out.pairs[:, 0]], answer.raw[held_out.pairs[:, 1]]) > 0.8


def test_texts_of_single_characters_have_n_grams_and_no_words(made, tiny_base):
    dice = np.random.default_rng(0)
    rows = [
        Sample("", " ".join(dice.choice(list("好棒真" if line % 2 else "坏差假"), 6)), bool(line % 2))
        for line in range(30)
    ]
    found = fit_judge(made.label_set(rows), made.judge_config(tiny_base("bert"), method="frozen"))
    good, bad = baseline_answers(found, flatten(made.label_set(rows[:2])))["tfidf_logistic"].probability[[1, 0]]
    assert good > 0.5 > bad


def test_texts_of_one_character_have_no_n_grams_at_all(made, tiny_base):
    rows = [Sample("", chr(0x4E00 + line), bool(line % 2)) for line in range(30)]
    found = fit_judge(made.label_set(rows), made.judge_config(tiny_base("bert"), method="frozen"))
    assert baseline_answers(found, flatten(made.label_set(rows[:2])))["tfidf_logistic"] is None
