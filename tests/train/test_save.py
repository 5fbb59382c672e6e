"""Saved drafts: what was fitted is what scores, and what nobody said is not promised."""

import json

import numpy as np
import pytest
import torch

from quality_judge.engine.devices import default_device
from quality_judge.engine.golden import GOLDEN_TEXTS
from quality_judge.engine.precision import precisions_here
from quality_judge.engine.scorer import load_scorer
from quality_judge.engine.stacking import stacked
from quality_judge.errors import JudgeError
from quality_judge.judge import ADAPTER_FILE, GOLDEN_FILE, Judge, load_judge, save_judge
from quality_judge.samples import CategoryRow
from quality_judge.stats.calibration import Calibration
from quality_judge.train.fit import fit_judge
from quality_judge.train.forward import padded_ids
from quality_judge.train.save import draft_judge

EVERY = [
    ("bert", "frozen"),
    ("bert", "lora"),
    ("bert", "full"),
    ("llama", "frozen"),
    ("llama", "lora"),
    ("llama", "full"),
]


@torch.inference_mode()
def directly(fitted, rows):
    """Outputs of the fitted model itself in float32, float64 (len(rows), 1 + K)."""
    ids, lengths = padded_ids(fitted.examples, rows)
    return fitted.model.float().eval()(ids, lengths).double().numpy()


def exact(judge):
    return load_scorer(judge, device="cpu", precision=torch.float32)


@pytest.mark.parametrize(("model_type", "method"), EVERY)
def test_a_saved_judge_scores_as_the_parts_it_was_fitted_from(drafted, model_type, method):
    """The adapter is merged, the tokenizer re-made, the texts bucketed otherwise: the raw score is still the same."""
    judge, fitted = drafted(model_type, method=method)
    rows = np.arange(len(fitted.examples))
    scores = exact(load_judge(judge.folder)).score(fitted.examples.texts)
    np.testing.assert_allclose(scores.raw, stacked(fitted.stack, directly(fitted, rows)[:, 0], None), atol=1e-4)
    assert np.ptp(scores.raw) > 0.1
    assert judge.spec.method == method
    assert (ADAPTER_FILE in judge.spec.files) == (method != "frozen")


def test_the_surface_is_part_of_a_saved_judges_score(drafted):
    judge, fitted = drafted("bert", method="frozen", surface=True)
    texts = fitted.examples.texts
    scores = exact(judge).score(texts)
    expected = stacked(fitted.stack, directly(fitted, np.arange(len(texts)))[:, 0], fitted.surface.raw(texts))
    np.testing.assert_allclose(scores.raw, expected, atol=1e-4)
    assert judge.spec.stack.surface > 0


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_golden_rows_hold_in_every_precision_of_this_machine(drafted, model_type):
    judge, _ = drafted(model_type, method="lora")
    content = json.loads(judge.path(GOLDEN_FILE).read_text())
    assert content["texts"] == list(GOLDEN_TEXTS)
    for precision in (torch.float32, None):
        scorer = load_scorer(judge, precision=precision)
        np.testing.assert_allclose(scorer.score(GOLDEN_TEXTS).raw, content["raw"][scorer.precision], atol=1e-6)


def test_no_row_of_the_labels_is_saved_with_the_judge(drafted):
    judge, fitted = drafted("bert", method="lora")
    saved = b"".join(judge.path(name).read_bytes() for name in [*judge.spec.files, "judge.json"])
    assert not [text for text in fitted.examples.texts if text.encode() in saved]


def test_a_judge_that_no_longer_scores_its_golden_rows_is_refused(drafted, tmp_path):
    judge, _ = drafted("bert", method="lora")
    content = json.loads(judge.path(GOLDEN_FILE).read_text())
    content["raw"]["float32"][0] += 1.0
    files = {name: judge.path(name) for name in judge.spec.files} | {GOLDEN_FILE: json.dumps(content).encode()}
    changed = save_judge(tmp_path / "changed", judge.spec, files)
    with pytest.raises(JudgeError, match="golden rows do not score"):
        exact(changed)


def test_the_calibration_is_fitted_to_scores_of_unseen_rows(drafted):
    judge, fitted = drafted("bert", method="lora")
    probability = Calibration.from_dict(judge.spec.calibration).apply(fitted.raw)
    label = fitted.examples.label
    assert probability.mean() == pytest.approx(label.mean(), abs=0.05)
    assert probability[label == 1].mean() > probability[label == 0].mean() + 0.3
    assert 0 < judge.spec.thresholds["best"] < 1
    assert judge.spec.threshold == judge.spec.thresholds["best"]


def test_the_band_around_the_threshold_is_as_wide_as_precisions_differ(drafted):
    judge, fitted = drafted("bert", method="lora")
    texts = fitted.examples.texts
    other = load_scorer(judge, precision=precisions_here(default_device())[-1]).score(texts).probability
    apart = np.abs(other - exact(judge).score(texts).probability).max()
    assert judge.spec.precision_band == pytest.approx(max(apart, 1e-4), rel=1e-6)


def test_the_draft_says_what_it_was_made_of(drafted, fitted):
    judge, found = drafted("llama", method="lora")
    _, config, labels = fitted("llama", method="lora")
    spec = judge.spec
    assert spec.labels["sha256"] == labels.sha256
    assert spec.labels["rows"] == 60
    assert spec.base.architecture == "decoder"
    assert spec.base.sha256 == found.base.sha256()
    assert (spec.pooling, spec.lora.rank, spec.certificate) == ("layers_last", config.train.lora_rank, None)
    assert {"torch", "python", "quality-judge"} <= set(spec.created_with)
    assert spec.training["settings"] == config.train.model_dump(mode="json")


def test_saving_twice_gives_the_same_fingerprint(drafted, fitted, tmp_path):
    judge, _ = drafted("bert", method="lora")
    found, config, labels = fitted("bert", method="lora")
    again = draft_judge(tmp_path, found, config, labels)
    assert isinstance(again, Judge)
    assert again.fingerprint == judge.fingerprint
    assert again.folder != judge.folder


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_judge_of_all_kinds_of_labels_scores_and_names_categories(drafted, model_type):
    judge, fitted = drafted(model_type, "mixed", method="lora", learning_rate=1e-3)
    spec = judge.spec
    assert spec.categories == ("advert", "empty")
    assert set(spec.category_calibrations) == {"advert"}  # of `empty` nobody ever said that it applies
    rows = np.flatnonzero(fitted.examples.labelled)  # those have no prompt
    texts = [fitted.examples.texts[row] for row in rows]
    scores = exact(judge).score(texts)
    outputs = directly(fitted, rows)
    np.testing.assert_allclose(scores.raw, stacked(fitted.stack, outputs[:, 0], None), atol=1e-4)
    np.testing.assert_allclose(scores.category_raw, outputs[:, 1:], atol=1e-4)
    assert np.isfinite(scores.probability).all()
    named = [names == ["advert"] for names in scores.category_lists()]
    said = fitted.examples.categories[rows, 0]
    assert np.mean(np.array(named)[said == 1]) > 0.7
    assert np.mean(np.array(named)[said == 0]) < 0.3


def test_orders_alone_give_a_judge_without_calibration_that_refuses_a_probability(drafted):
    judge, fitted = drafted("bert", "orders", method="lora")
    assert judge.spec.calibration is None
    assert judge.spec.threshold is None
    scores = exact(judge).score(fitted.examples.texts)
    assert np.isfinite(scores.raw).all()
    assert np.isnan(scores.probability).all()
    assert set(scores.codes()) == {"OK"}
    assert judge.spec.labels["missing_for_probability"] == 20


def test_a_text_that_two_kinds_of_rows_judge_is_one_label_of_those_that_a_probability_needs(made, tiny_base, tmp_path):
    samples = made.samples(12)
    named = [CategoryRow("", row.completion, {"S1": not row.label}) for row in samples]
    labels, config = made.label_set([*samples, *named]), made.judge_config(tiny_base("bert"), method="frozen")
    spec = draft_judge(tmp_path, fit_judge(labels, config), config, labels).spec
    assert (spec.labels["missing_for_probability"], spec.calibration) == (8, None)


def test_rankings_with_a_cut_are_labels_enough_for_a_probability(drafted):
    """Four texts of each, the first two of them good: 40 labels, and the order beside them."""
    judge, fitted = drafted("bert", "cut", method="lora", learning_rate=1e-3)
    assert judge.spec.labels["missing_for_probability"] == 0
    scores = exact(judge).score(fitted.examples.texts, [f"request {row // 4}" for row in range(40)])
    good = fitted.examples.label == 1
    assert scores.probability[good].mean() > scores.probability[~good].mean() + 0.2
    assert 0 < judge.spec.threshold < 1
