"""The model part of a judge: fitted by each method out of fold, compared, and fitted once more on everything.

It knows nothing of the surface part but its scores, and nothing of files.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from quality_judge.bases import Base
from quality_judge.config import TrainConfig
from quality_judge.engine.encode import Ragged
from quality_judge.engine.forward_pool import ForwardPool
from quality_judge.engine.kinds import Pooling, ScalarModel
from quality_judge.engine.precision import precision_here
from quality_judge.engine.weights import hidden_size, load_body
from quality_judge.errors import CheckFailed, LabelError
from quality_judge.judge_spec import Encoding
from quality_judge.train import adapters
from quality_judge.train.checkpoint import Checkpoint, Checkpoints
from quality_judge.train.contrast import CONTRAST_TEXTS, contrast
from quality_judge.train.examples import Examples
from quality_judge.train.forward import pooled_states, predicted
from quality_judge.train.large import quantization, training_attention
from quality_judge.train.linear import (
    FROZEN_STRENGTHS,
    Linear,
    best_linear,
    fit_linear,
    order_score,
    out_of_fold,
    standardised,
)
from quality_judge.train.loop import Progress, TrainResult, batch_texts, learning_rate, refuse_collapse, train_model
from quality_judge.train.parallel import peers
from quality_judge.train.parts import Trained, parts_at_once, side_by_side
from quality_judge.train.stack import fit_stack
from quality_judge.train.unseen import Unseen

MIN_TUNED_UNITS = 100
MAX_FULL_PARAMETERS = 200_000_000
MAX_SPREAD_TEXTS = 64
CONTRASTED_LABELS = (40, 300)  # tried at 64 and 200, see benchmarks/NOTES.md
CONTRASTED_STRENGTH = FROZEN_STRENGTHS[0]
RETRY_RATE = 0.1  # after a collapse
Method = Literal["frozen", "lora", "full", "contrastive"]


class ModelFitter:
    """Fits the model part by each method on one set of examples; remembers the base's states and scores."""

    decoder_pooling: Pooling = "layers_last"

    def __init__(
        self, base: Base, encoding: Encoding, examples: Examples, folds: np.ndarray, config: TrainConfig,
        progress: Callable[[str], Progress], checkpoints: Checkpoints | None = None,
    ) -> None:  # fmt: skip
        self.base, self.encoding, self.examples, self.folds, self.config = base, encoding, examples, folds, config
        self.progress, self.checkpoints = progress, checkpoints
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pooling: Pooling = "layers" if base.architecture == "encoder" else self.decoder_pooling
        self.outputs = 1 + len(examples.category_names)
        attention = training_attention(base, encoding.max_tokens, self.device.type)
        self.body = load_body(base, attention=attention, quantization=quantization(config))
        self.states = self._frozen_states()
        self.standard, self.mean, self.scale = standardised(self.states)
        self.strength, probe_raw = best_linear(self.standard, examples, folds, FROZEN_STRENGTHS)
        frozen_raw = self._frozen_raw(probe_raw)
        self.held_out = {"frozen": self._with_categories(frozen_raw)}
        self.results: dict[str, list[TrainResult]] = {}
        self.models: dict[str, ScalarModel] = {}
        self.notes: dict[str, str] = {}
        self.retries: Counter[Method] = Counter()
        self.shared = 0
        self.scores = {"frozen": order_score(examples, frozen_raw, folds >= 0)}

    def choose(self, surface_raw: np.ndarray | None, *, given: Examples) -> Method:
        """The method asked for, or whose stack orders unseen rows best; `given`, what is labelled, says what to try."""
        if self.config.method != "auto":
            candidates: list[Method] = [self.config.method]
        else:
            candidates = self._candidates(given)
        stacked_scores: dict[Method, float] = {}
        for method in candidates:
            try:
                if method != "frozen":
                    self.held_out[method] = self._twice(partial(self._out_of_fold, method), method)
            except (CheckFailed, LabelError) as reason:
                if self.config.method != "auto":
                    raise
                self.notes[f"{method} was given up"] = str(reason)
                continue
            self.scores[method] = order_score(self.examples, self.held_out[method][:, 0], self.folds >= 0)
            _, raw = fit_stack(self.examples, self.held_out[method][:, 0], surface_raw)
            stacked_scores[method] = order_score(self.examples, raw, self.folds >= 0)
        return max(stacked_scores, key=lambda method: stacked_scores[method])

    def _candidates(self, given: Examples) -> list[Method]:
        """The methods worth trying with so many labels."""
        small = self.base.architecture == "encoder" and self._parameters() <= MAX_FULL_PARAMETERS
        least, most = CONTRASTED_LABELS
        contrasted: list[Method] = ["contrastive"] if small and least <= given.decided.sum() <= most else []
        tuned: list[Method] = ["full" if small else "lora"] if given.n_units >= MIN_TUNED_UNITS else []
        return ["frozen", *contrasted, *tuned]

    def final(self, method: Method) -> tuple[ScalarModel, np.ndarray, dict[str, Tensor], dict[str, Any]]:
        """The model of that method, its out-of-fold outputs (n, 1 + K), its adapter, and notes for the card."""
        everything = np.ones(len(self.examples), bool)
        if method == "frozen":
            return self._start(everything), self.held_out[method], {}, {"epochs": 0, **self.notes}
        epochs = int(np.ceil(np.median([result.epochs for result in self.results[method]])))
        model = self.models.get(method)
        if model is None:
            model = self._twice(partial(self._on_everything, method, epochs), method)
        adapter = adapters.extracted(model.body, method)
        history = [[list(epoch) for epoch in result.history] for result in self.results[method]]
        note = {"epochs": epochs, "learning_rate": self._rate(method), "history": history, **self.notes}
        return model, self.held_out[method], adapter, note

    def _twice(self, train: Callable[[], Trained], method: Method) -> Trained:
        """What `train` gives; where it collapses or diverges, once more from another seed and more slowly."""
        try:
            return train()
        except CheckFailed as collapse:
            self.retries[method] += 1
            self.notes[f"{method} was tried again"] = (
                f"{collapse}; seed {self._seed(method)}, learning rates times {self._slower(method):g}"
            )
            return train()

    def _on_everything(self, method: Method, epochs: int) -> ScalarModel:
        everything = np.ones(len(self.examples), bool)
        model = self._prepared(method, everything)
        self._fitted(
            model, method, everything, " on all labels", develop=None, stop_after=epochs,
            checkpoint=self._checkpoint(method, f"{epochs}-epochs"),
        )  # fmt: skip
        self._refuse_collapse(model)
        return model

    def _fitted(
        self, model: ScalarModel, method: Method, among: np.ndarray, part: str, *, develop: Callable[[], float] | None,
        stop_after: int | None = None, checkpoint: Checkpoint | None = None,
    ) -> TrainResult:  # fmt: skip
        """Trains the model in place by that method, its head at the end."""
        progress = self.progress(f"training ({method}){part}")
        if method != "contrastive":
            return train_model(
                model, self.examples, among, config=self._settings(method), learning_rate=self._rate(method),
                seed=self._seed(method), develop=develop, progress=progress, stop_after=stop_after,
                checkpoint=checkpoint,
            )  # fmt: skip
        contrast(
            model, self.examples, among, mean=self.mean, scale=self.scale, learning_rate=self._rate(method),
            weight_decay=self.config.weight_decay, seed=self._seed(method), progress=progress,
        )  # fmt: skip
        states = pooled_states(model, self.examples, np.arange(len(self.examples)))
        standard, mean, scale = standardised(states, among)
        probes = self._probes(standard, among, CONTRASTED_STRENGTH)
        self._fill_head(model, probes, mean, scale)
        return TrainResult({}, 1, ())

    def _settings(self, method: Method) -> TrainConfig:
        rate = self.config.head_learning_rate * self._slower(method)
        return self.config.model_copy(update={"head_learning_rate": rate})

    def _out_of_fold(self, method: Method) -> np.ndarray:
        """What each row is given by a model that was trained without its fold, float64 (n, 1 + K)."""
        outputs = np.full((len(self.examples), self.outputs), np.nan)
        folds = list(range(self.folds.max() + 1))
        at_once = self._parts_at_once(method)
        self.results[method] = []
        while folds:
            some, folds = folds[:at_once], folds[at_once:]
            train = partial(self._part, method, outputs)
            ready = [self._prepared(method, self.folds != fold) for fold in some]
            self.results[method] += side_by_side(train, some, ready) if len(some) > 1 else map(train, some, ready)
        return outputs

    def _parts_at_once(self, method: Method) -> int:
        """How many parts to train side by side: as the processor has cores, and the memory room."""
        if self.device.type != "cpu" or peers().count > 1:
            return 1
        model = self._prepared(method, self.folds != 0)
        texts = CONTRAST_TEXTS if method == "contrastive" else batch_texts(self.config, self.examples)
        room = parts_at_once(model, self.examples.tokens, texts=texts, shared=self.shared)
        if not room and method != "contrastive":
            self._recompute_activations()
        return max(1, min(room, torch.get_num_threads()))

    def _recompute_activations(self) -> None:
        if getattr(self.body, "supports_gradient_checkpointing", False):
            self.config = self.config.model_copy(update={"gradient_checkpointing": True})
            self.notes["activations"] = "computed twice, for this machine's memory does not hold those of a batch"

    def _part(self, method: Method, outputs: np.ndarray, fold: int, model: ScalarModel) -> TrainResult:
        """Trains the model on all rows but the fold's, whose outputs it fills in."""
        held_out, parts = np.flatnonzero(self.folds == fold), self.folds.max() + 1
        unseen = Unseen(model, self.examples, held_out)
        result = self._fitted(
            model, method, self.folds != fold, f", part {fold + 1} of {parts}", develop=unseen.score,
            checkpoint=self._checkpoint(method, f"part-{fold}"),
        )  # fmt: skip
        outputs[held_out] = unseen.outputs(result)
        if len(np.unique(self.examples.same[held_out])) < MAX_SPREAD_TEXTS:
            self._refuse_collapse(model)  # the scores of few texts may be alike without one
        else:
            refuse_collapse(outputs[held_out, 0])
        if parts == 1:
            self.models[method] = model
        return result

    def _refuse_collapse(self, model: ScalarModel) -> None:
        spread = np.unique(np.linspace(0, len(self.examples) - 1, MAX_SPREAD_TEXTS).astype(int))
        refuse_collapse(predicted(model, self.examples, spread)[:, 0])

    def _prepared(self, method: Method, among: np.ndarray) -> ScalarModel:
        model = self._start(among)
        model.body = adapters.prepared(model.body, method, self.config)
        return model.to(self.device)

    def _frozen_raw(self, probe_raw: np.ndarray) -> np.ndarray:
        """What the frozen base says of rows it was not fitted to, given what its linear probe does; float64 (n,)."""
        return probe_raw

    def _start(self, among: np.ndarray) -> ScalarModel:
        """A fresh copy of the base under the linear probe of its own states."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = ScalarModel(copy.deepcopy(self.body), hidden_size(self.base), self.outputs, self.pooling)
        self._fill_head(model, self._probes(self.standard, among, self.strength), self.mean, self.scale)
        return model

    @torch.no_grad()
    def _fill_head(self, model: ScalarModel, probes: list[Linear], mean: np.ndarray, scale: np.ndarray) -> None:
        for index, linear in enumerate(probes):
            model.head.weight[index] = torch.from_numpy(linear.weight / scale).float()
            model.head.bias[index] = float(linear.bias - (linear.weight * mean / scale).sum())

    def _probes(self, standard: np.ndarray, among: np.ndarray, strength: float) -> list[Linear]:
        """A linear head on standardised states, float64 (n, W): quality first, then the categories."""
        quality = fit_linear(standard, self.examples, among, strength=strength)
        return [quality, *self._category_probes(standard, among, strength)]

    def _category_probes(self, standard: np.ndarray, among: np.ndarray, strength: float) -> list[Linear]:
        return [self._category_probe(index, standard, among, strength) for index in range(self.outputs - 1)]

    def _category_probe(self, index: int, standard: np.ndarray, among: np.ndarray, strength: float) -> Linear:
        said = self.examples.categories[:, index]
        single = replace(self.examples, label=said, weight=np.ones(len(said)))  # categories are said without a weight
        if len(np.unique(said[among & ~np.isnan(said)])) < 2:
            return Linear(np.zeros(standard.shape[1]), -3.0)
        return fit_linear(standard, single, among & ~np.isnan(said), strength=strength)

    def _with_categories(self, raw: np.ndarray) -> np.ndarray:
        probes = [partial(self._probe_scores, index) for index in range(self.outputs - 1)]
        return np.column_stack([raw, *(out_of_fold(self.examples, self.folds, probe) for probe in probes)])

    def _probe_scores(self, index: int, among: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        probe = self._category_probe(index, self.standard, among, self.strength)
        return lambda rows: probe.raw(self.standard[rows])

    def _frozen_states(self) -> np.ndarray:
        distinct, back = np.unique(self.examples.same, return_inverse=True)
        tokens = self.examples.tokens.take(distinct)
        return frozen_states(self.base, self.encoding, tokens, self.pooling, self.device.type)[back]

    def _checkpoint(self, method: Method, part: str) -> Checkpoint | None:
        again = f"-seed-{self._seed(method)}" if self.retries[method] else ""  # a second try goes on from no first one
        return self.checkpoints.part(f"{method}-{part}{again}") if self.checkpoints else None

    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.body.parameters())

    def _rate(self, method: Method) -> float:
        return learning_rate(self.config, self.base.architecture, method) * self._slower(method)

    def _seed(self, method: Method) -> int:
        return self.config.seed + self.retries[method]

    def _slower(self, method: Method) -> float:
        return RETRY_RATE ** self.retries[method]


def frozen_states(base: Base, encoding: Encoding, tokens: Ragged, pooling: Pooling, device: str) -> np.ndarray:
    """The untouched base's pooled states of each row, float64 (n, H), as precisely as scoring computes them."""
    model = ScalarModel(load_body(base), hidden_size(base), 1, pooling)
    pool = ForwardPool(
        model, device=device, dtype=precision_here(device), threads=torch.get_num_threads(), prefix=encoding.prefix
    )
    return pool.run(tokens, encoding.buckets, encoding.pad, pooled=True).astype(np.float64)
