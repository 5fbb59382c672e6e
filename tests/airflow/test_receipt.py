"""By its receipt a task run knows a whole judge as its own, and no other judge; needs no Airflow."""

import os
import shutil
import sys

import pytest

from quality_judge.airflow.receipt import Receipt, request_of, rubric_of

ROOT = __file__.rsplit("/tests/", 1)[0]
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT}
RUN = ("dag", "run 1", "train", -1)


@pytest.fixture
def judge(request):
    """A small judge and what training said of it."""
    try:
        folder = request.getfixturevalue("judge_folder")
    except pytest.FixtureLookupError:
        pytest.skip("needs tests/conftest.py, which `make airflow` leaves out")
    from quality_judge.judge import load_judge

    said = {"ok": True, "rows": 3, "judge": str(folder), "fingerprint": load_judge(folder).fingerprint}
    return folder, said


def found(receipt):
    return receipt.numbers(sys.executable, ENVIRONMENT)


def test_a_judge_that_the_same_request_made_is_known_with_its_numbers_and_untouched(judge):
    folder, said = judge
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    Receipt(str(folder), "a request").leave(said)
    assert found(Receipt(str(folder), "a request")) == {"ok": True, "rows": 3}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_request_or_no_receipt_knows_no_judge(judge):
    folder, said = judge
    assert found(Receipt(str(folder), "a request")) is None
    Receipt(str(folder), "a request").leave(said)
    assert found(Receipt(str(folder), "another")) is None


@pytest.mark.parametrize("change", ["damaged", "gone", "another"])
def test_a_judge_that_is_damaged_gone_or_another_is_not_known(judge, change):
    folder, said = judge
    if change == "another":
        said = {**said, "fingerprint": "0" * 16}
    Receipt(str(folder), "a request").leave(said)
    if change == "damaged":
        (folder / "card.md").write_text("other words")
    if change == "gone":
        shutil.rmtree(folder)
    assert found(Receipt(str(folder), "a request")) is None


@pytest.mark.parametrize("change", [{"ok": False}, {"fingerprint": None}])
def test_what_did_not_end_well_leaves_no_receipt(tmp_path, change):
    said = {name: value for name, value in {"ok": True, "fingerprint": "0", **change}.items() if value is not None}
    receipt = Receipt(str(tmp_path / "judge"), "a request")
    receipt.leave(said)
    receipt.leave(None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"request": "a", "fingerprint": "0", "numbers": 1}', "\udcff"])
def test_a_damaged_receipt_is_no_receipt(tmp_path, content):
    receipt = Receipt(str(tmp_path / "judge"), "a")
    receipt.file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert found(receipt) is None


def test_a_request_follows_the_run_the_arguments_and_what_the_files_hold(tmp_path):
    labels = tmp_path / "labels.jsonl"
    labels.write_text("one")
    one = request_of(RUN, ["--labels", "x"], [str(labels)])
    assert one == request_of(RUN, ["--labels", "x"], [str(labels)])
    others = [request_of((*RUN[:1], "run 2", *RUN[2:]), ["--labels", "x"], [str(labels)])]
    others.append(request_of(RUN, ["--labels", "y"], [str(labels)]))
    labels.write_text("two")
    others.append(request_of(RUN, ["--labels", "x"], [str(labels)]))
    assert len({one, *others}) == 4


@pytest.mark.parametrize("corpus", ["rows.jsonl", "folder"])
def test_a_request_follows_the_files_of_the_corpus_without_reading_them(tmp_path, corpus):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    file = tmp_path / ("rows.jsonl" if corpus == "rows.jsonl" else "folder/deep/rows.jsonl")
    file.write_text("one")
    file.chmod(0)

    def request():
        return request_of(RUN, [], [], corpus=str(tmp_path / corpus))

    found = {request(), request()}
    os.utime(file, ns=(1, 1))
    found.add(request())
    file.unlink()
    found.add(request())
    assert len(found) == 3
    assert request_of(RUN, [], [], corpus="") == request_of(RUN, [], [])


@pytest.mark.parametrize(
    ("line", "rubric"),
    [
        ("rubric: rubric.yaml", "rubric.yaml"), ("rubric: ../r u#b.yaml   # in words", "../r u#b.yaml"),
        ('"rubric": "a b.yaml"', "a b.yaml"), ("rubric : '评分.yaml' # x", "评分.yaml"), ("rubric:", None),
        ("rubric: # none", None), ("  rubric: inner.yaml", None), ("# rubric: r.yaml", None), ("max_tokens: 8", None),
    ],
)  # fmt: skip
def test_the_rubric_is_the_file_that_the_configuration_names_from_its_own_folder(tmp_path, line, rubric):
    (tmp_path / "judge.yaml").write_text(f"name: mine\n{line}\nkind: scalar\n", encoding="utf-8")
    assert rubric_of(str(tmp_path / "judge.yaml")) == ([str(tmp_path / rubric)] if rubric else [])


def test_a_configuration_that_is_not_there_names_no_rubric(tmp_path):
    assert rubric_of("") == rubric_of(str(tmp_path / "none.yaml")) == []
