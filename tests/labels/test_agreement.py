"""Agreement beyond chance, and the truth behind contradicting verdicts: published examples, what must always hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import cohen_kappa_score

from quality_judge.errors import InputError
from quality_judge.labels.agreement import cohen_kappa, dawid_skene, krippendorff_alpha

NO = np.nan
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units.
FOUR_OBSERVERS = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, 3],
    [NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NO],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO],
])  # fmt: skip
# The same paper, section A: two observers, ten units, binary.
TWO_OBSERVERS = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], float)
RATINGS = st.lists(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=12, max_size=12), min_size=1, max_size=4).map(
    np.array
)


def votes(ratings):
    annotator, item = np.nonzero(~np.isnan(ratings))
    return item, annotator, ratings[annotator, item] == 1


def crowd(accuracies, items, seed):
    dice = np.random.default_rng(seed)
    truth = dice.random(items) < 0.5
    right = dice.random((len(accuracies), items)) < np.array(accuracies)[:, None]
    return truth, np.where(right, truth, ~truth).astype(float)


@pytest.mark.parametrize(("ratings", "alpha"), [(FOUR_OBSERVERS, 0.743), (TWO_OBSERVERS, 0.095)])
def test_alpha_of_published_examples(ratings, alpha):
    assert krippendorff_alpha(ratings) == pytest.approx(alpha, abs=5e-4)


def test_alpha_is_undefined_without_two_verdicts_on_an_item_or_two_values():
    assert krippendorff_alpha(np.full((2, 3), np.nan)) is None
    assert krippendorff_alpha(np.array([[1, NO], [NO, 0]])) is None
    assert krippendorff_alpha(np.ones((2, 5))) is None


@given(RATINGS, st.randoms(use_true_random=False))
def test_alpha_depends_on_no_order_and_no_names(ratings, dice):
    found = krippendorff_alpha(ratings)
    rows, columns = list(range(len(ratings))), list(range(ratings.shape[1]))
    dice.shuffle(rows)
    dice.shuffle(columns)
    for other in (ratings[rows][:, columns], 1 - ratings):
        again = krippendorff_alpha(other)
        assert again == found if found is None else again == pytest.approx(found)
    assert found is None or found <= 1


@given(RATINGS.filter(lambda ratings: len(ratings) > 1))
def test_kappa_is_that_of_scikit_learn(ratings):
    first, second = ratings[:2]
    both = ~np.isnan(first) & ~np.isnan(second)
    found = cohen_kappa(first, second)
    if found is None:
        assert not both.any() or len(set(first[both]) | set(second[both])) == 1
    else:
        assert found == pytest.approx(cohen_kappa_score(first[both], second[both]))
        assert found == pytest.approx(cohen_kappa(second, first))


def test_kappa_of_a_published_example():
    """Cohen (1960) on the usual table: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no gives 0.4."""
    first, second = np.repeat([1.0, 1, 0, 0], [20, 5, 10, 15]), np.repeat([1.0, 0, 1, 0], [20, 5, 10, 15])
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def log_posterior(parameters, ratings):
    """Of (sensitivities, specificities, base rate) as log-odds, under Beta(3, 2), Beta(3, 2) and Beta(2, 2)."""
    known = expit(parameters)
    annotators = len(ratings)
    right, wrong, base = known[:annotators, None], known[annotators:-1, None], known[-1]
    said = ~np.isnan(ratings)
    if_true = np.where(said, np.where(ratings == 1, right, 1 - right), 1).prod(axis=0)
    if_false = np.where(said, np.where(ratings == 1, 1 - wrong, wrong), 1).prod(axis=0)
    prior = 2 * np.log(known[:-1]).sum() + np.log(1 - known[:-1]).sum() + np.log(base) + np.log(1 - base)
    return np.log(base * if_true + (1 - base) * if_false).sum() + prior


@pytest.mark.parametrize("seed", range(3))
def test_dawid_skene_ends_where_an_optimiser_of_the_same_posterior_ends(seed):
    _, ratings = crowd((0.9, 0.8, 0.7), 80, seed)
    ratings[np.random.default_rng(seed).random(ratings.shape) < 0.2] = np.nan
    found = dawid_skene(*votes(ratings))
    at = logit(np.concatenate([found.sensitivity, found.specificity, [found.base_rate]]))
    best = minimize(lambda x: -log_posterior(x, ratings), at + 0.1, method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(expit(at), expit(best.x), atol=1e-3)
    assert -best.fun == pytest.approx(log_posterior(at, ratings), abs=1e-5)


@given(RATINGS.filter(lambda ratings: (~np.isnan(ratings)).any()))
def test_turning_every_verdict_turns_every_probability(ratings):
    found, turned = dawid_skene(*votes(ratings)), dawid_skene(*votes(1 - ratings))
    np.testing.assert_allclose(found.probability, 1 - turned.probability, atol=1e-5)
    np.testing.assert_allclose(found.sensitivity, turned.specificity, atol=1e-5)
    assert ((found.probability > 0) & (found.probability < 1)).all()


@given(RATINGS.filter(lambda ratings: (~np.isnan(ratings)).any()), st.randoms(use_true_random=False))
def test_the_order_of_annotators_changes_nothing(ratings, dice):
    order = list(range(len(ratings)))
    dice.shuffle(order)
    items = ratings.shape[1]
    found = dawid_skene(*votes(ratings), items=items, annotators=len(ratings))
    again = dawid_skene(*votes(ratings[order]), items=items, annotators=len(ratings))
    np.testing.assert_allclose(again.probability, found.probability, atol=1e-5)
    np.testing.assert_allclose(again.sensitivity, found.sensitivity[order], atol=1e-5)


def test_nothing_is_learnt_of_an_annotator_whom_nobody_can_contradict():
    """The prior alone speaks: two right verdicts in three."""
    found = dawid_skene(np.arange(40), np.zeros(40, int), np.arange(40) % 2 == 0)
    np.testing.assert_allclose(found.probability, np.where(np.arange(40) % 2 == 0, 2 / 3, 1 / 3), atol=1e-5)


@pytest.mark.parametrize(("accuracies", "bound"), [((0.85,) * 3, 0.32), ((0.95, 0.8, 0.65), 0.3)])
def test_soft_labels_are_nearer_the_truth_than_the_share_of_votes(accuracies, bound):
    """500 items. Over 40 seeds the log-loss was .188 ± .030 and .173 ± .036, that of smoothed shares .361 ± .009 and
    .410 ± .009: with another seed this fails once in thousands."""
    truth, ratings = crowd(accuracies, 500, seed=0)
    found = dawid_skene(*votes(ratings))
    assert -np.log(np.where(truth, found.probability, 1 - found.probability)).mean() < bound
    share = (ratings.sum(axis=0) + 1) / (len(accuracies) + 2)
    assert -np.log(np.where(truth, share, 1 - share)).mean() > bound


def test_a_liar_is_seen_through():
    truth, ratings = crowd((0.9, 0.9, 0.9, 0.1), 100, seed=0)
    found = dawid_skene(*votes(ratings))
    assert found.informedness[3] < -0.4
    assert found.informedness[:3].min() > 0.5
    assert ((found.probability > 0.5) == truth).mean() > 0.9


def test_votes_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="one of each"):
        dawid_skene(np.array([0, 1]), np.array([0]), np.array([True, False]))
    with pytest.raises(InputError, match="0 items"):
        dawid_skene(np.array([], int), np.array([], int), np.array([], bool))
