"""From labels to a fitted judge: every part is judged by texts it has not seen, and the parts are then weighed.

Out-of-fold scores decide the method, the strength of each linear part, the epochs, the weights of the stack and the
calibration, so that no label is spent on any of it. It knows nothing of files, baselines or reports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from quality_judge.bases import Base
from quality_judge.config import JudgeConfig, TrainConfig
from quality_judge.engine.encode import Encoder, build_encoding
from quality_judge.engine.gguf import ready_base
from quality_judge.engine.kinds import ScalarModel
from quality_judge.engine.stacking import SurfaceModel
from quality_judge.engine.texts import Column
from quality_judge.engine.unread import unknown_shares
from quality_judge.engine.weights import load_tokenizer, position_limit
from quality_judge.errors import ConfigError
from quality_judge.judge_spec import Encoding, Lora, Stack
from quality_judge.labels import LabelSet
from quality_judge.metrics_file import label_faults
from quality_judge.rubric import NO_RUBRIC, Rubric
from quality_judge.train.checkpoint import Checkpoints, run_key
from quality_judge.train.examples import Examples, build_examples, category_names, read_for
from quality_judge.train.hard_negatives import with_attacked_copies
from quality_judge.train.implicit_fit import ImplicitBase, ImplicitFitter, implicit_base
from quality_judge.train.linear import order_score
from quality_judge.train.loop import Progress
from quality_judge.train.model_fit import Method, ModelFitter
from quality_judge.train.stack import fit_stack
from quality_judge.train.surface_fit import distinct_texts, fit_surface
from quality_judge.train.verdict_base import VerdictBase, verdict_base
from quality_judge.train.verdict_fit import VerdictFitter

MAX_CROSS_FITTED_UNITS = 2500
MAX_DEVELOPMENT_SHARE = 0.15
MAX_DEVELOPMENT_UNITS = 1500
LEAST_GAIN = 0.01  # of the order of unseen labels, for another base than the first
CHARACTER_BYTES = 4  # at most; so many may be lost at each end of a cut
WARNINGS = {  # by their name in `label_faults`
    "unread": "of the tokens of a labelled text {share:.0%} are unknown to {base}, which reads nothing of them: name a "
    "base of their language (--set base=…), or have one tried beside it that reads bytes (--set "
    "'other_bases=[\"HuggingFaceTB/SmolLM2-135M-Instruct\"]')",
    "cut": "{share:.0%} of the labelled texts are longer than what is read of one (at most {most} tokens), where "
    "experts may have read all: --set max_tokens=… reads more at a higher cost, as far as the base can",
}


@dataclass(frozen=True)
class Fitted:
    """A judge before it is calibrated: all it needs to score, and what it said of rows it had not seen.

    raw: out-of-fold raw score of each example, NaN where it was always trained on. examples: the labels as given; the
    copies that hard negatives add are learnt from and forgotten, for nobody labelled them.
    states: the untouched base's pooled states of the examples, float64 (n, H).
    """

    config: JudgeConfig
    rubric: Rubric
    base: Base
    encoding: Encoding
    tokenizer_json: str
    model: ScalarModel
    adapter: dict[str, Tensor]
    method: Method
    lora: Lora | None
    surface: SurfaceModel | None
    stack: Stack
    examples: Examples
    states: np.ndarray
    raw: np.ndarray
    category_raw: np.ndarray
    training: dict[str, Any]


def fit_judge(
    labels: LabelSet, config: JudgeConfig, *, unlabelled: Column = (),
    progress: Callable[[str], Progress] | None = None, output: str | Path | None = None,
) -> Fitted:  # fmt: skip
    """The judge fitted to `labels`. progress: takes a stage's name, gives what is told of each of its steps.

    unlabelled: texts of the corpus that nobody labelled; the surface learns from them which n-grams go together.
    output: where the judge will be saved; a run for the same output that was killed is continued. When the judge is
    saved, `remove_checkpoints(output)`.
    """
    started = time.perf_counter()
    if len(unlabelled) and not config.train.surface:
        raise ConfigError("unlabelled texts teach the surface part alone, and train.surface is false; leave one out")
    attempt, tried = _best_attempt(labels, config, unlabelled, progress or (lambda stage: lambda *_: None), output)
    examples, folds, fitter = attempt.examples, attempt.folds, attempt.fitter
    method = fitter.choose(attempt.surface_raw, given=attempt.given)
    model, outputs, adapter, note = fitter.final(method)
    stack, raw = fit_stack(examples, outputs[:, 0], attempt.surface_raw)
    training = {
        "method": method, "units": attempt.given.n_units, "texts": len(attempt.given), **attempt.copies_note(),
        "folds": int(folds.max() + 1),
        "cross_fitted": bool((folds >= 0).all()), "out_of_fold": {
            "judge": order_score(examples, raw, folds >= 0), **attempt.surface_score(), **fitter.scores,
        }, **attempt.surface_note, **tried, **note, **attempt.read(),
        "warnings": [*attempt.warnings(), *note.get("warnings", ())],
        "settings": config.train.model_dump(mode="json"), "seconds": time.perf_counter() - started,
    }  # fmt: skip
    lora = Lora(rank=config.train.lora_rank, alpha=config.train.lora_alpha) if method == "lora" else None
    n = len(attempt.given)
    return Fitted(
        attempt.config, attempt.rubric, attempt.base, attempt.encoding, attempt.tokenizer_json, model, adapter, method,
        lora, attempt.surface if stack.surface else None, stack, attempt.given, fitter.states[:n], raw[:n],
        outputs[:n, 1:], training,
    )  # fmt: skip


@dataclass(frozen=True)
class _Attempt:
    """One base and what it and the surface make of the labels, before anything is fine-tuned.

    config: of this base alone. unread: the share of a text's tokens that it does not know, on average. examples: those
    of `given` and the copies that hard negatives add. surface_raw: out of fold, float64 (n,), None without a surface.
    """

    config: JudgeConfig
    rubric: Rubric
    base: Base
    encoding: Encoding
    tokenizer_json: str
    unread: float
    given: Examples
    examples: Examples
    folds: np.ndarray
    surface: SurfaceModel | None
    surface_raw: np.ndarray | None
    surface_note: dict[str, Any]
    fitter: ModelFitter

    def surface_score(self) -> dict[str, float]:
        """The surface's out-of-fold order, by its name; nothing without one."""
        if self.surface_raw is None:
            return {}
        return {"surface": order_score(self.examples, self.surface_raw, self.folds >= 0)}

    def warnings(self) -> list[str]:
        """What the owner of the labels should know of what is read of them."""
        most = min(self.config.max_tokens, self.encoding.max_tokens)
        return [
            WARNINGS[name].format(share=share, base=self.base.id, most=most)
            for name, share in label_faults({"training": self.read()}, {}).items()
        ]

    def read(self) -> dict[str, float]:
        """The share of a labelled text's tokens that are unknown, and of labelled texts that fill all tokens or bytes
        that are read, and so were cut."""
        most = self.encoding.head_bytes + self.encoding.tail_bytes - 2 * CHARACTER_BYTES
        size = np.array([len(text.encode()) for text in self.given.texts])
        cut = (self.given.tokens.lengths >= self.encoding.max_tokens) | (size > most)
        return {"unknown_tokens": self.unread, "cut_texts": float(cut.mean())}

    def copies_note(self) -> dict[str, int]:
        """How many texts were learnt from that nobody labelled; nothing where there are none."""
        copies = len(self.examples) - len(self.given)
        return {"attacked_copies": copies} if copies else {}

    def gigaflops_per_text(self) -> float:
        """What the base takes to read a text, of its mean length: two operations a weight and token."""
        body: Any = self.fitter.body
        weights = sum(each.numel() for each in body.parameters()) - body.get_input_embeddings().weight.numel()
        return 2e-9 * weights * float(self.examples.tokens.lengths.mean())


def _best_attempt(
    labels: LabelSet, config: JudgeConfig, unlabelled: Column, progress: Callable[[str], Progress],
    output: str | Path | None,
) -> tuple[_Attempt, dict[str, Any]]:  # fmt: skip
    """The base whose states order unseen labels best, and what is noted of all; the first needs no lead over others."""
    best, tried = None, {}
    for name in (config.base, *config.other_bases):
        revision = config.revision if name == config.base else None
        alone = config.model_copy(update={"base": name, "revision": revision, "other_bases": ()})
        attempt = _attempt(labels, alone, unlabelled, progress, output)
        tried[name] = {"frozen": attempt.fitter.scores["frozen"], "gigaflops_per_text": attempt.gigaflops_per_text()}
        if best is None or tried[name]["frozen"] > tried[best.config.base]["frozen"] + LEAST_GAIN:
            best = attempt
    if best is None:
        raise AssertionError("a configuration names a base")
    return best, {"bases": tried} if config.other_bases else {}


def _attempt(
    labels: LabelSet, config: JudgeConfig, unlabelled: Column, progress: Callable[[str], Progress],
    output: str | Path | None,
) -> _Attempt:  # fmt: skip
    base = ready_base(config.base, config.revision)
    rubric = Rubric.load(config.rubric) if config.rubric else NO_RUBRIC
    ready: VerdictBase | ImplicitBase | None = None
    if config.kind == "implicit":
        ready = implicit_base(base, config)
    if config.kind == "verdict":
        ready = verdict_base(base, rubric, config, with_prompts=any(row.prompt for row in labels.rows()))
    encoding, tokenizer_json = (ready.encoding, ready.tokenizer_json) if ready else _plain_encoding(base, config)
    encoder = Encoder(tokenizer_json, encoding)
    given = examples = build_examples(labels, encoder, category_names=category_names(labels))
    if config.train.hard_negatives:
        examples = with_attacked_copies(given, labels, encoder, seed=config.train.seed)
    folds = choose_folds(examples, given, config.train)
    others = distinct_texts(read_for(encoding, unlabelled))
    surface, surface_raw, chosen = (
        fit_surface(examples, folds, unlabelled=others) if config.train.surface else (None, None, None)
    )
    key = run_key(config, rubric, examples, folds, base.sha256(), unlabelled=others) if output else ""
    fitter = _fitter(
        ready, base, encoding, examples, folds, config.train, progress, Checkpoints(output, key) if output else None,
    )  # fmt: skip
    return _Attempt(
        config, rubric, base, encoding, tokenizer_json, float(unknown_shares(tokenizer_json, given.texts).mean()),
        given, examples, folds, surface, surface_raw, {"surface": chosen} if chosen else {}, fitter,
    )  # fmt: skip


def _plain_encoding(base: Base, config: JudgeConfig) -> tuple[Encoding, str]:
    return build_encoding(
        load_tokenizer(base), base.architecture, max_tokens=config.max_tokens, cut_at=config.cut,
        limit=position_limit(base),
    )  # fmt: skip


def _fitter(ready: VerdictBase | ImplicitBase | None, *settings: Any) -> ModelFitter:
    if isinstance(ready, ImplicitBase):
        return ImplicitFitter(ready, *settings)
    return VerdictFitter(ready, *settings) if ready else ModelFitter(*settings)


def choose_folds(examples: Examples, given: Examples, config: TrainConfig) -> np.ndarray:
    """The fold of each text, int64 (n,): all of them when texts are few, else one development fold 0 and -1.

    given: those of `examples`, in front, that somebody labelled; they alone say how many there are.
    """
    if min(given.n_units, len(np.unique(given.same))) <= MAX_CROSS_FITTED_UNITS:
        return examples.folds(min(config.folds, given.n_units), config.seed)
    share = min(MAX_DEVELOPMENT_SHARE, MAX_DEVELOPMENT_UNITS / given.n_units)
    folds = examples.folds(math.ceil(1 / share), config.seed)
    shares = np.bincount(folds[np.unique(given.unit, return_index=True)[1]]) / given.n_units
    # A large group can make one fold many times another, and what is developed on is never learnt from.
    order = np.argsort(shares, kind="stable")
    taken = max(1, int((np.cumsum(shares[order]) <= share).sum()))
    if shares[order[:taken]].sum() < share / 4 and taken < len(order) - 1:
        taken += 1  # a handful of rows can choose, stop and calibrate nothing
    return np.where(np.isin(folds, order[:taken]), 0, -1)
