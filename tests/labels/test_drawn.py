"""Rows drawn at a cut: their file is taken as it was written or refused, and labels find their rows by text."""

import json

import numpy as np
import pytest

from quality_judge.errors import LabelError
from quality_judge.labels import LabelSet
from quality_judge.labels.drawn import Drawing, read_drawing
from quality_judge.samples import CategoryRow, Sample
from quality_judge.stats.certificate import Targets
from quality_judge.stats.fresh import Region, certify_fresh


def drawn_rows():
    mark = {"keep_at": 0.8, "drop_below": 0.5, "quality_judge": "abc"}
    kept = [{"completion": f"kept {i}", "prompt": "", "strategy": "kept", "quality_score": 0.9} for i in range(4)]
    dropped = [{"completion": f"dropped {i}", "strategy": "dropped", "quality_score": 0.1} for i in range(2)]
    there = [{"drawn": 4, "texts_there": 400, "rows_there": 500}, {"drawn": 2, "texts_there": 2000, "rows_there": 2000}]
    return [row | mark | there[0] for row in kept] + [row | mark | there[1] for row in dropped]


@pytest.fixture
def write(tmp_path):
    def to_file(rows):
        path = tmp_path / "drawn.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return to_file


def labelled(*rows):
    return LabelSet.of(rows, [f"made:{line}" for line in range(len(rows))])


def test_a_drawing_says_for_which_judge_at_which_cut_and_out_of_how_many(write):
    drawing = read_drawing(write(drawn_rows()))
    assert (drawing.judge, drawing.keep_at, drawing.drop_below) == ("abc", 0.8, 0.5)
    assert drawing.populations == {"kept": 400, "dropped": 2000}
    assert drawing.copies == pytest.approx(0.2)


def test_labels_find_their_rows_by_text_whatever_else_is_among_them(write):
    labels = labelled(
        Sample("", "kept 0", True), Sample("", "kept 1", False), Sample("", "kept 2", True),
        Sample("", "kept 2", False), Sample("", "never drawn", True), CategoryRow("", "dropped 1", {"spam": True}),
    )  # fmt: skip
    kept, dropped = read_drawing(write(drawn_rows())).regions(labels)
    assert kept == Region(400, 1, 1, 2)  # one text was labelled both ways, and one by nobody
    assert dropped == Region(2000, 0, 1, 1)


def test_without_dropped_rows_there_is_one_region(write):
    drawing = read_drawing(write(drawn_rows()[:4]))
    assert drawing.regions(labelled(Sample("", "kept 0", True)))[1] is None


def test_a_drawing_that_lost_a_row_is_refused_for_its_population_is_told_by_their_number(write):
    rows = drawn_rows()
    with pytest.raises(LabelError, match="holds 3 of the 4 rows that were drawn as 'kept'"):
        read_drawing(write(rows[1:]))
    with pytest.raises(LabelError, match="holds 1 of the 2 rows that were drawn as 'dropped'"):
        read_drawing(write(rows[:-1]))


def test_of_several_experts_the_majority_counts_and_a_tie_is_no_label(write):
    def said(at, *verdicts):
        return [Sample("", f"kept {at}", said, annotator=f"expert {n}") for n, said in enumerate(verdicts)]

    rows = [*said(0, True, True, True), *said(1, True, True, False), *said(2, False, False, False)]
    third = Sample("", " kept  3", True, annotator="one more")
    kept, _ = read_drawing(write(drawn_rows())).regions(labelled(*rows, *said(3, True, False), third))
    assert kept == Region(400, 3, 1, 0)
    kept, _ = read_drawing(write(drawn_rows())).regions(labelled(Sample("", "kept 0", True), *said(3, True, False)))
    assert kept == Region(400, 1, 0, 3)


def test_two_experts_who_split_on_contested_rows_do_not_make_a_promise_that_does_not_hold():
    """150 rows, a fifth of them contested, good in 88% as experts see it on average. At 10% false promises more than 10
    of 40 have a chance of .001; where each split was guessed there were 10 in another 40, and 33 with 600 rows."""
    dice, granted = np.random.default_rng(0), 0
    texts = tuple(("", f"text {at}") for at in range(150))
    drawing = Drawing("abc", 0.5, 0.5, texts, (), {"kept": 10**5, "dropped": 0}, {"kept": 10**5, "dropped": 0})
    for _ in range(40):
        good = np.where(dice.random(150) < 0.2, 0.4, 0.99)
        rows = [
            Sample("", text, bool(dice.random() < good[at]), annotator=f"expert {who}")
            for who in range(2) for at, (_, text) in enumerate(texts)
        ]  # fmt: skip
        kept, _ = drawing.regions(labelled(*rows))
        granted += certify_fresh(kept, None, Targets(precision=0.9), keep_at=0.5).keep.granted
    assert granted <= 10


def test_a_contested_category_is_no_label_of_a_drawn_row(write):
    both = [
        CategoryRow("", "kept 0", {"spam": spam, "stub": False}, annotator=who)
        for who, spam in (("a", True), ("b", False))
    ]
    kept, _ = read_drawing(write(drawn_rows())).regions(labelled(*both, Sample("", "kept 1", True)))
    assert kept == Region(400, 1, 0, 3)


def test_labels_of_other_rows_are_refused(write):
    with pytest.raises(LabelError, match="none of the 1 labelled texts"):
        read_drawing(write(drawn_rows())).regions(labelled(Sample("", "another", True)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quality_score": 0.79}, "was not drawn as 'kept'"),
        ({"strategy": "uniform"}, "was not drawn as 'uniform'"),
        ({"keep_at": 0.7}, "not one drawing"),
        ({"quality_judge": "other"}, "not one drawing"),
        ({"texts_there": 401}, "not one drawing"),
        ({"rows_there": 399}, "4 drawn of 400 texts in 399 rows"),
        ({"keep_at": "high"}, "no number from 0 to 1"),
        ({"keep_at": None}, "lacks keep_at"),
        ({"drawn": None}, "lacks drawn"),
        ({"drawn": "4"}, "4 drawn of 400 texts"),
        ({"drawn": 5}, "not one drawing"),
        ({"completion": ""}, "is empty"),
    ],
)
def test_a_file_that_is_not_one_drawing_is_refused_by_line_and_without_row_text(write, change, said):
    rows = drawn_rows()
    rows[1] |= change
    with pytest.raises(LabelError, match=said) as caught:
        read_drawing(write(rows))
    assert "kept 1" not in str(caught.value)


def test_a_missing_file_and_ordinary_labels_are_refused(write, tmp_path):
    with pytest.raises(LabelError, match="cannot be read"):
        read_drawing(tmp_path / "none.jsonl")
    with pytest.raises(LabelError, match=r"drawn\.jsonl:1: lacks strategy"):
        read_drawing(write([{"completion": "text", "label": True}]))


def test_rows_whose_texts_differ_in_broken_bytes_alone_are_both_of_the_drawing(write):
    rows = drawn_rows()
    rows[0]["completion"] = rows[1]["completion"] = "caf\ufffd"
    kept, _ = read_drawing(write(rows)).regions(labelled(Sample("", "caf\ufffd", True), Sample("", "kept 2", False)))
    assert kept == Region(400, 2, 1, 1)


def test_a_row_that_stands_twice_does_not_make_up_for_one_that_is_missing(write):
    rows = drawn_rows()
    rows[1]["completion"] = rows[0]["completion"]
    with pytest.raises(LabelError, match="holds 3 of the 4 rows that were drawn as 'kept'"):
        read_drawing(write(rows))
