"""Thresholds: the promise holds in simulation, the bounds are exact, and a refusal says what is missing."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from quality_judge.errors import InputError
from quality_judge.stats.certificate import Certificate, Promises, Targets, clopper_pearson
from quality_judge.stats.thresholds import best_threshold, certify, certify_all, least_trials, proposed_cut

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


@pytest.mark.parametrize(("metric", "target"), [("recall", 0.9), ("npv", 0.8)])
def test_certified_recall_and_npv_are_broken_no_more_often_than_promised(metric, target):
    """Allowed: 10%; more than 64 of 500 have probability below 0.02 at a true 10%. Seeds are fixed."""
    broken = granted = 0
    for seed in range(DRAWS):
        certificate = certify(*draw(300, seed), metric=metric, target=target)
        granted += certificate.granted
        broken += certificate.granted and side(metric, certificate.threshold) < target
    assert granted > DRAWS / 2
    assert broken <= 64


def side(metric: str, threshold: float) -> float:
    """NPV or recall in the whole population."""
    if metric == "recall":
        return truth(threshold)[1]
    good, bad = (norm.cdf(norm.ppf(threshold) - side * DISTANCE / 2) for side in (1, -1))
    return (1 - GOOD_RATE) * bad / (GOOD_RATE * good + (1 - GOOD_RATE) * bad)


@pytest.mark.parametrize("others", [{"npv": 0.8}, {"recall": 0.8}, {"npv": 0.8, "recall": 0.8}])
def test_promises_made_at_once_are_all_kept_as_often_as_promised(others):
    """A draw counts as broken when any promise is. Allowed: 10%, more than 64 of 500 below 0.02 as above."""
    broken = two_sided = 0
    for seed in range(DRAWS):
        found = certify_all(*draw(400, seed), Targets(**others))
        two_sided += found.keep_at is not None and found.drop_below is not None
        if None not in (found.keep_at, found.drop_below):
            assert found.drop_below <= found.keep_at
        wrong = found.keep.granted and truth(found.keep_at)[0] < 0.9
        for metric, promise in (("npv", found.drop), ("recall", found.recall)):
            wrong |= bool(promise and promise.granted and side(metric, promise.threshold) < others[metric])
        broken += wrong
    assert two_sided > DRAWS / 2
    assert broken <= 64


def test_the_confidence_is_split_over_the_promises_and_a_single_one_has_it_all():
    probability, labels = draw(400, 4)
    assert certify_all(probability, labels, Targets()).keep == certify(probability, labels)
    found = certify_all(probability, labels, Targets(npv=0.8, recall=0.8, confidence=0.9))
    assert found.confidence == 0.9
    for promise in (found.keep, found.drop, found.recall):
        assert promise.confidence == pytest.approx(1 - 0.1 / 3)


def test_npv_is_precision_seen_from_the_other_end():
    probability, labels = draw(400, 4)
    low, high = certify(probability, labels, metric="npv", target=0.8), certify(1 - probability, ~labels, target=0.8)
    assert low.threshold == pytest.approx(1 - high.threshold, abs=2e-6)
    assert (low.n_kept, low.n_errors, low.lower_bound) == (high.n_kept, high.n_errors, high.lower_bound)
    dropped = probability < low.threshold
    assert (low.n_kept, low.n_errors) == (dropped.sum(), (dropped & labels).sum())


def test_a_judge_whose_certified_cuts_overlap_drops_nothing_that_it_keeps():
    probability = np.linspace(0, 1, 400)
    labels = probability > 0.05  # so good a corpus that keep starts below where the first drop cut can lie
    found = certify_all(probability, labels, Targets(npv=0.2, recall=0.5))
    assert found.keep.granted
    assert found.recall.granted
    assert found.recall.threshold <= found.keep.threshold
    assert not found.drop.granted or found.drop.threshold <= found.keep.threshold


def test_what_was_asked_for_and_refused_leaves_no_drop_cut():
    probability, labels = draw(200, 3)
    found = certify_all(probability, labels, Targets(npv=0.999))
    assert (found.drop.granted, found.drop_below) == (False, None)
    assert found.drop.labels_missing > 0
    assert "npv >= 0.999" in found.drop.message


def test_a_proposed_cut_expects_half_of_what_is_allowed_to_be_wrong():
    probability = np.linspace(0, 1, 1001)
    cut = proposed_cut(probability, precision=0.9)
    assert probability[probability >= cut].mean() == pytest.approx(0.95, abs=0.002)
    assert proposed_cut([0.5, 0.6], precision=0.9) is None
    assert proposed_cut([], precision=0.9) is None


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


@pytest.mark.parametrize("asked", [{}, {"npv": 0.8}, {"recall": 0.9, "npv": 0.8}])
def test_promises_survive_json_exactly(asked):
    promises = certify_all(*draw(400, 4), Targets(**asked))
    said = json.loads(json.dumps(promises.to_dict(), allow_nan=False))
    assert Promises.from_dict(said) == promises
    assert said["granted"] == promises.keep.granted
    with pytest.raises(InputError, match="lacks drop"):
        Promises.from_dict({name: value for name, value in said.items() if name != "drop"})


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


def test_a_whole_number_of_hundreds_of_digits_is_refused_as_any_other_that_is_none():
    certificate = certify(*draw(400, 4))
    with pytest.raises(InputError):
        replace(certificate, threshold=10**400)
