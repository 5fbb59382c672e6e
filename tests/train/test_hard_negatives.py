"""Hard negatives: copies of both kinds, none from what is measured, each in the fold of its original, twins tied."""

from dataclasses import replace

import numpy as np

from quality_judge.attacks import TEXT, mentioning, shipped_attacks
from quality_judge.train.examples import build_examples
from quality_judge.train.hard_negatives import DRESSED_SHARE, attacked_copies, with_attacked_copies


def parted(copies):
    first = len(copies.samples) - copies.twins
    return copies.samples[:first], copies.samples[first::2], copies.samples[first + 1 :: 2]


def test_a_share_of_the_bad_rows_is_dressed_up_and_every_row_has_twins(made):
    samples = made.samples(40)
    copies = attacked_copies(samples, seed=0)
    dressed, trigger, plain = parted(copies)
    assert [copy.label for copy in dressed] == [False] * round(20 * DRESSED_SHARE)
    for copy, at in zip(copies.samples, copies.copied, strict=True):
        assert samples[at].completion in copy.completion != samples[at].completion
        assert (copy.label, copy.prompt, copy.id) == (samples[at].label, samples[at].prompt, None)
    for original, one, other in zip(samples, trigger, plain, strict=True):
        assert original.completion != one.completion != other.completion


def test_bad_rows_are_dressed_by_seen_families_alone(made):
    samples = made.samples(400)
    copies = attacked_copies(samples, seed=1)
    dressed, _, _ = parted(copies)
    held_out = {
        template.replace(TEXT, sample.completion)
        for family in shipped_attacks().families.values() if not family.seen
        for template in family.en for sample in samples
    }  # fmt: skip
    assert not held_out & {copy.completion for copy in dressed}
    originals = [samples[at] for at in copies.copied[: len(dressed)]]
    beside = {copy.completion.replace(row.completion, TEXT) for copy, row in zip(dressed, originals, strict=True)}
    assert len(beside) >= 15


def test_twins_say_the_same_sentence_with_nearly_every_phrase_for_training_and_nothing_that_is_measured(made):
    samples = made.samples(1200)
    _, *twins = parted(attacked_copies(samples, seed=1))
    for trigger, copies in zip((True, False), twins, strict=True):
        beside = [copy.completion.replace(row.completion, TEXT) for copy, row in zip(copies, samples, strict=True)]
        learnt = [mentioning(TEXT, turn, trigger=trigger, training=True) for turn in range(1000)]
        assert set(beside) <= set(learnt)
        assert not set(beside) & {mentioning(TEXT, turn, trigger=trigger) for turn in range(1000)}
        said = shipped_attacks().learnt_mentions["en"]
        phrases = said.trigger if trigger else said.plain
        assert sum(any(phrase in text for text in beside) for phrase in phrases) >= 0.9 * len(phrases) >= 20


def test_the_seed_alone_decides_the_copies(made):
    one, two, three = (attacked_copies(made.samples(40), seed=seed).samples for seed in (0, 0, 1))
    assert one == two != three


def test_no_fold_parts_a_copy_from_its_original_and_twins_alone_are_tied(made, encoder):
    labels = made.label_set([*made.samples(60), *made.rankings(4)])
    given = build_examples(labels, encoder())
    examples = with_attacked_copies(given, labels, encoder(), seed=0)
    copies = attacked_copies(labels.samples, seed=0)
    folds = examples.folds(3, 0)
    assert examples.texts[: len(given)] == given.texts
    assert (folds[len(given) :] == folds[copies.copied]).all()
    assert len(set(folds.tolist())) == 3
    assert (examples.ties() == np.arange(len(examples) - copies.twins, len(examples)).reshape(-1, 2)).all()
    assert (examples.pairs() == given.pairs()).all()
    assert not len(given.ties())


def test_twins_together_weigh_as_much_as_their_original_and_a_dressed_copy_as_much_as_its_own(made, encoder):
    samples = [replace(row, weight=1.0 + at % 3) for at, row in enumerate(made.samples(40))]
    labels = made.label_set(samples)
    given = build_examples(labels, encoder())
    examples = with_attacked_copies(given, labels, encoder(), seed=0)
    copies = attacked_copies(labels.samples, seed=0)
    dressed, twins = np.split(examples.weight[len(given) :], [len(copies.copied) - copies.twins])
    np.testing.assert_allclose(dressed, given.weight[copies.copied[: len(dressed)]])
    np.testing.assert_allclose(twins.reshape(-1, 2).sum(axis=1), given.weight)
    np.testing.assert_array_equal(examples.weight[: len(given)], given.weight)


def test_labels_without_samples_gain_nothing(made, encoder):
    labels = made.label_set(made.preferences(5))
    given = build_examples(labels, encoder())
    assert with_attacked_copies(given, labels, encoder(), seed=0) is given
