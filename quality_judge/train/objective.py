"""The loss of a batch: what was said of its texts, their order within a unit, their categories; beside them an anchor.

It chooses among `losses` as the settings say. It knows nothing of steps, epochs or files.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from quality_judge.config import TrainConfig
from quality_judge.engine.kinds import ScalarModel
from quality_judge.train import losses
from quality_judge.train.examples import Examples
from quality_judge.train.forward import padded_ids

# A little logistic loss beside KTO, whose gradient vanishes on rows it is far from: with 17,000 labels its second epoch
# ends at an AUC of .857, at .842 without. One run each, see benchmarks/NOTES.md.
LOGISTIC_SHARE = 0.1
TIE_WEIGHT = 1.0  # beside a label's 1; what it does stands in benchmarks/NOTES.md


def asks_reference(config: TrainConfig) -> bool:
    """Whether the loss compares with what the base said before training."""
    return config.loss == "kto_relative" or config.ranking_loss == "dpo" or config.anchor > 0


class Objective:
    """The mean loss over the units of a batch.

    reference: the untrained model's raw score of each text where `among`, in order, float64; None where no loss
    compares with it.
    """

    def __init__(
        self, examples: Examples, among: np.ndarray, config: TrainConfig, reference: np.ndarray | None = None
    ) -> None:
        self.examples = examples
        self.config = config
        rows = among & examples.labelled
        self.label = torch.from_numpy(examples.label).float()
        self.weight = torch.from_numpy(examples.weight).float()
        self.unit, self.rank = torch.from_numpy(examples.unit), torch.from_numpy(examples.rank)
        self.categories = torch.from_numpy(examples.categories).float()
        self.reference = torch.zeros(len(examples))
        if reference is not None:
            self.reference[torch.from_numpy(among)] = torch.from_numpy(reference).float()
        self.desirable, self.undesirable = losses.class_weights(self.label[rows], self.weight[rows])
        self.orders_alone = not rows.any()
        said = self.categories[torch.from_numpy(among)]
        positive, negative = (said == 1).sum(0), (said == 0).sum(0)
        self.category_weight = (negative / positive.clamp(min=1)).clamp(1, 20)

    def __call__(self, model: ScalarModel, rows: np.ndarray, *, warm: bool) -> Tensor:
        """Mean loss over the units of `rows`, text indices (B,), shape ()."""
        device = next(model.parameters()).device
        distinct, back = np.unique(self.examples.same[rows], return_inverse=True)
        ids, lengths = padded_ids(self.examples, distinct)
        output = model(ids.to(device), lengths.to(device)).float().cpu()[torch.from_numpy(back)]
        score, at = output[:, 0], torch.from_numpy(rows)
        total = self._labels(score, at, warm) + self._orders(score, at) + self._categories(output[:, 1:], at)
        return (total + self._ties(score, at) + self._anchored(score, at)) / len(torch.unique(self.unit[at]))

    def _labels(self, score: Tensor, at: Tensor, warm: bool) -> Tensor:
        labelled = ~torch.isnan(self.label[at])
        if not labelled.any():
            return score.sum() * 0
        score, at = score[labelled], at[labelled]
        return (self.weight[at] * self._each(score, at, warm)).sum()

    def _each(self, score: Tensor, at: Tensor, warm: bool) -> Tensor:
        """The loss of each labelled row."""
        label, loss, beta = self.label[at], self.config.loss, self.config.beta
        balance = {"desirable": self.desirable, "undesirable": self.undesirable}
        if loss == "bce" or (loss == "warm_kto" and warm):
            return losses.bce(score, label, **balance)
        if loss == "gce":
            return losses.gce(score, label, **balance)
        if loss == "kto_relative":
            z = losses.two_way_kl(score, self.reference[at]).mean().detach()
            return losses.kto(score - self.reference[at], label, beta=beta, z=z, **balance)
        each = losses.kto(score, label, beta=beta, **balance)
        return each + LOGISTIC_SHARE * losses.bce(score, label, **balance) if loss == "warm_kto" else each

    def _orders(self, score: Tensor, at: Tensor) -> Tensor:
        """The sum over preferences and rankings, each as a whole."""
        unit, rank = self.unit[at], self.rank[at]
        better, worse = losses.ordered_pairs(unit, rank)
        if not len(better):
            return score.sum() * 0
        if self.config.ranking_loss == "plackett_luce":
            return losses.plackett_luce(score, unit, rank).sum()
        if self.config.ranking_loss == "kwise":
            return losses.kwise(score, unit, rank).sum()
        reference = self.reference[at]
        each = losses.dpo(score[better], score[worse], reference[better], reference[worse], beta=self.config.beta)
        return losses.mean_by(unit[better], each).sum()

    def _ties(self, score: Tensor, at: Tensor) -> Tensor:
        one, other = losses.tied_pairs(self.unit[at], self.rank[at])
        return TIE_WEIGHT * losses.tie(score[one], score[other]).sum()

    def _categories(self, output: Tensor, at: Tensor) -> Tensor:
        if not output.shape[1]:
            return output.sum() * 0
        target = self.categories[at]
        each = F.binary_cross_entropy_with_logits(
            output, target.nan_to_num(0), pos_weight=self.category_weight, reduction="none"
        )
        return (each * ~torch.isnan(target)).sum() / output.shape[1]

    def _anchored(self, score: Tensor, at: Tensor) -> Tensor:
        """What holds scores to the base's, and to zero where nothing but orders says where they lie."""
        total = score.sum() * 0
        if self.config.anchor:
            total = total + self.config.anchor * losses.two_way_kl(score, self.reference[at]).sum()
        if self.orders_alone:
            total = total + self.config.centering * losses.centering(score).sum()
        return total
