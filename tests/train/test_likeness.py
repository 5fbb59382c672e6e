"""Whether labels look as if drawn from the corpus."""

import numpy as np
import pytest

from quality_judge.train.likeness import LEAST_TEXTS, likeness

WORDS = ("water", "rises", "on", "the", "mountain", "a", "small", "train", "arrives", "at", "noon", "nobody", "waits")
OTHERS = ("buy", "cheap", "offers", "here", "today", "click", "this", "link", "now", "best", "price")


def drawn(count, *, seed, words=WORDS):
    dice = np.random.default_rng(seed)
    return [" ".join([*dice.choice(words, dice.integers(4, 20)), str(dice.integers(10**6))]) for _ in range(count)]


def test_labels_drawn_from_the_corpus_cannot_be_told_from_it():
    """100 such draws had a mean of .503 and a deviation of .034; .14 is 4.1 of these: one failure in 20,000."""
    found = likeness(drawn(150, seed=0), drawn(600, seed=1))
    assert abs(found["roc_auc"] - 0.5) < 0.14
    assert (found["labelled_texts"], found["corpus_texts"]) == (150, 600)
    assert found["roc_auc_ci"][0] < found["roc_auc"] < found["roc_auc_ci"][1]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_labels_of_another_kind_are_told_from_the_corpus(share):
    other = round(200 * share)
    labelled = drawn(other, seed=0, words=OTHERS) + drawn(200 - other, seed=1)
    found = likeness(labelled, drawn(600, seed=2))
    assert found["roc_auc_ci"][0] > 0.6
    assert found["roc_auc"] > 0.5 + 0.4 * share


def test_labels_that_differ_by_length_alone_are_seen_by_length_alone():
    long = [" ".join(text.split() * 3) for text in drawn(100, seed=0)]
    assert likeness(long, drawn(300, seed=1))["length_only"] > 0.8


def test_a_length_that_tells_all_apart_says_so_from_either_side():
    short, long = [[f"{at} " * words for at in range(80)] for words in (5, 90)]
    assert likeness(short, long)["length_only"] == likeness(long, short)["length_only"] == 1.0


def test_texts_of_any_length_are_compared():
    labelled, corpus = ([text + " wait" * 20_000 for text in drawn(60, seed=seed)] for seed in (0, 1))
    assert min(likeness(labelled, corpus)[name] for name in ("labelled_texts", "corpus_texts")) >= 50


def test_what_is_labelled_counts_as_labelled_once_and_not_as_corpus():
    labelled = drawn(100, seed=0)
    found = likeness(labelled * 2 + [""], labelled + drawn(300, seed=1) * 3)
    assert (found["labelled_texts"], found["corpus_texts"]) == (100, 300)


def test_too_few_texts_say_nothing():
    few, many = drawn(LEAST_TEXTS - 1, seed=0), drawn(200, seed=1)
    assert likeness(few, many) is None
    assert likeness(many, few) is None
    assert likeness(many, []) is None
