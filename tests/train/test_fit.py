"""Fitting: every method on either architecture learns an easy signal, from every kind of label, and from noise nothing.

The base models have two layers of random weights, so that what is learnt is what training taught.
"""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quality_judge.config import TrainConfig
from quality_judge.engine.stacking import stacked
from quality_judge.errors import LabelError
from quality_judge.samples import Preference, Sample
from quality_judge.stats.metrics import pair_accuracy, roc_auc
from quality_judge.train.fit import LEAST_GAIN, choose_folds, fit_judge, position_limit
from quality_judge.train.forward import predicted
from quality_judge.train.linear import order_score
from quality_judge.train.stack import fit_stack

TUNED = [("bert", "lora"), ("bert", "full"), ("llama", "lora"), ("llama", "full")]


@pytest.mark.parametrize(("model_type", "method"), [*TUNED, ("bert", "frozen"), ("llama", "frozen")])
def test_every_method_orders_unseen_rows_by_an_easy_signal(fitted, model_type, method):
    found, _, _ = fitted(model_type, method=method)
    examples = found.examples
    assert found.method == method
    assert not np.isnan(found.raw).any()
    assert roc_auc(examples.label == 1, found.raw) > 0.9
    assert found.training["out_of_fold"]["judge"] == pytest.approx(roc_auc(examples.label == 1, found.raw))
    assert found.training["folds"] == 2
    assert found.training["cross_fitted"]


@pytest.mark.parametrize(("model_type", "method"), TUNED)
def test_the_adapter_holds_what_was_trained_and_only_that(fitted, model_type, method):
    found, config, _ = fitted(model_type, method=method)
    trained = {name for name, p in found.model.body.named_parameters() if p.requires_grad}
    assert len(found.adapter) == len(trained) > 0
    assert all(torch.isfinite(tensor).all() and tensor.dtype == torch.float32 for tensor in found.adapter.values())
    assert not any("embed" in name for name in found.adapter)
    if method == "lora":
        assert {min(tensor.shape) for tensor in found.adapter.values()} == {config.train.lora_rank}
        assert (found.lora.rank, found.lora.alpha) == (4, 8)
    else:
        assert found.lora is None


def test_a_frozen_judge_has_no_adapter(fitted):
    found, _, _ = fitted("bert", method="frozen")
    assert found.adapter == {}
    assert found.training["epochs"] == 0


@pytest.mark.parametrize("method", ["frozen", "full"])
def test_attacked_copies_are_learnt_from_and_not_kept(fitted, method):
    """Nobody labelled them: calibration, audit and baselines see the labels as given."""
    found, _, _ = fitted("bert", method=method, hard_negatives=True)
    plain, _, _ = fitted("bert", method=method)
    n = len(found.examples)
    assert found.examples.texts == plain.examples.texts
    assert found.training["texts"] == found.training["units"] == n
    assert found.training["attacked_copies"] > 2 * n
    assert len(found.states) == len(found.raw) == len(found.category_raw) == n
    assert not np.isnan(found.raw).any()
    assert not np.array_equal(found.raw, plain.raw)
    assert roc_auc(found.examples.label == 1, found.raw) > 0.9


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_labels_orders_and_categories_are_learnt_together(fitted, model_type):
    found, _, _ = fitted(model_type, "mixed", method="lora", learning_rate=1e-3)
    examples = found.examples
    rows, pairs = examples.labelled, examples.pairs()
    assert roc_auc(examples.label[rows] == 1, found.raw[rows]) > 0.9
    assert pair_accuracy(found.raw[pairs[:, 0]], found.raw[pairs[:, 1]]) > 0.85
    said = ~np.isnan(examples.categories[:, 0])
    assert examples.category_names == ("advert", "empty")
    assert roc_auc(examples.categories[said, 0] == 1, found.category_raw[said, 0]) > 0.8
    assert found.category_raw.shape == (len(examples), 2)


def test_orders_alone_are_enough(fitted):
    found, _, _ = fitted("bert", "orders", method="lora")
    pairs = found.examples.pairs()
    assert not found.examples.labelled.any()
    assert pair_accuracy(found.raw[pairs[:, 0]], found.raw[pairs[:, 1]]) > 0.85
    assert found.stack.bias == 0


def test_the_same_labels_and_seed_give_the_same_judge_whatever_torch_was_seeded_with(fitted, made, tiny_base):
    first, config, labels = fitted("bert", method="lora")
    torch.manual_seed(99)
    again = fit_judge(labels, config)
    assert all(torch.equal(first.adapter[name], again.adapter[name]) for name in first.adapter)
    np.testing.assert_array_equal(first.raw, again.raw)
    assert first.stack == again.stack
    other = fit_judge(labels, made.judge_config(tiny_base("bert"), seed=5))
    assert not all(torch.equal(first.adapter[name], other.adapter[name]) for name in first.adapter)


def test_shuffled_labels_teach_nothing(made, tiny_base):
    """Out of fold the AUC of 200 rows of noise has a standard deviation of .041: it misses .5 ± .15 once in 4,000.

    A judge that had seen the rows it is judged by would be far above.
    """
    dice = np.random.default_rng(4)
    rows = [Sample("", made.text(dice, line % 2 == 0), bool(label)) for line, label in
            enumerate(dice.permutation(np.arange(200) % 2))]  # fmt: skip
    found = fit_judge(made.label_set(rows), made.judge_config(tiny_base("bert"), method="lora", epochs=1))
    assert abs(found.training["out_of_fold"]["lora"] - 0.5) < 0.15
    assert abs(found.training["out_of_fold"]["frozen"] - 0.5) < 0.15


def test_the_out_of_fold_scores_are_not_those_of_the_final_model(fitted):
    """Fitting the same rows, the final model knows them; the scores that are calibrated on must not."""
    found, _, _ = fitted("bert", method="lora")
    final = predicted(found.model, found.examples, np.arange(len(found.examples)))[:, 0]
    assert np.corrcoef(final, found.raw)[0, 1] < 0.9999


def test_auto_takes_the_method_that_orders_unseen_rows_best(made, tiny_base):
    found = fit_judge(made.label_set(made.samples(110)), made.judge_config(tiny_base("bert"), method="auto", epochs=1))
    scores = found.training["out_of_fold"]
    tried = {"frozen", "contrastive", "full"}
    assert set(scores) == {"judge", *tried}
    assert scores[found.method] >= max(scores[name] for name in tried) - 1e-9


@pytest.fixture
def deaf_base(tiny_base, tmp_path):
    """A base to which all tokens are the same one."""
    folder = tmp_path / "deaf"
    shutil.copytree(tiny_base("bert"), folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    save_file(tensors | {name: torch.zeros_like(tensors[name])}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_base_whose_states_order_unseen_labels_best_is_the_one_that_is_fine_tuned(made, tiny_base, deaf_base):
    sound, deaf = str(tiny_base("bert")), str(deaf_base)
    labels = made.label_set(made.samples(60))
    for first, second in ((deaf, sound), (sound, deaf)):
        config = made.judge_config(first, method="frozen").model_copy(update={"other_bases": (second,)})
        found = fit_judge(labels, config)
        tried = found.training["bases"]
        assert (found.config.base, found.base.id, found.config.other_bases) == (sound, sound, ())
        assert tried[sound]["frozen"] == found.training["out_of_fold"]["frozen"] > tried[deaf]["frozen"] + LEAST_GAIN
        assert tried[sound]["gigaflops_per_text"] == tried[deaf]["gigaflops_per_text"] > 0
    alone = fit_judge(labels, made.judge_config(sound, method="frozen"))
    assert "bases" not in alone.training
    np.testing.assert_array_equal(found.raw, alone.raw)


def test_another_base_that_is_no_better_does_not_take_the_place_of_the_first(made, tiny_base, tmp_path):
    shutil.copytree(tiny_base("bert"), tmp_path / "twin")
    first, twin = str(tiny_base("bert")), str(tmp_path / "twin")
    config = made.judge_config(first, method="frozen").model_copy(update={"other_bases": (twin,)})
    assert fit_judge(made.label_set(made.samples(60)), config).base.id == first


@pytest.mark.parametrize(("ending", "share"), [("", 0.0), (" 未 知 文 字", 0.3)])
def test_labels_that_the_base_cannot_read_are_warned_of(made, tiny_base, ending, share):
    config = made.judge_config(tiny_base("bert"), method="frozen")
    rows = [replace(row, completion=row.completion + ending) for row in made.samples(40)]
    training = fit_judge(made.label_set(rows), config).training
    assert training["unknown_tokens"] == pytest.approx(share, abs=0.1)
    assert [f"{training['unknown_tokens']:.0%}" in warning for warning in training["warnings"]] == [True] * bool(ending)


@pytest.mark.parametrize(("most", "share"), [(32, 0.0), (12, 1.0)])
def test_labels_that_are_longer_than_what_is_read_are_warned_of(made, tiny_base, most, share):
    config = made.judge_config(tiny_base("bert"), method="frozen").model_copy(update={"max_tokens": most})
    rows = [Sample("", made.text(np.random.default_rng(i), i % 2 == 0, length=10), i % 2 == 0) for i in range(40)]
    training = fit_judge(made.label_set(rows), config).training
    assert training["cut_texts"] == share
    assert [
        f"longer than what is read of one (at most {most} tokens)" in warning for warning in training["warnings"]
    ] == [True] * bool(share)


@pytest.mark.parametrize("hard_negatives", [False, True])
def test_auto_does_not_fine_tune_on_a_handful_of_labels(made, tiny_base, hard_negatives):
    config = made.judge_config(tiny_base("bert"), method="auto", hard_negatives=hard_negatives)
    found = fit_judge(made.label_set(made.samples(30)), config)
    assert found.method == "frozen"
    assert set(found.training["out_of_fold"]) == {"judge", "frozen"}


def test_contrast_is_tried_where_labels_are_few_and_not_on_a_handful(made, tiny_base):
    found = fit_judge(made.label_set(made.samples(50)), made.judge_config(tiny_base("bert"), method="auto"))
    assert set(found.training["out_of_fold"]) == {"judge", "frozen", "contrastive"}


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_contrast_moves_the_base_and_fits_a_head_that_tells_good_from_bad(made, tiny_base, base):
    rows = [*made.samples(60), *made.category_rows(24)]
    found = fit_judge(made.label_set(rows), made.judge_config(tiny_base(base), method="contrastive"))
    said = found.examples.labelled
    assert found.method == "contrastive"
    assert found.adapter
    assert roc_auc(found.examples.label[said] == 1, found.raw[said]) > 0.8
    assert np.ptp(found.category_raw[:, 0]) > 0


def test_contrast_needs_two_texts_of_each_label(made, tiny_base):
    rows = [*(row for row in made.samples(40) if row.label), made.samples(2)[1], *made.preferences(20)]
    with pytest.raises(LabelError, match="two texts of each label"):
        fit_judge(made.label_set(rows), made.judge_config(tiny_base("bert"), method="contrastive"))


def test_the_surface_joins_the_stack_where_it_helps(made, tiny_base):
    found = fit_judge(
        made.label_set(made.samples(40)), made.judge_config(tiny_base("bert"), method="frozen", surface=True)
    )
    assert found.surface is not None
    assert found.stack.surface > 0
    assert found.training["out_of_fold"]["surface"] > 0.9


@pytest.mark.parametrize(("told_by", "longest"), [("letters", 2), ("words", 5)])
def test_unseen_rows_decide_how_long_the_ngrams_of_the_surface_are(made, tiny_base, told_by, longest):
    """Good rows have more of some letters, or the same letters in another order."""
    letters, dice, rows = np.array(list("abcdefghijklmnop ")), np.random.default_rng(0), []
    for at in range(160):
        good = at % 2 == 0
        shares = 1 + 0.5 * (good if told_by == "letters" else 0) * (np.arange(17) % 2)
        text = "".join(dice.choice(letters, 150, p=shares / shares.sum()))
        told = "abcde" if good else "edcba"
        rows.append(Sample("", text + (f" {told}" if told_by == "words" else ""), good))
    config = made.judge_config(tiny_base("bert"), method="frozen", surface=True)
    found = fit_judge(made.label_set(rows), config)
    assert found.training["surface"]["ngram_order"]["characters"] == longest
    assert found.surface.ngram_order[0] == longest


def test_a_pair_with_a_class_of_one_group_still_trains(made, tiny_base):
    """The only two bad rows share a prompt, so one fold has no bad row to learn from."""
    good = [row for row in made.samples(40) if row.label]
    bad = [Sample("the one prompt", row.completion, False) for row in made.samples(4, seed=8) if not row.label]
    found = fit_judge(made.label_set([*good, *bad]), made.judge_config(tiny_base("bert"), method="frozen"))
    assert np.isfinite(found.raw).all()


def test_few_labels_are_all_cross_fitted_and_many_get_one_development_part(monkeypatch, encoder, made):
    from quality_judge.train import fit
    from quality_judge.train.examples import build_examples

    examples = build_examples(made.label_set(made.samples(60)), encoder())
    assert sorted(set(choose_folds(examples, examples, TrainConfig(folds=3)))) == [0, 1, 2]
    monkeypatch.setattr(fit, "MAX_CROSS_FITTED_UNITS", 50)
    folds = choose_folds(examples, examples, TrainConfig(folds=3))
    assert sorted(set(folds)) == [-1, 0]
    assert (folds == 0).mean() == pytest.approx(fit.MAX_DEVELOPMENT_SHARE, abs=0.04)


@pytest.mark.parametrize("large", [12, 30, 48])
def test_a_large_group_is_learnt_from_and_not_developed_on(monkeypatch, build, made, large):
    from quality_judge.train import fit

    monkeypatch.setattr(fit, "MAX_CROSS_FITTED_UNITS", 50)
    examples = build([replace(row, group="page" if at < large else None) for at, row in enumerate(made.samples(60))])
    folds = choose_folds(examples, examples, TrainConfig())
    assert (folds[:large] == -1).all()
    assert 0 < (folds == 0).mean() <= fit.MAX_DEVELOPMENT_SHARE


def test_a_handful_of_rows_is_not_all_that_is_developed_on(monkeypatch, build, made):
    from quality_judge.train import fit

    monkeypatch.setattr(fit, "MAX_CROSS_FITTED_UNITS", 50)
    pages = ["large"] * 40 + ["middle"] * 20 + ["small"]
    rows = [replace(row, group=page) for row, page in zip(made.samples(61), pages, strict=True)]
    examples = build(rows)
    folds = choose_folds(examples, examples, TrainConfig())
    assert sorted({page for page, fold in zip(pages, folds.tolist(), strict=True) if fold == 0}) == ["middle", "small"]


def test_copies_that_nobody_labelled_do_not_count_as_labels(monkeypatch, made, tiny_base):
    from quality_judge.train import fit

    monkeypatch.setattr(fit, "MAX_CROSS_FITTED_UNITS", 50)
    config = made.judge_config(tiny_base("bert"), method="frozen", hard_negatives=True)
    found = fit_judge(made.label_set(made.samples(40)), config)
    assert found.training["cross_fitted"]
    assert not np.isnan(found.raw).any()


@pytest.mark.parametrize("method", ["frozen", "full"])
def test_a_weight_that_all_rows_share_changes_nothing(fitted, made, method):
    found, config, labels = fitted("bert", method=method, hard_negatives=True)
    lighter = made.label_set([replace(row, weight=2**-10) for row in labels.rows()])
    np.testing.assert_array_equal(fit_judge(lighter, config).raw, found.raw)


def test_heads_of_categories_know_no_weight_of_samples(fitted, made):
    found, config, labels = fitted("bert", "mixed", method="frozen")
    rows = [replace(row, weight=2.0) if isinstance(row, Sample) else row for row in labels.rows()]
    np.testing.assert_allclose(fit_judge(made.label_set(rows), config).category_raw, found.category_raw, rtol=1e-6)


def test_with_one_development_part_its_model_is_the_judge_and_no_other_row_is_calibrated_on(
    monkeypatch, made, tiny_base
):
    from quality_judge.train import fit

    monkeypatch.setattr(fit, "MAX_CROSS_FITTED_UNITS", 50)
    found = fit_judge(made.label_set(made.samples(60)), made.judge_config(tiny_base("bert"), method="lora"))
    unseen = ~np.isnan(found.raw)
    assert 5 <= unseen.sum() <= 15
    assert not found.training["cross_fitted"]
    final = predicted(found.model, found.examples, np.flatnonzero(unseen))[:, 0]
    np.testing.assert_allclose(stacked(found.stack, final, None), found.raw[unseen], rtol=1e-6)


def stack_of(made, encoder, model, surface, rows=None):
    from quality_judge.train.examples import build_examples

    examples = build_examples(made.label_set(rows or made.samples(len(model))), encoder())
    stack, raw = fit_stack(examples, np.asarray(model), surface if surface is None else np.asarray(surface))
    return examples, stack, raw


def test_the_stack_weighs_each_part_by_what_it_knows(made, encoder):
    dice = np.random.default_rng(0)
    label = np.arange(60) % 2 == 0
    good, noise = label * 2 - 1 + dice.normal(size=60), dice.normal(size=60)
    examples, stack, raw = stack_of(made, encoder, good, noise)
    assert stack.model > 3 * stack.surface >= 0
    np.testing.assert_allclose(raw, stacked(stack, good, noise))
    assert order_score(examples, raw, examples.labelled) > 0.8


def test_no_part_of_the_stack_is_turned_round(made, encoder):
    dice = np.random.default_rng(0)
    label = np.arange(60) % 2 == 0
    good = label * 2 - 1 + dice.normal(size=60)
    _, stack, _ = stack_of(made, encoder, good, -good + 0.5 * dice.normal(size=60))
    assert stack.model > 0
    assert stack.surface == 0


def test_rows_that_were_always_trained_on_have_no_stacked_score(made, encoder):
    model = np.where(np.arange(60) < 20, np.arange(60) % 2 == 0, np.nan) + 0.0
    _, _, raw = stack_of(made, encoder, model, None)
    np.testing.assert_array_equal(np.isnan(raw), np.arange(60) >= 20)


def test_parts_that_are_both_worse_than_chance_do_not_leave_a_constant_judge(made, encoder):
    dice = np.random.default_rng(0)
    label = np.arange(60) % 2 == 0
    wrong, worse = (1 - 2 * label + dice.normal(size=(2, 60))) @ np.eye(60)
    _, stack, raw = stack_of(made, encoder, wrong, worse)
    assert stack.model + stack.surface > 0
    assert np.ptp(raw) > 0


@pytest.mark.parametrize(("model_type", "limit"), [("bert", 128), ("llama", 128)])
def test_texts_longer_than_the_base_can_see_are_cut(tiny_base, made, model_type, limit):
    from quality_judge.bases import find_base

    assert position_limit(find_base(str(tiny_base(model_type)))) == limit
    dice = np.random.default_rng(0)
    rows = [Sample("", made.text(dice, line % 2 == 0, length=300), line % 2 == 0) for line in range(20)]
    config = made.judge_config(tiny_base(model_type), method="lora", epochs=1).model_copy(update={"max_tokens": 4096})
    found = fit_judge(made.label_set(rows), config)
    assert found.examples.tokens.lengths.max() == limit


def test_prompts_are_part_of_what_is_judged(made, tiny_base):
    """The completions are all alike; only the prompt tells."""
    dice = np.random.default_rng(0)
    rows = [Sample(made.text(dice, line % 2 == 0), "the same answer", line % 2 == 0) for line in range(120)]
    config = made.judge_config(tiny_base("bert"), method="frozen")
    assert fit_judge(made.label_set(rows), config).training["out_of_fold"]["judge"] > 0.9


def test_progress_is_told_of_every_step(made, tiny_base):
    told = {}

    def progress(stage):
        return lambda step, steps, loss: told.setdefault(stage, []).append((step, steps, loss))

    labels = made.label_set([*made.samples(30), Preference("p", "water", "click")])
    fit_judge(labels, made.judge_config(tiny_base("bert"), method="lora", epochs=1), progress=progress)
    assert len(told) == 3
    for steps in told.values():
        assert [step for step, _, _ in steps] == list(range(1, steps[-1][1] + 1))
        assert all(np.isfinite(loss) for _, _, loss in steps)


def test_a_base_whose_positions_are_no_multiple_of_eight_can_be_trained(tmp_path, tiny_base, made):
    import shutil

    from transformers import BertConfig, BertModel

    folder = shutil.copytree(tiny_base("bert"), tmp_path / "odd")
    BertModel(BertConfig.from_pretrained(folder, max_position_embeddings=100)).save_pretrained(folder)
    dice = np.random.default_rng(0)
    rows = [Sample("", made.text(dice, line % 2 == 0, length=300), line % 2 == 0) for line in range(20)]
    config = made.judge_config(folder, method="lora", epochs=1).model_copy(update={"max_tokens": 4096})
    assert fit_judge(made.label_set(rows), config).examples.tokens.lengths.max() == 100


def test_folds_of_one_text_each_are_no_collapse(made, tiny_base):
    found = fit_judge(made.label_set(made.samples(10)), made.judge_config(tiny_base("bert"), method="lora", folds=10))
    assert found.training["folds"] == 10


def test_auto_falls_back_to_the_frozen_base_when_fine_tuning_collapses(made, tiny_base):
    rates = {"learning_rate": 1.0, "head_learning_rate": 1.0}
    found = fit_judge(made.label_set(made.samples(110)), made.judge_config(tiny_base("bert"), method="auto", **rates))
    assert found.method == "frozen"


def test_texts_of_which_only_the_first_bytes_are_read_count_as_cut_though_their_tokens_are_few(made, tiny_base):
    config = made.judge_config(tiny_base("bert"), method="frozen")
    rows = [replace(row, completion=f"{row.completion}{' ' * 20_000}{row.completion}") for row in made.samples(40)]
    assert fit_judge(made.label_set(rows), config).training["cut_texts"] == 1.0
