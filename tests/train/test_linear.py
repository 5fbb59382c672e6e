"""Linear judges: labels and orders are learnt together, and out of fold means out of fold."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from quality_judge.engine.encode import Ragged
from quality_judge.train.examples import Examples
from quality_judge.train.linear import (
    TIE_STRENGTH,
    Linear,
    best_linear,
    fit_linear,
    order_score,
    out_of_fold,
    standardised,
)

WEIGHT = np.array([2.0, -1.0, 0.5, 0.0])


def examples_of(label, unit=None, rank=None, weight=None):
    """Examples of no text; only what was said of them."""
    n = len(label)
    unit = np.arange(n) if unit is None else np.asarray(unit)
    return Examples(
        [""] * n, Ragged(np.arange(n, dtype=np.int32), np.ones(n, np.int64)), np.asarray(label, float),
        np.ones(n) if weight is None else np.asarray(weight, float), np.zeros((n, 0)), unit,
        np.zeros(n, int) if rank is None else np.asarray(rank), tuple(map(str, range(unit.max() + 1))), (),
    )  # fmt: skip


def pairs_with_signal(count, *, dice):
    """Features of `count` pairs, the better one first by WEIGHT, and the unit and rank of each text."""
    features = dice.normal(size=(2 * count, len(WEIGHT)))
    swap = np.repeat((features[::2] - features[1::2]) @ WEIGHT < 0, 2)
    features[swap] = features[swap].reshape(-1, 2, len(WEIGHT))[:, ::-1].reshape(-1, len(WEIGHT))
    return features, np.repeat(np.arange(count), 2), np.tile([0, 1], count)


def all_of(examples):
    return np.ones(len(examples), bool)


@pytest.fixture
def dice():
    return np.random.default_rng(0)


def test_labels_alone_give_sklearns_balanced_logistic_model(dice):
    features = dice.normal(size=(80, 4))
    label = (features @ WEIGHT + dice.normal(size=80) > 1).astype(float)
    weight = dice.uniform(0.5, 2, 80)
    examples = examples_of(label, weight=weight)
    found = fit_linear(features, examples, all_of(examples), strength=0.3)
    theirs = LogisticRegression(C=0.3, class_weight="balanced", max_iter=300).fit(features, label, sample_weight=weight)
    np.testing.assert_allclose(found.raw(features), theirs.decision_function(features), atol=1e-9)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_what_only_pairs_say_is_learnt_beside_labels(dice, form):
    """The labels know the first feature alone, the pairs the second alone; the model needs both."""
    n_labels, n_pairs = 60, 60
    features = dice.normal(size=(n_labels + 2 * n_pairs, 2))
    features[:n_labels, 1] = 0
    features[n_labels:, 0] = 0
    label = np.full(len(features), np.nan)
    label[:n_labels] = features[:n_labels, 0] > 0
    pairs = features[n_labels:, 1].reshape(-1, 2)
    features[n_labels:, 1] = np.sort(pairs, axis=1)[:, ::-1].ravel()
    unit = np.concatenate([np.arange(n_labels), n_labels + np.repeat(np.arange(n_pairs), 2)])
    rank = np.concatenate([np.zeros(n_labels, int), np.tile([0, 1], n_pairs)])
    examples = examples_of(label, unit, rank)
    both = fit_linear(form(features), examples, all_of(examples), strength=1.0)
    assert both.weight.min() > 1
    labels_only = fit_linear(form(features), examples, examples.labelled, strength=1.0)
    assert abs(labels_only.weight[1]) < 1e-6
    assert order_score(examples, both.raw(form(features)), all_of(examples)) > 0.98


def test_pairs_alone_are_learnt_and_have_no_bias(dice):
    features, unit, rank = pairs_with_signal(100, dice=dice)
    examples = examples_of(np.full(200, np.nan), unit, rank)
    found = fit_linear(features, examples, all_of(examples), strength=1.0)
    assert found.bias == 0
    assert np.corrcoef(found.weight, WEIGHT)[0, 1] > 0.97


def test_a_ranking_weighs_as_much_as_a_pair(dice):
    """Of one ranking of five texts each of the ten pairs has a tenth of a pair's weight."""
    features = dice.normal(size=(5, 3))
    ranking = examples_of(np.full(5, np.nan), [0] * 5, range(5))
    found = fit_linear(features, ranking, all_of(ranking), strength=1.0)
    better, worse = np.triu_indices(5, 1)
    paired = features[np.stack([better, worse], axis=1).ravel()]
    ten = examples_of(np.full(20, np.nan), np.repeat(np.arange(10), 2), np.tile([0, 1], 10))
    lighter = fit_linear(paired, ten, all_of(ten), strength=0.1)  # a tenth of the strength is a tenth of each weight
    np.testing.assert_allclose(found.weight, lighter.weight, atol=1e-4)


@pytest.mark.parametrize(("label", "sign"), [(1.0, 1), (0.0, -1)])
def test_one_class_alone_gives_a_constant_and_no_failure(dice, label, sign):
    features = dice.normal(size=(6, 3))
    examples = examples_of(np.full(6, label))
    raw = fit_linear(features, examples, all_of(examples), strength=1.0).raw(features)
    assert np.ptp(raw) == 0
    assert sign * raw[0] > 0


@pytest.mark.parametrize("width", [4, 60])
def test_tied_texts_are_held_together_as_the_penalty_says(dice, width):
    """Against a general optimiser, with fewer features than texts and with more."""
    features = dice.normal(size=(30, width))
    label = (features[:, 0] + 0.3 * dice.normal(size=30) > 0).astype(float)
    examples = examples_of(label, np.repeat(np.arange(15), 2), np.zeros(30, int))
    found = fit_linear(features, examples, all_of(examples), strength=0.5)
    share, sign = 15 / np.bincount(label.astype(int)), 2 * label - 1

    def penalised(at):
        each = np.logaddexp(0, -sign * (features @ at[1:] + at[0]))
        apart = (features[::2] - features[1::2]) @ at[1:]
        return 0.5 * (share[label.astype(int)] * each).sum() + 0.5 * at[1:] @ at[1:] + 5 * (apart**2).sum()

    best = minimize(penalised, np.zeros(width + 1), options={"gtol": 1e-6})
    assert TIE_STRENGTH == 10
    np.testing.assert_allclose(np.concatenate([[found.bias], found.weight]), best.x, atol=2e-3)
    untied = fit_linear(features, examples_of(label), all_of(examples), strength=0.5)
    distances = [np.abs(model.raw(features[::2]) - model.raw(features[1::2])).mean() for model in (found, untied)]
    assert distances[0] < 0.3 * distances[1]


def test_order_score_is_what_labels_and_pairs_say_each_by_how_many_there_are():
    examples = examples_of([1, 0, np.nan, np.nan], [0, 1, 2, 2], [0, 0, 0, 1])
    assert order_score(examples, np.array([2.0, 1, 1, 2]), all_of(examples)) == pytest.approx(2 / 3)
    assert order_score(examples, np.array([2.0, 1, 2, 1]), all_of(examples)) == 1
    assert order_score(examples, np.array([2.0, 1, 1, 2]), examples.labelled) == 1
    assert order_score(examples, np.zeros(4), np.zeros(4, bool)) == 0.5


def test_a_handful_of_pairs_does_not_outvote_hundreds_of_labels():
    labels = [1.0, 0.0] * 100
    examples = examples_of([*labels, np.nan, np.nan], [*range(200), 200, 200], [0] * 201 + [1])
    dice = np.random.default_rng(0)
    knows = np.array([*labels, 0.0, 1.0]) + 0.3 * dice.normal(size=202) * (np.arange(202) < 200)
    guesses = np.append(dice.normal(size=200), [1.0, 0.0])
    assert order_score(examples, knows, all_of(examples)) > 0.95
    assert order_score(examples, guesses, all_of(examples)) < 0.7


def test_out_of_fold_no_text_is_scored_by_a_model_that_saw_its_fold():
    examples = examples_of([1, 0, 1, 0, 1, 0])
    folds = np.array([0, 0, 1, 1, -1, -1])
    seen = []

    def fit(among):
        seen.append(among)
        return lambda rows: rows.astype(float)

    raw = out_of_fold(examples, folds, fit)
    np.testing.assert_array_equal(raw, [0, 1, 2, 3, np.nan, np.nan])
    assert [among.tolist() for among in seen] == [(folds != 0).tolist(), (folds != 1).tolist()]


def test_the_strength_is_chosen_by_unseen_texts(dice):
    """Forty noise features and one signal: the strongest fit orders its own texts best and unseen ones worst."""
    features = dice.normal(size=(60, 41))
    features[:, 0] *= 3
    label = (features[:, 0] + 2 * dice.normal(size=60) > 0).astype(float)
    examples = examples_of(label)
    folds = np.arange(60) % 4
    strength, raw = best_linear(features, examples, folds, (1e-3, 1e3))
    assert strength == 1e-3
    assert order_score(examples, raw, folds >= 0) > 0.6


def test_no_head_leans_a_thousandfold_on_a_dimension_that_hardly_varies(dice):
    states = dice.normal(size=(50, 6))
    states[:, 5] = 3 + 1e-7 * dice.normal(size=50)
    among = np.arange(50) < 40
    standard, mean, spread = standardised(states, among)
    np.testing.assert_allclose(standard[among][:, :5].std(axis=0), 1)
    assert spread[5] == pytest.approx(0.1 * np.median(spread), rel=0.3)
    np.testing.assert_allclose(standard * spread + mean, states)


def test_states_that_do_not_vary_at_all_are_finite():
    assert not standardised(np.ones((4, 3)))[0].any()


def test_linear_takes_sparse_and_dense_features_alike(dice):
    features = dice.normal(size=(5, 4))
    linear = Linear(WEIGHT, 0.5)
    np.testing.assert_allclose(linear.raw(features), linear.raw(sparse.csr_matrix(features)))
    np.testing.assert_allclose(linear.raw(features), features @ WEIGHT + 0.5)


def test_a_soft_label_is_learnt_as_both_verdicts_by_their_share(dice):
    features = dice.normal(size=(60, 4))
    label = np.clip(1 / (1 + np.exp(-features @ WEIGHT)), 0.01, 0.99)
    label[:20] = label[:20] >= 0.5
    weight = dice.uniform(0.5, 2, 60)
    found = fit_linear(features, examples_of(label, weight=weight), np.ones(60, bool), strength=0.3)
    theirs = LogisticRegression(C=0.3, class_weight="balanced", max_iter=300).fit(
        np.concatenate([features, features]), np.repeat([1, 0], 60),
        sample_weight=np.concatenate([weight * label, weight * (1 - label)]),
    )  # fmt: skip
    np.testing.assert_allclose(found.raw(features), theirs.decision_function(features), atol=2e-3)


def test_a_soft_label_orders_by_what_it_leans_to_and_an_open_one_not_at_all():
    examples = examples_of([0.9, 0.8, 0.2, 0.55, 0.45])
    raw = np.array([3.0, 2.0, 1.0, -9.0, 9.0])
    assert order_score(examples, raw, all_of(examples)) == 1.0
    assert order_score(examples, -raw, all_of(examples)) == 0.0
