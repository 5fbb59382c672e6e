"""Which control of an annotation of Label Studio is its answer, and what one choice means: never a guess."""

import json

import pytest

from quality_judge.errors import LabelError
from quality_judge.labels.imported import Reading, import_labels
from quality_judge.rubric import Category, Rubric

RUBRIC = Rubric(
    name="test", criteria="Is it good?", good="保留", bad="drop",
    categories=(Category(code="S1", name="Spam"), Category(code="S2", name="Noise")),
)  # fmt: skip
WORDS = Rubric(name="test", criteria="Which?", good="Y", bad="N", categories=(
    Category(code="1", name="keep"), Category(code="G", name="Gore"), Category(code="N", name="Noise"),
))  # fmt: skip
ITEMS = [{"id": "d1", "title": "1", "body": "worst"}, {"id": "d2", "title": "2", "body": "best"}]


def written(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def least(**fields):
    """A row of JSON-MIN."""
    return {"annotation_id": 1, "id": 1, "text": "t", **fields}


def result(control, kind, value):
    return {"from_name": control, "to_name": "text", "type": kind, "value": {kind: value}}


def annotated(*results, **data):
    """A task of the JSON form with one annotation."""
    return {"id": 1, "data": data or {"text": "t"}, "annotations": [{"completed_by": 1, "result": list(results)}]}


@pytest.mark.parametrize(
    ("control", "word", "expected"),
    [
        ("x", "1", {"labels": {"1": 1, "G": 0, "N": 0}}),
        ("x", "keep", {"labels": {"1": 1, "G": 0, "N": 0}}),
        ("x", "G", {"labels": {"1": 0, "G": 1, "N": 0}}),
        ("x", "N", {"label": False}),
        ("x", "drop", {"label": False}),
        ("categories", "N", {"labels": {"1": 0, "G": 0, "N": 1}}),
        ("verdict", "1", {"label": True}),
        ("verdict", "G", {"label": True}),
    ],
)
def test_one_choice_is_a_word_of_the_rubric_before_it_is_a_common_word_and_our_control_says_which(
    tmp_path, control, word, expected
):
    full = annotated(result(control, "choices", [word]))
    for content in ([full], [least(**{control: word})], [least(**{control: {"choices": [word]}})]):
        (row,) = import_labels([written(tmp_path, content)], Reading(WORDS)).rows
        assert {name: row[name] for name in ("label", "labels") if name in row} == expected


@pytest.mark.parametrize(
    ("control", "word", "says"),
    [("categories", "1", "1 of its choices are no categories"), ("verdict", "S1", "are neither good nor bad by words")],
)
def test_a_word_that_our_control_does_not_have_is_a_fault(tmp_path, control, word, says):
    rubric = RUBRIC if control == "verdict" else Rubric(name="without categories", criteria="x")
    for content in ([annotated(result(control, "choices", [word]))], [least(**{control: word})]):
        with pytest.raises(LabelError, match=says):
            import_labels([written(tmp_path, content)], Reading(rubric))


def pair(control, side):
    return result(control, "selected", side)


def ranked(control, *ids):
    return result(control, "ranker", {"_": list(ids)})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (annotated(result("fluency", "rating", 5), result("accuracy", "rating", 1)), "2 ratings (fluency, accuracy)"),
        (annotated(result("stars", "rating", 5), result("stars", "rating", 1)), "2 ratings (stars)"),
        (least(fluency=[{"rating": 5}], accuracy=[{"rating": 1}]), "2 ratings (fluency, accuracy)"),
        (annotated(pair("kind", "left"), pair("safe", "right"), a="x", b="y"), "2 pairwise answers (kind, safe)"),
        (annotated(ranked("r1", "d1", "d2"), ranked("r2", "d2", "d1"), items=ITEMS), "2 rankings (r1, r2)"),
        (annotated(result("t1", "taxonomy", [["S1"]]), result("t2", "taxonomy", [["S2"]])), "2 taxonomies (t1, t2)"),
        (
            annotated(result("verdict", "choices", ["drop"]), result("topic", "choices", ["sport"])),
            "2 controls of choices (verdict, topic)",
        ),
        (least(verdict="drop", topics={"choices": ["S1", "S2"]}), "2 controls of choices (verdict, topics)"),
        (least(verdict="drop", categories="S1"), "2 controls of choices (verdict, categories)"),
    ],
)
def test_two_controls_of_one_kind_are_a_fault_that_names_them(tmp_path, row, says):
    with pytest.raises(LabelError) as raised:
        import_labels([written(tmp_path, [row])], Reading(RUBRIC, rating_cut=3))
    (fault,) = raised.value.faults
    assert fault == f"a.json:1: holds {says} and does not say which counts; keep one control in the export"


def test_ratings_beside_a_pairwise_answer_and_a_choice_in_two_parts_are_clear(tmp_path):
    beside = annotated(pair("better", "right"), *(result(f"rate {side}", "rating", 3) for side in "ab"), a="x", b="y")
    parts = annotated(result("c", "choices", ["S1"]), result("c", "choices", ["S2"]))
    found = import_labels([written(tmp_path, [beside, parts])], Reading(RUBRIC)).rows
    assert (found[0]["chosen"], found[1]["labels"]) == ("y", {"S1": 1, "S2": 1})
