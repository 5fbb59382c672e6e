"""Thresholds: the promise holds in simulation, the bounds are exact, and a refusal says what is missing."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from quality_judge.errors import InputError
from quality_judge.stats.thresholds import Certificate, best_threshold, certify, clopper_pearson, least_trials

GOOD_RATE = 0.6
DISTANCE = math.sqrt(2) * float(norm.ppf(0.88))  # of the two normal populations whose AUC is .88
DRAWS = 500


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < GOOD_RATE
    return norm.cdf(generator.normal(size=n) + np.where(labels, DISTANCE / 2, -DISTANCE / 2)), labels


def truth(threshold: float) -> tuple[float, float]:
    """(precision, recall) in the whole population."""
    good, bad = (norm.sf(norm.ppf(threshold) - side * DISTANCE / 2) for side in (1, -1))
    return GOOD_RATE * good / (GOOD_RATE * good + (1 - GOOD_RATE) * bad), float(good)


@pytest.mark.parametrize(("n", "least_recall"), [(100, 0.10), (400, 0.39), (1000, 0.54)])
def test_certified_precision_is_broken_no_more_often_than_promised(n, least_recall):
    """Allowed: 10%. If the true rate were 10%, more than 64 of 500 violations would have probability below 0.02; it is
    about 5%, for which they have probability below 1e-9. The best possible recall is .67. Seeds are fixed."""
    broken, recalls = 0, []
    for seed in range(DRAWS):
        certificate = certify(*draw(n, seed))
        precision, recall = truth(certificate.threshold) if certificate.granted else (1.0, 0.0)
        broken += precision < 0.9
        recalls.append(recall)
    assert binom.sf(64, DRAWS, 0.1) < 0.02
    assert broken <= 64
    assert np.mean(recalls) >= least_recall


def test_certified_recall_is_broken_no_more_often_than_promised():
    """Allowed: 10%; more than 35 of 200 have probability below 0.001 at a true 10%. Seeds are fixed."""
    broken = granted = 0
    for seed in range(200):
        certificate = certify(*draw(300, seed), metric="recall")
        granted += certificate.granted
        broken += certificate.granted and truth(certificate.threshold)[1] < 0.9
    assert granted > 150
    assert broken <= 35


def test_a_certificate_counts_what_its_own_threshold_keeps():
    probability, labels = draw(400, 4)
    certificate = certify(probability, labels)
    assert certificate.granted
    kept = probability >= certificate.threshold
    assert (certificate.n, certificate.n_kept, certificate.n_errors) == (400, kept.sum(), (kept & ~labels).sum())
    assert certificate.recall_estimate == (kept & labels).sum() / labels.sum()
    exact = binomtest(certificate.n_kept - certificate.n_errors, certificate.n_kept, alternative="greater")
    assert certificate.lower_bound == pytest.approx(exact.proportion_ci(0.9, method="exact").low)
    assert certificate.lower_bound >= 0.9
    assert f"{certificate.n_kept} of 400" in certificate.message


def test_labels_do_not_choose_where_testing_starts_or_which_cuts_are_tried():
    """All rows good: the loosest cut must be certified, whatever the scores; all bad: none may be."""
    probability, _ = draw(100, 0)
    assert certify(probability, np.ones(100, bool)).threshold == 0.0
    assert not certify(probability, np.zeros(100, bool)).granted


def test_a_grid_fixed_beforehand_is_the_only_place_a_threshold_comes_from():
    probability, labels = draw(1000, 1)
    assert certify(probability, labels, grid=[0.5, 0.95, 0.8, 0.7]).threshold in (0.95, 0.8, 0.7)


def test_ties_are_kept_or_dropped_together():
    probability = np.repeat([0.9, 0.6, 0.2], 100)
    labels = np.arange(300) < 100
    certificate = certify(probability, labels)
    assert certificate.n_kept == 100
    assert 0.6 < certificate.threshold <= 0.9


@pytest.mark.parametrize("metric", ["precision", "recall"])
def test_scores_that_crowd_at_both_ends_do_no_harm(metric):
    probability = np.r_[np.full(60, 1 - 1e-12), np.full(60, 1e-12)]
    labels = np.arange(120) < 60
    certificate = certify(probability, labels, metric=metric)
    assert certificate.granted
    assert certificate.n_kept == 60


def test_with_too_few_rows_the_refusal_says_how_many_are_missing():
    certificate = certify([0.9] * 10, [True] * 10)
    assert (certificate.granted, certificate.threshold, certificate.labels_missing) == (False, None, 12)
    assert "label at least 12 more" in certificate.message
    assert certify([], []).labels_missing == least_trials(0.9, 0.9) == 22


def test_the_estimate_of_missing_labels_is_of_the_right_size():
    """At a true precision of .95, 80% of draws of about 190 kept rows certify .9; here half the rows are kept."""
    labels = np.r_[np.arange(30) != 7, np.zeros(30, bool)]
    probability = np.r_[np.linspace(0.9, 0.8, 30), np.linspace(0.2, 0.1, 30)]
    certificate = certify(probability, labels, target=0.9, confidence=0.95)
    assert not certificate.granted
    assert 150 <= certificate.labels_missing <= 600
    assert str(certificate.labels_missing) in certificate.message


def test_a_judge_that_is_too_weak_is_told_so_instead_of_asking_for_labels():
    generator = np.random.default_rng(0)
    certificate = certify(generator.random(1000), generator.random(1000) < 0.5)
    assert not certificate.granted
    assert certificate.labels_missing is None
    assert "more labels here will not help" in certificate.message


def test_the_numbers_of_kept_rows_needed_are_the_exact_binomial_ones():
    assert least_trials(0.9, 0.9) == 22
    assert least_trials(0.95, 0.95) == 59
    for errors, n in enumerate((22, 38, 52, 65, 78, 91)):
        labels = np.arange(n) >= errors
        assert certify(np.full(n, 0.8), labels, grid=[0.5]).granted
        assert not certify(np.full(n - 1, 0.8), labels[: n - 1], grid=[0.5]).granted


@pytest.mark.parametrize(("errors", "n"), [(0, 20), (3, 20), (20, 20)])
def test_clopper_pearson_agrees_with_scipy(errors, n):
    interval = binomtest(errors, n).proportion_ci(0.9, method="exact")
    assert clopper_pearson(errors, n, 0.9) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("metric", ["f1", "accuracy", "kappa"])
def test_the_best_threshold_is_as_good_as_any(metric):
    from quality_judge.stats import metrics

    value = {"f1": metrics.f1, "accuracy": metrics.accuracy, "kappa": metrics.cohen_kappa}[metric]
    probability, labels = draw(60, 2)
    best = value(labels, probability, threshold=best_threshold(probability, labels, metric=metric))
    others = [value(labels, probability, threshold=cut) for cut in np.linspace(0, 1, 201)]
    assert best >= max(other for other in others if other is not None) - 1e-12


def test_the_best_threshold_of_separated_classes_lies_between_them():
    assert best_threshold([0.1, 0.2, 0.8, 0.9], [False, False, True, True]) == 0.5


@pytest.mark.parametrize("n", [5, 400])
def test_a_certificate_survives_json_exactly(n):
    certificate = certify(*draw(n, 4))
    assert Certificate.from_dict(json.loads(json.dumps(certificate.to_dict(), allow_nan=False))) == certificate


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"treshold": 0.5}, "did you mean 'threshold'"),
        ({"granted": False}, "exactly when it is granted"),
        ({"threshold": math.nan}, "from 0 to 1"),
        ({"n_kept": 1.5}, "whole number"),
        ({"metric": "f1"}, "unknown metric"),
        ({"target": 2}, "between 0 and 1"),
    ],
)
def test_a_damaged_certificate_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        Certificate.from_dict({**certify(*draw(400, 4)).to_dict(), **change})


def test_impossible_requests_are_refused():
    with pytest.raises(InputError, match="target"):
        certify([0.5], [True], target=1.0)
    with pytest.raises(InputError, match="errors among"):
        clopper_pearson(3, 2, 0.9)
    with pytest.raises(InputError, match="one class"):
        best_threshold([0.5, 0.6], [True, True])
    with pytest.raises(InputError, match="did you mean 'kappa'"):
        best_threshold([0.5, 0.6], [True, False], metric="kapa")
