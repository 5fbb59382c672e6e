"""Fits a verdict judge: what `model_fit` does, with the base's own verdict in the place of a linear probe.

The frozen method is the zero-shot verdict: of the base nothing is learnt. It knows nothing of files.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quality_judge.bases import Base
from quality_judge.engine.encode import Ragged
from quality_judge.engine.forward_pool import ForwardPool
from quality_judge.engine.kinds import ScalarModel, VerdictModel
from quality_judge.engine.precision import precision_here
from quality_judge.engine.prefix import shared_prefix
from quality_judge.engine.weights import load_body
from quality_judge.stats.calibration import labels_missing
from quality_judge.train.linear import fit_linear, order_score
from quality_judge.train.model_fit import MIN_TUNED_UNITS, Method, ModelFitter
from quality_judge.train.verdict_base import VerdictBase, coverage, coverage_note

TOO_LITTLE_COVERAGE = (
    "untrained, the base gives the two verdict words {before:.0%} of its probability: it hardly follows the rubric and "
    "its zero-shot verdict says little; use a base that follows instructions, or other words in the rubric"
)
HEADS_WITHOUT_LABELS = (
    "no category is named: the labels have categories, so that heads name them and not the base, and for none of them "
    "are there enough rows that have it and that have not; label more, or leave the category rows out"
)
TUNED_WRITES_NOTHING = (
    "no category is named: a base that was tuned ({method}) is asked for its verdict alone; label categories, or take "
    "train.method=frozen, whose base writes them"
)
MIN_REFERENCE_GAIN = 0.005  # of the out-of-fold order: a reference doubles the cost of every score


class VerdictFitter(ModelFitter):
    """As ModelFitter; `untouched` is the base's own margin s0 of each example, float64 (n,).

    shared: how many ids of the rubric's prompt are computed once for a batch, see `VerdictModel`.
    """

    decoder_pooling = "last"

    def __init__(self, ready: VerdictBase, *settings: Any) -> None:
        self.ready = ready
        super().__init__(*settings)
        prefix = ready.encoding.prefix
        whole = self.config.gradient_checkpointing  # it forgets the keys and values that a layer is given
        self.shared = 0 if whole or shared_prefix(self.body, prefix) is None else len(prefix)

    def final(self, method: Method) -> tuple[ScalarModel, np.ndarray, dict[str, Tensor], dict[str, Any]]:
        """As for any judge; with the untouched base's margin beside it where that orders unseen rows better."""
        before = coverage(self.body.to(self.device), self.ready, self.examples.tokens, device=self.device.type)
        model, outputs, adapter, note = super().final(method)
        if not isinstance(model, VerdictModel):
            raise AssertionError("a verdict fitter makes verdict models")
        if method == "frozen" and self.ready.writing is not None and self.outputs == 1:
            model = self.ready.model(model.body, 0, verdict=self.ready.writing)
        after = None
        if method != "frozen":
            after = coverage(model.body, self.ready, self.examples.tokens, device=self.device.type)
            share = self._reference_share(outputs[:, 0])
            if share:
                model.verdict = model.verdict.model_copy(update={"reference": share})
                model.reference = copy.deepcopy(self.body).to(self.device)
                outputs[:, 0] += share * self.untouched
        note["coverage"] = coverage_note(before, after)
        note["warnings"] = [] if note["coverage"]["enough"] else [TOO_LITTLE_COVERAGE.format(**note["coverage"])]
        if self.ready.writing is not None and model.verdict.written is None:
            note["warnings"] += self._names_nothing(method)
        note["zero_shot"] = self.scores["frozen"]
        return model, outputs, adapter, note

    def _names_nothing(self, method: Method) -> list[str]:
        """What to say where the base would write categories and this judge names none."""
        said = self.examples.categories
        known = [labels_missing(int((column == 1).sum()), int((column == 0).sum())) == 0 for column in said.T]
        if any(known):
            return []
        return [HEADS_WITHOUT_LABELS if known else TUNED_WRITES_NOTHING.format(method=method)]

    def _recompute_activations(self) -> None:
        super()._recompute_activations()
        if self.config.gradient_checkpointing:
            self.shared = 0

    def _frozen_raw(self, probe_raw: np.ndarray) -> np.ndarray:
        self.untouched = self._untouched()
        return np.where(np.isnan(probe_raw), np.nan, self.untouched)

    def _untouched(self) -> np.ndarray:
        if len(self.ready.verdict.steps) > 1:
            return zero_shot(self.base, self.ready, self.examples.tokens, self.device.type)
        with torch.no_grad():  # the states that are known are all that is read
            states = torch.from_numpy(self.states).float()[:, None, :]
            return self.ready.model(self.body, 0).margin(states).double().numpy()

    def _start(self, among: np.ndarray) -> VerdictModel:
        """A fresh copy of the base, its category heads the linear probes of its own states."""
        model = self.ready.model(copy.deepcopy(self.body), self.outputs - 1)
        model.shared = self.shared
        self._fill_head(model, self._category_probes(self.standard, among, self.strength), self.mean, self.scale)
        return model

    def _reference_share(self, tuned: np.ndarray) -> float:
        """What s0 is worth beside s in a logistic model of [s0, s − s0] of unseen rows; 0 where it does not help."""
        among = ~np.isnan(tuned)
        if int((among & self.examples.labelled).sum()) < MIN_TUNED_UNITS:
            return 0.0
        parts = np.nan_to_num(np.column_stack([self.untouched, tuned - self.untouched]))
        scale = parts[among].std(axis=0) + 1e-9
        base, change = fit_linear(parts / scale, self.examples, among, strength=1.0).weight / scale
        if change <= 0:
            return 0.0
        share = float(base / change - 1)
        gain = order_score(self.examples, tuned + share * self.untouched, among) - order_score(
            self.examples, tuned, among
        )
        return share if gain >= MIN_REFERENCE_GAIN else 0.0


def zero_shot(base: Base, ready: VerdictBase, tokens: Ragged, device: str) -> np.ndarray:
    """The margin of the base as it is on encoded rows, float64 (n,), as precisely as scoring computes it."""
    model, encoding = ready.model(load_body(base), 0), ready.encoding
    pool = ForwardPool(
        model, device=device, dtype=precision_here(device), threads=torch.get_num_threads(), prefix=encoding.prefix
    )
    return pool.run(tokens, encoding.buckets, encoding.pad)[:, 0].astype(np.float64)
