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
    return desirable * label * F.softplus(-score) + undesirable * (1 - label) * F.softplus(score)


def gce(score: Tensor, label: Tensor, *, desirable: float, undesirable: float, q: float = 0.7) -> Tensor:
    """Per-row generalised cross-entropy λ_y (1 − σ(y score)^q) / q, shape (B,) (Zhang & Sabuncu 2018, eq. 6).

    q → 0 is the logistic loss, q = 1 is KTO's value function with β = 1.
    """
    good = -torch.expm1(q * F.logsigmoid(score)) / q
    bad = -torch.expm1(q * F.logsigmoid(-score)) / q
    return desirable * label * good + undesirable * (1 - label) * bad


def bradley_terry(better: Tensor, worse: Tensor) -> Tensor:
    """Per-pair −log σ(better − worse), shape (P,) (InstructGPT eq. 1; DPO's form on a reward head)."""
    return F.softplus(worse - better)


def plackett_luce(scores: Tensor) -> Tensor:
    """−log P(this order) of one ranking, shape (). scores: (K,), best first (ListMLE, Xia et al. 2008)."""
    tails = torch.flip(torch.logcumsumexp(torch.flip(scores, [0]), 0), [0])
    return (tails - scores)[:-1].sum()


def dpo(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, *, beta: float
) -> Tensor:
    """Per-pair DPO loss, shape (P,), of summed log-probabilities (Rafailov et al. 2023, eq. 7)."""
    return F.softplus(-beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)))


def two_way_kl(score: Tensor, reference: Tensor) -> Tensor:
    """max(0, mean KL(σ(score) ‖ σ(reference))), shape (), no gradient: KTO's z0, exact for a two-way verdict."""
    with torch.no_grad():
        good = torch.sigmoid(score) * (F.logsigmoid(score) - F.logsigmoid(reference))
        bad = torch.sigmoid(-score) * (F.logsigmoid(-score) - F.logsigmoid(-reference))
        return (good + bad).mean().clamp(min=0)


def warm_share(step: int, steps: int, *, warm_fraction: float) -> bool:
    """Whether `step` of `steps` still belongs to the logistic warm-up that precedes KTO."""
    return step < math.ceil(warm_fraction * steps)
