"""From labels to a fitted judge: every part is judged by texts it has not seen, and the parts are then weighed.

Out-of-fold scores decide the method, the strength of each linear part, the epochs, the weights of the stack and the
calibration, so that no label is spent on any of it. It knows nothing of files, baselines or reports.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quality_judge.bases import Base, find_base
from quality_judge.config import JudgeConfig, TrainConfig
from quality_judge.engine.encode import Encoder, Ragged, build_encoding
from quality_judge.engine.kinds import ScalarModel
from quality_judge.engine.scorer import ForwardPool
from quality_judge.engine.stacking import SurfaceModel
from quality_judge.engine.weights import hidden_size, load_body, load_tokenizer, precision_here
from quality_judge.errors import ConfigError
from quality_judge.judge import Encoding, Lora, Stack
from quality_judge.labels import LabelSet
from quality_judge.train import adapters
from quality_judge.train.examples import Examples, build_examples, category_names
from quality_judge.train.linear import (
    COUNT_SCALES, FROZEN_STRENGTHS, SURFACE_STRENGTHS, Linear, SurfaceFeatures, best_linear, fit_linear, order_score, out_of_fold,
)  # fmt: skip
from quality_judge.train.loop import Progress, TrainResult, autocast, learning_rate, padded_ids, refuse_collapse, train_model

MAX_CROSS_FITTED_UNITS = 2500
MAX_DEVELOPMENT_SHARE = 0.15
MAX_DEVELOPMENT_UNITS = 1500
MIN_TUNED_UNITS = 100
MAX_FULL_PARAMETERS = 200_000_000
PREDICT_TEXTS = 64
TRAINING_ATTENTION = "eager"  # on the CPU the backward pass of torch's fused attention takes twice the whole step


@dataclass(frozen=True)
class Fitted:
    """A judge before it is calibrated: all it needs to score, and what it said of rows it had not seen.

    raw: out-of-fold raw score of each example, NaN where it was always trained on. examples: what it learnt from.
    states: the untouched base's pooled states of the examples, float64 (n, H).
    """

    base: Base
    encoding: Encoding
    tokenizer_json: str
    model: ScalarModel
    adapter: dict[str, Tensor]
    method: str
    lora: Lora | None
    surface: SurfaceModel | None
    stack: Stack
    examples: Examples
    states: np.ndarray
    raw: np.ndarray
    category_raw: np.ndarray
    training: dict[str, Any]


def fit_judge(labels: LabelSet, config: JudgeConfig, *, progress: Callable[[str], Progress] | None = None) -> Fitted:
    """The judge fitted to `labels`. progress: takes a stage's name, gives what is told of each of its steps."""
    if config.kind != "scalar":
        raise ConfigError(f"kind {config.kind!r} cannot be trained yet; choose kind: scalar")
    started = time.perf_counter()
    base = find_base(config.base, config.revision)
    tokenizer = load_tokenizer(base)
    encoding, tokenizer_json = build_encoding(
        tokenizer, base.architecture, max_tokens=config.max_tokens, cut_at=config.cut, limit=position_limit(base)
    )
    examples = build_examples(labels, Encoder(tokenizer_json, encoding), category_names=category_names(labels))
    folds = choose_folds(examples, config.train)
    surface, surface_raw, surface_note = _fit_surface(examples, folds) if config.train.surface else (None, None, {})
    fitter = ModelFitter(base, encoding, examples, folds, config.train, progress or (lambda stage: lambda *_: None))
    method = fitter.choose(surface_raw)
    model, outputs, adapter, note = fitter.final(method)
    stack, raw = fit_stack(examples, outputs[:, 0], surface_raw)
    training = {
        "method": method, "units": examples.n_units, "texts": len(examples), "folds": int(folds.max() + 1),
        "cross_fitted": bool((folds >= 0).all()), "out_of_fold": {
            "judge": order_score(examples, raw, folds >= 0),
            **({"surface": order_score(examples, surface_raw, folds >= 0)} if surface_raw is not None else {}),
            **fitter.scores,
        }, **surface_note, **note, "settings": config.train.model_dump(mode="json"), "seconds": time.perf_counter() - started,
    }  # fmt: skip
    lora = Lora(rank=config.train.lora_rank, alpha=config.train.lora_alpha) if method == "lora" else None
    return Fitted(
        base, encoding, tokenizer_json, model, adapter, method, lora, surface if stack.surface else None, stack,
        examples, fitter.states, raw, outputs[:, 1:], training,
    )  # fmt: skip


def choose_folds(examples: Examples, config: TrainConfig) -> np.ndarray:
    """The fold of each text, int64 (n,): all of them when there are few, else one development fold 0 and -1."""
    if examples.n_units <= MAX_CROSS_FITTED_UNITS:
        return examples.folds(min(config.folds, examples.n_units), config.seed)
    share = min(MAX_DEVELOPMENT_SHARE, MAX_DEVELOPMENT_UNITS / examples.n_units)
    folds = examples.folds(round(1 / share), config.seed)
    return np.where(folds == 0, 0, -1)


class ModelFitter:
    """Fits the model part by each method on one set of examples; remembers the base's states and scores."""

    def __init__(
        self, base: Base, encoding: Encoding, examples: Examples, folds: np.ndarray, config: TrainConfig,
        progress: Callable[[str], Progress],
    ) -> None:  # fmt: skip
        self.base, self.encoding, self.examples, self.folds, self.config = base, encoding, examples, folds, config
        self.progress = progress
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pooling = "mean" if base.architecture == "encoder" else "last"
        self.outputs = 1 + len(examples.category_names)
        self.body = load_body(base, attention=TRAINING_ATTENTION)
        self.states = self._frozen_states()
        self.mean, self.scale = self.states.mean(axis=0), self.states.std(axis=0) + 1e-6
        self.standard = (self.states - self.mean) / self.scale
        self.strength, frozen_raw = best_linear(self.standard, examples, folds, FROZEN_STRENGTHS)
        self.held_out = {"frozen": self._with_categories(frozen_raw)}
        self.results: dict[str, list[TrainResult]] = {}
        self.models: dict[str, ScalarModel] = {}
        self.scores = {"frozen": order_score(examples, frozen_raw, folds >= 0)}

    def choose(self, surface_raw: np.ndarray | None) -> str:
        """The method to use: the one asked for, or the one whose stack orders unseen rows best."""
        if self.config.method != "auto":
            candidates = [self.config.method]
        else:
            tuned = "full" if self.base.architecture == "encoder" and self._parameters() <= MAX_FULL_PARAMETERS else "lora"
            candidates = ["frozen", tuned] if self.examples.n_units >= MIN_TUNED_UNITS else ["frozen"]
        stacked_scores = {}
        for method in candidates:
            if method != "frozen":
                self.held_out[method] = self._out_of_fold(method)
                self.scores[method] = order_score(self.examples, self.held_out[method][:, 0], self.folds >= 0)
            _, raw = fit_stack(self.examples, self.held_out[method][:, 0], surface_raw)
            stacked_scores[method] = order_score(self.examples, raw, self.folds >= 0)
        return max(stacked_scores, key=lambda method: stacked_scores[method])

    def final(self, method: str) -> tuple[ScalarModel, np.ndarray, dict[str, Tensor], dict[str, Any]]:
        """The model of that method, its out-of-fold outputs (n, 1 + K), its adapter, and notes for the card."""
        everything = np.ones(len(self.examples), bool)
        if method == "frozen":
            return self._start(everything), self.held_out[method], {}, {"epochs": 0}
        epochs = int(np.ceil(np.median([result.epochs for result in self.results[method]])))
        model = self.models.get(method)
        if model is None:
            model = self._prepared(method, everything)
            train_model(
                model, self.examples, everything, config=self.config, learning_rate=self._rate(method), develop=None,
                seed=self.config.seed, progress=self.progress(f"training ({method}) on all labels"), stop_after=epochs,
            )  # fmt: skip
        adapter = adapters.extracted(model.body, method)
        history = [[list(epoch) for epoch in result.history] for result in self.results[method]]
        return model, self.held_out[method], adapter, {"epochs": epochs, "learning_rate": self._rate(method), "history": history}

    def _out_of_fold(self, method: str) -> np.ndarray:
        outputs = np.full((len(self.examples), self.outputs), np.nan)
        folds = range(self.folds.max() + 1)
        models = [self._prepared(method, self.folds != fold) for fold in folds]
        side_by_side = torch.get_num_threads() if self.device.type == "cpu" and len(folds) > 1 else 1

        def train(fold: int) -> TrainResult:
            held_out = np.flatnonzero(self.folds == fold)
            result = train_model(
                models[fold], self.examples, self.folds != fold, config=self.config, learning_rate=self._rate(method),
                seed=self.config.seed, develop=lambda: self._development_score(models[fold], held_out),
                progress=self.progress(f"training ({method}), part {fold + 1} of {len(folds)}"),
            )  # fmt: skip
            outputs[held_out] = predicted(models[fold], self.examples, held_out)
            refuse_collapse(outputs[held_out, 0])
            return result

        if side_by_side > 1:
            with ThreadPoolExecutor(side_by_side, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                self.results[method] = list(pool.map(train, folds))
        else:
            self.results[method] = [train(fold) for fold in folds]
        if len(folds) == 1:
            self.models[method] = models[0]
        return outputs

    def _prepared(self, method: str, among: np.ndarray) -> ScalarModel:
        model = self._start(among)
        model.body = adapters.prepared(model.body, method, self.config)
        return model.to(self.device)

    def _start(self, among: np.ndarray) -> ScalarModel:
        """A fresh copy of the base under the linear probe of its own states."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = ScalarModel(copy.deepcopy(self.body), self.states.shape[1], self.outputs, self.pooling)
        probe = fit_linear(self.standard, self.examples, among, strength=self.strength)
        with torch.no_grad():
            model.head.weight[0] = torch.from_numpy(probe.weight / self.scale).float()
            model.head.bias[0] = float(probe.bias - (probe.weight * self.mean / self.scale).sum())
            for index, linear in enumerate(self._category_probes(among)):
                model.head.weight[1 + index] = torch.from_numpy(linear.weight / self.scale).float()
                model.head.bias[1 + index] = float(linear.bias - (linear.weight * self.mean / self.scale).sum())
        return model

    def _category_probes(self, among: np.ndarray) -> list[Linear]:
        return [self._category_probe(index, among) for index in range(self.outputs - 1)]

    def _category_probe(self, index: int, among: np.ndarray) -> Linear:
        said = self.examples.categories[:, index]
        single = Examples(
            self.examples.texts, self.examples.tokens, said, self.examples.weight, self.examples.categories,
            self.examples.unit, self.examples.rank, self.examples.groups, self.examples.category_names,
        )  # fmt: skip
        if len(np.unique(said[among & ~np.isnan(said)])) < 2:
            return Linear(np.zeros(self.states.shape[1]), -3.0)
        return fit_linear(self.standard, single, among & ~np.isnan(said), strength=self.strength)

    def _with_categories(self, raw: np.ndarray) -> np.ndarray:
        columns = [raw]
        for index in range(self.outputs - 1):
            columns.append(out_of_fold(self.examples, self.folds, lambda among, i=index: self._probe_scores(i, among)))
        return np.column_stack(columns)

    def _probe_scores(self, index: int, among: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        probe = self._category_probe(index, among)
        return lambda rows: probe.raw(self.standard[rows])

    def _frozen_states(self) -> np.ndarray:
        return frozen_states(self.base, self.encoding, self.examples.tokens, self.pooling, self.device.type)

    def _development_score(self, model: ScalarModel, held_out: np.ndarray) -> float:
        raw = np.full(len(self.examples), np.nan)
        raw[held_out] = predicted(model, self.examples, held_out)[:, 0]
        among = np.zeros(len(self.examples), bool)
        among[held_out] = True
        return order_score(self.examples, raw, among)

    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.body.parameters())

    def _rate(self, method: str) -> float:
        return learning_rate(self.config, self.base.architecture, method, self.examples.n_units)


def frozen_states(base: Base, encoding: Encoding, tokens: Ragged, pooling: str, device: str) -> np.ndarray:
    """The untouched base's pooled states of each row, float64 (n, H), as precisely as scoring computes them."""
    model = ScalarModel(load_body(base), hidden_size(base), 1, pooling)
    pool = ForwardPool(model, device=device, dtype=precision_here(device), threads=torch.get_num_threads())
    return pool.run(tokens, encoding.buckets, encoding.pad, pooled=True).astype(np.float64)


@torch.no_grad()
def predicted(model: ScalarModel, examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Outputs of the texts `rows`, float64 (len(rows), outputs), as the model stands."""
    model.eval()
    device = next(model.parameters()).device
    outputs = np.empty((len(rows), model.head.out_features))
    order = np.argsort(examples.tokens.lengths[rows], kind="stable")
    for at in range(0, len(order), PREDICT_TEXTS):
        some = order[at : at + PREDICT_TEXTS]
        ids, lengths = padded_ids(examples, rows[some])
        with autocast(device):
            outputs[some] = model(ids.to(device), lengths.to(device)).float().cpu().numpy()
    return outputs


def fit_stack(examples: Examples, model: np.ndarray, surface: np.ndarray | None) -> tuple[Stack, np.ndarray]:
    """The weights of the parts, none below zero, by logistic regression on out-of-fold raw scores; the stacked scores."""
    among = ~np.isnan(model)
    parts = [model] if surface is None else [model, surface]
    features = np.nan_to_num(np.column_stack(parts))
    scale = features[among].std(axis=0) + 1e-9
    used = np.ones(len(parts), bool)
    while True:
        linear = fit_linear(np.where(used, features / scale, 0.0), examples, among, strength=1.0)
        negative = used & (linear.weight < 0)
        if not negative.any() or used.sum() == 1:
            break
        used &= ~negative
    weight = np.where(used, np.maximum(linear.weight, 1e-3), 0.0) / scale
    stack = Stack(bias=linear.bias, model=float(weight[0]), surface=float(weight[1]) if surface is not None else 0.0)
    return stack, np.where(among, stack.bias + features @ weight, np.nan)


def position_limit(base: Base) -> int | None:
    """The most tokens the base can see, None when its positions have no limit."""
    limit = base.config.get("text_config", base.config).get("max_position_embeddings")
    padded_positions = base.config["model_type"] in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
    return None if limit is None else int(limit) - (2 if padded_positions else 0)


def _fit_surface(examples: Examples, folds: np.ndarray) -> tuple[SurfaceModel, np.ndarray, dict[str, Any]]:
    features = SurfaceFeatures(examples.texts)
    results = []
    for count_scale in COUNT_SCALES:
        matrix = features.matrix(count_scale)
        strength, raw = best_linear(matrix, examples, folds, SURFACE_STRENGTHS)
        results.append((order_score(examples, raw, folds >= 0), count_scale, strength, raw))
    _, count_scale, strength, raw = max(results, key=lambda result: result[0])
    everything = np.ones(len(examples), bool)
    linear = fit_linear(features.matrix(count_scale), examples, everything, strength=strength)
    return features.model(linear, count_scale), raw, {"surface": {"count_scale": count_scale, "strength": strength}}
