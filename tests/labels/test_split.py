"""Splits: every row once, groups whole, classes spread, the same on every machine and in every order."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quality_judge.errors import InputError, LabelError
from quality_judge.labels import LabelSet, check_labels, flatten, fold_indices, group_names, split_labels
from quality_judge.labels.split import targets
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample

TEXTS = st.text("abAB ", min_size=1, max_size=3).filter(str.strip)
PROMPTS = st.sampled_from(["", "", "p", "P ", "q", "r", "s"])
ROWS = st.one_of(
    st.builds(Sample, PROMPTS, TEXTS, st.booleans()),
    st.builds(Preference, PROMPTS, TEXTS, TEXTS),
    st.builds(Ranking, PROMPTS, st.lists(TEXTS, min_size=2, max_size=4).map(tuple)),
    st.builds(
        CategoryRow, PROMPTS, TEXTS, st.dictionaries(st.sampled_from("xy"), st.sampled_from([True, False, None]))
    ),
)
FRACTIONS = st.lists(st.integers(1, 8), min_size=1, max_size=4).map(lambda parts: [part / sum(parts) for part in parts])


def labelled(rows) -> LabelSet:
    return LabelSet.of(rows, [f"f.jsonl:{number}" for number in range(1, len(rows) + 1)])


def alone(count: int, *, good: int) -> list[Sample]:
    return [Sample("", f"text {number}", number < good) for number in range(count)]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, min_size=1, max_size=40), FRACTIONS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_every_row_is_in_one_split_and_no_group_is_cut(rows, fractions, seed, shuffler):
    labels = labelled(rows)
    try:
        splits = split_labels(labels, fractions, seed=seed)
    except LabelError:
        return
    assert len(splits) == len(fractions)
    assert Counter(origin for split in splits for origin in split.origins()) == Counter(labels.origins())
    of_origin = dict(zip(labels.origins(), labels.rows(), strict=True))
    assert all(
        of_origin[origin] == row for split in splits for origin, row in zip(split.origins(), split.rows(), strict=True)
    )
    group_of = dict(zip(labels.origins(), group_names(labels), strict=True))
    owners = Counter(name for split in splits for name in {group_of[origin] for origin in split.origins()})
    assert set(owners.values()) == {1}
    for split in splits:
        others = [other for other in splits if other is not split]
        assert all(check_labels(split, test=other).counts["leaks"] == 0 for other in others)
        if {True, False} <= set(map(label, rows)):
            assert {True, False} <= set(map(label, split.rows()))
    mixed = list(rows)
    shuffler.shuffle(mixed)
    assert [split.sha256 for split in split_labels(labelled(mixed), fractions, seed=seed)] == [s.sha256 for s in splits]


def label(row):
    return getattr(row, "label", None)


@pytest.mark.parametrize(
    ("fractions", "sizes"), [((0.7, 0.15, 0.15), (71, 15, 15)), ((0.5, 0.5), (51, 50)), ((1.0,), (101,))]
)
def test_sizes_are_those_of_the_largest_remainder_and_classes_are_spread_alike(fractions, sizes):
    splits = split_labels(labelled(alone(101, good=40)), fractions, seed=1)
    assert tuple(map(len, splits)) == sizes
    for fraction, split in zip(fractions, splits, strict=True):
        assert abs(split.counts()["desirable"] - 40 * fraction) <= 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=5), FRACTIONS)
def test_targets_share_out_every_row_and_keep_the_overall_sizes(totals, fractions):
    wanted = targets(np.array(totals), fractions)
    exact = np.outer(fractions, totals)
    assert (wanted.sum(axis=0) == totals).all()
    assert (np.abs(wanted - exact) < 1 + 1e-6).all()
    assert (np.abs(wanted.sum(axis=1) - exact.sum(axis=1)) < 1 + 1e-6).all()


def test_the_split_depends_on_the_seed_and_not_on_the_row_order_or_file_names():
    rows = alone(60, good=30)
    splits = split_labels(labelled(rows), (0.5, 0.5), seed=0)
    random.Random(5).shuffle(rows)
    again = split_labels(LabelSet.of(rows, [f"other:{n}" for n in range(60)]), (0.5, 0.5), seed=0)
    assert [split.sha256 for split in splits] == [split.sha256 for split in again]
    assert splits[0].sha256 != split_labels(labelled(rows), (0.5, 0.5), seed=1)[0].sha256


def test_the_split_is_the_same_on_every_machine():
    first, second = split_labels(labelled(alone(8, good=4)), (0.5, 0.5), seed=0)
    assert sorted(row.completion[-1] for row in first.samples) == list("0167")
    assert len(second) == 4


def test_rows_of_all_kinds_with_one_prompt_are_one_group():
    rows = [Sample("Why  not", "a", True), Preference("why not", "b", "c"), Ranking("WHY NOT", ("d", "e"))]
    assert len(set(group_names(labelled(rows)))) == 1


def test_rows_without_a_prompt_are_one_group_when_they_share_a_text_directly_or_through_others():
    rows = [Sample("", "A", True), Preference("", "a ", "b"), Ranking("", ("c", "B")), Sample("", "d", True)]
    names = dict(zip(labelled(rows).origins(), group_names(labelled(rows)), strict=True))
    assert names["f.jsonl:1"] == names["f.jsonl:2"] == names["f.jsonl:3"] != names["f.jsonl:4"]


def test_every_split_gets_a_row_of_a_rare_class():
    splits = split_labels(labelled(alone(100, good=3)), (0.9, 0.05, 0.05), seed=0)
    assert [split.counts()["desirable"] for split in splits] == [1, 1, 1]


def test_too_few_rows_of_a_class_say_how_many_are_missing():
    with pytest.raises(LabelError, match=r"a desirable row; got 1: label 2 more"):
        split_labels(labelled(alone(100, good=1)), (0.8, 0.1, 0.1), seed=0)


def test_an_empty_label_set_cannot_be_split():
    with pytest.raises(LabelError, match="got 0: label 2 more"):
        split_labels(LabelSet(), (0.5, 0.5), seed=0)


def test_one_prompt_for_all_rows_cannot_be_split():
    rows = [Sample("Judge this", f"t{n}", n % 2 == 0) for n in range(50)]
    with pytest.raises(LabelError, match="leave out a prompt that all rows share"):
        split_labels(labelled(rows), (0.5, 0.5), seed=0)


@pytest.mark.parametrize("fractions", [(), (0.5, 0.6), (1.0, 0.0), (1.5, -0.5), (float("nan"), 0.5)])
def test_fractions_must_be_positive_and_sum_to_one(fractions):
    with pytest.raises(InputError, match="sum to 1"):
        split_labels(labelled(alone(10, good=5)), fractions, seed=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.booleans()), min_size=1, max_size=60), st.integers(2, 5))
def test_folds_never_cut_a_group_and_are_never_empty(rows, folds):
    groups, strata = [group for group, _ in rows], [stratum for _, stratum in rows]
    if len(set(groups)) < folds:
        with pytest.raises(LabelError):
            fold_indices(groups, strata, folds, 0)
        return
    fold = fold_indices(groups, strata, folds, 0)
    assert set(fold.tolist()) == set(range(folds))
    assert len(set(zip(groups, fold.tolist(), strict=True))) == len(set(groups))
    order = list(reversed(range(len(rows))))
    assert (fold_indices([groups[i] for i in order], [strata[i] for i in order], folds, 0) == fold[order]).all()


def test_folds_of_single_rows_are_even_in_every_stratum():
    strata = [number % 4 == 0 for number in range(100)]
    fold = fold_indices([str(number) for number in range(100)], strata, 5, 3)
    assert np.bincount(fold).tolist() == [20] * 5
    assert np.bincount(fold[strata]).tolist() == [5] * 5


def test_fold_arguments_are_checked():
    with pytest.raises(InputError, match="at least 2"):
        fold_indices(["a"], [1], 1, 0)
    with pytest.raises(InputError, match="one of each"):
        fold_indices(["a"], [1, 2], 2, 0)


def test_rows_with_nearly_the_same_long_text_are_of_one_group_whatever_their_prompts():
    text = "Water boils at a lower temperature on a mountain, because the air presses less on its surface up there."
    rows = [
        Sample("p", text, True), Sample("q", text[:-1], False), Sample("", text.upper(), True),
        Sample("r", "other", True),
    ]  # fmt: skip
    first, second, third, other = group_names(LabelSet.of(rows, ["f:1"] * 4))
    assert first == second == third != other


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_say_the_same_group_are_in_one_part_and_one_fold(seed):
    rows = [replace(row, group=f"page {at // 6}") for at, row in enumerate(alone(60, good=30))]
    rows += [Preference("q", "better", "worse", group="page 0"), Ranking("r", ("a", "b"), group="page 9")]
    names = group_names(labelled(rows))
    assert len(set(names)) == 10
    assert names[0] == names[60] != names[61] == names[59]
    for part in split_labels(labelled(rows), [0.5, 0.5], seed=seed):
        said = Counter(row.group for row in part.rows())
        assert all(count == 6 + (group in ("page 0", "page 9")) for group, count in said.items())
    folds = fold_indices(names, [row.group for row in rows], 3, seed)
    assert all(len(set(folds[[name == each for each in names]])) == 1 for name in names)


def test_rows_of_one_prompt_and_texts_of_one_ranking_belong_together_for_intervals():
    rows = [Sample("p", "a", True), Sample("p", "b", False), Sample("q", "c", True), Sample("q", "d", True, group="g")]
    others = [Sample(prompt, "e", True) for prompt in "rst"]
    labels = labelled([*rows, *others, Ranking("", ("x", "y", "z"))])
    flat = flatten(labels)
    assert flat.clusters(np.arange(7)).tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert flat.clusters(flat.pairs[:, 0]).tolist() == [0, 0, 0]
    assert labels.counts()["groups"] == 7


@pytest.mark.parametrize("prompts", ["a", "ab", "abcd"])
def test_a_few_prompts_are_instructions_and_make_no_groups(prompts):
    labels = labelled([Sample(prompt, text, True) for prompt in prompts for text in "xyz"])
    assert flatten(labels).clusters(np.arange(len(labels))) is None
    assert "groups" not in labels.counts()


def test_a_text_is_labelled_once_whatever_rows_it_stands_in_and_as_most_of_them_say():
    rows = [
        Sample("", "one text", True), Sample("", "one  text", True), Sample("p", "one text", False),
        Sample("", "most say bad", True), Sample("", "most say bad", False), Sample("", "most say bad", False),
        Sample("", "as many", True), Sample("", "as many", False),
        CategoryRow("", "one text", {"S1": True}), CategoryRow("", "safe", {"S1": False}),
    ]  # fmt: skip
    flat = flatten(LabelSet.of(rows, [f"made:{line}" for line in range(len(rows))]))
    said = {(flat.prompts[at], flat.completions[at]): flat.label[at] for at in flat.labelled}
    assert said == {("", "one text"): 1, ("p", "one text"): 0, ("", "most say bad"): 0, ("", "safe"): 1}
    assert flat.labelled.tolist() == sorted(flat.labelled)
