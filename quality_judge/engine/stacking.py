"""How a judge's parts add up to one raw score: the model's output and a linear model of the text's surface.

It scores only; the weights are fitted in `train`. A row's value depends on that row alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from torch import Tensor

from quality_judge.engine.surface import COUNT_NAMES, FEATURE_BITS, LONG, NgramOrder, surface_counts, surface_features
from quality_judge.engine.texts import portions
from quality_judge.errors import JudgeError
from quality_judge.judge_spec import Stack

PREFIX = "surface."


@dataclass(frozen=True)
class SurfaceModel:
    """raw = bias + normalised(n-grams · idf) · ngram_weight + ((counts − mean) / scale) · count_weight.

    idf, ngram_weight: float32 (2**FEATURE_BITS,). mean, scale, count_weight: float64 (len(COUNT_NAMES),).
    bias: float64 (1,). ngram_order: int64 (2,), an `engine.surface.NgramOrder`.
    """

    idf: np.ndarray
    ngram_weight: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    count_weight: np.ndarray
    bias: np.ndarray
    ngram_order: np.ndarray

    def raw(self, texts: Sequence[str]) -> np.ndarray:
        """The surface's raw score, a logit, float64 (n,)."""
        return np.concatenate([self._raw(texts[some]) for some in portions(texts)])

    def _raw(self, texts: Sequence[str]) -> np.ndarray:
        if not texts:
            return np.zeros(0)
        ngrams = weighted(surface_features(texts, NgramOrder(*self.ngram_order.tolist())), self.idf) @ self.ngram_weight
        counts = clipped(surface_counts(texts), self.mean, self.scale)
        return self.bias[0] + ngrams.astype(np.float64) + (counts * self.count_weight).sum(axis=1)

    def tensors(self) -> dict[str, np.ndarray]:
        """What is saved in the head file."""
        return {PREFIX + name: np.ascontiguousarray(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> SurfaceModel:
        """The model from the head file. Raises JudgeError for a tensor that is missing or unfit."""
        wide, narrow = (1 << FEATURE_BITS,), (len(COUNT_NAMES),)
        shapes = {
            "idf": wide,
            "ngram_weight": wide,
            "mean": narrow,
            "scale": narrow,
            "count_weight": narrow,
            "bias": (1,),
            "ngram_order": (len(LONG),),
        }
        for name, shape in shapes.items():
            if PREFIX + name not in tensors or tuple(tensors[PREFIX + name].shape) != shape:
                raise JudgeError(f"the head file does not hold {PREFIX + name!r} of shape {shape}")
        found = {name: tensors[PREFIX + name].numpy() for name in shapes}
        ngram_order = found["ngram_order"]
        if ngram_order.dtype != np.int64 or (ngram_order < 1).any() or (ngram_order > LONG).any():
            raise JudgeError(f"{PREFIX}ngram_order in the head file is not whole numbers from 1 to {tuple(LONG)}")
        return cls(**found)


def weighted(features: sparse.csr_matrix, idf: np.ndarray) -> sparse.csr_matrix:
    """Features times idf, each row scaled to length 1, float32 CSR."""
    features = features.copy()
    features.data = features.data * idf[features.indices]
    squares = sparse.csr_matrix((features.data**2, features.indices, features.indptr), shape=features.shape)
    norms = np.sqrt(np.asarray(squares.sum(axis=1)).ravel())
    features.data /= np.repeat(np.where(norms > 0, norms, 1), np.diff(features.indptr)).astype(np.float32)
    return features


def clipped(counts: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Standardised counts, held within ±4 so that no odd text outweighs everything else."""
    return np.clip((counts - mean) / scale, -4, 4)


def stacked(stack: Stack, model: np.ndarray, surface: np.ndarray | None) -> np.ndarray:
    """The raw score, float64 (n,), of the model's output and the surface's raw score, each float64 (n,)."""
    raw = stack.bias + stack.model * model
    return raw if surface is None else raw + stack.surface * surface
