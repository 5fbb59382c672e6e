"""Metrics against scikit-learn and scipy, their edges, and the bootstrap."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from quality_judge.errors import InputError
from quality_judge.stats import curves, intervals, metrics
from quality_judge.stats.mann_whitney import auc_score_interval

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40)


def scored(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < 0.6
    raw = generator.normal(size=n) + 1.66 * labels
    return labels, raw, 1 / (1 + np.exp(-1.66 * (raw - 0.83)))


@settings(deadline=None)
@given(ROWS)
def test_every_label_metric_agrees_with_scikit_learn_ties_included(rows):
    from sklearn import metrics as reference

    labels = np.array([label for label, _ in rows])
    scores = np.array([score for _, score in rows]) / 8
    if labels.all() or not labels.any():
        return
    kept = scores >= 0.5
    assert metrics.roc_auc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores))
    assert metrics.average_precision(labels, scores) == pytest.approx(reference.average_precision_score(labels, scores))
    assert metrics.accuracy(labels, scores) == pytest.approx(reference.accuracy_score(labels, kept))
    assert metrics.f1(labels, scores) == pytest.approx(reference.f1_score(labels, kept))
    assert metrics.cohen_kappa(labels, scores) == pytest.approx(reference.cohen_kappa_score(labels, kept))
    assert metrics.brier(labels, scores) == pytest.approx(reference.brier_score_loss(labels, scores))


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_kendall_tau_agrees_with_scipy_where_no_scores_tie(order):
    from scipy.stats import kendalltau

    assert metrics.kendall_tau([order]) == pytest.approx(kendalltau(order, range(6, 0, -1)).statistic)


def test_ece_is_the_weighted_gap_of_equal_width_bins():
    labels = [True, False, True, True]
    probability = [0.15, 0.11, 0.95, 1.0]
    assert metrics.ece(labels, probability) == pytest.approx((2 * abs(0.13 - 0.5) + 2 * abs(0.975 - 1)) / 4)


def test_tied_pairs_and_rankings_earn_nothing_beyond_chance():
    assert metrics.pair_accuracy([1, 2, 3, 4], [1, 1, 4, 1]) == pytest.approx(2.5 / 4)
    assert metrics.kendall_tau([[1, 1, 1], [3, 2, 1]]) == pytest.approx(0.5)


def test_what_is_undefined_is_none_and_never_nan():
    assert metrics.roc_auc([True, True], [0.1, 0.2]) is None
    assert metrics.average_precision([False, False], [0.1, 0.2]) is None
    assert metrics.f1([False, False], [0.1, 0.2]) is None
    assert metrics.cohen_kappa([True, True], [0.9, 0.9]) is None
    assert metrics.brier([], []) is None
    assert metrics.pair_accuracy([], []) is None
    assert metrics.kendall_tau([]) is None


def test_a_summary_has_exactly_the_agreed_keys_and_is_plain_json():
    labels, raw, probability = scored(80)
    summary = intervals.summarise(
        labels, raw, probability, threshold=0.5, draws=50, categories={"spam": (labels, probability), "none": ([], [])}
    )
    names = [f"{name}{end}" for name in metrics.METRICS for end in ("", "_ci")]
    assert set(summary) == {"n", "per_category", *names}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert set(summary["per_category"]["spam"]) == {"n", "n_positive", "roc_auc", "average_precision"}
    assert summary["per_category"]["none"]["roc_auc"] is None
    assert summary["pair_accuracy"] is None
    assert summary["pair_accuracy_ci"] is None


def test_pairs_and_rankings_alone_make_a_summary():
    summary = intervals.summarise(
        [], [], [], threshold=0.5, draws=20, pairs=([2, 3, 1], [1, 1, 2]), rankings=[[3, 2, 1], [1, 2]]
    )
    assert summary["n"] == 0
    assert summary["roc_auc"] is None
    assert summary["ece_ci"] is None
    assert summary["pair_accuracy"] == pytest.approx(2 / 3)
    low, high = summary["pair_accuracy_ci"]
    assert low <= summary["pair_accuracy"] <= high
    assert summary["kendall_tau"] == 0.0


def test_the_same_seed_gives_the_same_summary_and_another_seed_another_interval():
    labels, raw, probability = scored(60)
    first, again = (intervals.summarise(labels, raw, probability, threshold=0.5, draws=50) for _ in range(2))
    other = intervals.summarise(labels, raw, probability, threshold=0.5, draws=50, seed=1)
    assert first == again
    assert first["roc_auc"] == other["roc_auc"]
    assert first["roc_auc_ci"] != other["roc_auc_ci"]


def test_a_bootstrap_draw_equals_the_metric_of_the_repeated_rows():
    labels, raw, probability = scored(30)
    counts = np.random.default_rng(3).integers(0, 4, size=30)
    found = metrics.weighted_metrics(
        labels, raw=raw, probability=probability, weights=counts[None, :].astype(float), threshold=0.5
    )
    labels, raw, probability = (np.repeat(values, counts) for values in (labels, raw, probability))
    assert found["roc_auc"][0] == pytest.approx(metrics.roc_auc(labels, raw))
    assert found["average_precision"][0] == pytest.approx(metrics.average_precision(labels, raw))
    for name in ("accuracy", "f1", "cohen_kappa", "ece", "brier"):
        assert found[name][0] == pytest.approx(getattr(metrics, name)(labels, probability))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """AUC is .88 by construction. P(fewer than 85 of 100 intervals at 95% cover it) < 0.001 at a true 93%."""
    from scipy.stats import norm

    covered = 0
    for seed in range(100):
        labels, raw, probability = scored(150, seed=seed)
        low, high = intervals.summarise(labels, raw, probability, threshold=0.5, draws=200)["roc_auc_ci"]
        covered += low <= norm.cdf(1.66 / math.sqrt(2)) <= high
    assert covered >= 85


def test_intervals_of_rows_in_clusters_are_those_of_the_clusters():
    """Every row eight times says no more than once: the interval is as wide as that of the single rows.

    Widths of 400 draws differ by chance with a standard error of about 4%; P(a false failure) < 0.001 at 20%.
    """
    single = scored(60)
    eightfold = [np.repeat(values, 8) for values in single]
    clusters = intervals.Clusters(labels=np.repeat(np.arange(60), 8))

    def width(rows, **options):
        low, high = intervals.summarise(*rows, threshold=0.5, draws=400, **options)["roc_auc_ci"]
        return high - low

    assert width(eightfold, clusters=clusters) == pytest.approx(width(single), rel=0.2)
    assert width(eightfold) < 0.5 * width(single)


def test_pairs_and_rankings_are_drawn_in_clusters_too():
    labels, raw, probability = scored(10)
    at = np.arange(12) % 6
    better, orders = at % 2, [np.array([1.0, 0.0]), np.array([0.0, 1.0])] * 6
    found = intervals.summarise(
        labels, raw, probability, threshold=0.5, pairs=(better, 1 - better), rankings=orders,
        clusters=intervals.Clusters(pairs=at, rankings=at),
    )  # fmt: skip
    six = intervals.summarise(labels, raw, probability, threshold=0.5, pairs=(better[:6], 1 - better[:6]))
    assert (found["pair_accuracy"], found["pair_accuracy_ci"]) == (0.5, six["pair_accuracy_ci"])
    assert found["kendall_tau_ci"] == pytest.approx([1 - 2 * end for end in reversed(six["pair_accuracy_ci"])])


def test_too_few_clusters_give_values_and_no_interval():
    rows = scored(40)
    found = intervals.summarise(*rows, threshold=0.5, clusters=intervals.Clusters(labels=np.arange(40) % 4))
    assert found["roc_auc"] == metrics.roc_auc(*rows[:2])
    assert [found[f"{name}_ci"] for name in metrics.LABEL_METRICS] == [None] * len(metrics.LABEL_METRICS)


def test_five_thousand_rows_and_500_draws_take_seconds_not_minutes():
    labels, raw, probability = scored(5000)
    started = time.process_time()
    intervals.summarise(labels, raw, probability, threshold=0.5)
    assert time.process_time() - started < 5


def test_the_reliability_curve_counts_every_row_once():
    labels, _, probability = scored(200)
    curve = curves.reliability_curve(labels, probability)
    assert sum(part["n"] for part in curve) == 200
    for part in curve:
        if part["n"]:
            assert part["low"] <= part["mean_probability"] <= part["high"]
            assert part["ci"][0] <= part["fraction_good"] <= part["ci"][1]
    assert curves.reliability_curve([True], [1.0])[0]["ci"] is None


def test_wilson_agrees_with_scipy():
    from scipy.stats import binomtest

    interval = binomtest(7, 20).proportion_ci(method="wilson")
    assert intervals.wilson(7, 20) == pytest.approx([interval.low, interval.high])


def test_the_threshold_curve_runs_from_everything_to_the_surest_rows():
    labels, _, probability = scored(100)
    curve = curves.threshold_curve(labels, probability)
    assert len(curve) == 101
    assert curve[0]["keep_rate"] == curve[0]["recall"] == 1.0
    kept = [point["n_kept"] for point in curve]
    assert kept == sorted(kept, reverse=True)
    assert curve[-1]["precision"] is None


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([0, 1, 2], [0, 0, 0], "true and false"),
        ([True, False], [0.5], "one score for each label"),
        ([True, False], [0.5, math.nan], "1 of 2 scores are not finite"),
    ],
)
def test_unusable_input_is_refused_in_words(labels, scores, said):
    with pytest.raises(InputError, match=said):
        metrics.roc_auc(labels, scores)


def test_raw_scores_passed_as_probabilities_are_refused():
    with pytest.raises(InputError, match="not raw scores"):
        metrics.ece([True, False], [3.0, -2.0])


@pytest.mark.parametrize(("n", "apart"), [(20, 2.56), (40, 3.29)])
def test_of_few_rows_the_intervals_hold_the_truth_as_often_as_they_say(n, apart):
    """200 sets of n normal scores: at a coverage of .95 fewer than 180 hits have a chance of .002."""
    dice = np.random.default_rng(0)
    truth = {"accuracy": norm.cdf(apart / 2), "roc_auc": norm.cdf(apart / 2**0.5)}
    hits = dict.fromkeys(truth, 0)
    for _ in range(200):
        good = np.arange(n) % 2 == 0
        raw = dice.normal(size=n) + apart * (good - 0.5)
        found = intervals.summarise(good, raw, 1 / (1 + np.exp(-apart * raw)), threshold=0.5, draws=100)
        for name, true in truth.items():
            low, high = found[f"{name}_ci"]
            hits[name] += low <= true <= high
    assert min(hits.values()) >= 180


def test_pairs_without_a_mistake_do_not_prove_that_there_is_none_and_clusters_count_as_one():
    pairs, ranks = (np.ones(60), np.zeros(60)), {"threshold": 0.5, "draws": 50}
    assert intervals.summarise([], [], [], pairs=pairs, **ranks)["pair_accuracy_ci"] == intervals.wilson(60, 60)
    clusters = intervals.Clusters(pairs=np.arange(60) // 3)
    found = intervals.summarise([], [], [], pairs=pairs, clusters=clusters, **ranks)
    assert found["pair_accuracy_ci"] == intervals.wilson(20, 20)


@pytest.mark.parametrize(("off", "true"), [(0.0, 0.0), (0.1, 0.1)])
def test_the_interval_of_the_calibration_error_holds_it_also_where_there_is_none(off, true):
    """60 sets of 400 rows, the stated probability `off` below the true one. At a coverage of .93 fewer than 49 hits
    have a chance of .002; the bootstrap's own interval held an error of 0 in none."""
    dice, hits = np.random.default_rng(0), 0
    for _ in range(60):
        right = dice.uniform(off, 1, 400)
        stated = right - off
        found = intervals.summarise(dice.random(400) < right, stated, stated, threshold=0.5, draws=100)
        low, high = found["ece_ci"]
        assert low <= found["ece"] <= high
        hits += low <= true <= high
    assert hits >= 49


def test_a_test_set_without_a_mistake_does_not_prove_that_there_is_none():
    good = np.arange(24) % 2 == 0
    found = intervals.summarise(good, good.astype(float), good * 0.8 + 0.1, threshold=0.5)
    assert found["roc_auc"] == found["accuracy"] == found["roc_auc_ci"][1] == 1
    assert 0.75 < found["roc_auc_ci"][0] < 0.95
    assert found["accuracy_ci"] == intervals.wilson(24, 24)
    assert intervals.roc_auc_interval(good, good.astype(float)) == found["roc_auc_ci"]


def test_the_interval_of_a_roc_auc_is_newcombes():
    """Every bound solves |area - seen| = z * its own standard error (Hanley & McNeil), and mirrored."""
    low, high = auc_score_interval(0.8, 12, 20)
    assert low < 0.8 < high
    for area in (low, high):
        shape = 1 + 15 * ((1 - area) / (2 - area) + area / (1 + area))
        assert abs(area - 0.8) == pytest.approx(1.959964 * (area * (1 - area) * shape / 240) ** 0.5, abs=1e-9)
    assert auc_score_interval(0.2, 20, 12) == pytest.approx([1 - high, 1 - low])
    assert auc_score_interval(0.5, 4000, 4000) == pytest.approx([0.487, 0.513], abs=1e-3)
