"""Calibration: shape of the map, the fit, its refusals, and that it survives being written down."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quality_judge.errors import InputError
from quality_judge.stats.calibration import (
    SLOPE_FLOOR,
    Calibration,
    fit_calibration,
    fit_isotonic,
    fit_platt,
    labels_missing,
    pool_adjacent_violators,
)
from quality_judge.stats.metrics import ece

FINITE = st.floats(-1e6, 1e6)


def judged(n: int, *, seed: int = 0, rate: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores of a judge with AUC .88, three times too sure of itself."""
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < rate
    return 5 * (generator.normal(size=n) + 1.66 * (labels - 0.5)), labels


def log_loss(probability: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.where(labels, probability, 1 - probability)).mean())


@settings(max_examples=50, deadline=None)
@given(
    raw=st.lists(FINITE, min_size=8, max_size=30),
    marks=st.lists(st.booleans(), min_size=30, max_size=30),
    at=st.lists(st.floats(allow_nan=False), min_size=1, max_size=20),
    fit=st.sampled_from([fit_platt, fit_isotonic]),
)
def test_any_fit_is_a_never_falling_map_into_the_open_unit_interval(raw, marks, at, fit):
    labels = np.array(marks[: len(raw)])
    labels[:2] = True, False
    probability = fit(raw, labels).apply(np.sort(at))
    assert ((probability > 0) & (probability < 1)).all()
    assert (np.diff(probability) >= 0).all()


def test_a_missing_score_stays_missing():
    raw, labels = judged(50)
    for fit in (fit_platt, fit_isotonic):
        assert np.isnan(fit(raw, labels).apply([math.nan, 0.0])).tolist() == [True, False]


@pytest.mark.parametrize(("factor", "shift"), [(100.0, 0.0), (0.01, -3.0), (1.0, -400.0)])
def test_probabilities_do_not_depend_on_the_unit_or_the_zero_of_raw_scores(factor, shift):
    raw, labels = judged(40)
    moved = factor * raw + shift
    np.testing.assert_allclose(
        fit_platt(moved, labels).apply(moved), fit_platt(raw, labels).apply(raw), rtol=1e-6, atol=1e-9
    )


def test_platt_finds_the_largest_posterior():
    from scipy.optimize import minimize
    from scipy.special import log_expit

    raw, labels = judged(60)
    fitted = fit_platt(raw, labels)
    x = (raw - fitted.center) / fitted.scale
    n_good, n_bad = labels.sum(), (~labels).sum()
    target = np.where(labels, (n_good + 1) / (n_good + 2), 1 / (n_bad + 2))

    def loss(at):
        z = at[0] * x + at[1]
        prior = (at[0] - 1) ** 2 + (at[1] - math.log((n_good + 1) / (n_bad + 1))) ** 2
        return -(target * log_expit(z) + (1 - target) * log_expit(-z)).sum() + prior / 2

    found = minimize(loss, [1.0, 0.0], tol=1e-10).x
    assert [fitted.slope, fitted.bias] == pytest.approx(found, abs=1e-4)


def test_pooling_agrees_with_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    generator = np.random.default_rng(0)
    values, weights = generator.normal(size=200), generator.random(200) + 0.1
    expected = IsotonicRegression().fit_transform(np.arange(200), values, sample_weight=weights)
    np.testing.assert_allclose(pool_adjacent_violators(values, weights), expected)


def test_an_overconfident_judge_becomes_calibrated_with_few_labels():
    """Goals of the project: ECE <= .06 at 80 labels and <= .05 at 160, log-loss at least 25% below raw; mean of 20."""
    fresh_raw, fresh_labels = judged(4000, seed=999)
    raw_loss = log_loss(np.clip(1 / (1 + np.exp(-fresh_raw)), 1e-9, 1 - 1e-9), fresh_labels)
    for n, most in ((80, 0.06), (160, 0.05)):
        errors, losses = [], []
        for seed in range(20):
            probability = fit_calibration(*judged(n, seed=seed)).apply(fresh_raw)
            errors.append(ece(fresh_labels, probability))
            losses.append(log_loss(probability, fresh_labels))
        assert np.mean(errors) <= most
        assert np.mean(losses) <= 0.75 * raw_loss


def test_a_judge_worse_than_chance_gets_a_flat_curve_not_a_reversed_one():
    raw, labels = judged(200)
    fitted = fit_platt(-raw, labels)
    assert fitted.slope == SLOPE_FLOOR
    assert np.ptp(fitted.apply(-raw)) < 0.05


def test_perfectly_separated_labels_stay_finite():
    fitted = fit_platt([-1.0] * 5 + [1.0] * 5, [False] * 5 + [True] * 5)
    assert 0.5 < fitted.apply(1.0) < 0.99


def test_equal_scores_give_the_base_rate():
    assert fit_platt([3.0] * 40, [True] * 30 + [False] * 10).apply(3.0) == pytest.approx(0.75, abs=0.02)


def test_a_row_of_weight_two_counts_as_two_rows():
    raw, labels = judged(1200)
    twice = np.concatenate([raw, raw[:200]]), np.concatenate([labels, labels[:200]])
    weights = np.where(np.arange(1200) < 200, 2.0, 1.0)
    expected = fit_platt(*twice).apply(raw)
    np.testing.assert_allclose(fit_platt(raw, labels, weights=weights).apply(raw), expected, atol=0.01)
    assert (
        np.abs(fit_isotonic(raw, labels, weights=weights).apply(raw) - fit_isotonic(*twice).apply(raw)).mean() < 0.005
    )


def test_a_soft_label_is_as_much_evidence_as_a_hard_one():
    generator = np.random.default_rng(2)
    raw = generator.normal(size=600)
    labels = generator.random(600) < 1 / (1 + np.exp(-raw))
    twice, texts = np.repeat(raw, 2), np.repeat(np.arange(600), 2)
    halves = fit_calibration(twice, np.repeat(labels, 2), weights=np.full(1200, 0.5), texts=texts)
    assert halves.method == "platt"
    np.testing.assert_allclose(halves.apply(raw), fit_platt(raw, labels).apply(raw), atol=1e-3)
    assert abs(halves.slope - fit_platt(raw, labels).slope) < 0.01


def test_only_the_ratios_of_weights_matter():
    raw, labels = judged(100)
    for fit in (fit_platt, fit_isotonic):
        np.testing.assert_allclose(
            fit(raw, labels, weights=np.full(100, 8.0)).apply(raw), fit(raw, labels).apply(raw), rtol=1e-12
        )


def test_rows_on_one_step_of_an_isotonic_map_keep_their_order():
    raw = np.linspace(-3, 3, 1000)
    steps = fit_isotonic(raw, raw > 0)
    new = np.linspace(-6, 6, 2001)
    found = steps.apply(new)
    assert (np.diff(found) > 1e-9).all()  # a rank rule tells scores apart that differ by 2 to the power of -32
    np.testing.assert_allclose(found, np.interp(new, steps.knots_raw, steps.knots_probability), atol=1e-3)


def test_isotonic_is_used_only_from_1000_labels_and_then_fits_a_stepped_judge_better():
    generator = np.random.default_rng(0)
    raw = generator.uniform(-3, 3, size=3000)
    stepped = generator.random(3000) < np.where(raw < -1, 0.1, np.where(raw < 2, 0.5, 0.97))
    assert fit_calibration(raw, stepped).method == "isotonic"
    assert fit_calibration(raw[:999], stepped[:999]).method == "platt"
    chance = np.where(raw < -1, 0.1, np.where(raw < 2, 0.5, 0.97))
    gaps = [np.abs(fit(raw, stepped).apply(raw) - chance).mean() for fit in (fit_calibration, fit_platt)]
    assert gaps[0] < gaps[1] / 2


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_a_calibration_survives_json_exactly(fit):
    raw, labels = judged(100)
    fitted = fit(raw, labels)
    again = Calibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    assert again.apply(raw).tobytes() == fitted.apply(raw).tobytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "plat"}, "did you mean 'platt'"),
        ({"slop": 1.0}, "did you mean 'slope'"),
        ({"slope": math.nan}, "no finite number"),
        ({"slope": -1.0}, "above 0"),
        ({"scale": 0.0}, "above 0"),
        ({"bias": "1"}, "no finite number"),
        ({"bias": [1.0]}, "bias is a list"),
    ],
)
def test_a_damaged_platt_calibration_is_refused(change, said):
    good = {"method": "platt", "slope": 1.0, "bias": 0.0, "center": 0.0, "scale": 1.0}
    with pytest.raises(InputError, match=said):
        Calibration.from_dict({**good, **change})


def test_a_calibration_that_lacks_a_key_is_refused():
    with pytest.raises(InputError, match="lacks center, scale"):
        Calibration.from_dict({"method": "platt", "slope": 1.0, "bias": 0.0})


@pytest.mark.parametrize(
    ("raw", "probability", "said"),
    [
        ([0.0, 1.0], [0.9, 0.1], "do not rise"),
        ([0.0, 0.0], [0.1, 0.2], "do not rise"),
        ([0.0, 1.0], [0.0, 0.5], "outside"),
        ([0.0], [0.1, 0.2], "as many"),
        ([], [], "as many"),
    ],
)
def test_damaged_knots_are_refused(raw, probability, said):
    with pytest.raises(InputError, match=said):
        Calibration.from_dict({"method": "isotonic", "knots_raw": raw, "knots_probability": probability})


def test_too_few_labels_are_refused_with_the_number_missing():
    with pytest.raises(InputError, match="label 3 more"):
        fit_calibration([1.0] * 5, [True] * 5)
    with pytest.raises(InputError, match="at least 1 bad row is missing"):
        fit_calibration([1.0] * 20, [True] * 20)
    with pytest.raises(InputError, match="above 0"):
        fit_platt([1.0] * 10, [True, False] * 5, weights=[0.0] * 10)


@pytest.mark.parametrize(
    ("good", "bad", "missing"), [(0, 0, 20), (10, 9, 1), (19, 1, 0), (10, 10, 0), (300, 0, 1), (0, 15, 5)]
)
def test_a_probability_needs_twenty_labels_and_both_classes(good, bad, missing):
    assert labels_missing(good, bad) == missing
