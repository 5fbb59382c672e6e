"""What a text looks like on its surface, as numbers: hashed character and word n-grams, and a few plain counts.

Pretrained encoders miss form (spelling, punctuation, scraps of markup) that n-grams see at once, in any
language, and they cost a hundredth of a forward pass. All of it is array work over a whole batch; a row's
features depend on that row alone. It knows nothing of labels or models: `train` fits weights to these features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import sparse

from quality_judge.engine.texts import portions

FEATURE_BITS = 18
COUNT_NAMES = (
    "log_length", "log_words", "mean_word_length", "letters", "digits", "punctuation", "spaces", "line_breaks",
    "capitals", "non_latin", "repeated_words", "distinct_characters", "ends_like_a_sentence",
)  # fmt: skip


class NgramOrder(NamedTuple):
    """The largest n of the n-grams, in characters and in words, each at least 1; all smaller ones are taken too."""

    characters: int
    words: int


LONG, SHORT = NgramOrder(5, 2), NgramOrder(2, 1)

_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORD_SEED = np.uint64(0xD6E8FEB86659FD93)
_LETTER, _DIGIT, _SPACE, _PUNCTUATION, _CAPITAL, _NON_LATIN = (np.uint8(1 << bit) for bit in range(6))


def surface_features(texts: Sequence[str], ngram_order: NgramOrder = LONG) -> sparse.csr_matrix:
    """Log-scaled, length-normalised n-gram counts, float32 CSR (len(texts), 2**FEATURE_BITS).

    Character and word n-grams up to `ngram_order`, within a row, lower-cased, hashed.
    """
    return sparse.vstack([_features(texts[some], ngram_order) for some in portions(texts)], format="csr")


def _features(texts: Sequence[str], ngram_order: NgramOrder) -> sparse.csr_matrix:
    if not texts:
        return sparse.csr_matrix((0, 1 << FEATURE_BITS), dtype=np.float32)
    characters, row_of = _characters([f" {text.lower()} " for text in texts])
    keys, rows = _character_ngrams(characters, row_of, ngram_order.characters)
    word_keys, word_rows = _word_ngrams(characters, row_of, ngram_order.words)
    columns = _buckets(np.concatenate([*keys, *word_keys]))
    every_row = np.concatenate([*rows, *word_rows])
    counts = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), (every_row, columns)), shape=(len(texts), 1 << FEATURE_BITS)
    )
    counts.sum_duplicates()
    counts.data = 1 + np.log(counts.data)
    norms = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    counts.data /= np.repeat(np.where(norms > 0, norms, 1).astype(np.float32), np.diff(counts.indptr))
    return counts


def surface_counts(texts: Sequence[str]) -> np.ndarray:
    """The plain counts named in COUNT_NAMES, float64 (len(texts), len(COUNT_NAMES)); shares are of all characters."""
    return np.concatenate([_counts(texts[some]) for some in portions(texts)])


def _counts(texts: Sequence[str]) -> np.ndarray:
    characters, row_of = _characters([f"{text}\n" for text in texts])
    kinds = _kinds()[np.minimum(characters, 0xFFFF)]
    n = len(texts)

    def total(marks: np.ndarray) -> np.ndarray:
        return np.bincount(row_of, weights=marks, minlength=n)

    length = np.maximum(total(np.ones(len(characters))) - 1, 1)
    starts, ends, word_row = _words(kinds, row_of)
    words = np.bincount(word_row, minlength=n)
    hashes = _word_hashes(characters, starts, ends)
    distinct_words = np.bincount(
        np.unique(np.stack([word_row.astype(np.uint64), hashes]), axis=1)[0].astype(int), minlength=n
    )
    distinct = np.bincount(
        (np.unique(row_of.astype(np.uint64) << np.uint64(32) | characters) >> np.uint64(32)).astype(int), minlength=n
    )
    shares = [total(kinds & kind != 0) / length for kind in (_LETTER, _DIGIT, _PUNCTUATION, _SPACE)]
    return np.column_stack([
        np.log1p(length), np.log1p(words), np.log1p(length / np.maximum(words, 1)), *shares,
        (total(characters == 10) - 1) / length, total(kinds & _CAPITAL != 0) / length,
        total(kinds & _NON_LATIN != 0) / length, 1 - distinct_words / np.maximum(words, 1),
        distinct / np.sqrt(length), [_ends_like_a_sentence(text) for text in texts],
    ])  # fmt: skip


def _characters(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Code points of all texts, uint64 (total,), and the row of each, int64 (total,)."""
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.frombuffer(joined, "<u4").astype(np.uint64), np.repeat(np.arange(len(texts)), lengths)


def _character_ngrams(
    characters: np.ndarray, row_of: np.ndarray, longest: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    keys, rows = [], []
    hashes = np.zeros(len(characters), np.uint64)
    for size in range(1, longest + 1):
        whole = len(characters) - size + 1
        if whole <= 0:
            break
        hashes = hashes[:whole] * _PRIME + characters[size - 1 :]
        inside = row_of[:whole] == row_of[size - 1 :]
        keys.append(hashes[inside] + np.uint64(size))
        rows.append(row_of[:whole][inside])
    return keys, rows


def _word_ngrams(characters: np.ndarray, row_of: np.ndarray, longest: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    starts, ends, word_row = _words(_kinds()[np.minimum(characters, 0xFFFF)], row_of)
    words = _word_hashes(characters, starts, ends)
    keys, rows = [], []
    hashes = np.full(len(words), _WORD_SEED)
    for size in range(1, longest + 1):
        whole = len(words) - size + 1
        if whole <= 0:
            break
        hashes = hashes[:whole] * _PRIME + words[size - 1 :]
        inside = word_row[:whole] == word_row[size - 1 :]
        keys.append(hashes[inside])
        rows.append(word_row[:whole][inside])
    return keys, rows


def _words(kinds: np.ndarray, row_of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First index, index past the end, and row of every run of letters and digits within a row."""
    inside = (kinds & (_LETTER | _DIGIT)) != 0
    before = np.concatenate([[False], inside[:-1] & (row_of[1:] == row_of[:-1])]) if len(inside) else inside
    after = np.concatenate([inside[1:] & (row_of[1:] == row_of[:-1]), [False]]) if len(inside) else inside
    starts, ends = np.flatnonzero(inside & ~before), np.flatnonzero(inside & ~after) + 1
    return starts, ends, row_of[starts]


def _word_hashes(characters: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A hash of each word from its letters alone, uint64: sums of letter · prime^position, shifted to position 0."""
    inverse = np.uint64(pow(int(_PRIME), -1, 1 << 64))
    powers = np.cumprod(np.concatenate([[np.uint64(1)], np.full(len(characters), _PRIME)]), dtype=np.uint64)
    inverses = np.cumprod(np.concatenate([[np.uint64(1)], np.full(len(characters), inverse)]), dtype=np.uint64)
    sums = np.concatenate([[np.uint64(0)], np.cumsum((characters + np.uint64(1)) * powers[:-1], dtype=np.uint64)])
    return (sums[ends] - sums[starts]) * inverses[starts]


def _buckets(keys: np.ndarray) -> np.ndarray:
    """The hashed column of each key, int32 in [0, 2**FEATURE_BITS)."""
    keys = (keys ^ (keys >> np.uint64(29))) * _MIX
    return ((keys ^ (keys >> np.uint64(32))) * _MIX >> np.uint64(64 - FEATURE_BITS)).astype(np.int32)


@cache
def _kinds() -> np.ndarray:
    """For each code point of the basic plane (the last stands for all beyond it), its kinds as bits, uint8."""
    table = np.zeros(0x10000, np.uint8)
    for point in range(0x10000):
        character = chr(point)
        kind = _LETTER if character.isalpha() else _DIGIT if character.isdigit() else np.uint8(0)
        if not kind:
            kind = _SPACE if character.isspace() else _PUNCTUATION
        if character.isupper():
            kind |= _CAPITAL
        if point >= 0x370 and character.isalpha():
            kind |= _NON_LATIN
        table[point] = kind
    return table


def _ends_like_a_sentence(text: str) -> float:
    return float(text.rstrip(" \t\r\n\"')]”’」』）")[-1:] in tuple(".!?。！？…"))
