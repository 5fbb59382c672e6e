"""Hard negatives: as many of each class as asked for, none from held-out attacks, each in the fold of its original."""

import numpy as np

from quality_judge.attacks import TEXT, mentioning, shipped_attacks
from quality_judge.train.examples import build_examples
from quality_judge.train.hard_negatives import ORIGIN, SHARE, beside_their_originals, with_hard_negatives


def test_each_class_gains_the_same_share_and_no_row_changes(made):
    labels = made.label_set([*made.samples(40), *made.preferences(5)])
    found, copied = with_hard_negatives(labels, seed=0)
    assert found.samples[:40] == labels.samples
    assert found.preferences == labels.preferences
    copies = found.samples[40:]
    assert [copy.label for copy in copies].count(True) == [copy.label for copy in copies].count(False) == 20 * SHARE
    for copy, at, origin in zip(copies, copied, found.sample_origins[40:], strict=True):
        original = labels.samples[at]
        assert original.completion in copy.completion
        assert original.completion != copy.completion
        assert (copy.label, copy.prompt) == (original.label, original.prompt)
        assert origin == ORIGIN + labels.sample_origins[at]


def test_bad_rows_are_dressed_by_seen_families_alone_and_good_rows_only_mention(made):
    labels = made.label_set(made.samples(400))
    found, copied = with_hard_negatives(labels, seed=1)
    held_out = {
        template.replace("{text}", labels.samples[at].completion)
        for family in shipped_attacks().families.values() if not family.seen
        for template in family.en for at in copied
    }  # fmt: skip
    copies = found.samples[400:]
    assert not held_out & {copy.completion for copy in copies}
    bad = [(copy, labels.samples[at]) for copy, at in zip(copies, copied, strict=True) if not copy.label]
    dressed = {copy.completion.replace(original.completion, "") for copy, original in bad}
    assert len(dressed) >= 15


def test_good_copies_name_nearly_every_phrase_there_is_for_training_and_nothing_that_is_measured(made):
    labels = made.label_set(made.samples(1200))
    found, copied = with_hard_negatives(labels, seed=1)
    pairs = zip(found.samples[1200:], copied, strict=True)
    beside = [copy.completion.replace(labels.samples[at].completion, TEXT) for copy, at in pairs if copy.label]
    assert set(beside) <= {mentioning(TEXT, turn, trigger=True, training=True) for turn in range(1000)}
    assert not set(beside) & {mentioning(TEXT, turn, trigger=True) for turn in range(1000)}
    phrases = shipped_attacks().learnt_mentions["en"].trigger
    assert sum(any(phrase in text for text in beside) for phrase in phrases) >= 0.9 * len(phrases) >= 20


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
