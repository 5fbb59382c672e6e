"""Fine-tunes one model on examples: the optimiser, the schedule, the batches, early stopping.

The head starts as the linear probe of the frozen base (LP-FT, Kumar et al. 2022), so that training begins at the
baseline. There is no dropout: with it off, a run depends on its seed alone, so that folds can train side by side and
give the same judge each time. It knows nothing of folds, files or calibration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quality_judge.config import TrainConfig
from quality_judge.engine.kinds import ScalarModel
from quality_judge.errors import CheckFailed
from quality_judge.train import losses
from quality_judge.train.examples import Examples

# Measured on 600 and 3,000 labels, see benchmarks/NOTES.md.
LEARNING_RATE = {
    ("encoder", "lora"): 1e-3,
    ("decoder", "lora"): 2e-4,
    ("encoder", "full"): 5e-5,
    ("decoder", "full"): 1e-5,
}
BATCH_SIZES = ((2_500, 16), (10**12, 32))
LENGTH_STEP = 8
WARMUP_SHARE = 0.1
# A little logistic loss beside KTO, whose gradient vanishes on rows it is far from: a run on 17,000 labels at twice
# today's rate fell to constant scores without it.
KTO_ANCHOR = 0.1
MAX_GRADIENT_NORM = 1.0
MIN_SCORE_SPREAD = 0.02
SORTED_BATCHES = 20

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class TrainResult:
    """best: trained parameters at the best epoch. epochs: how many it took. history: (loss, score) of each."""

    best: dict[str, Tensor]
    epochs: int
    history: tuple[tuple[float, float], ...]


def train_model(
    model: ScalarModel, examples: Examples, among: np.ndarray, *, config: TrainConfig, learning_rate: float,
    develop: Callable[[], float] | None, seed: int, progress: Progress | None = None, stop_after: int | None = None,
) -> TrainResult:  # fmt: skip
    """Trains `model` in place on the texts where `among`, bool (n,), and leaves it at its best epoch.

    develop: the score to early-stop on, higher is better; without it the last epoch stands. stop_after: leave the
    schedule after that many epochs. Raises CheckFailed when the scores collapse to a constant.
    """
    device = next(model.parameters()).device
    random = np.random.default_rng(seed)
    units = np.unique(examples.unit[among])
    size = batch_size(config, len(units))
    per_epoch = -(-len(units) // size)
    steps = min(per_epoch * config.epochs, config.max_steps)
    epochs = -(-steps // per_epoch)
    optimiser, schedule = _optimiser(model, config, learning_rate, steps)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    objective = Objective(examples, among, config)
    best, best_score, best_epoch, history, step = {}, -np.inf, 0, [], 0
    for epoch in range(min(epochs, stop_after or epochs)):
        model.eval()
        total = 0.0
        before = step
        for rows in islice(batches(examples, units, size, random), steps - step):
            with autocast(device):
                loss = objective(model, rows, warm=losses.warm_share(step, steps, warm_fraction=config.warm_fraction))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained.values(), MAX_GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            step, total = step + 1, total + float(loss.detach())
            if progress:
                progress(step, steps, total / (step - before))
        if not np.isfinite(total):
            raise CheckFailed("training diverged: the loss is not a number; lower train.learning_rate")
        score = develop() if develop else float(epoch)
        history.append((total / (step - before), score))
        if score > best_score:
            best_score, best_epoch = score, epoch + 1
            best = {name: parameter.detach().clone() for name, parameter in trained.items()}
        elif epoch + 1 - best_epoch >= config.patience:
            break
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(best[name])
    return TrainResult(best, best_epoch, tuple(history))


class Objective:
    """The loss of a batch of texts: their labels, their order within a unit, their categories."""

    def __init__(self, examples: Examples, among: np.ndarray, config: TrainConfig) -> None:
        self.examples = examples
        self.config = config
        rows = among & examples.labelled
        self.label = torch.from_numpy(examples.label).float()
        self.weight = torch.from_numpy(examples.weight).float()
        self.categories = torch.from_numpy(examples.categories).float()
        self.desirable, self.undesirable = losses.class_weights(self.label[rows], self.weight[rows])
        said = self.categories[torch.from_numpy(among)]
        positive, negative = (said == 1).sum(0), (said == 0).sum(0)
        self.category_weight = (negative / positive.clamp(min=1)).clamp(1, 20)

    def __call__(self, model: ScalarModel, rows: np.ndarray, *, warm: bool) -> Tensor:
        """Mean loss over the units of `rows`, text indices (B,), shape ()."""
        device = next(model.parameters()).device
        ids, lengths = padded_ids(self.examples, rows)
        output = model(ids.to(device), lengths.to(device)).float().cpu()
        total = self._labels(output[:, 0], rows, warm) + self._orders(output[:, 0], rows)
        return (total + self._categories(output[:, 1:], rows)) / len(np.unique(self.examples.unit[rows]))

    def _labels(self, score: Tensor, rows: np.ndarray, warm: bool) -> Tensor:
        at = torch.from_numpy(rows)
        labelled = ~torch.isnan(self.label[at])
        if not labelled.any():
            return score.sum() * 0
        score, label, weight = score[labelled], self.label[at][labelled], self.weight[at][labelled]
        balance = {"desirable": self.desirable, "undesirable": self.undesirable}
        loss = self.config.loss
        if loss == "bce" or (loss == "warm_kto" and warm):
            each = losses.bce(score, label, **balance)
        elif loss == "gce":
            each = losses.gce(score, label, **balance)
        else:
            each = losses.kto(score, label, beta=self.config.beta, **balance)
            if loss == "warm_kto":
                each = each + KTO_ANCHOR * losses.bce(score, label, **balance)
        return (weight * each).sum()

    def _orders(self, score: Tensor, rows: np.ndarray) -> Tensor:
        unit = self.examples.unit[rows]
        if len(np.unique(unit)) == len(rows):
            return score.sum() * 0
        first, second = np.nonzero(
            (unit[:, None] == unit[None, :]) & (self.examples.rank[rows][:, None] < self.examples.rank[rows][None, :])
        )
        if not len(first):
            return score.sum() * 0
        each = losses.bradley_terry(score[torch.from_numpy(first)], score[torch.from_numpy(second)])
        _, inverse, count = np.unique(unit[first], return_inverse=True, return_counts=True)
        return (each / torch.from_numpy(count[inverse]).float()).sum()

    def _categories(self, output: Tensor, rows: np.ndarray) -> Tensor:
        if not output.shape[1]:
            return output.sum() * 0
        target = self.categories[torch.from_numpy(rows)]
        said = ~torch.isnan(target)
        each = F.binary_cross_entropy_with_logits(
            output, target.nan_to_num(0), pos_weight=self.category_weight, reduction="none"
        )
        return (each * said).sum() / output.shape[1]


def batch_size(config: TrainConfig, units: int) -> int:
    """Units in a batch: what the settings say, else more of them when there are many."""
    return config.batch_size or next(size for most, size in BATCH_SIZES if units <= most)


def learning_rate(config: TrainConfig, architecture: str, method: str) -> float:
    """The rate of the body: what the settings say, else the method's own."""
    return config.learning_rate or LEARNING_RATE[architecture, method]


def padded_ids(examples: Examples, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """ids (B, T), padded on the right with 0 (never attended to), and lengths (B,), both int64.

    T is the longest row rounded up to LENGTH_STEP: fewer shapes, fewer kernels to make.
    """
    tokens = examples.tokens
    lengths = tokens.lengths[rows]
    width = min(-(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP, int(tokens.lengths.max()))
    places = np.arange(width)[None, :]
    at = np.minimum(tokens.offsets()[rows][:, None] + places, len(tokens.ids) - 1)
    ids = np.where(places < lengths[:, None], tokens.ids[at], 0)
    return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(lengths)


def batches(examples: Examples, units: np.ndarray, size: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Text indices of `size` units at a time, every unit once, shuffled; neighbours in length stay together."""
    lengths = np.bincount(examples.unit, weights=examples.tokens.lengths, minlength=examples.n_units)
    shuffled = random.permutation(units)
    chunks = []
    for at in range(0, len(shuffled), size * SORTED_BATCHES):
        block = shuffled[at : at + size * SORTED_BATCHES]
        block = block[np.argsort(lengths[block], kind="stable")]
        chunks += [block[start : start + size] for start in range(0, len(block), size)]
    first = np.searchsorted(examples.unit, np.arange(examples.n_units + 1))
    for index in random.permutation(len(chunks)):
        yield np.concatenate([np.arange(first[unit], first[unit + 1]) for unit in chunks[index]])


def refuse_collapse(raw: np.ndarray) -> None:
    """Raises CheckFailed when raw scores, float64 (n,), hardly differ: the model has learnt to say one thing."""
    spread = float(np.std(raw))
    if not np.isfinite(spread) or spread < MIN_SCORE_SPREAD:
        raise CheckFailed(
            f"training collapsed: the scores of held-out rows differ by {spread:.2g} only; lower train.learning_rate, "
            "choose loss bce, or check that both labels are present"
        )


def autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 arithmetic where the device has it."""
    from quality_judge.engine.weights import precision_here

    if precision_here(device.type) == torch.bfloat16:
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def _optimiser(model: ScalarModel, config: TrainConfig, learning_rate: float, steps: int) -> tuple:
    body = [p for p in model.body.parameters() if p.requires_grad]
    head_rate = config.head_learning_rate
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": learning_rate}, {"params": list(model.head.parameters()), "lr": head_rate}],
        weight_decay=config.weight_decay,
    )
    warmup = max(1, int(WARMUP_SHARE * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))
    )
    return optimiser, schedule
