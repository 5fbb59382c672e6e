"""Labels of other tools: Label Studio's exports as they really come, spreadsheets, and every fault named once."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.config import conf_folder
from quality_judge.errors import LabelError
from quality_judge.labels.imported import Reading, import_labels
from quality_judge.labels.label_studio_tasks import setup, tasks
from quality_judge.labels.parse import parse_row
from quality_judge.labels.questions import MODES, as_question, read_questions
from quality_judge.labels.sheet import armed, disarmed, sheet
from quality_judge.rubric import Category, Rubric

GOLDEN = Path(__file__).parent / "golden" / "label_studio_1.23.2.json"
RUBRIC = Rubric(
    name="test", criteria="Is it <good>?", good="保留", bad="drop",
    categories=(Category(code="S1", name="Spam"), Category(code="S2", name="Noise")),
)  # fmt: skip
DRAWN = {"id": "7", "source": "web", "strategy": "kept", "inclusion_probability": 0.25, "quality_score": 0.9}
ITEMS = [{"id": "d1", "title": "1", "body": "worst"}, {"id": "d2", "title": "2", "body": "best"}]
RESULTS = {  # kind of control: (data, result of the JSON form, field of JSON-MIN, what a label row then holds)
    "choices": ({"text": "t"}, {"choices": ["drop"]}, {"verdict": "drop"}, {"label": False}),
    "chinese": ({"text": "t"}, {"choices": ["保留"]}, {"任意": "保留"}, {"label": True}),
    "rating": ({"text": "t"}, {"rating": 2}, {"score": [{"rating": 2}]}, {"label": False}),
    "pairwise": ({"a": "x", "b": "y"}, {"selected": "right"}, {"pw": [{"selected": "right"}]}, {"chosen": "y"}),
    "ranker": (
        {"items": ITEMS}, {"ranker": {"_": ["d2", "d1"]}}, {"rank": [{"ranker": {"_": ["d2", "d1"]}}]},
        {"completions": ["best", "worst"]},
    ),
    "buckets": (
        {"items": ITEMS}, {"ranker": {"bad": ["d1"], "good": ["d2"]}},
        {"rank": [{"ranker": {"bad": ["d1"], "good": ["d2"]}}]}, {"completions": ["best", "worst"], "cut": 1},
    ),
    "taxonomy": (
        {"text": "t"}, {"taxonomy": [["Defects", "Noise"]]}, {"tax": [{"taxonomy": [["Defects", "Noise"]]}]},
        {"labels": {"S1": 0, "S2": 1}},
    ),
    "several": (
        {"text": "t"}, {"choices": ["S1", "S2"]}, {"c": {"choices": ["S1", "S2"]}}, {"labels": {"S1": 1, "S2": 1}},
    ),
    "none": ({"text": "t"}, {"choices": ["none"]}, {"c": "none"}, {"labels": {"S1": 0, "S2": 0}}),
}  # fmt: skip


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("kind", RESULTS)
def test_both_forms_of_label_studio_give_the_same_label(tmp_path, kind):
    data, value, short, expected = RESULTS[kind]
    result = [{"from_name": "x", "to_name": "y", "type": kind, "value": value}]
    note = {"from_name": "note", "to_name": "y", "type": "textarea", "value": {"text": ["too short"]}}
    full = {
        "id": 3, "data": data,
        "annotations": [
            {"id": 1, "completed_by": 4, "was_cancelled": False, "lead_time": 3.5, "result": [*result, note]},
            {"id": 2, "completed_by": {"id": 5, "email": "bo@x"}, "was_cancelled": False, "result": result},
            {"id": 3, "completed_by": 6, "was_cancelled": True, "result": result},
            {"id": 4, "completed_by": 7, "was_cancelled": False, "result": []},
        ],
        "predictions": [{"result": result}],
    }  # fmt: skip
    least = {"id": 3, **data, **short, "why": "too short", "annotator": 4, "annotation_id": 1, "lead_time": 3.5}
    reading = Reading(RUBRIC, rating_cut=3)
    found = import_labels([written(tmp_path, "full.json", [full])], reading)
    brief = import_labels([written(tmp_path, "least.json", [least])], reading)
    assert (found.counts["labels"], found.counts["cancelled"], found.counts["unanswered"]) == (2, 1, 1)
    assert [row["annotator"] for row in found.rows] == ["4", "bo@x"]
    assert brief.rows == found.rows[:1]
    assert (found.rows[0]["note"], found.rows[0]["seconds"]) == ("too short", 3.5)
    assert {name: found.rows[0][name] for name in expected} == expected


@pytest.mark.parametrize("form", ["JSON", "JSON_MIN"])
def test_what_label_studio_itself_exported_for_tasks_of_ours_is_read(tmp_path, form):
    # Label Studio 1.23.2 imported what `tasks` and `setup` gave; one annotation of each task was kept, one cancelled.
    exports = json.loads(GOLDEN.read_text(encoding="utf-8"))
    files = [written(tmp_path, f"{mode}.json", exports[mode][form]) for mode in MODES]
    found = import_labels(files, Reading(Rubric.load(conf_folder() / "rubrics" / "worth-keeping.yaml")))
    assert (found.counts["labels"], found.counts["cancelled"]) == (4, 4 if form == "JSON" else 0)
    sample, pair, ranking, categories = found.rows
    assert (sample["label"], sample["completion"], sample["note"]) == (True, "=a 水\n行", "short")
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ("Why <b>?", "乙", "x")
    assert ranking["completions"] == ["z", "x", "y"]
    assert [code for code, applies in categories["labels"].items() if applies] == ["spam", "stub"]
    assert {(row["annotator"], row["id"], row["inclusion_probability"]) for row in found.rows} == {("1", "7", 0.25)}


def test_faults_of_every_file_are_named_once_without_a_word_of_a_row(tmp_path):
    choice = [{"value": {"choices": ["secret"]}}]
    rating = [{"value": {"rating": 3}}]
    rows = [
        {"data": {"text": "secret"}, "annotations": [{"result": choice}]},
        {"data": {"text": "secret"}, "annotations": [{"result": rating}]},
        {"data": {"body": "secret"}, "annotations": [{"result": [{"value": {"choices": ["good"]}}]}]},
        {"data": {"items": ITEMS}, "annotations": [{"result": [{"value": {"ranker": {"_": ["d2"]}}}]}]},
        {"data": {"a": "secret", "b": "secret"}, "annotations": [{"result": [{"value": {"selected": "left"}}]}]},
    ]
    files = [written(tmp_path, "a.json", rows), written(tmp_path, "b.jsonl", '{"text": "secret"}\nnonsense\n')]
    with pytest.raises(LabelError) as raised:
        import_labels([*files, tmp_path / "gone.csv"])
    starts = [fault.split(": ")[0] for fault in raised.value.faults]
    assert starts == [*(f"a.json:{number}" for number in range(1, 6)), "b.jsonl:1", "b.jsonl:2", "gone.csv"]
    assert "secret" not in str(raised.value)


def least(**fields):
    return {"annotation_id": 1, "id": 1, "text": "t", **fields}


def test_a_column_of_the_data_is_never_read_as_the_verdict(tmp_path):
    """JSON-MIN has no mark of what is data and what was said: `no` may be Norwegian."""
    rated = [least(lang=lang, stars=[{"rating": 5}]) for lang in ("no", "en")]
    reading = Reading(RUBRIC, rating_cut=4)
    assert [row["label"] for row in import_labels([written(tmp_path, "a.json", rated)], reading).rows] == [True, True]
    chosen = [least(lang="no", said="保留"), least(lang="en", said="drop")]
    found = import_labels([written(tmp_path, "b.json", chosen)], Reading(RUBRIC))
    assert [row["label"] for row in found.rows] == [True, False]
    named = [least(approved="yes", verdict="drop"), least(approved="yes", verdict="保留")]
    found = import_labels([written(tmp_path, "c.json", named)], Reading(RUBRIC))
    assert [row["label"] for row in found.rows] == [False, True]


def test_a_column_before_the_id_is_data_even_where_the_choice_itself_is_not_understood(tmp_path):
    def exported(**data):
        return data | {"id": 1, "quality": "Excellent", "annotator": 1, "annotation_id": 1}

    rows = [exported(text="a", has_code="yes"), exported(text="b", has_code="no")]
    found = import_labels([written(tmp_path, "a.json", rows)], Reading(RUBRIC))
    assert (found.counts["labels"], found.counts["unanswered"]) == (0, 2)


@pytest.mark.parametrize(
    "odd",
    [{"annotations": [12]}, {"annotations": [{"result": ["x"]}]},
     {"data": "t", "annotations": [{"result": [{"value": {"choices": ["drop"]}}]}]}],
)  # fmt: skip
def test_an_export_of_another_shape_ends_in_no_fault_of_ours(tmp_path, odd):
    row = {"data": {"text": "t"}, "annotations": [{"result": [{"value": {"choices": ["drop"]}}]}]}
    file = written(tmp_path, "a.json", [row, odd])
    if "data" not in odd:
        assert import_labels([file], Reading(RUBRIC)).counts["labels"] == 1
        return
    with pytest.raises(LabelError, match=r"a\.json:2: the task has no text that we know"):
        import_labels([file], Reading(RUBRIC))


@pytest.mark.parametrize("topic", [None, "cs.CL", ["cs.CL"]])
@pytest.mark.parametrize("said", [{"said": "drop"}, {"verdict": "drop"}, {"stars": [{"rating": 1}]}])
def test_a_column_of_the_data_that_is_named_like_our_control_and_says_nothing_is_passed_over(tmp_path, topic, said):
    rows = [least(categories=topic, **said)] * 2
    found = import_labels([written(tmp_path, "a.json", rows)], Reading(RUBRIC, rating_cut=4))
    assert [row["label"] for row in found.rows] == [False, False]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"approved": "yes", "said": "保留"}, {"approved": "yes", "said": "drop"}], "2 of its columns hold words"),
        ([{"said": "保留"}, {"said": "spam"}], "choices are neither good nor bad"),
        ([{"lang": "no", "stars": [{"rating": 5}]}], "--rating-cut"),
    ],
)
def test_a_verdict_that_is_not_clear_is_a_fault(tmp_path, rows, says):
    with pytest.raises(LabelError, match=says):
        import_labels([written(tmp_path, "a.json", [least(**row) for row in rows])], Reading(RUBRIC))


def test_other_lists_of_a_task_are_no_ranked_items(tmp_path):
    ranked = {"value": {"ranker": {"_": ["d2", "d1"]}}}
    row = {"data": {"tags": ["x", "y"], "items": ITEMS}, "annotations": [{"result": [ranked]}]}
    assert import_labels([written(tmp_path, "a.json", [row])]).rows[0]["completions"] == ["best", "worst"]


def test_a_plain_table_in_another_encoding_is_read(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\n水,好\n".encode("gb18030"))
    (row,) = import_labels([tmp_path / "a.csv"], Reading(encoding="gb18030")).rows
    assert (row["text"], row["label"]) == ("水", "好")


@given(st.text())
def test_no_spreadsheet_reads_the_key_of_a_question_as_a_number(text):
    made, _ = as_question({"prompt": text, "completion": "x"}, "good-bad")
    (row,) = csv.DictReader(io.StringIO(sheet([made], "good-bad").removeprefix("\ufeff"), newline=""))
    with pytest.raises(ValueError, match="could not convert"):
        float(row["question"])


def test_a_spreadsheet_of_plain_keys_is_still_read(tmp_path):
    plain = sheet([question("good-bad")], "good-bad").replace("\nq", "\n").replace(",,,\r\n", ",good,,\r\n")
    (row,) = import_labels([written(tmp_path, "a.csv", plain)], Reading(RUBRIC)).rows
    assert row["label"] is True


def question(mode, **cells):
    texts = {"pair": {"completions": ["=a", "乙"]}, "rank": {"completions": ["x", "y", "z"]}}
    made, faults = as_question(DRAWN | texts.get(mode, {"completion": '=HYPERLINK("x")\n行, "quoted"'}) | cells, mode)
    assert faults == []
    return made


@pytest.mark.parametrize("mode", MODES)
def test_a_task_of_ours_answered_in_label_studio_keeps_what_it_was_drawn_by(tmp_path, mode):
    asked = question(mode, prompt="Why?")
    (task,) = tasks([asked], mode, RUBRIC, predict=True)
    assert "quality_score" not in json.dumps(task["data"])  # it would lead the expert
    value = {"good-bad": {"choices": ["保留"]}, "pair": {"selected": "right"}, "categories": {"choices": ["S2"]},
             "rank": {"ranker": {"_": ["d3", "d1", "d2"]}}}[mode]  # fmt: skip
    answered = {**task, "id": 1, "annotations": [{"completed_by": 1, "result": [{"value": value}]}]}
    (row,) = import_labels([written(tmp_path, "x.json", [answered])], Reading(RUBRIC)).rows
    assert row["question"] == asked.key
    assert {name: row.get(name) for name in DRAWN} == DRAWN | {"quality_score": None}
    assert parse_row(row)[1] == []
    if mode == "rank":
        assert row["completions"] == ["z", "x", "y"]
    root = ElementTree.fromstring(setup(mode, RUBRIC))
    assert root.find("Header").get("value") == "Is it <good>?"
    fields = {name for element in root.iter() for name in [element.get("value", "")] if name.startswith("$")}
    assert {name[1:] for name in fields} <= set(task["data"])
    assert ("predictions" in task) == (mode == "good-bad")


ANSWERS = {
    "good-bad": ({"label": " 好 "}, {"label": True}),
    "pair": ({"better": "b"}, {"chosen": "乙", "rejected": "=a"}),
    "rank": ({"order": "C > a，B", "how_many_good": "1"}, {"completions": ["z", "x", "y"], "cut": 1}),
    "categories": ({"categories": "noise、S1"}, {"labels": {"S1": 1, "S2": 1}}),
}


@pytest.mark.parametrize(("separator", "newline"), [(",", "\r\n"), (";", "\n"), ("\t", "\r\n")])
@pytest.mark.parametrize("mode", MODES)
def test_a_sheet_filled_in_and_saved_by_a_spreadsheet_comes_back(tmp_path, mode, separator, newline):
    filled, expected = ANSWERS[mode]
    asked = [question(mode), question(mode, prompt="empty row")]
    text = sheet(asked, mode)
    assert text.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text[1:], newline="")))
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@")]
    rows[0] |= {**filled, "annotator": "李雷", "note": "-1 is fine"}
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=separator, lineterminator=newline)
    writer.writeheader()
    writer.writerows(rows)
    saved = out.getvalue().replace("\n行", f"{newline}行")  # a spreadsheet writes its own ends of lines into cells too
    found = import_labels([written(tmp_path, "sheet.csv", "\ufeff" + saved)], Reading(RUBRIC))
    assert (found.counts["labels"], found.counts["unanswered"]) == (1, 1)
    (row,) = found.rows
    assert {name: row[name] for name in expected} == expected
    assert (row["annotator"], row["id"], row["note"]) == ("李雷", "7", "-1 is fine")
    assert row["question"] == asked[0].key
    known = {each.key: each for each in asked}
    (whole,) = import_labels([tmp_path / "sheet.csv"], Reading(RUBRIC, known=known)).rows
    assert whole["inclusion_probability"] == 0.25


def test_a_sheet_in_a_chinese_encoding_is_read_when_it_is_named_and_changed_texts_are_not_believed(tmp_path):
    text = sheet([question("good-bad")], "good-bad")[1:].replace(",,,\r\n", ",是,,\r\n")
    path = tmp_path / "sheet.csv"
    path.write_bytes(text.encode("gb18030"))
    with pytest.raises(LabelError, match="--encoding, such as gb18030"):
        import_labels([path])
    (row,) = import_labels([path], Reading(encoding="gb18030", annotator="Ann")).rows
    assert (row["label"], row["annotator"]) == (True, "Ann")
    with pytest.raises(LabelError, match=r"sheet\.csv:1: its text was changed by the spreadsheet"):
        import_labels([written(tmp_path, "sheet.csv", text.replace("行", "列"))])
    with pytest.raises(LabelError, match="no word for good or bad"):
        import_labels([written(tmp_path, "sheet.csv", text.replace("是", "perhaps"))])


@given(st.text())
def test_a_disarmed_cell_is_no_formula_and_comes_back_as_it_was(cell):
    assert disarmed(cell)[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert armed(disarmed(cell)) == cell


def test_label_files_pass_through_and_every_mode_can_be_read_from_a_file(tmp_path):
    rows = [{"completions": ["a", "b"]}, {"chosen": "x", "rejected": "c"}]
    mode, asked = read_questions([written(tmp_path, "rows.jsonl", "".join(json.dumps(r) + "\n" for r in rows))])
    assert (mode, [each.texts for each in asked]) == ("pair", [("a", "b"), ("c", "x")])
    path = written(tmp_path, "labels.jsonl", '{"text": "a", "label": 1, "annotator": null, "extra": 2}\n')
    assert import_labels([path], Reading(annotator="Ann")).rows == (
        {"annotator": "Ann", "text": "a", "label": 1, "extra": 2},
    )
