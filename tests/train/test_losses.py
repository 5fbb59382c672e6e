"""Losses: each is what its paper says, restated here in numpy; bounded, balanced, and safe at any score."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from quality_judge.train import losses

SCORES = np.linspace(-6, 6, 25)
LAMBDAS = {"desirable": 1.3, "undesirable": 0.7}
EXTREME = st.floats(-1e4, 1e4, width=32)
LABELS = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def tensor(values):
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("z", [0.0, 0.8])
def test_kto_is_the_loss_of_the_paper(beta, z):
    """λ_y − v with v = λ_D σ(β (r − z0)) for desirable rows, λ_U σ(β (z0 − r)) for others."""
    label = np.arange(len(SCORES)) % 2
    value = np.where(
        label == 1,
        LAMBDAS["desirable"] * sigmoid(beta * (SCORES - z)),
        LAMBDAS["undesirable"] * sigmoid(beta * (z - SCORES)),
    )
    expected = np.where(label == 1, LAMBDAS["desirable"], LAMBDAS["undesirable"]) - value
    found = losses.kto(tensor(SCORES), tensor(label), beta=beta, z=z, **LAMBDAS)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@given(z=st.floats(-50, 50), beta=st.floats(0.01, 10), weight=st.floats(0.1, 10), label=st.sampled_from([0.0, 1.0]))
def test_kto_with_equal_weights_is_symmetric_so_that_wrong_labels_cancel(z, beta, weight, label):
    """l(z) + l(−z) = λ: the condition of Ghosh et al. 2017 for a noise-tolerant loss."""
    either = losses.kto(tensor([z, -z]), tensor([label, label]), beta=beta, desirable=weight, undesirable=weight)
    assert either.sum().item() == pytest.approx(weight, rel=1e-9)


def test_bce_is_torchs_own_with_weights():
    label = tensor(np.linspace(0, 1, len(SCORES)))
    found = losses.bce(tensor(SCORES), label, desirable=1, undesirable=1)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(tensor(SCORES), label, reduction="none")
    torch.testing.assert_close(found, theirs)
    doubled = losses.bce(tensor(SCORES), label, desirable=2, undesirable=0)
    torch.testing.assert_close(doubled, 2 * label * torch.nn.functional.softplus(-tensor(SCORES)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gce_becomes_bce_as_q_falls_to_zero(dtype):
    score, label = tensor(SCORES).to(dtype), tensor(np.arange(len(SCORES)) % 2).to(dtype)
    found = losses.gce(score, label, q=1e-5, **LAMBDAS)
    torch.testing.assert_close(found, losses.bce(score, label, **LAMBDAS), atol=1e-3, rtol=1e-3)


def test_gce_at_q_one_is_kto_at_beta_one():
    score, label = tensor(SCORES), tensor(np.arange(len(SCORES)) % 2)
    torch.testing.assert_close(
        losses.gce(score, label, q=1.0, **LAMBDAS), losses.kto(score, label, beta=1.0, **LAMBDAS)
    )


def order(*ranks):
    """One ranking: its unit and ranks, as the losses of orders take them."""
    return torch.zeros(len(ranks), dtype=torch.int64), torch.tensor(ranks)


@example(better=-20.0, worse=0.5)
@given(better=st.floats(-20, 20), worse=st.floats(-20, 20))
def test_orders_of_two_are_bradley_terry_under_either_loss(better, worse):
    pair = losses.bradley_terry(tensor([better]), tensor([worse]))
    assert losses.plackett_luce(tensor([better, worse]), *order(0, 1)).item() == pytest.approx(
        pair.item(), rel=1e-8, abs=1e-9
    )
    assert losses.kwise(tensor([better, worse]), *order(0, 1)).item() == pytest.approx(pair.item(), rel=1e-8, abs=1e-9)
    assert pair.item() == pytest.approx(-math.log(sigmoid(better - worse)), abs=1e-9)


@given(scores=st.lists(st.floats(-20, 20), min_size=2, max_size=7))
def test_kwise_is_the_mean_of_bradley_terry_over_all_pairs(scores):
    """InstructGPT eq. 1, with the scores of one ranking in any order of its rows."""
    each = [losses.bradley_terry(tensor([a]), tensor([b])).item() for a, b in combinations(scores, 2)]
    shuffled = torch.randperm(len(scores), generator=torch.Generator().manual_seed(len(scores)))
    unit, rank = order(*range(len(scores)))
    found = losses.kwise(tensor(scores)[shuffled], unit, rank[shuffled])
    assert found.item() == pytest.approx(np.mean(each), rel=1e-9, abs=1e-12)


def test_plackett_luce_is_the_probability_of_the_order():
    scores = np.array([0.3, -1.2, 2.0, 0.5])
    left = np.exp(scores)
    chance = np.prod([left[k] / left[k:].sum() for k in range(len(scores))])
    found = losses.plackett_luce(tensor(scores), *order(0, 1, 2, 3))
    assert 3 * found.item() == pytest.approx(-np.log(chance))  # the last of four is no choice


def test_plackett_luce_over_all_orders_sums_to_one():
    orders = permutations([0.3, -1.2, 2.0, 0.5])
    chances = [math.exp(-3 * losses.plackett_luce(tensor(scores), *order(0, 1, 2, 3)).item()) for scores in orders]
    assert sum(chances) == pytest.approx(1)


@pytest.mark.parametrize("loss", [losses.kwise, losses.plackett_luce])
def test_each_ranking_of_a_batch_counts_once_however_long_it_is(loss):
    scores, unit, rank = [0.3, 1.0, -0.5, 0.1, 0.9, 7.0], [4, 4, 9, 9, 9, 2], [0, 1, 0, 1, 2, 0]
    alone = [loss(tensor(scores[:2]), *order(0, 1)).item(), loss(tensor(scores[2:5]), *order(0, 1, 2)).item()]
    found = loss(tensor(scores), torch.tensor(unit), torch.tensor(rank))
    assert found.tolist() == pytest.approx(alone)  # a text alone in its unit is no ranking


@pytest.mark.parametrize("loss", [losses.kwise, losses.plackett_luce])
def test_tied_texts_are_never_set_against_each_other(loss):
    """A > B = C: swapping B and C changes nothing, and neither pulls the other."""
    ties = order(0, 1, 1)
    one, other = loss(tensor([1.0, 0.2, -2.0]), *ties), loss(tensor([1.0, -2.0, 0.2]), *ties)
    assert one.item() == pytest.approx(other.item())
    assert loss(tensor([1.0, 0.2]), *order(1, 1)).shape == (0,)


def test_a_tie_is_half_the_squared_distance_of_every_two_texts_of_one_unit_and_rank():
    scores, unit, rank = tensor([0.5, 2.0, -1.0, 7.0]), torch.tensor([3, 3, 3, 5]), torch.tensor([1, 1, 0, 1])
    one, other = losses.tied_pairs(unit, rank)
    assert (one.tolist(), other.tolist()) == ([0], [1])
    assert losses.tie(scores[one], scores[other]).tolist() == [0.5 * 1.5**2]


@given(scores=st.lists(st.floats(-5, 5), min_size=3, max_size=6))
def test_slopes_of_the_losses_of_orders_are_those_of_finite_differences(scores):
    unit, rank = order(*range(len(scores)))
    for loss in (
        losses.kwise,
        losses.plackett_luce,
        lambda at, *_: losses.dpo(at[:1], at[1:2], at[2:3].detach() * 0 + 0.3, at[2:3].detach() * 0 - 1, beta=0.7),
    ):
        assert torch.autograd.gradcheck(lambda at, loss=loss: loss(at, unit, rank), tensor(scores).requires_grad_())


@given(scores=st.lists(st.floats(-5, 5), min_size=1, max_size=4), label=LABELS)
def test_slopes_of_the_losses_of_labels_are_those_of_finite_differences(scores, label):
    target, reference = tensor([label] * len(scores)), tensor(scores[::-1]) / 2
    for loss in (
        lambda at: losses.kto(at, target, beta=0.7, z=0.4, **LAMBDAS),
        lambda at: losses.bce(at, target, **LAMBDAS),
        lambda at: losses.gce(at, target, **LAMBDAS),
        losses.centering,
    ):
        assert torch.autograd.gradcheck(loss, tensor(scores).requires_grad_())
    apart = tensor(scores) + 3  # at no divergence its clamp has a corner
    assert torch.autograd.gradcheck(lambda at: losses.two_way_kl(at, reference - 3), apart.requires_grad_())


def test_dpo_is_the_loss_of_the_paper():
    dice = np.random.default_rng(0)
    chosen, rejected, reference_chosen, reference_rejected = dice.normal(-40, 10, (4, 20))
    reward = 0.1 * ((chosen - reference_chosen) - (rejected - reference_rejected))
    found = losses.dpo(*map(tensor, (chosen, rejected, reference_chosen, reference_rejected)), beta=0.1)
    np.testing.assert_allclose(found.numpy(), -np.log(sigmoid(reward)), atol=1e-12)


def test_the_divergence_of_verdicts_is_that_of_two_coins_and_none_from_itself():
    score, reference = np.array([0.5, -2.0, 3.0]), np.array([0.0, 1.0, 3.0])
    p, q = sigmoid(score), sigmoid(reference)
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    np.testing.assert_allclose(losses.two_way_kl(tensor(score), tensor(reference)).numpy(), expected, atol=1e-12)


@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 5)), min_size=2, max_size=30).filter(
        lambda rows: 0.05 < sum(a * b for a, b in rows) / sum(b for _, b in rows) < 0.95
    )
)
def test_class_weights_make_both_classes_pull_alike_for_soft_and_weighted_labels(rows):
    label, weight = (tensor(column) for column in zip(*rows, strict=True))
    desirable, undesirable = losses.class_weights(label, weight)
    good, bad = (desirable * weight * label).sum().item(), (undesirable * weight * (1 - label)).sum().item()
    assert good == pytest.approx(bad)
    assert good + bad == pytest.approx(weight.sum().item())


def test_the_contrastive_loss_is_that_of_the_paper():
    """Summed as eq. 2 is written, over anchors, their positives and everything but the anchor."""
    dice = torch.Generator().manual_seed(3)
    states, label, temperature = torch.randn(7, 5, generator=dice), [0, 1, 0, 1, 1, 0, 2], 0.3
    z = [(state / state.norm()).double() for state in states]
    total, anchors = 0.0, 0
    for i in range(7):
        others = [a for a in range(7) if a != i]
        positives = [p for p in others if label[p] == label[i]]
        if not positives:
            continue
        below = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
        total -= sum(math.log(math.exp(float(z[i] @ z[p]) / temperature) / below) for p in positives) / len(positives)
        anchors += 1
    found = losses.contrastive(states, torch.tensor(label), temperature)
    assert float(found) == pytest.approx(total / anchors, rel=1e-5)


def test_class_weights_of_one_class_are_finite():
    ones = torch.ones(4)
    assert losses.class_weights(ones, ones) == (0.5, 1.0)
    assert losses.class_weights(0 * ones, ones) == (1.0, 0.5)
    assert losses.class_weights(ones[:0], ones[:0]) == (1.0, 1.0)


def gradient(loss, values):
    at = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    total = loss(at).sum()
    (found,) = torch.autograd.grad(total, at)
    return total.item(), found


@given(scores=st.lists(EXTREME, min_size=2, max_size=6), label=LABELS)
def test_losses_and_gradients_are_finite_at_any_score(scores, label):
    label = torch.full((len(scores),), label)
    for loss in (
        lambda at: losses.kto(at, label, beta=1.0, **LAMBDAS),
        lambda at: losses.bce(at, label, **LAMBDAS),
        lambda at: losses.gce(at, label, **LAMBDAS),
        lambda at: losses.gce(at, label, q=1e-3, **LAMBDAS),
        lambda at: losses.bradley_terry(at[:1], at[1:]),
        lambda at: losses.dpo(at[:1], at[1:], at[1:].detach(), at[:1].detach(), beta=0.5),
        lambda at: losses.plackett_luce(at, *order(*range(len(scores)))),
        lambda at: losses.kwise(at, *order(*range(len(scores)))),
        lambda at: losses.two_way_kl(at, at.detach().flip(0)),
    ):
        total, slope = gradient(loss, scores)
        assert math.isfinite(total)
        assert torch.isfinite(slope).all()


@given(score=st.floats(-15, 15), label=st.sampled_from([0.0, 1.0]))
def test_every_label_loss_pulls_a_score_towards_its_label(score, label):
    target = torch.tensor([label])
    for loss in (
        lambda at: losses.kto(at, target, beta=1.0, **LAMBDAS),
        lambda at: losses.bce(at, target, **LAMBDAS),
        lambda at: losses.gce(at, target, **LAMBDAS),
    ):
        _, slope = gradient(loss, [score])
        assert (slope.item() < 0) == (label == 1)


@pytest.mark.parametrize(("warm_fraction", "warm_steps"), [(0.0, 0), (0.3, 3), (0.25, 3), (1.0, 10)])
def test_the_warm_up_lasts_its_share_of_steps(warm_fraction, warm_steps):
    warm = [losses.warm_share(step, 10, warm_fraction=warm_fraction) for step in range(10)]
    assert warm == [step < warm_steps for step in range(10)]
