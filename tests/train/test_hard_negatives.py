"""Altered copies: as many of each class as asked for, nothing held out in them, each in the fold of its original."""

import numpy as np

from quality_judge.attacks import TEXT, mentioning, shipped_attacks
from quality_judge.train.examples import build_examples
from quality_judge.train.hard_negatives import COPIES_EACH, ORIGIN, SHARE, beside_their_originals, with_hard_negatives


def altered(labels, seed):
    """(original, copy) of every copy."""
    found, copied = with_hard_negatives(labels, seed=seed)
    copies = found.samples[len(labels.samples) :]
    return [(labels.samples[at], copy) for at, copy in zip(copied, copies, strict=True)]


def said_beside(labels, seed, *, label):
    """How often each mention, with the words of attacks and with others, stands beside rows of one class."""
    beside = [
        copy.completion.replace(row.completion, TEXT) for row, copy in altered(labels, seed) if row.label is label
    ]
    return {
        kind: sum(text in mentions(trigger=kind == "trigger") for text in beside) for kind in ("trigger", "plain")
    }, len(beside)


def mentions(*, trigger, training=True):
    return {mentioning(TEXT, turn, trigger=trigger, training=training) for turn in range(1000)}


def test_each_class_gains_the_same_share_and_no_row_changes(made):
    labels = made.label_set([*made.samples(40), *made.preferences(5)])
    found, copied = with_hard_negatives(labels, seed=0)
    assert found.samples[:40] == labels.samples
    assert found.preferences == labels.preferences
    copies = found.samples[40:]
    each = 20 * SHARE * COPIES_EACH
    assert [copy.label for copy in copies].count(True) == [copy.label for copy in copies].count(False) == each
    for copy, at, origin in zip(copies, copied, found.sample_origins[40:], strict=True):
        original = labels.samples[at]
        assert original.completion in copy.completion
        assert original.completion != copy.completion
        assert (copy.label, copy.prompt) == (original.label, original.prompt)
        assert origin == ORIGIN + labels.sample_origins[at]


def test_in_each_class_words_of_attacks_are_mentioned_as_often_as_others(made):
    labels = made.label_set(made.samples(400))
    good, copies = said_beside(labels, 1, label=True)
    assert good["trigger"] == good["plain"] == copies / 2
    bad, copies = said_beside(labels, 1, label=False)
    assert bad["trigger"] == bad["plain"] == copies / 4


def test_bad_rows_are_dressed_by_seen_families_alone(made):
    labels = made.label_set(made.samples(400))
    families = shipped_attacks().families.values()
    seen, held_out = ({t for f in families if f.seen is kind for t in f.en} for kind in (True, False))
    bad = {copy.completion.replace(row.completion, TEXT) for row, copy in altered(labels, 1) if not row.label}
    assert not held_out & bad
    assert len(seen & bad) >= 15


def test_no_copy_says_what_is_measured(made):
    labels = made.label_set(made.samples(400))
    beside = {copy.completion.replace(row.completion, TEXT) for row, copy in altered(labels, 1)}
    assert not beside & (mentions(trigger=True, training=False) | mentions(trigger=False, training=False))


def test_the_seed_alone_decides_which_rows_are_copied(made):
    labels = made.label_set(made.samples(40))
    one, two, three = (with_hard_negatives(labels, seed=seed)[0] for seed in (0, 0, 1))
    assert one == two != three


def test_no_fold_parts_a_copy_from_its_original(made, encoder):
    labels = made.label_set([*made.samples(60), *made.rankings(4)])
    found, copied = with_hard_negatives(labels, seed=0)
    examples = beside_their_originals(build_examples(found, encoder()), copied, samples=len(found.samples))
    folds = examples.folds(3, 0)
    assert (folds[60 + np.arange(len(copied))] == folds[copied]).all()
    assert len(set(folds.tolist())) == 3


def test_labels_without_samples_gain_nothing(made):
    labels = made.label_set(made.preferences(5))
    found, copied = with_hard_negatives(labels, seed=0)
    assert (found, len(copied)) == (labels, 0)
