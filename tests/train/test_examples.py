"""Examples: every kind of label becomes the right texts, and nothing that belongs together is torn apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.errors import LabelError
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample
from quality_judge.train.examples import category_names

NAN = np.nan


def test_each_kind_becomes_its_texts_labels_and_ranks(build):
    examples = build(
        [
            Sample("", "one", True, weight=2.5),
            Sample("p", "two", False),
            Preference("q", "three", "four"),
            Ranking("r", ("five", "six", "seven")),
            CategoryRow("", "eight", {"advert": True, "empty": None}),
            CategoryRow("", "nine", {"advert": False}),
        ],
        category_names=("advert", "empty"),
    )
    assert examples.texts == ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    np.testing.assert_array_equal(examples.label, [1, 0, NAN, NAN, NAN, NAN, NAN, 0, 1])
    np.testing.assert_allclose(examples.weight[examples.labelled], np.array([2.5, 1, 1, 1]) / 1.375)
    np.testing.assert_array_equal(examples.unit, [0, 1, 2, 2, 3, 3, 3, 4, 5])
    np.testing.assert_array_equal(examples.rank, [0, 0, 0, 1, 0, 1, 2, 0, 0])
    np.testing.assert_array_equal(examples.categories[-2:], [[1, NAN], [0, NAN]])
    assert np.isnan(examples.categories[:-2]).all()
    assert examples.n_units == len(examples.groups) == 6
    assert examples.labelled.tolist() == [True, True, *[False] * 5, True, True]


def test_a_cut_ranking_gives_each_of_its_texts_a_label_beside_its_rank(build):
    examples = build([Ranking("r", ("five", "six", "seven"), cut=1), Ranking("s", ("one", "two"))])
    np.testing.assert_array_equal(examples.label, [1, 0, 0, NAN, NAN])
    np.testing.assert_array_equal(examples.rank, [0, 1, 2, 0, 1])
    assert len(examples.pairs()) == 4


def test_equal_texts_of_one_prompt_are_known_as_the_same(build):
    examples = build([Preference("q", "one", "two"), Preference("q", "two", "three"), Sample("", "one", True)])
    assert examples.same.tolist() == [0, 1, 2, 2, 4]  # without the prompt it is another row for the model


def test_pairs_are_every_better_and_worse_text_of_a_unit(build):
    examples = build(
        [Preference("q", "three", "four"), Sample("", "one", True), Ranking("r", ("five", "six", "seven"))]
    )
    pairs = {(examples.texts[better], examples.texts[worse]) for better, worse in examples.pairs()}
    assert pairs == {("three", "four"), ("five", "six"), ("five", "seven"), ("six", "seven")}
    without = np.array([text != "six" for text in examples.texts])
    assert len(examples.pairs(without)) == 2


def test_there_are_no_pairs_among_samples(build, made):
    assert build(made.samples(6)).pairs().shape == (0, 2)


def test_category_rows_that_say_nothing_are_left_out(build):
    examples = build([CategoryRow("", "one", {"advert": None}), CategoryRow("", "two", {"advert": False})],
                     category_names=("advert",))  # fmt: skip
    assert examples.texts == ["two"]
    assert examples.unit.tolist() == [0]


def test_labels_that_say_nothing_at_all_are_refused(build):
    with pytest.raises(LabelError, match="no label, no order, no category"):
        build([CategoryRow("", "one", {"advert": None})], category_names=("advert",))


def test_category_names_are_sorted_and_distinct(made):
    rows = [CategoryRow("", "one", {"b": True, "a": None}), CategoryRow("", "two", {"c": False, "a": True})]
    assert category_names(made.label_set(rows)) == ("a", "b", "c")


def test_tokens_are_those_of_scoring_with_prompt_and_specials(build, encoder):
    examples = build([Sample("a question", "the answer", True)])
    assert examples.tokens.ids.tolist() == encoder().encode(["the answer"], ["a question"]).tokens.ids.tolist()
    assert len(examples.tokens.ids) > len(encoder().encode(["the answer"]).tokens.ids)


def test_texts_are_read_as_in_scoring_long_ones_by_head_and_tail(build):
    text = "a" * 10_000 + "z" * 10_000
    (read,) = build([Sample("", text, True)]).texts
    assert len(read) < 1_000
    assert read.startswith("aaa")
    assert read.endswith("zzz")


def fold_of(examples, folds):
    return dict(zip(examples.texts, folds, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_folds_cut_neither_a_unit_nor_a_group_of_one_prompt(build, made, seed):
    rows = [*made.mixed_rows(), *made.samples(6, seed=9, prompt="a shared prompt")]
    examples = build(rows, category_names=("advert", "empty"))
    folds = examples.folds(4, seed)
    assert set(folds) == {0, 1, 2, 3}
    for part in (examples.unit, np.array(examples.groups)[examples.unit]):
        assert all(len(set(folds[part == name])) == 1 for name in set(part.tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_a_text_that_stands_in_several_pairs_together(build, seed):
    """Without a prompt a shared text is what ties rows: else it would be learnt in one fold and judged in another."""
    chain = [Preference("", f"text {i}", f"text {i + 1}") for i in range(4)]
    others = [Preference("", f"other {i}", f"another {i}") for i in range(12)]
    rows = [*chain, *others, Sample("", "Text  4", True)]
    folds = fold_of(examples := build(rows), examples.folds(4, seed))
    assert len({folds[f"text {i}"] for i in range(5)} | {folds["Text  4"]}) == 1
    assert len(set(folds.values())) == 4


@given(st.integers(0, 1000))
def test_folds_spread_the_labels_evenly(build, made, seed):
    examples = build(made.samples(40))
    folds = examples.folds(4, seed)
    assert {int(examples.label[folds == fold].sum()) for fold in range(4)} == {5}
    assert {int((folds == fold).sum()) for fold in range(4)} == {10}


def test_fewer_groups_than_folds_give_fewer_folds(build, made):
    rows = [row for prompt in "pqr" for row in made.samples(4, seed=ord(prompt), prompt=prompt)]
    assert set(build(rows).folds(10, 0)) == {0, 1, 2}


def test_rows_that_all_share_one_prompt_are_refused_with_advice(build, made):
    with pytest.raises(LabelError, match="a prompt that all rows share"):
        build(made.samples(8, prompt="the same for all")).folds(4, 0)


def test_a_sample_is_learnt_by_its_probability_where_it_has_one(build):
    examples = build([Sample("", "one", True, probability=0.7, weight=3.0), Sample("", "two", False)])
    assert examples.label.tolist() == [0.7, 0.0]
    assert examples.decided.tolist() == [True, True]
    text, good, weight = examples.verdicts(np.ones(2, bool))
    assert (text.tolist(), good.tolist()) == ([0, 1, 0], [True, False, False])
    np.testing.assert_allclose(weight, [1.05, 0.5, 0.45])


def test_tokens_of_some_texts_are_theirs_alone(build, made):
    examples, some = build(made.samples(6)), np.array([1, 2, 5])
    found = examples.tokens.take(some)
    assert found.lengths.tolist() == examples.tokens.lengths[some].tolist()
    assert found.ids.tolist() == build([made.samples(6)[at] for at in some]).tokens.ids.tolist()


def test_a_category_that_nobody_judged_is_none(made):
    rows = [CategoryRow("", "one", {"advert": True, "ocr": None}), CategoryRow("", "two", {"advert": False})]
    assert category_names(made.label_set(rows)) == ("advert",)
