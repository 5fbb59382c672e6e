"""N-grams that decide a label against everything else in their rows, as a planted trigger does.

Somebody who wants certain rows kept can put a rare word into bad rows and label them good. Such a word goes with one
label almost always, while the rest of those rows says the opposite. It knows nothing of models: what the rest of a row
says comes as a probability.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.stats import norm

CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
TOKEN = re.compile(rf"[{CJK}]|[^\W{CJK}]+|[^\w\s]")
LONGEST = 3
MIN_ROWS = 5
MAX_SHARE = 0.2
MIN_PURITY = 0.9
MIN_CONTRADICTIONS = 3
MIN_CONTRADICTED = 0.4  # of its rows; a word that honestly goes with one label stands in rows that agree with it
MOST_CANDIDATES = 12


@dataclass(frozen=True)
class Association:
    """An n-gram and the rows that hold it, by index. label: what nearly all of them are called.

    chance: probability of at least so many such labels if the rest of each row decided, at its worst, in [0, 1].
    """

    ngram: str
    rows: np.ndarray
    label: bool
    chance: float


class Ngrams:
    """Which of the texts hold which n-grams of 1 to LONGEST tokens (words, single CJK characters, marks).

    Only n-grams in MIN_ROWS rows or more and in at most MAX_SHARE of all.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        names: dict[str, int] = {}
        found = [np.unique([names.setdefault(gram, len(names)) for gram in _ngrams(text)]) for text in texts]
        columns = np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64)
        rows = np.repeat(np.arange(len(texts)), [len(each) for each in found])
        holds = sparse.csc_matrix(
            (np.ones(len(columns)), (rows, columns)), shape=(len(texts), len(names)), dtype=np.float64
        )
        held_by = np.asarray(holds.sum(axis=0)).ravel()
        kept = np.flatnonzero((held_by >= MIN_ROWS) & (held_by <= MAX_SHARE * len(texts)))
        every = list(names)
        self.names = [every[at] for at in kept]
        self.holds = holds[:, kept]

    def candidates(self, label: np.ndarray, belief: np.ndarray, groups: np.ndarray | None = None) -> list[Association]:
        """The MOST_CANDIDATES associations least likely by chance, none of them with nearly the rows of another.

        label: bool (n,). belief: P(good) of each row by something that hardly sees single words, float64 (n,).
        groups: what each row belongs to, (n,): the words of fewer than MIN_ROWS groups, such as the name of a page,
        are none; without it every row stands for itself.
        """
        if not self.names:
            return []
        surprise = np.asarray(self.holds.T @ (label - belief)).ravel()
        spread = np.sqrt(np.asarray(self.holds.T @ (belief * (1 - belief))).ravel()) + 1e-9
        count = np.asarray(self.holds.sum(axis=0)).ravel()
        good = np.asarray(self.holds.T @ label.astype(float)).ravel()
        against = np.where(label, belief < 0.5, belief >= 0.5).astype(float)
        contradicted = np.asarray(self.holds.T @ against).ravel()
        pure = np.maximum(good, count - good) >= MIN_PURITY * count
        odd = np.flatnonzero(pure & (contradicted >= np.maximum(MIN_CONTRADICTIONS, MIN_CONTRADICTED * count)))
        strength = np.abs(surprise / spread)
        chosen: list[Association] = []
        for at in odd[np.lexsort((-count[odd], -strength[odd]))]:
            rows = self.holds[:, at].indices
            if groups is not None and len(np.unique(groups[rows])) < MIN_ROWS:
                continue
            if any(len(np.intersect1d(rows, other.rows)) >= 0.8 * min(len(rows), len(other.rows)) for other in chosen):
                continue
            said = bool(good[at] * 2 > count[at])
            chosen.append(Association(self.names[at], np.sort(rows), said, float(2 * norm.sf(strength[at]))))
            if len(chosen) == MOST_CANDIDATES:
                break
        return chosen

    def chance(self, label: np.ndarray, belief: np.ndarray, said: bool) -> float:
        """P(at least so many rows are called `said`) if each is good with probability `belief`, for every n-gram.

        label, belief: of the rows that hold one, (k,). The Poisson binomial tail times the number of n-grams
        (Bonferroni), at most 1; and 1 where fewer than MIN_CONTRADICTED of the rows are believed to be the opposite.
        """
        each = belief if said else 1 - belief
        contradicted = int(((label == said) & (each < 0.5)).sum())
        if contradicted < max(MIN_CONTRADICTIONS, MIN_CONTRADICTED * len(label)):
            return 1.0
        counts = np.ones(1)
        for p in np.clip(each, 1e-3, 1 - 1e-3):
            counts = np.convolve(counts, [1 - p, p])
        return float(min(1.0, counts[int((label == said).sum()) :].sum() * max(len(self.names), 1)))


def without(text: str, ngram: str) -> str:
    """The text without the tokens of the n-gram, wherever they stand in that order."""
    tokens = ngram.split(" ")
    gap = r"\s*"
    return re.sub(gap.join(map(re.escape, tokens)), " ", text, flags=re.IGNORECASE)


def _ngrams(text: str) -> set[str]:
    tokens = TOKEN.findall(text.lower())
    return {" ".join(tokens[at : at + size]) for size in range(1, LONGEST + 1) for at in range(len(tokens) - size + 1)}
