"""Promises from fresh labels: one exact test at a cut fixed before, unlabelled rows count against it."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from quality_judge.errors import InputError
from quality_judge.stats.certificate import Promises, Targets, lower_bound
from quality_judge.stats.fresh import Region, certify_fresh
from quality_judge.stats.thresholds import certify

GOOD_RATE = 0.6
DISTANCE = math.sqrt(2) * float(norm.ppf(0.88))
DRAWS = 500


def shares(cut):
    """(share of rows kept, precision, share of good rows among the dropped) of the judge of the notes, AUC .88."""
    good, bad = (norm.sf(norm.ppf(cut) - side * DISTANCE / 2) for side in (1, -1))
    kept = GOOD_RATE * good + (1 - GOOD_RATE) * bad
    return kept, GOOD_RATE * good / kept, GOOD_RATE * (1 - good) / (1 - kept)


def drawn(share_good, n, population, dice):
    good = int(dice.binomial(n, share_good))
    return Region(population, good, n - good)


@pytest.mark.parametrize(("precision", "npv", "recall"), [(0.9, None, None), (0.9, 0.6, 0.3), (0.85, 0.5, 0.7)])
def test_fresh_promises_are_broken_no_more_often_than_promised(precision, npv, recall):
    """The cut lies exactly where a promise is just broken, the worst case. Allowed: 10%; at a true 10% more than 64 of
    500 have probability below 0.02. A draw is broken when any granted promise is false. Seeds are fixed."""
    cut = min(np.linspace(0.01, 0.99, 981), key=lambda at: abs(shares(at)[1] - (precision - 0.0005)))
    share_kept, true_precision, true_lost = shares(cut)
    assert true_precision < precision
    kept_rows, dropped_rows = round(1e6 * share_kept), round(1e6 * (1 - share_kept))
    true_recall = kept_rows * true_precision / (kept_rows * true_precision + dropped_rows * true_lost)
    broken = 0
    for seed in range(DRAWS):
        dice = np.random.default_rng(seed)
        kept = drawn(true_precision, 120, kept_rows, dice)
        dropped = None if npv is None else drawn(true_lost, 40, dropped_rows, dice)
        found = certify_fresh(kept, dropped, Targets(precision, npv, recall), keep_at=cut)
        wrong = found.keep.granted
        wrong |= bool(found.drop and found.drop.granted and 1 - true_lost < npv)
        wrong |= bool(found.recall and found.recall.granted and true_recall < recall)
        broken += wrong
    assert 0 < broken <= 64


def test_recall_alone_at_its_own_edge_is_kept_too():
    """What is asked for is a hair above the truth, so that every grant is a violation."""
    share_kept, precision, lost = shares(0.5)
    kept_rows, dropped_rows = round(1e6 * share_kept), round(1e6 * (1 - share_kept))
    recall = kept_rows * precision / (kept_rows * precision + dropped_rows * lost)
    broken = 0
    for seed in range(DRAWS):
        dice = np.random.default_rng(seed)
        kept, dropped = drawn(precision, 120, kept_rows, dice), drawn(lost, 60, dropped_rows, dice)
        found = certify_fresh(kept, dropped, Targets(0.5, recall=recall + 0.001), keep_at=0.5)
        broken += found.recall.granted
    assert broken <= 64


def test_where_good_rows_are_rare_fresh_labels_certify_what_as_many_random_ones_cannot():
    """One row in five is good, and the true precision at the cut is .95; 100 draws of 150 labels each."""
    rate, grid = 0.2, np.linspace(-2, 4, 601)
    good, bad = norm.sf(grid - DISTANCE / 2), norm.sf(grid + DISTANCE / 2)
    precision = rate * good / (rate * good + (1 - rate) * bad)
    at = int(np.argmin(np.abs(precision - 0.95)))
    fresh = random = 0
    for seed in range(100):
        dice = np.random.default_rng(seed)
        fresh += certify_fresh(drawn(precision[at], 150, 10**6, dice), None, Targets(), keep_at=0.9).keep.granted
        labels = dice.random(150) < rate
        scores = norm.cdf(dice.normal(size=150) + np.where(labels, DISTANCE / 2, -DISTANCE / 2))
        random += certify(scores, labels).granted
    assert fresh > 65
    assert random < 10


def test_precision_alone_has_all_the_confidence_whatever_else_was_drawn():
    kept, dropped = Region(9000, 98, 2), Region(1000, 3, 37)
    alone, beside = (certify_fresh(kept, other, Targets(0.9), keep_at=0.7) for other in (None, dropped))
    assert beside.keep == alone.keep
    assert (beside.keep.confidence, beside.keep.lower_bound) == (0.9, lower_bound(2, 100, 0.9))


def test_the_bounds_are_the_exact_ones_and_split_where_two_regions_were_drawn():
    kept, dropped = Region(9000, 98, 2), Region(1000, 3, 37)
    alone = certify_fresh(kept, None, Targets(), keep_at=0.7)
    assert alone.keep.lower_bound == lower_bound(2, 100, 0.9)
    assert (alone.keep.threshold, alone.keep.sampling, alone.keep.n) == (0.7, "fresh", 100)
    both = certify_fresh(kept, dropped, Targets(npv=0.75, recall=0.9), keep_at=0.7, drop_below=0.2)
    assert both.keep.lower_bound == lower_bound(2, 100, 0.95)
    assert both.drop.lower_bound == lower_bound(3, 40, 0.95)
    good_kept, good_lost = 9000 * lower_bound(2, 100, 0.95), 1000 * (1 - lower_bound(3, 40, 0.95))
    assert both.recall.lower_bound == pytest.approx(good_kept / (good_kept + good_lost))
    assert both.recall.recall_estimate == pytest.approx(9000 * 0.98 / (9000 * 0.98 + 1000 * 3 / 40))
    assert (both.keep_at, both.drop_below, both.recall.confidence, both.keep.confidence) == (0.7, 0.2, 0.9, 0.95)
    assert Promises.from_dict(both.to_dict()) == both


def test_rows_that_nobody_labelled_count_against_every_promise():
    full, gaps = Region(9000, 98, 2), Region(9000, 60, 2, 38)
    assert certify_fresh(full, None, Targets(), keep_at=0.5).keep.granted
    refused = certify_fresh(gaps, None, Targets(), keep_at=0.5).keep
    assert not refused.granted
    assert "(38 of them nobody labelled, or experts are at odds, and they count as wrong)" in refused.message
    assert "settle those 38 first" in refused.message


@pytest.mark.parametrize(("good", "bad", "missing"), [(50, 3, 100), (0, 0, 22), (80, 20, None)])
def test_a_refusal_says_how_many_rows_to_draw_anew(good, bad, missing):
    refused = certify_fresh(Region(10**6, good, bad), None, Targets(), keep_at=0.5).keep
    assert not refused.granted
    if missing is None:
        assert refused.labels_missing is None
        assert "more labels will not help" in refused.message
    else:
        assert missing <= refused.labels_missing < 5 * missing
        assert "anew" in refused.message


def test_a_recall_that_is_not_shown_says_what_would_help():
    near = certify_fresh(Region(9000, 98, 2), Region(1000, 3, 17), Targets(recall=0.97), keep_at=0.5).recall
    assert (near.granted, near.labels_missing > 120) == (False, True)
    far = certify_fresh(Region(1000, 98, 2), Region(9000, 10, 10), Targets(recall=0.9), keep_at=0.5).recall
    assert (far.granted, far.labels_missing) == (False, None)
    assert "drop fewer rows" in far.message
    gaps = certify_fresh(Region(1000, 100, 0), Region(9000, 0, 30, 10), Targets(recall=0.3), keep_at=0.5).recall
    assert not gaps.granted
    assert "10 rows without a label count against it; settle those 10 first" in gaps.message


def test_impossible_requests_are_refused():
    with pytest.raises(InputError, match="none were drawn"):
        certify_fresh(Region(10, 5, 0), None, Targets(recall=0.9), keep_at=0.5)
    with pytest.raises(InputError, match="drop_below"):
        certify_fresh(Region(10, 5, 0), None, Targets(), keep_at=0.5, drop_below=0.6)
    with pytest.raises(InputError, match="11 rows drawn from a region of 10"):
        Region(10, 5, 6)
