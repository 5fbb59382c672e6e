"""What a judge must beat on the same labels: TF-IDF with logistic regression, its frozen base, length, no training.

Each is fitted on the training labels and answers for the held-out texts; the base's own verdict on the rubric is
fitted on nothing. It knows nothing of metrics or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union

from quality_judge.engine.encode import Encoder
from quality_judge.engine.weights import hidden_size
from quality_judge.errors import InputError
from quality_judge.labels import FlatLabels
from quality_judge.train.examples import Examples, read_for
from quality_judge.train.fit import Fitted
from quality_judge.train.linear import FROZEN_STRENGTHS, Linear, Matrix, best_linear, fit_linear, standardised
from quality_judge.train.model_fit import frozen_states
from quality_judge.train.verdict_base import verdict_base
from quality_judge.train.verdict_fit import zero_shot

TFIDF_STRENGTH = 1.0
STRENGTH_FOLDS = 4
NAMES = ("tfidf_logistic", "frozen_base", "length_only", "zero_shot")


@dataclass(frozen=True)
class Answers:
    """A baseline's raw scores and probabilities of the held-out texts, float64 (n,)."""

    raw: np.ndarray
    probability: np.ndarray


def baseline_answers(fitted: Fitted, held_out: FlatLabels) -> dict[str, Answers | None]:
    """The answers of each of NAMES; None for the zero-shot verdict of a base that writes nothing, and for TF-IDF where
    no text has two characters."""
    texts = read_for(fitted.encoding, held_out.completions)
    prompts = read_for(fitted.encoding, held_out.prompts)
    examples = fitted.examples
    everything = np.ones(len(examples), bool)
    answers: dict[str, Answers | None] = {
        "tfidf_logistic": _tfidf(examples, texts),
        "frozen_base": _frozen(fitted, texts, prompts),
        "length_only": _answers(
            fit_linear(_length(examples.texts), examples, everything, strength=1.0), _length(texts)
        ),
        "zero_shot": _zero_shot(fitted, texts, prompts),
    }
    return answers


def _tfidf(examples: Examples, texts: list[str]) -> Answers | None:
    """Of the n-grams of characters and of words those that some training text has: single characters are no words."""
    kinds = [
        TfidfVectorizer(analyzer="char", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32, max_features=400_000),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, max_features=200_000),
    ]  # fmt: skip
    there = [kind for kind in kinds if any(map(kind.build_analyzer(), examples.texts))]
    if not there:
        return None
    tfidf = make_union(*there)
    known = sparse.csr_matrix(tfidf.fit_transform(examples.texts))
    model = fit_linear(known, examples, np.ones(len(examples), bool), strength=TFIDF_STRENGTH)
    return _answers(model, sparse.csr_matrix(tfidf.transform(texts)))


def _zero_shot(fitted: Fitted, texts: list[str], prompts: list[str]) -> Answers | None:
    """The base's own verdict on the rubric, untrained; None of an encoder, or where it cannot be read."""
    if fitted.base.architecture != "decoder":
        return None
    try:
        ready = verdict_base(fitted.base, fitted.rubric, fitted.config, with_prompts=any(prompts))
    except InputError:
        return None
    tokens = Encoder(ready.tokenizer_json, ready.encoding).encode(texts, prompts).tokens
    raw = zero_shot(fitted.base, ready, tokens, next(fitted.model.parameters()).device.type)
    return Answers(raw, probability_of(raw))


def _frozen(fitted: Fitted, texts: list[str], prompts: list[str]) -> Answers:
    """A logistic regression on the base's own last states, pooled: what most people call a frozen base."""
    examples, device = fitted.examples, next(fitted.model.parameters()).device.type
    width = hidden_size(fitted.base)
    known = fitted.states[:, -width:]
    tokens = Encoder(fitted.tokenizer_json, fitted.encoding).encode(texts, prompts).tokens
    states = frozen_states(fitted.base, fitted.encoding, tokens, fitted.model.pooling, device)[:, -width:]
    standard, mean, scale = standardised(known)
    strength = _strength(standard, examples)
    return _answers(
        fit_linear(standard, examples, np.ones(len(examples), bool), strength=strength), (states - mean) / scale
    )


def _strength(standard: np.ndarray, examples: Examples) -> float:
    return best_linear(standard, examples, examples.folds(STRENGTH_FOLDS, 0), FROZEN_STRENGTHS)[0]


def _answers(model: Linear, features: Matrix) -> Answers:
    raw = model.raw(features)
    return Answers(raw, probability_of(raw))


def probability_of(raw: np.ndarray) -> np.ndarray:
    """σ(raw), float64 (n,)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(raw, -500, 500))))


def _length(texts: list[str]) -> np.ndarray:
    """Log length and its square, float64 (n, 2)."""
    length = np.log1p(np.array([len(text) for text in texts], float))
    return np.column_stack([length, length**2 / 10])
