"""The interval of a mean in clusters: Student's where each is alone, wider where not, none without evidence."""

import numpy as np
import pytest
from scipy import stats

from quality_judge.stats.clustered import MIN_CLUSTERS, clustered_interval


def test_of_clusters_of_one_it_is_students_interval():
    values = np.random.default_rng(0).normal(3, 2, 40)
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert clustered_interval(values, np.arange(40)) == pytest.approx(expected)


def test_copies_of_a_value_are_no_further_evidence():
    values = np.random.default_rng(0).normal(3, 2, 40)
    once = clustered_interval(values, np.arange(40))
    assert clustered_interval(np.repeat(values, 8), np.repeat(np.arange(40), 8)) == pytest.approx(once)


def test_it_covers_the_truth_as_often_as_it_says_where_an_interval_of_rows_does_not():
    dice, cluster, covered, naive = np.random.default_rng(1), np.repeat(np.arange(20), 8), 0, 0
    for _ in range(1000):
        values = np.repeat(dice.normal(size=20), 8) + dice.normal(size=160)
        low, high = clustered_interval(values, cluster)
        covered += low <= 0 <= high
        naive += abs(values.mean()) <= 1.96 * stats.sem(values)
    assert 930 <= covered <= 970
    assert naive < 700


def test_too_few_clusters_and_values_all_alike_give_none():
    few = MIN_CLUSTERS - 1
    assert clustered_interval(np.arange(4 * few), np.repeat(np.arange(few), 4)) is None
    assert clustered_interval(np.zeros(80), np.repeat(np.arange(10), 8)) is None
