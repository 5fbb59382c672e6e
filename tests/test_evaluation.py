"""Evaluation: the numbers are sklearn's, an unscored row never helps, and only held-out labels certify."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from quality_judge.config import JudgeConfig
from quality_judge.engine.scorer import load_scorer
from quality_judge.errors import InputError, JudgeError, LabelError
from quality_judge.evaluation import (
    ScoredLabels,
    certificate,
    certified_fresh,
    curves,
    measure,
    recalibrated,
    save_certified,
    score_labels,
    with_calibration,
)
from quality_judge.judge import CARD_FILE, METRICS_FILE, load_judge
from quality_judge.labels import LabelSet, flatten
from quality_judge.labels.drawn import Drawing
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample
from quality_judge.stats.calibration import Calibration, fit_platt
from quality_judge.stats.certificate import Targets
from quality_judge.stats.metrics import METRICS
from quality_judge.stats.thresholds import certify_all

NAN = np.nan
GOOD, BAD = ["water", "boils", "mountain", "air", "presses"], ["click", "free", "price", "raises", "empty"]


def labels_of(rows):
    return LabelSet.of(rows, [f"made.jsonl:{line}" for line in range(1, len(rows) + 1)])


def samples(count, *, seed=0, noise=0.0):
    dice = np.random.default_rng(seed)

    def sample(line):
        words = GOOD if (line % 2 == 0) != (dice.random() < noise) else BAD
        return Sample("", " ".join([*dice.choice(words, 5), *dice.choice(list("abcdefghij"), 5)]), line % 2 == 0)

    return [sample(line) for line in range(count)]


def scored_as(rows, raw, probability=None, categories=None):
    """These labels with these scores; the probability is the raw score's sigmoid where none is given."""
    raw = np.asarray(raw, float)
    probability = 1 / (1 + np.exp(-raw)) if probability is None else np.asarray(probability, float)
    return ScoredLabels(flatten(labels_of(rows)), raw, probability, categories or {})


@pytest.fixture
def scored():
    dice = np.random.default_rng(0)
    rows = samples(80)
    return scored_as(rows, np.array([row.label for row in rows]) * 1.5 - 0.75 + dice.normal(size=80))


def test_the_numbers_are_sklearns(scored):
    good, probability = scored.flat.label == 1, scored.probability
    found = measure(scored, threshold=0.4)
    kept = probability >= 0.4
    assert found["n"] == 80
    for name, expected in {
        "roc_auc": sklearn_metrics.roc_auc_score(good, scored.raw),
        "average_precision": sklearn_metrics.average_precision_score(good, scored.raw),
        "accuracy": sklearn_metrics.accuracy_score(good, kept),
        "f1": sklearn_metrics.f1_score(good, kept),
        "cohen_kappa": sklearn_metrics.cohen_kappa_score(good, kept),
        "brier": sklearn_metrics.brier_score_loss(good, probability),
    }.items():
        assert found[name] == pytest.approx(expected), name
        low, high = found[f"{name}_ci"]
        assert low <= found[name] <= high


def test_without_a_threshold_of_its_own_a_judge_cuts_at_one_half(scored):
    assert measure(scored, threshold=None) == measure(scored, threshold=0.5)


def test_what_does_not_apply_is_null(scored):
    found = measure(scored, threshold=0.5)
    assert [found[name] for name in ("pair_accuracy", "pair_accuracy_ci", "kendall_tau", "per_category")] == [None] * 4
    pairs = measure(scored_as([Preference("p", "one", "two")], [1.0, 0.0]), threshold=0.5)
    assert (pairs["n"], pairs["roc_auc"], pairs["pair_accuracy"]) == (0, None, 1.0)


def test_orders_are_measured_by_pairs_and_rankings():
    rows = [Preference("p", "one", "two"), Ranking("q", ("three", "four", "five"))]
    found = measure(scored_as(rows, [0.0, 1.0, 3.0, 1.0, 2.0]), threshold=0.5)
    assert found["pair_accuracy"] == 0.5  # the pair is wrong; of the ranking's three pairs two are right
    assert found["kendall_tau"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("label", [True, False])
def test_an_unscored_row_counts_as_the_worst_score(label):
    rows = [Sample("", text, good) for text, good in (("one", True), ("two", False), ("three", label))]
    missing = measure(scored_as(rows, [2.0, -1.0, NAN], [0.9, 0.2, NAN]), threshold=0.5)
    worst = measure(scored_as(rows, [2.0, -1.0, -1.0], [0.9, 0.2, 0.0]), threshold=0.5)
    assert missing == worst
    assert missing["accuracy"] == pytest.approx(2 / 3 if label else 1)


def test_a_batch_without_a_single_score_is_measured_as_the_worst_too():
    rows = [Sample("", "one", True), Sample("", "two", False)]
    found = measure(scored_as(rows, [NAN, NAN], [NAN, NAN]), threshold=0.5)
    assert (found["roc_auc"], found["accuracy"]) == (0.5, 0.5)


def test_without_a_probability_nothing_that_needs_one_is_invented():
    """A judge of orders alone gives raw scores only: it ranks, and it has no accuracy."""
    rows = [Sample("", "one", True), Sample("", "two", False), Preference("p", "three", "four")]
    found = measure(scored_as(rows, [2.0, 1.0, 1.0, 0.0], [NAN] * 4), threshold=None)
    assert found["roc_auc"] == found["pair_accuracy"] == 1
    for name in ("accuracy", "f1", "cohen_kappa", "ece", "brier"):
        assert found[name] is None
        assert found[f"{name}_ci"] is None
    assert set(found) == {"n", "per_category", *METRICS, *(f"{name}_ci" for name in METRICS)}


def test_categories_are_measured_on_rows_where_somebody_looked():
    rows = [CategoryRow("", f"text {i}", {"advert": [True, False, None, True][i]}) for i in range(4)]
    scored = scored_as(rows, [0.0] * 4, categories={"advert": np.array([0.9, 0.2, 0.7, NAN])})
    found = measure(scored, threshold=0.5)["per_category"]
    assert found["advert"]["n"] == 3
    assert found["advert"]["n_positive"] == 2
    assert found["advert"]["roc_auc"] == 0.5  # of two rows that it applies to one has no score


def test_categories_the_judge_does_not_know_are_left_out():
    scored = scored_as([CategoryRow("", "one", {"advert": True})], [0.0], categories={"other": np.array([0.5])})
    assert measure(scored, threshold=0.5)["per_category"] is None


def test_curves_leave_out_rows_without_a_probability(scored):
    some = scored_as(samples(80), scored.raw, np.where(np.arange(80) < 30, NAN, scored.probability))
    found = curves(some)
    assert sum(part["n"] for part in found["reliability"]) == 50
    assert found["threshold"][0]["n_kept"] == 50
    assert curves(scored_as([Preference("p", "one", "two")], [1.0, 0.0])) == {}


def test_a_certificate_counts_a_text_once_that_two_kinds_of_rows_judge():
    texts, good = [f"text number {i}" for i in range(30)], [i >= 8 for i in range(30)]
    rows = [Sample("", text, label) for text, label in zip(texts, good, strict=True)]
    twice = [*rows, *(CategoryRow("", text, {"S1": not label}) for text, label in zip(texts, good, strict=True))]
    raw = np.linspace(-3, 3, 30)
    once, both = (certificate(scored_as(*given), Targets()) for given in ((rows, raw), (twice, [*raw, *raw])))
    assert (once.keep.n, both) == (30, once)


def test_a_certificate_counts_labelled_rows_with_a_probability_only():
    rows = [*samples(60), Preference("p", "one", "two")]
    right = np.array([0.95 if row.label else 0.05 for row in rows[:60]] + [0.99, 0.01])
    promise = certificate(scored_as(rows, right, np.where(np.arange(62) < 10, NAN, right)), Targets(0.8))
    assert promise.keep.granted
    assert promise.keep.n == 50
    assert certificate(scored_as([Preference("p", "a", "b")], [1.0, 0.0]), Targets(0.8)) is None
    assert certificate(scored_as(rows, right, np.full(62, NAN)), Targets(0.8)) is None


def test_another_calibration_changes_the_probability_and_nothing_else(scored):
    calibration = Calibration("platt", slope=2.0, bias=-1.0)
    found = with_calibration(scored, calibration)
    assert found.raw is scored.raw
    assert found.flat is scored.flat
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-(2 * scored.raw - 1))))


@pytest.fixture(scope="module")
def judge(tiny_base, tmp_path_factory):
    """A frozen judge on a tiny random base, saved with metrics."""
    from quality_judge.train.fit import fit_judge
    from quality_judge.train.save import draft_judge

    labels = labels_of(samples(60))
    train = {"method": "frozen", "folds": 2, "surface": False}
    config = JudgeConfig(name="tiny", base=str(tiny_base("bert")), max_tokens=32, train=train)
    folder = tmp_path_factory.mktemp("judge")
    draft = draft_judge(folder, fit_judge(labels, config), config, labels)
    metrics = {
        "test": {"n": 7},
        "baselines": {"length_only": {"n": 7, "roc_auc": 0.6}},
        "labels": {"train": {"rows": 60}},
    }
    return save_certified(draft, folder / "judge", metrics, None)


@pytest.fixture(scope="module")
def scorer(judge):
    return load_scorer(judge)


def test_labels_are_scored_as_rows_of_a_corpus_are(scorer):
    rows = [*samples(6), Preference("a prompt", "one", "two"), CategoryRow("", "three", {"advert": True})]
    found = score_labels(scorer, labels_of(rows))
    expected = scorer.score(found.flat.completions, found.flat.prompts)
    np.testing.assert_array_equal(found.raw, expected.raw)
    np.testing.assert_array_equal(found.probability, expected.probability)
    without = score_labels(scorer, labels_of(samples(6)))
    np.testing.assert_array_equal(without.raw, scorer.score([row.completion for row in samples(6)]).raw)


@pytest.fixture(scope="module")
def fresh(judge, scorer, tmp_path_factory):
    """The judge calibrated anew on labels of which a third are wrong: it was too sure for them."""
    labels = labels_of(samples(120, seed=9, noise=0.35))
    output = tmp_path_factory.mktemp("fresh") / "judge"
    return (*recalibrated(judge, scorer, labels, output, Targets(0.55, confidence=0.6)), labels)


def test_recalibrating_changes_the_fingerprint_and_no_raw_score(judge, scorer, fresh):
    renewed, _, labels = fresh
    assert load_judge(renewed.folder).fingerprint == renewed.fingerprint != judge.fingerprint
    before, after = (score_labels(each, labels) for each in (scorer, load_scorer(renewed)))
    np.testing.assert_array_equal(before.raw, after.raw)
    assert np.abs(before.probability - after.probability).max() > 0.05
    assert load_judge(judge.folder).fingerprint == judge.fingerprint


def test_a_judge_calibrated_anew_says_nothing_of_attacks_on_its_old_cut_and_names_both_commands(
    judge, scorer, tmp_path
):
    shutil.copytree(judge.folder, tmp_path / "attacked")
    metrics = json.loads(judge.path(METRICS_FILE).read_text()) | {"redteam": {"threshold": 0.5}}
    (tmp_path / "attacked" / METRICS_FILE).write_text(json.dumps(metrics))
    spec = judge.spec.model_copy(update={"training": {**judge.spec.training, "command": "train it"}})
    attacked = replace(judge, folder=str(tmp_path / "attacked"), spec=spec)
    labels = labels_of(samples(60, seed=9, noise=0.35))
    renewed, metrics = recalibrated(attacked, scorer, labels, tmp_path / "new", Targets(0.55), command="calibrate it")
    assert "redteam" not in metrics
    assert "train it\ncalibrate it" in renewed.path(CARD_FILE).read_text()


def test_recalibrating_calibrates_certifies_and_measures_on_every_label(judge, fresh):
    renewed, metrics, _ = fresh
    assert metrics["test"]["n"] == metrics["certificate"]["n"] == 120
    assert metrics["labels"]["calibration"]["rows"] == metrics["labels"]["held_out"]["rows"] == 120
    assert metrics["labels"]["train"] == {"rows": 60}
    assert renewed.spec.certificate == metrics["certificate"]
    assert renewed.spec.thresholds["certified"] == metrics["certificate"]["threshold"]
    assert renewed.spec.precision_band == judge.spec.precision_band
    assert json.loads(renewed.path(METRICS_FILE).read_text()) == metrics


def test_what_is_measured_is_cross_fitted_and_not_what_was_fitted_to(judge, scorer, fresh):
    """Fitted and measured on the same labels, a calibration looks better than it is."""
    renewed, metrics, labels = fresh
    same = measure(score_labels(load_scorer(renewed), labels), threshold=renewed.spec.thresholds["best"])
    assert metrics["test"]["brier"] > same["brier"]
    assert metrics["test"]["cohen_kappa"] <= same["cohen_kappa"]


def test_labels_under_one_prompt_too_are_measured_by_calibrations_that_did_not_see_them(judge, scorer, tmp_path):
    rows = [replace(row, prompt="Judge this text.") for row in samples(60, seed=9, noise=0.35)]
    labels = labels_of(rows)
    renewed, metrics = recalibrated(judge, scorer, labels, tmp_path / "judge", Targets(0.55, confidence=0.6))
    same = measure(score_labels(load_scorer(renewed), labels), threshold=renewed.spec.thresholds["best"])
    assert metrics["test"]["brier"] > same["brier"]


def test_one_label_of_a_class_is_enough_to_calibrate_by(judge, scorer, tmp_path):
    rows = [*[row for row in samples(60) if row.label][:19], next(row for row in samples(60) if not row.label)]
    renewed, metrics = recalibrated(judge, scorer, labels_of(rows), tmp_path / "judge", Targets())
    assert metrics["test"]["n"] == 20
    assert renewed.spec.calibration


@pytest.mark.parametrize("n", [60, 250])
def test_fitting_platt_to_the_labels_that_certify_does_not_change_what_is_certified(n):
    """The certificate rests on the order of the scores, and Platt keeps it: the same rows are kept."""
    dice = np.random.default_rng(n)
    good = dice.random(n) < 0.6
    raw = dice.normal(size=n) + 2 * good
    before = 1 / (1 + np.exp(-raw))
    after = fit_platt(raw, good).apply(raw)
    for targets in (Targets(), Targets(npv=0.7, recall=0.8)):
        one, two = certify_all(before, good, targets), certify_all(after, good, targets)
        assert one.keep.granted == two.keep.granted
        for cut in ("keep_at", "drop_below"):
            assert (getattr(one, cut) is None) == (getattr(two, cut) is None)
            if getattr(one, cut) is not None:
                np.testing.assert_array_equal(before >= getattr(one, cut), after >= getattr(two, cut))


@pytest.fixture
def drawing(judge, scorer):
    """40 rows drawn from 400 at or above the judge's cut, 20 from 600 below it, and their labels by name."""
    rows = samples(200, seed=21)
    scores = score_labels(scorer, labels_of(rows)).probability
    cut = float(np.median(scores))
    kept = [row for row, score in zip(rows, scores, strict=True) if score >= cut][:40]
    dropped = [row for row, score in zip(rows, scores, strict=True) if score < cut][:20]
    texts = [frozenset(("", row.completion) for row in side) for side in (kept, dropped)]
    sizes = {"kept": 400, "dropped": 600}
    return Drawing(judge.fingerprint, cut, cut, *texts, sizes, sizes), kept, dropped


def test_fresh_labels_certify_the_cut_they_were_drawn_at_and_leave_every_score_as_it_was(judge, drawing, tmp_path):
    drawn, kept, dropped = drawing
    labels = labels_of([replace(row, label=True) for row in kept] + [replace(row, label=False) for row in dropped])
    renewed, promise = certified_fresh(judge, drawn, labels, tmp_path / "new", Targets(0.9, npv=0.8, recall=0.7))
    assert renewed.fingerprint == judge.fingerprint
    assert (promise.keep.n, promise.drop.n, promise.recall.n) == (40, 20, 60)
    assert renewed.spec.thresholds["certified"] == renewed.spec.thresholds["certified_drop"] == drawn.keep_at
    assert renewed.spec.threshold == renewed.spec.drop_below == drawn.keep_at
    metrics = json.loads(renewed.path(METRICS_FILE).read_text())
    assert metrics["certificate"]["sampling"] == "fresh"
    assert metrics["test"] == {"n": 7}
    assert metrics["labels"]["fresh"]["rows"] == 60


def test_fresh_labels_of_another_judges_rows_are_refused(judge, drawing, tmp_path):
    drawn, kept, _ = drawing
    with pytest.raises(JudgeError, match="drawn for the judge 0000"):
        certified_fresh(judge, replace(drawn, judge="0000"), labels_of(kept), tmp_path / "new", Targets())


def test_a_judge_proposes_a_cut_for_the_next_labels_that_no_label_has_touched(judge, tmp_path):
    rows = samples(60)
    right = np.linspace(0.2, 0.99, 60)
    saved = {}
    for name, labels in (("as", rows), ("turned", [replace(row, label=not row.label) for row in rows])):
        scored = scored_as(labels, right, right)
        kept = save_certified(judge, tmp_path / name, {"test": {"n": 60}}, None, scored=scored, targets=Targets())
        saved[name] = kept.spec.thresholds["proposed"]
    assert saved["as"] == saved["turned"] > 0.8


def test_the_command_that_made_a_judge_stands_on_its_card(judge, tmp_path):
    command = "python training/train_judge.py --labels mine.jsonl"
    saved = save_certified(judge, tmp_path / "made", {"test": {"n": 60}}, None, command=command)
    assert command in saved.path(CARD_FILE).read_text()
    assert saved.fingerprint in saved.path(CARD_FILE).read_text()


def test_a_recalibrated_judge_is_not_set_beside_baselines_that_answered_for_other_rows(fresh):
    _, metrics, _ = fresh
    assert metrics["baselines"] == {}
    assert set(metrics["shortcuts"]["alone"]) == {"length", "source", "language"}


def test_the_better_calibration_is_found(judge, scorer, fresh):
    renewed, _, _ = fresh
    unseen = score_labels(scorer, labels_of(samples(200, seed=77, noise=0.35)))
    old = measure(unseen, threshold=0.5)
    new = measure(with_calibration(unseen, Calibration.from_dict(renewed.spec.calibration)), threshold=0.5)
    assert new["brier"] < old["brier"]
    assert new["roc_auc"] == old["roc_auc"]


def test_too_few_or_no_labels_to_calibrate_on_are_refused_and_nothing_is_written(judge, scorer, tmp_path):
    orders = [Preference(f"p{i}", f"one {i}", f"two {i}") for i in range(20)]
    for rows in (orders, samples(6)):
        with pytest.raises(LabelError, match="to calibrate on"):
            recalibrated(judge, scorer, labels_of(rows), tmp_path / "new", Targets())
    assert not (tmp_path / "new").exists()


def test_a_refused_certificate_leaves_no_certified_threshold(judge, scorer, tmp_path):
    renewed, metrics = recalibrated(
        judge, scorer, labels_of(samples(40, seed=3, noise=0.5)), tmp_path / "new", Targets(0.99, confidence=0.99)
    )
    assert not metrics["certificate"]["granted"]
    assert renewed.spec.thresholds["certified"] is None
    assert renewed.spec.threshold == renewed.spec.thresholds["best"]
    assert "99%" in renewed.path(CARD_FILE).read_text()


def test_a_certified_judge_cuts_where_it_was_certified_and_is_never_overwritten(judge, tmp_path):
    rows = samples(60)
    right = np.array([0.95 if row.label else 0.05 for row in rows])
    promise = certificate(scored_as(rows, right, right), Targets(0.8))
    saved = save_certified(judge, tmp_path / "certified", {"test": {"n": 60}}, promise)
    assert saved.spec.threshold == promise.keep_at != judge.spec.threshold
    assert saved.fingerprint == judge.fingerprint  # the same scores; only the promise is new
    with pytest.raises(InputError, match="never overwritten"):
        save_certified(judge, tmp_path / "certified", {"test": {"n": 60}}, promise)
