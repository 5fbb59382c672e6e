"""Surface features: each number is what a plain restatement says, and a row's depend on that row alone, bit for bit."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.engine.surface import (
    COUNT_NAMES,
    FEATURE_BITS,
    LONG,
    SHORT,
    surface_counts,
    surface_features,
)  # fmt: skip

MASK = (1 << 64) - 1
PRIME, WORD_SEED, MIX = 0x100000001B3, 0xD6E8FEB86659FD93, 0x9E3779B97F4A7C15
TEXTS = st.one_of(
    st.text(max_size=60), st.text("abAB \n\t.1é水😀", max_size=40), st.just(""), st.text(st.characters(), max_size=6)
)


def column(key):
    key = (key ^ (key >> 29)) * MIX & MASK
    return (key ^ (key >> 32)) * MIX % (1 << 64) >> (64 - FEATURE_BITS)


def folded(values, start=0):
    for value in values:
        start = (start * PRIME + value) & MASK
    return start


def word_hash(word):
    return sum((ord(character) + 1) * PRIME**place for place, character in enumerate(word)) & MASK


def words_of(text):
    """Runs of letters and digits; characters beyond the basic plane are neither."""
    return "".join(c if ord(c) < 0x10000 and (c.isalpha() or c.isdigit()) else " " for c in text).split(" ")


def restated(text, ngram_order):
    """The features of one text as {column: value}, without numpy."""
    padded = f" {text.lower()} "
    counts = Counter()
    for size in range(1, ngram_order.characters + 1):
        for at in range(len(padded) - size + 1):
            counts[column((folded(map(ord, padded[at : at + size])) + size) & MASK)] += 1
    words = [word_hash(word) for word in words_of(padded) if word]
    for size in range(1, ngram_order.words + 1):
        for at in range(len(words) - size + 1):
            counts[column(folded(words[at : at + size], WORD_SEED))] += 1
    values = {key: 1 + math.log(count) for key, count in counts.items()}
    norm = math.sqrt(sum(value * value for value in values.values()))
    return {key: value / norm for key, value in values.items()}


@given(TEXTS, st.sampled_from([LONG, SHORT]))
def test_ngram_counts_are_those_of_a_plain_restatement(text, ngram_order):
    features = surface_features([text], ngram_order)
    expected = restated(text, ngram_order)
    assert dict(zip(features.indices.tolist(), features.data.tolist(), strict=True)) == pytest.approx(
        expected, rel=1e-5
    )


@given(TEXTS)
def test_plain_counts_are_those_of_a_plain_restatement(text):
    count = dict(zip(COUNT_NAMES, surface_counts([text])[0], strict=True))
    length, words = max(len(text), 1), [word for word in words_of(text) if word]
    assert count["log_length"] == pytest.approx(math.log1p(length))
    assert count["log_words"] == pytest.approx(math.log1p(len(words)))
    assert count["mean_word_length"] == pytest.approx(math.log1p(length / max(len(words), 1)))
    assert count["line_breaks"] == pytest.approx(text.count("\n") / length)
    basic = [character for character in text if ord(character) < 0xFFFF]
    assert count["letters"] == pytest.approx(sum(map(str.isalpha, basic)) / length)
    assert count["digits"] == pytest.approx(sum(c.isdigit() and not c.isalpha() for c in basic) / length)
    assert count["capitals"] == pytest.approx(sum(map(str.isupper, basic)) / length)
    assert count["non_latin"] == pytest.approx(sum(c.isalpha() and ord(c) >= 0x370 for c in basic) / length)
    assert count["repeated_words"] == pytest.approx(1 - len(set(words)) / max(len(words), 1))
    assert count["distinct_characters"] == pytest.approx(len(set(text) | {"\n"}) / math.sqrt(length))


@given(st.lists(TEXTS, min_size=1, max_size=10), st.data())
def test_a_row_is_the_same_bits_alone_and_among_others(texts, data):
    features, counts = surface_features(texts), surface_counts(texts)
    at = data.draw(st.integers(0, len(texts) - 1))
    alone, own = surface_features([texts[at]]), features[at]
    assert own.indices.tolist() == alone.indices.tolist()
    assert own.data.tobytes() == alone.data.tobytes()
    assert counts[at].tobytes() == surface_counts([texts[at]])[0].tobytes()


def test_a_row_is_the_same_bits_in_a_batch_of_one_and_of_three_hundred():
    dice = random.Random(5)
    texts = ["".join(dice.choices("abcde ABC .,!?\n0123é水😀", k=dice.randrange(0, 400))) for _ in range(300)]
    features, counts = surface_features(texts), surface_counts(texts)
    for at in range(0, 300, 7):
        alone = surface_features([texts[at]])
        assert (features[at] != alone).nnz == 0
        assert features[at].data.tobytes() == alone.data.tobytes()
        assert counts[at].tobytes() == surface_counts([texts[at]])[0].tobytes()


def test_a_word_has_one_hash_wherever_it_stands():
    long = surface_features(["x " * 5000 + "zebra", "zebra"])
    word = column(folded([word_hash("zebra")], WORD_SEED))
    assert long[0, word] > 0
    assert long[1, word] > 0


@pytest.mark.parametrize("text", ["", "!!!", "\n", "😀", "\ud800", "a", "\0", " " * 3000])
def test_odd_texts_have_finite_features_of_length_one(text):
    features = surface_features([text])
    assert np.linalg.norm(features.toarray()) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(surface_counts([text])).all()


def test_case_changes_the_counts_and_not_the_ngrams():
    features, counts = surface_features(["HELLO World", "hello world"]), surface_counts(["HELLO World", "hello world"])
    assert (features[0] != features[1]).nnz == 0
    assert counts[0, COUNT_NAMES.index("capitals")] > counts[1, COUNT_NAMES.index("capitals")] == 0


@pytest.mark.parametrize(
    ("text", "ends"),
    [("Done.", 1), ('"Done!"  \n', 1), ("完了。", 1), ("(so?)", 1), ("and", 0), ("", 0), ("a…", 1), ("a.b", 0)],
)
def test_an_ending_like_a_sentence_is_seen_in_any_script(text, ends):
    assert surface_counts([text])[0, COUNT_NAMES.index("ends_like_a_sentence")] == ends


def test_no_texts_give_no_rows():
    assert surface_features([]).shape == (0, 1 << FEATURE_BITS)
    assert surface_counts([]).shape == (0, len(COUNT_NAMES))


def test_no_column_takes_more_than_its_share_of_a_varied_text():
    """Hashing spreads: 20,000 distinct n-grams over 2**18 columns collide for about 4 % of them, here at most 8 %."""
    dice = random.Random(1)
    text = "".join(chr(dice.randrange(0x4E00, 0x9FFF)) for _ in range(4000))
    grams = sum(
        len({f" {text} "[at : at + size] for at in range(4002 - size + 1)}) for size in range(1, LONG.characters + 1)
    )
    assert surface_features([text]).nnz > 0.92 * grams
