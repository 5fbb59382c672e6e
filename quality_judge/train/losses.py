"""The losses of a judge, as pure functions of its scores. The paper stands beside each; the caller averages.

`score` is a margin: above zero for good. Labels are probabilities that an expert calls the row good, so that soft
labels work everywhere; the weights `desirable` and `undesirable` balance the classes. It knows no model or data.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def class_weights(labels: Tensor, weights: Tensor) -> tuple[float, float]:
    """λ_D, λ_U = n / 2n_D, n / 2n_U of soft labels (n,) and row weights (n,): both classes pull alike.

    Their ratio λ_D n_D / λ_U n_U is 1, inside the range of KTO §4.2; without it 3 of 4 runs collapsed.
    """
    good, total = float((weights * labels).sum()), float(weights.sum())
    bad = total - good
    return (total / (2 * good) if good > 0 else 1.0, total / (2 * bad) if bad > 0 else 1.0)


def kto(
    score: Tensor, label: Tensor, *, beta: float, desirable: float, undesirable: float, z: Tensor | float = 0.0
) -> Tensor:
    """Per-row KTO loss λ_y (1 − σ(β y (score − z))), shape (B,) (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8).

    score: the margin, or policy-to-reference log-ratio for the paper's form. label: (B,) in [0, 1]. z: the reference
    point, without gradient. Bounded and symmetric, hence tolerant of wrong labels.
    """
    good = desirable * torch.sigmoid(-beta * (score - z))
    bad = undesirable * torch.sigmoid(beta * (score - z))
    return label * good + (1 - label) * bad


def bce(score: Tensor, label: Tensor, *, desirable: float, undesirable: float) -> Tensor:
    """Per-row weighted logistic loss, shape (B,). score: (B,). label: (B,) in [0, 1]."""
    return -desirable * label * F.logsigmoid(score) - undesirable * (1 - label) * F.logsigmoid(-score)


def gce(score: Tensor, label: Tensor, *, desirable: float, undesirable: float, q: float = 0.7) -> Tensor:
    """Per-row generalised cross-entropy λ_y (1 − σ(y score)^q) / q, shape (B,) (Zhang & Sabuncu 2018, eq. 6).

    q → 0 is the logistic loss, q = 1 is KTO's value function with β = 1.
    """
    good = -torch.expm1(q * F.logsigmoid(score)) / q
    bad = -torch.expm1(q * F.logsigmoid(-score)) / q
    return desirable * label * good + undesirable * (1 - label) * bad


def bradley_terry(better: Tensor, worse: Tensor) -> Tensor:
    """Per-pair −log σ(better − worse), shape (P,) (Bradley & Terry 1952; DPO's form on a reward head)."""
    return -F.logsigmoid(better - worse)  # torch's softplus is cut to a line above 20


def kwise(score: Tensor, unit: Tensor, rank: Tensor) -> Tensor:
    """The mean Bradley–Terry loss over all pairs of a ranking, shape (R,), one for each (InstructGPT, eq. 1).

    score, unit, rank: (B,); texts with one `unit` are ranked among each other, rank 0 the best. Texts of equal rank are
    not set against each other. Rankings without any pair are left out.
    """
    better, worse = ordered_pairs(unit, rank)
    return mean_by(unit[better], bradley_terry(score[better], score[worse]))


def plackett_luce(score: Tensor, unit: Tensor, rank: Tensor) -> Tensor:
    """The mean of −log P over the choices a ranking consists of, shape (R,), one for each (ListMLE, Xia et al. 2008).

    A choice is a text against all that rank below it; arguments and ties are as in `kwise`. Times their number, K − 1
    where nothing is tied, it is −log P(this order).
    """
    below = (unit[:, None] == unit[None, :]) & (rank[:, None] < rank[None, :])
    chooses = below.any(1)
    left = below | torch.eye(len(score), dtype=torch.bool, device=score.device)
    at_stake = torch.where(left, score[None, :], -torch.inf).logsumexp(1)
    return mean_by(unit[chooses], (at_stake - score)[chooses])


def dpo(better: Tensor, worse: Tensor, better_reference: Tensor, worse_reference: Tensor, *, beta: float) -> Tensor:
    """Per-pair DPO loss −log σ(β ((better − its reference) − (worse − its))), shape (P,) (Rafailov et al. 2023, eq. 7).

    Of margins, or of the summed log-probabilities that the paper has.
    """
    return -F.logsigmoid(beta * ((better - better_reference) - (worse - worse_reference)))


def two_way_kl(score: Tensor, reference: Tensor) -> Tensor:
    """KL(σ(score) ‖ σ(reference)) of each row's two verdicts, shape (B,), at least 0.

    Its mean without gradient is KTO's z0, exact where the paper estimates; times γ it anchors a judge to its base.
    """
    good = torch.sigmoid(score) * (F.logsigmoid(score) - F.logsigmoid(reference))
    bad = torch.sigmoid(-score) * (F.logsigmoid(-score) - F.logsigmoid(-reference))
    return (good + bad).clamp(min=0)


def centering(score: Tensor) -> Tensor:
    """Per-row score², shape (B,): orders alone leave the level of scores free (Eisenstein et al. 2023, 2312.09244)."""
    return score.square()


def contrastive(states: Tensor, label: Tensor, temperature: float) -> Tensor:
    """The supervised contrastive loss of a batch, shape () (Khosla et al. 2020, 2004.11362, eq. 2).

    states: (B, W), compared by their cosine. label: (B,). temperature: > 0. A text without another of its label is no
    anchor; NaN when none is one.
    """
    embedding = F.normalize(states, dim=1)
    itself = torch.eye(len(states), dtype=torch.bool, device=states.device)
    similarity = (embedding @ embedding.T / temperature).masked_fill(itself, torch.finfo(states.dtype).min)
    log_probability = similarity - similarity.logsumexp(1, keepdim=True)
    positive = (label[:, None] == label[None, :]) & ~itself
    count = positive.sum(1)
    return -((log_probability * positive).sum(1)[count > 0] / count[count > 0]).mean()


def tie(one: Tensor, other: Tensor) -> Tensor:
    """Per-tie half squared distance ½ (one − other)², shape (T,): texts that should score alike are held together.

    It is what stability training does to a picture and its distorted copy (Zheng et al. 2016, arXiv 1604.04326).
    """
    return 0.5 * (one - other) ** 2


def tied_pairs(unit: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """(one, other): indices of all texts of one unit with the same rank, each (T,), every two of them once."""
    alike = (unit[:, None] == unit[None, :]) & (rank[:, None] == rank[None, :])
    one, other = torch.nonzero(torch.triu(alike, diagonal=1), as_tuple=True)
    return one, other


def ordered_pairs(unit: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """(better, worse): indices of all texts of one unit with different ranks, each (P,)."""
    better, worse = torch.nonzero((unit[:, None] == unit[None, :]) & (rank[:, None] < rank[None, :]), as_tuple=True)
    return better, worse


def mean_by(unit: Tensor, values: Tensor) -> Tensor:
    """The mean of `values` (P,) for each distinct `unit` (P,), shape (R,)."""
    _, at, count = torch.unique(unit, return_inverse=True, return_counts=True)
    return torch.zeros(len(count), dtype=values.dtype, device=values.device).index_add(0, at, values) / count


def warm_share(step: int, steps: int, *, warm_fraction: float) -> bool:
    """Whether `step` of `steps` still belongs to the logistic warm-up that precedes KTO."""
    return step < math.ceil(warm_fraction * steps)
