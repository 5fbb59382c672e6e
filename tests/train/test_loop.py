"""The training loop: every unit once an epoch, the best epoch kept, one seed one judge, and collapse never passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quality_judge.bases import find_base
from quality_judge.config import TrainConfig
from quality_judge.engine.encode import Ragged
from quality_judge.engine.kinds import ScalarModel
from quality_judge.engine.weights import hidden_size, load_body
from quality_judge.errors import CheckFailed
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample
from quality_judge.train import adapters, losses, model_fit
from quality_judge.train.examples import Examples
from quality_judge.train.fit import choose_folds, fit_judge
from quality_judge.train.forward import padded_ids, predicted
from quality_judge.train.loop import MAX_ELEMENT_TEXTS, batch_size, batches, elements, refuse_collapse, train_model
from quality_judge.train.model_fit import ModelFitter
from quality_judge.train.objective import LOGISTIC_SHARE, TIE_WEIGHT, Objective


def lengths_only(unit_sizes, lengths):
    unit = np.repeat(np.arange(len(unit_sizes)), unit_sizes)
    n = len(unit)
    tokens = Ragged(np.arange(sum(lengths[:n]), dtype=np.int32), np.array(lengths[:n], np.int64))
    return Examples(
        [""] * n, tokens, np.ones(n), np.ones(n), np.zeros((n, 0)), unit, np.zeros(n, int),
        tuple(map(str, range(len(unit_sizes)))), (),
    )  # fmt: skip


@st.composite
def ragged_units(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=60))
    lengths = draw(st.lists(st.integers(1, 40), min_size=sum(sizes), max_size=sum(sizes)))
    return lengths_only(sizes, lengths)


@given(examples=ragged_units(), size=st.integers(2, 9), seed=st.integers(0, 99), drop=st.integers(0, 3))
def test_an_epoch_holds_every_unit_once_and_whole(examples, size, seed, drop):
    units = np.arange(examples.n_units)[drop:]
    epoch = list(batches(examples, elements(examples, units), size, np.random.default_rng(seed)))
    assert (
        sorted(np.concatenate([np.array([], int), *epoch]).tolist()) == np.flatnonzero(examples.unit >= drop).tolist()
    )
    held = [set(examples.unit[rows].tolist()) for rows in epoch]
    assert sum(map(len, held)) == len(units)
    assert all(len(units_of) <= size for units_of in held)
    assert len(epoch) == -(-len(units) // size)


def test_comparisons_of_the_same_texts_stand_together_in_a_batch(build):
    """All pairs of a prompt are one element, however they are shuffled; labels and other prompts are not drawn in."""
    rows = [Preference(f"p{k}", f"text {i}", f"text {j}") for i in range(4) for j in range(i) for k in (0, 1)]
    rows += [Ranking("p0", ("text 2", "text 1", "text 5")), Sample("p0", "text 9", True), Sample("", "text 1", True)]
    examples = build(rows)
    found = {tuple(sorted(element.tolist())) for element in elements(examples, np.arange(examples.n_units))}
    assert {len(element) for element in found} == {7, 6, 1}
    assert sorted(sum(found, ())) == list(range(examples.n_units))
    assert batch_size(TrainConfig(batch_size=7), examples, list(map(np.array, found))) == 4  # 2.5 + 2 + 1 + 1 units


def test_too_many_comparisons_for_one_batch_are_cut(build):
    chain = [Preference("", f"text {i}", f"text {i + 1}") for i in range(2 * MAX_ELEMENT_TEXTS)]
    examples = build(chain)
    parts = elements(examples, np.arange(examples.n_units))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(chain)))
    sizes = [len({text for unit in part for text in (unit, unit + 1)}) for part in parts]
    assert max(sizes) == MAX_ELEMENT_TEXTS


def test_equal_texts_of_a_batch_are_computed_once_and_learnt_as_often_as_they_stand(build):
    """The loss is that of every comparison; the model sees each text one time."""
    rows = [Preference("p", "one", "two"), Preference("p", "one", "three"), Preference("p", "two", "three")]
    examples, seen = build(rows), []

    class Counting(Fixed):
        def forward(self, ids, lengths):
            seen.append(len(ids))
            return self.outputs

    scores = torch.tensor([[0.5], [1.0], [-0.25]])  # one, two, three
    objective = Objective(examples, np.ones(6, bool), TrainConfig(centering=0.0))
    found = objective(Counting(scores), np.arange(6), warm=False).item()
    expected = [bradley_terry(0.5, 1.0), bradley_terry(0.5, -0.25), bradley_terry(1.0, -0.25)]
    assert seen == [3]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_epochs_differ_and_a_seed_repeats_them():
    examples = lengths_only([1] * 40, list(range(1, 41)))
    first, other = np.random.default_rng(0), np.random.default_rng(0)
    alone = elements(examples, np.arange(40))
    epochs = [[rows.tolist() for rows in batches(examples, alone, 4, first)] for _ in range(2)]
    again = [[rows.tolist() for rows in batches(examples, alone, 4, other)] for _ in range(2)]
    assert epochs == again
    assert epochs[0] != epochs[1]


@given(examples=ragged_units(), seed=st.integers(0, 99))
def test_padding_gives_back_each_rows_own_ids(examples, seed):
    rows = np.random.default_rng(seed).permutation(len(examples))[:7]
    ids, lengths = padded_ids(examples, rows)
    starts = examples.tokens.offsets()
    for at, row in enumerate(rows):
        length = int(examples.tokens.lengths[row])
        assert lengths[at] == length
        assert ids[at, :length].tolist() == examples.tokens.ids[starts[row] : starts[row] + length].tolist()
        assert not ids[at, length:].any()


class Fixed(nn.Module):
    """Answers with fixed outputs, whatever it is asked."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = nn.Parameter(torch.tensor(np.asarray(outputs), dtype=torch.float32))

    def forward(self, ids, lengths):
        return self.outputs


def loss_of(examples, outputs, *, warm=False, reference=None, **settings):
    settings = {"centering": 0.0} | settings
    objective = Objective(examples, np.ones(len(examples), bool), TrainConfig(**settings), reference)
    return objective(Fixed(outputs), np.arange(len(examples)), warm=warm).item()


def bradley_terry(better, worse):
    return float(np.log1p(np.exp(worse - better)))


def test_a_ranking_counts_as_one_unit_the_mean_of_its_pairs(build):
    scores = [0.3, 1.0, -0.5, 0.1, 0.9]
    examples = build([Preference("p", "one", "two"), Ranking("r", ("three", "four", "five"))])
    pairs = [bradley_terry(-0.5, 0.1), bradley_terry(-0.5, 0.9), bradley_terry(0.1, 0.9)]
    expected = (bradley_terry(0.3, 1.0) + np.mean(pairs)) / 2
    assert loss_of(examples, np.array(scores)[:, None]) == pytest.approx(expected, rel=1e-5)


def test_tied_labels_are_learnt_each_and_held_together(build):
    alone = build([Sample("", "one", True), Sample("", "two", True)])
    tied = replace(alone, unit=np.zeros(2, np.int64), groups=alone.groups[:1])
    scores = np.array([[0.4], [-1.0]])
    labels = 2 * loss_of(alone, scores, loss="bce")
    assert loss_of(tied, scores, loss="bce") == pytest.approx(labels + TIE_WEIGHT * 0.5 * 1.4**2, rel=1e-5)


def test_a_ranking_may_be_learnt_as_a_chain_of_choices(build):
    scores = [0.3, 1.0, -0.5, 0.1, 0.9]
    examples = build([Preference("p", "one", "two"), Ranking("r", ("three", "four", "five"))])
    three = np.log(np.exp(scores[2:]).sum()) + 0.5
    expected = (bradley_terry(0.3, 1.0) + (three + bradley_terry(0.1, 0.9)) / 2) / 2
    found = loss_of(examples, np.array(scores)[:, None], ranking_loss="plackett_luce")
    assert found == pytest.approx(expected, rel=1e-5)


def test_dpo_learns_orders_relative_to_what_the_base_said(build):
    scores, base = np.array([0.3, 1.0]), np.array([-1.0, 1.0])
    examples = build([Preference("p", "one", "two")])
    found = loss_of(examples, scores[:, None], ranking_loss="dpo", beta=0.5, reference=base)
    assert found == pytest.approx(bradley_terry(0.5 * 1.3, 0.0), rel=1e-5)


def test_kto_in_its_papers_form_counts_from_the_base_and_its_divergence(build):
    scores, base = torch.tensor([0.4, -1.0]), torch.tensor([0.1, 0.5])
    examples = build([Sample("", "one", True), Sample("", "two", False)])
    z = losses.two_way_kl(scores, base).mean()
    expected = losses.kto(scores - base, torch.tensor([1.0, 0]), beta=2, desirable=1, undesirable=1, z=z).mean()
    found = loss_of(examples, scores[:, None].numpy(), loss="kto_relative", beta=2.0, reference=base.numpy())
    assert found == pytest.approx(expected.item(), rel=1e-5)
    assert found != pytest.approx(loss_of(examples, scores[:, None].numpy(), loss="kto", beta=2.0))


def test_an_anchor_adds_the_divergence_from_the_base(build):
    scores, base = torch.tensor([0.4, -1.0]), torch.tensor([0.1, 0.5])
    examples = build([Sample("", "one", True), Sample("", "two", False)])
    free, held = (
        loss_of(examples, scores[:, None].numpy(), loss="bce", anchor=anchor, reference=base.numpy())
        for anchor in (0.0, 0.5)
    )
    assert held - free == pytest.approx(0.5 * losses.two_way_kl(scores, base).mean().item(), rel=1e-4)


def test_scores_are_centred_only_where_nothing_else_says_where_they_lie(build):
    pair, scores = Preference("p", "one", "two"), np.array([[2.0], [1.0], [0.0]])
    alone, labelled = build([pair]), build([pair, Sample("", "three", False)])
    added = [
        loss_of(examples, at, centering=0.01) - loss_of(examples, at)
        for examples, at in ((alone, scores[:2]), (labelled, scores[[2, 0, 1]]))
    ]
    assert added == pytest.approx([0.01 * (2.0**2 + 1.0**2), 0.0], abs=1e-6)


def test_after_the_warm_up_a_little_logistic_loss_stays_beside_kto(build):
    rows, score = [Sample("", "one", True), Sample("", "two", False)], np.array([[0.4], [-1.0]])
    found, kto, bce = (
        loss_of(build(rows), score, warm=False, loss=loss, beta=1.0) for loss in ("warm_kto", "kto", "bce")
    )
    assert found == pytest.approx(kto + LOGISTIC_SHARE * bce, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "warm", "expected"),
    [
        ("warm_kto", True, losses.bce),
        ("kto", True, losses.kto),
        ("bce", False, losses.bce),
        ("gce", False, losses.gce),
    ],
)
def test_labels_are_learnt_with_the_loss_asked_for_balanced_and_weighted(build, loss, warm, expected):
    rows = [Sample("", "one", True, weight=2.0), Sample("", "two", False), Sample("", "three", False)]
    score = torch.tensor([0.4, 0.2, -1.0])
    label, weight = torch.tensor([1.0, 0, 0]), torch.tensor([1.5, 0.75, 0.75])  # the ratios of the rows, 1 in the mean
    options = {"beta": 2.0} if expected is losses.kto else {}
    each = expected(score, label, desirable=1.0, undesirable=1.0, **options)
    found = loss_of(build(rows), score[:, None].numpy(), warm=warm, loss=loss, beta=2.0)
    assert found == pytest.approx(((weight * each).sum() / 3).item(), rel=1e-5)


def test_only_categories_that_somebody_looked_at_are_learnt(build):
    rows = [CategoryRow("", f"text {i}", {"advert": i < 2, "empty": None if i else False}) for i in range(6)]
    examples = build(rows, category_names=("advert", "empty"))
    outputs = np.zeros((6, 3))
    before = loss_of(examples, outputs, loss="bce")
    unsaid, said = outputs.copy(), outputs.copy()
    unsaid[1:, 2] = 5.0
    said[0, 1] = 5.0
    assert loss_of(examples, unsaid, loss="bce") == pytest.approx(before)
    assert loss_of(examples, said, loss="bce") < before
    positive_weight = 2.0  # four that it does not apply to for two that it does
    gain = positive_weight * (np.log(2) - F.softplus(torch.tensor(-5.0)).item()) / 2 / 6
    assert before - loss_of(examples, said, loss="bce") == pytest.approx(gain, rel=1e-4)


@pytest.fixture(scope="module")
def setting(tiny_base, build, made):
    """Examples, and a function that gives a fresh model for them."""
    base = find_base(str(tiny_base("bert")))
    config = made.judge_config(base.folder).train

    def model(method="lora"):
        body = load_body(base, attention="eager")
        return ScalarModel(adapters.prepared(body, method, config), hidden_size(base), 1, "layers")

    return build(made.samples(32)), model, config


def state_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained(setting, *, seed=0, method="lora", rate=1e-3, develop=None, stop_after=None, **settings):
    examples, make, config = setting
    model = make(method)
    result = train_model(
        model, examples, np.ones(len(examples), bool), config=config.model_copy(update=settings), learning_rate=rate,
        develop=develop and (lambda: develop(model)), seed=seed, stop_after=stop_after,
    )  # fmt: skip
    return model, result


@pytest.mark.parametrize("method", ["lora", "full"])
def test_one_seed_gives_the_same_bits_twice_and_another_seed_does_not(setting, method):
    one, again, other = (state_of(trained(setting, seed=seed, method=method)[0]) for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)


def test_early_stopping_goes_back_to_the_best_epoch(setting):
    scores, seen = iter([0.6, 0.9, 0.7, 0.8, 0.95]), []

    def develop(model):
        seen.append(state_of(model))
        return next(scores)

    model, result = trained(setting, develop=develop, epochs=5, patience=2)
    assert [score for _, score in result.history] == [0.6, 0.9, 0.7, 0.8]
    assert result.epochs == 2
    assert same(state_of(model), seen[1])
    assert same(result.best, seen[1])
    assert not same(seen[1], seen[3])


def test_without_a_development_score_the_last_epoch_stands(setting):
    _, result = trained(setting, epochs=3)
    assert result.epochs == len(result.history) == 3


def test_stopping_after_some_epochs_is_the_beginning_of_the_whole_run(setting):
    """The schedule is that of all epochs, so the first two are the same whether or not more follow."""
    seen = []
    trained(setting, develop=lambda model: seen.append(state_of(model)) or float(len(seen)), epochs=4)
    stopped, _ = trained(setting, epochs=4, stop_after=2)
    assert same(state_of(stopped), seen[1])


@pytest.mark.parametrize("settings", [{"loss": "kto_relative"}, {"loss": "bce", "anchor": 0.1}])
def test_losses_relative_to_the_base_count_from_what_the_model_said_before_training(setting, settings):
    """So that the first step of the paper's form starts at a log-ratio of 0 and a loss of half a weight."""
    examples, make, _ = setting
    everything = np.arange(len(examples))
    before = predicted(make(), examples, everything)[:, 0]
    objective = Objective(examples, np.ones(len(examples), bool), TrainConfig(**settings), before)
    first = objective(make(), everything[:8], warm=False).item()
    plain = Objective(examples, np.ones(len(examples), bool), TrainConfig(loss="bce"))(
        make(), everything[:8], warm=False
    )
    assert first == pytest.approx(0.5 if settings["loss"] == "kto_relative" else plain.item(), abs=2e-3)
    far = trained(setting, epochs=6, method="full", rate=5e-3, **(settings | {"anchor": 0.0}))[0]
    near = trained(setting, epochs=6, method="full", rate=5e-3, **(settings | {"anchor": 50.0}))[0]
    moved = [np.abs(predicted(model, examples, everything)[:, 0] - before).mean() for model in (far, near)]
    assert moved[1] < 0.5 * moved[0]


def test_training_lowers_the_loss(setting):
    _, result = trained(setting, epochs=12, loss="bce", method="full", rate=5e-3, head_learning_rate=0.05)
    first, last = result.history[0][0], result.history[-1][0]
    assert last < 0.8 * first


def test_no_more_steps_are_taken_than_allowed(setting):
    steps = []
    examples, make, config = setting
    train_model(
        make(), examples, np.ones(len(examples), bool), config=config.model_copy(update={"max_steps": 3}),
        learning_rate=1e-3, develop=None, seed=0, progress=lambda step, of, loss: steps.append((step, of)),
    )  # fmt: skip
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("raw", [np.full(20, 0.7), np.linspace(0, 0.01, 20), np.array([1.0, np.nan, 2.0])])
def test_scores_that_hardly_differ_are_refused(raw):
    with pytest.raises(CheckFailed, match="lower train"):
        refuse_collapse(raw)


def test_a_collapsed_model_never_becomes_a_judge(tiny_base, made):
    """Rows that differ only where nobody reads them: whatever is learnt, all score alike; twice, and no more."""
    rows = [Sample("", "a" * 300 + f" {i} " + "z" * 300, i % 2 == 0) for i in range(24)]
    stages = []

    def progress(stage):
        stages.append(stage)
        return lambda *_: None

    with pytest.raises(CheckFailed, match="collapsed"):
        fit_judge(made.label_set(rows), made.judge_config(tiny_base("bert")), progress=progress)
    assert stages.count("training (lora), part 1 of 2") == 2


def test_what_fails_is_tried_again_more_slowly_and_told(tiny_base, made):
    """Weights of thousands, whose products are beyond float32; at a tenth of the rate they are not."""
    config = made.judge_config(tiny_base("bert"), method="full", loss="bce", head_learning_rate=1.0, patience=9)
    wild = config.train.model_copy(update={"learning_rate": 1e3})  # no configuration may ask for it
    found = fit_judge(made.label_set(made.samples(60)), config.model_copy(update={"train": wild}))
    assert "training diverged" in found.training["full was tried again"]
    assert "seed 1, learning rates times 0.1" in found.training["full was tried again"]
    assert found.training["learning_rate"] == pytest.approx(100)
    assert np.isfinite(found.raw).all()
    assert np.ptp(found.raw) > 0


@pytest.fixture
def auto_fitter(tiny_base, encoder, build, made):
    """A function from rows to (a fitter of theirs that tries all methods, their examples)."""

    def make(rows):
        base, examples = find_base(str(tiny_base("bert"))), build(rows)
        config = made.judge_config(base.folder, method="auto", epochs=1).train
        folds = choose_folds(examples, examples, config)
        return ModelFitter(base, encoder().encoding, examples, folds, config, lambda _: lambda *_: None), examples

    return make


def test_the_failure_of_one_method_slows_no_other_and_the_last_fit_is_as_slow_as_the_folds(
    monkeypatch, auto_fitter, made
):
    """Contrast fails once, full always; the two folds and all labels are contrasted at a tenth of the rate."""
    seen, real = {"contrast": [], "train_model": []}, model_fit.contrast

    def once(*arguments, **settings):
        seen["contrast"].append((settings["learning_rate"], settings["seed"]))
        if len(seen["contrast"]) == 1:
            raise CheckFailed("diverged")
        real(*arguments, **settings)

    def never(*arguments, **settings):
        seen["train_model"].append((settings["learning_rate"], settings["seed"]))
        raise CheckFailed("diverged")

    monkeypatch.setattr(model_fit, "contrast", once)
    monkeypatch.setattr(model_fit, "train_model", never)
    fitter, examples = auto_fitter(made.samples(110))
    fitter.choose(None, given=examples)
    _, _, _, note = fitter.final("contrastive")
    assert seen["train_model"] == [(5e-5, 0), (pytest.approx(5e-6), 1)]
    assert seen["contrast"] == [(1e-4, 0), *[(pytest.approx(1e-5), 1)] * 3]
    assert note["learning_rate"] == pytest.approx(1e-5)


def test_contrast_without_two_texts_of_each_label_is_not_tried_again(auto_fitter, made):
    good = [row for row in made.samples(120) if row.label]
    fitter, examples = auto_fitter([*good, made.samples(2)[1]])
    assert fitter.choose(None, given=examples) == "frozen"
    assert set(fitter.notes) == {"contrastive was given up"}


def test_folds_side_by_side_learn_the_same_bits_as_one_after_another(tiny_base, encoder, build, made):
    examples = build(made.samples(32))
    base = find_base(str(tiny_base("bert")))
    config = made.judge_config(base.folder).train
    folds = choose_folds(examples, examples, config)

    def fit(threads):
        torch.set_num_threads(threads)
        try:
            fitter = ModelFitter(base, encoder().encoding, examples, folds, config, lambda stage: lambda *_: None)
            fitter.choose(None, given=examples)
            return fitter
        finally:
            torch.set_num_threads(1)

    alone, together = fit(1), fit(2)
    np.testing.assert_array_equal(alone.held_out["lora"], together.held_out["lora"])
    for one, other in zip(alone.results["lora"], together.results["lora"], strict=True):
        assert same(one.best, other.best)
        assert one.history == other.history
