"""Fits an implicit judge: a generator tuned by TRL's KTO or DPO trainer, whose log-ratio to its base is the score.

Labels are learnt by KTO, a pair beside them as a good and a bad row; orders alone by DPO. Every epoch is shuffled here,
for TRL never shuffles what it trains by KTO. It knows nothing of files, nor of TRL but the module that holds it.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quality_judge.bases import Base
from quality_judge.config import JudgeConfig
from quality_judge.engine.encode import build_encoding
from quality_judge.engine.implicit import ImplicitModel, completion_mark
from quality_judge.engine.kinds import ScalarModel
from quality_judge.engine.output_layer import OutputLayer, load_generator, load_writer
from quality_judge.engine.prompts import turns_prompt
from quality_judge.engine.weights import apply_adapter, load_tokenizer, position_limit
from quality_judge.errors import BaseModelError, ConfigError, JudgeError, LabelError
from quality_judge.judge_spec import Encoding, Implicit, Lora
from quality_judge.train.adapters import extracted_of_writer
from quality_judge.train.examples import Examples
from quality_judge.train.forward import predicted
from quality_judge.train.linear import order_score
from quality_judge.train.loop import BATCH_SIZES, refuse_collapse
from quality_judge.train.model_fit import MAX_SPREAD_TEXTS, Method, ModelFitter
from quality_judge.train.parallel import peers
from quality_judge.train.trl_trainers import dpo_trainer, kto_trainer, trl_library

Ids = list[int]


@dataclass(frozen=True)
class ImplicitBase:
    """How rows are encoded as the two turns of the base, how the reward is read, and the base's output layer."""

    encoding: Encoding
    tokenizer_json: str
    implicit: Implicit
    layer: OutputLayer


def implicit_base(base: Base, config: JudgeConfig) -> ImplicitBase:
    """The base ready to be tuned. Raises BaseModelError for one that writes nothing, ConfigError for other methods."""
    train = config.train
    if train.method not in ("auto", "lora") or train.quantize_bits is not None or train.gradient_checkpointing:
        raise ConfigError(
            "kind implicit is trained with method lora (or auto), without quantize_bits and gradient_checkpointing; "
            f"got method {train.method!r}"
        )
    if peers().count > 1:
        raise ConfigError("kind implicit is trained in one process; start it without accelerate")
    trl_library()  # missing, it is missed before the first minutes are spent
    tokenizer = load_tokenizer(base)
    _, layer = load_generator(base)
    encoding, tokenizer_json = build_encoding(
        tokenizer, base.architecture, max_tokens=config.max_tokens, cut_at=config.cut, limit=position_limit(base),
        prompt=turns_prompt(tokenizer),
    )  # fmt: skip
    try:
        completion_mark(encoding)
    except JudgeError:
        raise BaseModelError(
            f"the chat template of {base.id} parts turns by plain text, which a row could spell; take a base with a "
            "control token between turns, or kind: scalar"
        ) from None
    return ImplicitBase(encoding, tokenizer_json, Implicit(beta=train.beta, length=config.length), layer)


class ImplicitFitter(ModelFitter):
    """As ModelFitter; the one method is LoRA, for TRL's reference is the model without its adapter."""

    decoder_pooling = "last"

    def __init__(self, ready: ImplicitBase, *settings: Any) -> None:
        self.ready = ready
        super().__init__(*settings)
        self.split = completion_starts(self.examples, ready.encoding)
        self.adapters: dict[int, dict[str, Tensor]] = {}

    def choose(self, surface_raw: np.ndarray | None, *, given: Examples) -> Method:
        """LoRA, once it has been judged out of fold."""
        self.held_out["lora"] = self._twice(partial(self._out_of_fold, "lora"), "lora")
        self.scores["lora"] = order_score(self.examples, self.held_out["lora"][:, 0], self.folds >= 0)
        return "lora"

    def final(self, method: Method) -> tuple[ScalarModel, np.ndarray, dict[str, Tensor], dict[str, Any]]:
        """As for any judge; the epochs are those asked for, for TRL stops no earlier."""
        adapter = self.adapters.get(-1) or self._twice(partial(self._trained, -1, " on all labels"), method)
        model = self._judge(adapter, np.ones(len(self.examples), bool))
        self._refuse_collapse(model)
        note = {
            "epochs": self.config.epochs, "learning_rate": self._rate(method), "trainer": self._trainer(), **self.notes
        }  # fmt: skip
        return model, self.held_out[method], adapter, note

    def _out_of_fold(self, method: Method) -> np.ndarray:
        outputs = np.full((len(self.examples), self.outputs), np.nan)
        folds = range(self.folds.max() + 1)
        for fold in folds:
            adapter = self._trained(fold, f", part {fold + 1} of {len(folds)}")
            model = self._judge(adapter, self.folds != fold)
            held_out = np.flatnonzero(self.folds == fold)
            outputs[held_out] = predicted(model, self.examples, held_out)
            self._refuse_collapse(model)
            if len(folds) == 1:
                self.adapters[-1] = adapter
        return outputs

    def _judge(self, adapter: dict[str, Tensor], among: np.ndarray) -> ImplicitModel:
        """The judge with that adapter merged; its category heads are linear probes of the base's own states."""
        model = ImplicitModel(
            copy.deepcopy(self.body), copy.deepcopy(self.body), self.ready.layer, self.ready.implicit,
            self.ready.encoding, self.outputs - 1,
        )  # fmt: skip
        apply_adapter(model.body, adapter, Lora(rank=self.config.lora_rank, alpha=self.config.lora_alpha))
        self._fill_head(model, self._category_probes(self.standard, among, self.strength), self.mean, self.scale)
        return model.eval().to(self.device)

    def _trained(self, fold: int, stage: str) -> dict[str, Tensor]:
        """The adapter that TRL trains on the texts outside `fold`; -1 for all of them."""
        checkpoint = self._checkpoint("lora", f"part-{fold}")
        known = checkpoint.load() if checkpoint else None
        if known:
            return known.tensors
        with torch.random.fork_rng(), tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TRL asks transformers for what it will rename
            torch.manual_seed(self._seed("lora"))  # the adapter is drawn before TRL sets a seed
            trainer = self._made(self.folds != fold, scratch, self.progress(f"training (implicit){stage}"))
            trainer.train()
            adapter = extracted_of_writer(trainer.model)
        if checkpoint:
            checkpoint.save(adapter, {"fold": fold})
        return adapter

    def _made(self, among: np.ndarray, scratch: str, progress: Callable[[int, int, float], None]) -> Any:
        dice, options = np.random.default_rng(self._seed("lora")), self._options(among, scratch, progress)
        if self._trainer() == "dpo":
            pairs = self.examples.pairs(among)
            parts = [(*self._turns(better), self._turns(worse)[1]) for better, worse in pairs.tolist()]
            return dpo_trainer(load_writer(self.base), self._epochs(parts, dice), self.config, **options)
        rows = labelled_rows(self.examples, among)
        if not rows:
            raise LabelError("no labelled row is left to learn from; give more labels")
        said = [(*self._turns(row), good) for row, good in rows]
        desirable = sum(good for _, good in rows)
        weights = len(rows) / (2 * max(desirable, 1)), len(rows) / (2 * max(len(rows) - desirable, 1))
        return kto_trainer(load_writer(self.base), self._epochs(said, dice), self.config, weights=weights, **options)

    def _options(self, among: np.ndarray, scratch: str, progress: Callable[[int, int, float], None]) -> dict[str, Any]:
        count = len(np.unique(self.examples.unit[among]))
        batch = self.config.batch_size or next(size for most, size in BATCH_SIZES if count <= most)
        return {
            "folder": scratch, "beta": self.config.beta, "batch": batch, "learning_rate": self._rate("lora"),
            "pad": self.encoding.pad, "limit": position_limit(self.base), "progress": progress,
        }  # fmt: skip

    def _epochs(self, rows: list[Any], dice: np.random.Generator) -> list[Any]:
        """The rows of all epochs behind one another, each epoch shuffled."""
        return [rows[at] for _ in range(self.config.epochs) for at in dice.permutation(len(rows))]

    def _turns(self, text: int) -> tuple[Ids, Ids]:
        """The ids of a text's prompt, with all that stands before its completion, and of its completion."""
        tokens, start = self.examples.tokens, self._offsets[text]
        row = tokens.ids[start : start + tokens.lengths[text]].tolist()
        return row[: self.split[text]], row[self.split[text] :]

    @property
    def _offsets(self) -> np.ndarray:
        return self.examples.tokens.offsets()

    def _trainer(self) -> str:
        return "kto" if self.examples.decided.any() else "dpo"

    def _refuse_collapse(self, model: ScalarModel) -> None:
        """On the log-ratio itself: β and the mean over tokens make any reward small."""
        if not isinstance(model, ImplicitModel):
            raise AssertionError("an implicit fitter makes implicit models")
        rows = np.unique(np.linspace(0, len(self.examples) - 1, MAX_SPREAD_TEXTS).astype(int))
        scale = self.examples.tokens.lengths[rows] - self.split[rows] if model.implicit.length == "mean" else 1.0
        refuse_collapse(predicted(model, self.examples, rows)[:, 0] * scale / model.implicit.beta)


def completion_starts(examples: Examples, encoding: Encoding) -> np.ndarray:
    """Where the completion of each encoded row begins, int64 (n,)."""
    prefix, mark, past = completion_mark(encoding)
    tokens = examples.tokens
    marked = np.flatnonzero((tokens.ids == mark) & (tokens.positions() >= prefix))
    rows, first = np.unique(tokens.rows()[marked], return_index=True)
    if len(rows) != len(examples):
        raise AssertionError("every row is encoded with the mark between its turns")
    return np.asarray(tokens.positions()[marked[first]] + past)


def labelled_rows(examples: Examples, among: np.ndarray) -> list[tuple[int, bool]]:
    """(text, good) of each text whose label is decided, then of both texts of each pair that has no labels."""
    said = [(row, bool(examples.label[row] >= 0.5)) for row in np.flatnonzero(among & examples.decided).tolist()]
    pairs = examples.pairs(among & ~examples.labelled).tolist()
    return said + [turn for better, worse in pairs for turn in ((better, True), (worse, False))]
