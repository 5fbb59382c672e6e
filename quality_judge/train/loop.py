"""Fine-tunes one model on examples: the optimiser, the schedule, the batches, early stopping.

The head starts as the linear probe of the frozen base (LP-FT, Kumar et al. 2022), so that training begins at the
baseline. There is no dropout: with it off, a run depends on its seed alone, so that folds can train side by side and
give the same judge each time. It knows nothing of folds, files or calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from quality_judge.config import TrainConfig
from quality_judge.engine.kinds import ScalarModel
from quality_judge.errors import CheckFailed
from quality_judge.train import losses
from quality_judge.train.checkpoint import Checkpoint
from quality_judge.train.course import Course
from quality_judge.train.examples import Examples
from quality_judge.train.forward import autocast, predicted
from quality_judge.train.large import recompute_activations
from quality_judge.train.objective import Objective, asks_reference
from quality_judge.train.parallel import Peers, peers
from quality_judge.train.parts import refuse_ended

# Measured on 600 and 3,000 labels, see benchmarks/NOTES.md.
LEARNING_RATE = {
    ("encoder", "lora"): 1e-3,
    ("decoder", "lora"): 2e-4,
    ("encoder", "full"): 5e-5,
    ("decoder", "full"): 1e-5,
    ("encoder", "contrastive"): 1e-4,
    ("decoder", "contrastive"): 2e-5,
}
BATCH_SIZES = ((2_500, 16), (10**12, 32))
WARMUP_SHARE = 0.1
MAX_GRADIENT_NORM = 1.0
MIN_SCORE_SPREAD = 0.02
SORTED_BATCHES = 20
DIVERGED = "training diverged: the loss or a score is not a number; lower train.learning_rate"
MAX_ELEMENT_TEXTS = 64

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
    checkpoint: Checkpoint | None = None,
) -> TrainResult:  # fmt: skip
    """Trains `model` in place on the texts where `among`, bool (n,), and leaves it at its best epoch.

    develop: the score to early-stop on, higher is better; without it the last epoch stands. stop_after: leave the
    schedule after that many epochs. checkpoint: where a killed run of the same training stands, to go on from.
    Raises CheckFailed when the loss is not a number.
    """
    random = np.random.default_rng(seed)
    parts = elements(examples, np.unique(examples.unit[among]))
    size = batch_size(config, examples, parts)
    per_epoch = -(-len(parts) // size)
    mean_units = sum(map(len, parts)) / per_epoch
    steps = min(per_epoch * config.epochs, config.max_steps)
    epochs = -(-steps // per_epoch)
    optimiser, schedule = _optimiser(model, config, learning_rate, steps)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    reference = predicted(model, examples, np.flatnonzero(among))[:, 0] if asks_reference(config) else None
    objective = Objective(examples, among, config, reference)
    course, together = Course(trained, optimiser, schedule, random, checkpoint), peers()
    while course.goes_on(min(epochs, stop_after or epochs), config.patience):
        model.eval()
        if config.gradient_checkpointing:
            recompute_activations(model.body)
        total = 0.0
        before = step = course.step
        for rows in islice(batches(examples, parts, size, random), steps - step):
            refuse_ended()
            optimiser.zero_grad(set_to_none=True)
            warm = losses.warm_share(step, steps, warm_fraction=config.warm_fraction)
            weight = len(np.unique(examples.unit[rows])) / mean_units  # every unit pulls alike in any batch
            loss = _backward(objective, model, rows, together, warm=warm, weight=weight)
            total += together.add_up(trained.values(), loss)
            nn.utils.clip_grad_norm_(trained.values(), MAX_GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            step += 1
            if progress:
                progress(step, steps, total / (step - before))
        if not np.isfinite(total):
            raise CheckFailed(DIVERGED)
        course.step = step
        course.note(total / (step - before), together.agreed(develop()) if develop else float(course.epoch))
    course.finish()
    return TrainResult(course.best, course.best_epoch, tuple(course.history))


def _backward(
    objective: Objective, model: ScalarModel, rows: np.ndarray, together: Peers, *, warm: bool, weight: float
) -> Tensor:
    """Adds the gradients of this process's share of a batch to the model's; the share's part in the loss, shape ()."""
    mine, part = together.share(objective.examples.unit, rows)
    if not len(mine):
        return torch.zeros(())
    with autocast(next(model.parameters()).device):
        loss = objective(model, mine, warm=warm)
    loss = loss * (part * weight)
    loss.backward()
    return loss.detach()


def batch_texts(config: TrainConfig, examples: Examples) -> int:
    """The most texts in a batch, but for a ranking that is longer alone."""
    return _batch_units(config, examples.n_units) * (1 if len(examples) == examples.n_units else 2)


def _batch_units(config: TrainConfig, units: float) -> int:
    return config.batch_size or next(size for most, size in BATCH_SIZES if units <= most)


def batch_size(config: TrainConfig, examples: Examples, parts: Sequence[np.ndarray]) -> int:
    """Elements in a batch, at least 1: as many as hold the units that the settings say, else more when there are many.

    Units that share texts count together as half their texts: a pair alone is two texts, and counts as one unit.
    """
    counts = [1 if len(part) == 1 else _distinct(examples, part) / 2 for part in parts]
    units = _batch_units(config, sum(counts))
    return max(1, round(units * len(parts) / sum(counts)))


def _distinct(examples: Examples, units: np.ndarray) -> int:
    return len(np.unique(examples.same[np.isin(examples.unit, units)]))


def learning_rate(config: TrainConfig, architecture: str, method: str) -> float:
    """The rate of the body: what the settings say, else the method's own."""
    return config.learning_rate or LEARNING_RATE[architecture, method]


def elements(examples: Examples, units: np.ndarray) -> list[np.ndarray]:
    """`units` put together as they go into batches, each once: those that share texts stand together.

    All comparisons of a prompt's completions then cost one forward pass of each (InstructGPT, §3.5); shuffled apart
    they cost several, and are overfitted within an epoch. Of more than MAX_ELEMENT_TEXTS texts they are cut.
    """
    first = np.searchsorted(examples.unit, np.arange(examples.n_units + 1))
    parent = np.arange(len(examples))

    def root(text: int) -> int:
        while parent[text] != text:
            parent[text] = text = parent[parent[text]]
        return text

    texts = {unit: np.unique(examples.same[first[unit] : first[unit + 1]]).tolist() for unit in units.tolist()}
    for one, *others in texts.values():
        for other in others:
            parent[root(other)] = root(one)
    open_ones: dict[int, tuple[list[int], set[int]]] = {}
    found = []
    for unit, held in texts.items():
        members, seen = open_ones.setdefault(root(held[0]), ([], set()))
        if members and len(seen | set(held)) > MAX_ELEMENT_TEXTS:
            found.append(np.array(members))
            members, seen = open_ones[root(held[0])] = ([], set())
        members.append(unit)
        seen.update(held)
    return [*found, *(np.array(members) for members, _ in open_ones.values())]


def batches(
    examples: Examples, parts: Sequence[np.ndarray], size: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Text indices of `size` elements at a time, every one once, shuffled; neighbours in length stay together."""
    lengths = np.bincount(examples.unit, weights=examples.tokens.lengths, minlength=examples.n_units)
    length = np.array([lengths[part].sum() for part in parts])
    shuffled = random.permutation(len(parts))
    chunks = []
    for at in range(0, len(shuffled), size * SORTED_BATCHES):
        block = shuffled[at : at + size * SORTED_BATCHES]
        block = block[np.argsort(length[block], kind="stable")]
        chunks += [block[start : start + size] for start in range(0, len(block), size)]
    first = np.searchsorted(examples.unit, np.arange(examples.n_units + 1))
    for index in random.permutation(len(chunks)):
        units = np.concatenate([parts[element] for element in chunks[index]])
        yield np.concatenate([np.arange(first[unit], first[unit + 1]) for unit in units])


def refuse_collapse(raw: np.ndarray) -> None:
    """Raises CheckFailed when raw scores, float64 (n,), hardly differ: the model has learnt to say one thing."""
    spread = float(np.std(raw))
    if not np.isfinite(spread) or spread < MIN_SCORE_SPREAD:
        raise CheckFailed(
            f"training collapsed: the scores of held-out rows differ by {spread:.2g} only; lower train.learning_rate, "
            "choose loss bce, or check that both labels are present"
        )


def _optimiser(model: ScalarModel, config: TrainConfig, learning_rate: float, steps: int) -> tuple:
    body = [p for p in model.body.parameters() if p.requires_grad]
    head_rate = config.head_learning_rate
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": learning_rate}, {"params": list(model.head.parameters()), "lr": head_rate}],
        weight_decay=config.weight_decay,
    )
    return optimiser, warmed_up(optimiser, steps)


def warmed_up(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule of every training: rates rise over WARMUP_SHARE of the steps and fall to 0 at the last, linearly."""
    warmup = max(1, int(WARMUP_SHARE * steps))
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))
    )
