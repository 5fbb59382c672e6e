"""Drift beyond chance: seldom where there is none, always where there is some."""

import numpy as np
import pytest

from quality_judge.errors import InputError
from quality_judge.profile import BINS
from quality_judge.stats.drift import MEASURES, ks, psi


def counts(rng, rows, a=2.0, b=2.0):
    return np.bincount(np.minimum((rng.beta(a, b, rows) * BINS).astype(int), BINS - 1), minlength=BINS)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("n", "m"), [(200, 200), (5000, 300), (20000, 20000)])
def test_two_samples_of_one_distribution_drift_no_more_often_than_promised(measure, n, m):
    """400 pairs at 1 in 1,000 expect .4 alarms; 5 or more have a probability below 1 in 15,000 (binomial tail)."""
    rng = np.random.default_rng(3)
    alarms = sum(MEASURES[measure](counts(rng, n), counts(rng, m)) > 0 for _ in range(400))
    assert alarms < 5


@pytest.mark.parametrize("measure", MEASURES)
def test_a_real_shift_is_seen_in_a_thousand_rows(measure):
    rng = np.random.default_rng(4)
    assert MEASURES[measure](counts(rng, 20000), counts(rng, 1000, 4.0, 2.0)) > 0.1


def test_psi_and_ks_are_what_their_formulas_say_where_chance_is_small():
    old, new = np.zeros(BINS, int), np.zeros(BINS, int)
    old[[5, 45]], new[[5, 45]] = [6_000_000, 4_000_000], [5_000_000, 5_000_000]
    assert psi(old, new) == pytest.approx(0.1 * np.log(6 / 5) + 0.1 * np.log(5 / 4), abs=1e-4)
    assert ks(old, new) == pytest.approx(0.1, abs=1e-3)


def test_a_table_without_scores_and_unlike_bins_are_refused():
    with pytest.raises(InputError, match="without scores"):
        psi([0] * BINS, [1] * BINS)
    with pytest.raises(InputError, match="50 and 10 bins"):
        ks([1] * BINS, [1] * 10)
