"""What labels must have, what is only remarked, and how copies, contradictions and leaks are settled."""

import json

import pytest

from quality_judge.errors import LabelError
from quality_judge.labels import LabelSet, check_labels, clean_labels
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample


def labelled(*rows) -> LabelSet:
    return LabelSet.of(rows, [f"f.jsonl:{number}" for number in range(1, len(rows) + 1)])


def filler(count: int = 8) -> list[Sample]:
    return [Sample("", f"filler {number}", number % 2 == 0) for number in range(count)]


def accounted(report) -> bool:
    counts = report.counts
    return counts["rows"] == sum(counts[name] for name in ("duplicates", "outvoted", "tied", "leaks", "kept"))


def test_good_labels_have_neither_errors_nor_warnings():
    report = check_labels(labelled(*filler()))
    assert (report.errors, report.warnings) == ((), ())
    report.raise_for_failures()
    assert report.counts["kept"] == report.counts["rows"] == 8


def test_one_class_alone_is_an_error():
    report = check_labels(labelled(*[Sample("", f"t{n}", True) for n in range(9)]))
    assert "all 9 rows are desirable" in report.errors[0]
    with pytest.raises(LabelError, match="desirable"):
        report.raise_for_failures()


@pytest.mark.parametrize(
    "other",
    [Preference("p", "a", "b"), Ranking("p", ("a", "b")), CategoryRow("", "x", {"spam": True})],
)
def test_one_class_of_samples_is_enough_where_other_kinds_supply_the_order(other):
    assert check_labels(labelled(*[Sample("", f"t{n}", True) for n in range(9)], other)).errors == ()


def test_fewer_than_eight_rows_of_use_are_an_error():
    assert "7 rows" in check_labels(labelled(*filler(7))).errors[0]
    assert "7 rows" in check_labels(labelled(*filler(7), filler(7)[0])).errors[0]


def test_copies_merge_to_one_whatever_their_white_space_width_or_annotator():
    copies = [
        Sample("p", "a b", True, annotator="x"),
        Sample("p", "a  b\n", True, annotator="y"),
        Sample("ｐ", "a b", True),
    ]
    cleaned, report = clean_labels(labelled(*filler(), *copies))
    assert len(cleaned) == 9
    assert report.counts["duplicates"] == 2
    assert report.warnings[0] == "f.jsonl:10: says the same as f.jsonl:9; merged"
    assert cleaned.sample_origins[-1] == "f.jsonl:9"
    assert accounted(report)


def test_texts_that_differ_in_case_or_prompt_are_not_copies():
    rows = [Sample("p", "a", True), Sample("p", "A", False), Sample("q", "a", False)]
    assert len(clean_labels(labelled(*filler(), *rows))[0]) == 11


def test_a_contradiction_is_settled_by_majority():
    rows = [Sample("", "t", False), Sample("", "t", True), Sample("", " t", True)]
    cleaned, report = clean_labels(labelled(*filler(), *rows))
    assert cleaned.samples[-1] == Sample("", "t", True)
    assert (report.counts["contradictions"], report.counts["outvoted"], report.counts["duplicates"]) == (1, 1, 1)
    assert "contradicts f.jsonl:9; settled by majority" in report.warnings[0]
    assert accounted(report)


def test_a_tied_contradiction_is_left_out():
    cleaned, report = clean_labels(labelled(*filler(), Sample("", "t", True), Sample("", "t", False)))
    assert len(cleaned) == 8
    assert report.counts["tied"] == 2
    assert report.errors == ()
    assert "a tie" in report.warnings[0]
    assert accounted(report)


def test_an_annotator_who_repeats_a_verdict_has_one_vote():
    rows = [Sample("", "t", True, annotator="x")] * 3 + [Sample("", "t", False, annotator="y")]
    assert clean_labels(labelled(*filler(), *rows))[1].counts["tied"] == 4
    rows.append(Sample("", "t", False, annotator="z"))
    cleaned, report = clean_labels(labelled(*filler(), *rows))
    assert cleaned.samples[-1] == Sample("", "t", False, annotator="y")
    assert report.counts["outvoted"] == 3


def test_pairs_judged_both_ways_contradict_one_another():
    rows = [Preference("p", "a", "b"), Preference("p", "b", "a"), Preference("p", "b", "a ")]
    cleaned, report = clean_labels(labelled(*filler(), *rows))
    assert cleaned.preferences == (Preference("p", "b", "a"),)
    assert report.counts["contradictions"] == 1


def test_pairs_that_differ_in_white_space_alone_still_have_a_verdict():
    rows = [Preference("p", "a b", "a  b"), Preference("p", "a  b", "a b")]
    assert clean_labels(labelled(*filler(), *rows))[1].counts["tied"] == 2


def test_rankings_of_the_same_texts_in_other_orders_contradict_one_another():
    rows = [Ranking("p", ("a", "b", "c")), Ranking("p", ("a", "c", "b")), Ranking("p", ("a", "b", "c"))]
    cleaned, _ = clean_labels(labelled(*filler(), *rows))
    assert cleaned.rankings == (Ranking("p", ("a", "b", "c")),)


def test_a_text_ranked_in_two_places_leaves_its_ranking():
    rows = [Ranking("p", ("a", "b", "c", "a")), Ranking("q", ("a", "a", "b")), Ranking("r", ("a", "b", "a"))]
    cleaned, report = clean_labels(labelled(*filler(), *rows))
    assert cleaned.rankings == (Ranking("p", ("b", "c")), Ranking("q", ("a", "b")))
    assert (report.counts["repeated"], report.counts["tied"]) == (3, 1)
    assert accounted(report)


def test_categories_merge_one_by_one_and_a_tied_one_becomes_unknown():
    rows = [
        CategoryRow("", "t", {"spam": True, "hate": None, "junk": True}),
        CategoryRow("", "t", {"spam": True, "hate": False, "junk": False}),
    ]
    cleaned, report = clean_labels(labelled(*filler(), *rows))
    assert cleaned.categories[0].categories == {"spam": True, "hate": False, "junk": None}
    assert report.counts["contradictions"] == 1
    assert accounted(report)


def test_category_rows_tied_in_all_that_was_said_are_left_out():
    rows = [CategoryRow("", "t", {"spam": True}), CategoryRow("", "t", {"spam": False})]
    cleaned, report = clean_labels(labelled(*filler(), *rows))
    assert (len(cleaned.categories), report.counts["tied"]) == (0, 2)


@pytest.mark.parametrize(
    "row",
    [
        Sample("p", "Some  TEXT", True),
        Preference("P", "other", "some text"),
        Ranking("p", ("x", "ｓome text")),
        CategoryRow("p", "some\ntext", {"spam": False}),
    ],
)
def test_training_rows_that_stand_in_test_are_left_out_of_training(row):
    test = labelled(Sample("p", "some text", False))
    cleaned, report = clean_labels(labelled(*filler(), row), test=test)
    assert len(cleaned) == 8
    assert report.counts["leaks"] == 1
    assert report.warnings == ("f.jsonl:9: also stands in the test labels (f.jsonl:1); left out",)
    assert accounted(report)


def test_the_same_text_under_another_prompt_is_no_leak():
    test = labelled(Sample("q", "yes", False))
    assert check_labels(labelled(*filler(), Sample("p", "yes", True)), test=test).counts["leaks"] == 0


def test_heavy_imbalance_is_a_warning():
    rows = [Sample("", f"t{n}", n > 0) for n in range(30)]
    assert "only 1 of 30 judged texts are undesirable" in check_labels(labelled(*rows)).warnings[0]
    assert check_labels(labelled(*rows[:20])).warnings == ()


def test_errors_are_judged_on_what_would_be_kept():
    rows = filler()
    assert "0 rows" in check_labels(labelled(*rows), test=labelled(*rows)).errors[0]


def test_a_report_holds_no_row_text_and_its_dict_only_counts():
    rows = [Sample("secret", "hidden", True), Sample("secret", "hidden", False), Preference("secret", "hidden", "x")]
    report = check_labels(labelled(*rows, *rows), test=labelled(rows[2]))
    assert "secret" not in repr(report)
    assert "hidden" not in repr(report)
    assert all(isinstance(value, int) for value in report.to_dict().values())
    assert json.loads(json.dumps(report.to_dict()))["leaks"] == 6


def test_checking_and_cleaning_report_the_same_and_cleaning_twice_changes_nothing():
    labels = labelled(*filler(), *filler(), Sample("", "t", True), Sample("", "t", False))
    cleaned, report = clean_labels(labels)
    assert check_labels(labels) == report
    again, second = clean_labels(cleaned)
    assert again == cleaned
    assert second.warnings == ()
