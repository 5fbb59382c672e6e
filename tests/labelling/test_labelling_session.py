"""The state behind the page: what can be taken back, how far experts agree, which files it goes on with."""

import json

import pytest

from quality_judge.errors import InputError
from quality_judge.labelling.session import Session
from quality_judge.labelling.store import Store
from quality_judge.labels import check_labels, load_labels
from quality_judge.labels.questions import read_questions
from quality_judge.rubric import Category, Rubric

RUBRIC = Rubric(name="test", criteria="Is it good?", categories=(Category(code="S1", name="Spam"),))
SHARED = 20


@pytest.fixture
def session(tmp_path):
    """A function from rows to the session that asks about them; all write the same file, one after the other."""
    stores = []

    def begin(rows, mode=None):
        if stores:
            stores[-1].close()
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        asked, questions = read_questions([path], mode)
        stores.append(Store(tmp_path / "labels.jsonl"))
        return Session(questions, asked, RUBRIC, stores[-1])

    yield begin
    stores[-1].close()


def answer(session, annotator, said):
    for key in session.questions:
        session.answer(annotator, key, said, note="", seconds=1.0)


def test_only_answers_of_this_round_can_be_taken_back(session, tmp_path):
    answer(session([{"text": "a"}, {"text": "b"}, {"text": "c"}]), "Ann", True)
    second = session([{"text": "c"}, {"text": "d"}])
    assert second.next("Ann")["done"] == 1
    said = second.undo("Ann")
    assert (said["undone"], said["question"]["texts"]) == (True, ["c"])
    for _ in range(2):
        said = second.undo("Ann")
        assert (said["undone"], said["done"]) == (False, 0)
    assert [row.completion for row in load_labels([tmp_path / "labels.jsonl"]).samples] == ["a", "b"]


def preferring(session, annotator, *, contrary):
    """The agreement once every row is judged by the alphabet, those in `contrary` the other way round."""
    said = session.next(annotator)
    while question := said["question"]:
        odd = said["done"] in contrary
        places = [question["texts"].index(text) for text in sorted(question["texts"], reverse=odd)]
        answers = {"pair": places[0], "rank": {"order": places, "cut": None}, "good-bad": not odd}
        said = session.answer(annotator, question["key"], answers[session.mode], note="", seconds=1.0)
    return said["agreement"]


@pytest.mark.parametrize(("mode", "texts"), [("good-bad", "x"), ("pair", "xy"), ("rank", "xyz")])
def test_the_page_and_the_command_say_the_same_of_how_far_experts_agree(session, tmp_path, mode, texts):
    prompts = [{"prompt": f"question {at}"} for at in range(SHARED)]
    asked = {"completion": "x"} if mode == "good-bad" else {"completions": list(texts)}
    begun = session([prompt | asked for prompt in prompts], mode)
    preferring(begun, "Ann", contrary={0})
    said = preferring(begun, "Bo", contrary={1})
    found = check_labels(load_labels([tmp_path / "labels.jsonl"])).agreement
    shared, alpha = (found.shared_rows, found.alpha) if mode == "good-bad" else (found.shared_orders, found.order_alpha)
    assert said == {"rows": SHARED, "alpha": pytest.approx(alpha)}
    assert shared == SHARED
    if mode == "pair":  # of 20 pairs they say the same of 18, nearly always that the first text is better
        assert alpha == pytest.approx(0.8, abs=0.01)


def test_a_file_with_answers_of_another_mode_to_these_rows_is_refused_before_anybody_is_asked(session, tmp_path):
    answer(session([{"text": "a"}, {"text": "b"}]), "Ann", True)
    before = (tmp_path / "labels.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"labels\.jsonl holds answers of mode good-bad .*choose another --output"):
        session([{"text": "b"}], "categories")
    assert (tmp_path / "labels.jsonl").read_bytes() == before
    assert session([{"text": "c"}], "categories").next("Ann")["question"]["texts"] == ["c"]


def test_what_is_taken_back_is_asked_of_nobody_else_while_it_is_on_the_screen(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in "abc"), encoding="utf-8")
    mode, questions = read_questions([path], None)
    store = Store(tmp_path / "labels.jsonl")
    session = Session(questions, mode, RUBRIC, store, per_row=1)
    session.answer("Ann", session.next("Ann")["question"]["key"], True, note="", seconds=None)
    back = session.undo("Ann")["question"]["key"]
    assert session.next("Bo")["question"]["key"] != back
    store.close()
