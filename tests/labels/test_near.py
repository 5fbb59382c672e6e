"""Nearly equal texts are found, in any language; different and short ones are not."""

import time

import numpy as np
import pytest

from quality_judge.labels.near import near_duplicates

LONG = "Water boils at a lower temperature on a mountain, because the air presses less on its surface up there."
CHINESE = (
    "水在高山上沸腾的温度更低，因为那里的气压较小，所以煮鸡蛋需要更长的时间，"
    "登山的人都知道这一点，许多人还会带上一口高压锅去做饭。"
)


def words(dice, count):
    return " ".join("".join(dice.choice(list("abcdefghijklmnop"), 6)) for _ in range(count))


@pytest.mark.parametrize("text", [LONG, CHINESE])
def test_a_text_with_a_small_change_is_nearly_the_same(text):
    changed = text[:30] + text[31:]
    assert near_duplicates(["something else", text, changed]).tolist() == [[1, 2]]


def test_short_texts_and_different_ones_are_not():
    dice = np.random.default_rng(0)
    texts = ["yes", "yes", "the same short answer", "the same short answer", *(words(dice, 30) for _ in range(200))]
    assert near_duplicates(texts).tolist() == []
    assert near_duplicates([]).shape == (0, 2)


def test_what_is_found_is_what_comparing_all_pairs_finds():
    """Texts of 40 words with 0 to 20 changed: every pair above .85 is linked, none below .75."""
    dice = np.random.default_rng(1)
    original = words(dice, 60).split()
    texts = [" ".join(original)]
    for changes in range(12):
        other = list(original)
        for place in dice.choice(60, changes, replace=False):
            other[place] = words(dice, 1)
        texts.append(" ".join(other))
    found = {tuple(pair) for pair in near_duplicates(texts).tolist()}

    def likeness(first, second):
        sets = [{text[at : at + 5] for at in range(len(text) - 4)} for text in (first, second)]
        return len(sets[0] & sets[1]) / len(sets[0] | sets[1])

    assert {(0, at) for at in range(1, 13) if likeness(texts[0], texts[at]) >= 0.85} <= found
    assert all(likeness(texts[first], texts[second]) >= 0.8 for first, second in found)


def test_long_texts_are_compared_by_a_sample():
    dice = np.random.default_rng(3)
    text = words(dice, 3000).split()
    near, far = list(text), list(text)
    near[::30], far[::3] = [words(dice, 1) for _ in near[::30]], [words(dice, 1) for _ in far[::3]]
    assert near_duplicates([" ".join(each) for each in (text, near, far)]).tolist() == [[0, 1]]


def test_a_text_that_stands_a_thousand_times_is_compared_a_thousand_times_and_not_a_million():
    dice = np.random.default_rng(2)
    texts = [words(dice, 20) for _ in range(500)] + [LONG] * 1000
    started = time.perf_counter()
    found = near_duplicates(texts)
    assert 999 <= len(found) <= 2 * 999
    assert set(found.ravel().tolist()) == set(range(500, 1500))
    assert time.perf_counter() - started < 60
