"""Answers on disk: whole lines only, one writer, nothing half kept, an undo that leaves its trace."""

import json
import os

import pytest

from quality_judge.errors import InputError, RunConflict
from quality_judge.labelling.store import Store


def answer(question, label, annotator="Ann"):
    row = {"prompt": "", "completion": f"{question} 水\u2028", "label": label}
    return {"event": "answer", "annotator": annotator, "question": question, "row": row}


def labels(path):
    return [json.loads(line)["label"] for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_answers_undone_and_given_again_leave_one_label_each_and_a_whole_journal(tmp_path):
    output = tmp_path / "labels.jsonl"
    store = Store(output)
    store.add(answer("a", True))
    store.add(answer("b", False))
    store.add({"event": "undo", "annotator": "Ann", "question": "b"})
    assert labels(output) == [True]
    store.add(answer("b", True))
    store.add(answer("a", False))
    store.add(answer("a", True, "Bo"))
    store.add({"event": "skip", "annotator": "Ann", "question": "c"})
    assert labels(output) == [True, False, True]
    assert store.journal.stat().st_mode & 0o077 == 0
    store.close()
    output.unlink()
    again = Store(output)
    assert labels(output) == [True, False, True]
    assert len(again.journal.read_bytes().splitlines()) == 7
    again.close()


def test_a_line_cut_off_by_a_crash_was_never_acknowledged_and_goes(tmp_path):
    output = tmp_path / "labels.jsonl"
    store = Store(output)
    store.add(answer("a", True))
    store.close()
    with store.journal.open("ab") as journal:
        journal.write(b'{"event":"answer","annot')
    store = Store(output)
    store.add(answer("b", False))
    store.close()
    assert labels(output) == [True, False]
    assert [json.loads(line)["question"] for line in store.journal.read_bytes().splitlines()] == ["a", "b"]


def test_an_answer_that_cannot_be_synced_is_not_kept_anywhere(tmp_path, monkeypatch):
    output = tmp_path / "labels.jsonl"
    store = Store(output)
    store.add(answer("a", True))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            store.add(answer("b", True))
    store.add(answer("c", False))
    store.close()
    assert labels(output) == [True, False]
    assert b'"b"' not in store.journal.read_bytes()


def test_only_one_process_writes_and_nobody_elses_file_is_touched(tmp_path):
    store = Store(tmp_path / "labels.jsonl")
    with pytest.raises(RunConflict, match="another process"):
        Store(tmp_path / "labels.jsonl")
    store.close()
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="was not written here"):
        Store(tmp_path / "mine.jsonl")
    assert (tmp_path / "mine.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b'{"event":"answer"}', b"\xff"])
def test_a_damaged_journal_is_named_and_left_alone(tmp_path, line):
    journal = tmp_path / "labels.jsonl.journal"
    journal.write_bytes(line + b"\n")
    with pytest.raises(InputError, match=r"labels\.jsonl\.journal:1 is damaged"):
        Store(tmp_path / "labels.jsonl")
    assert journal.read_bytes() == line + b"\n"


@pytest.mark.parametrize("ended", [b"\n", b""])
def test_a_label_file_that_was_changed_by_hand_is_refused_and_left_alone(tmp_path, ended):
    output = tmp_path / "labels.jsonl"
    store = Store(output)
    store.add(answer("a", True))
    store.add(answer("b", True))
    store.close()
    first, second = output.read_bytes().splitlines(keepends=True)
    changed = first + second.replace(b"true", b"false") + b'{"completion": "secret", "label": false}' + ended
    output.write_bytes(changed)
    with pytest.raises(InputError, match=r"holds 2 lines that .* the first in line 2: .*another --output") as raised:
        Store(output)
    assert "secret" not in str(raised.value)
    assert output.read_bytes() == changed
    output.rename(tmp_path / "mine.jsonl")
    Store(output).close()
    assert output.read_bytes() == first + second


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_a_label_file_that_a_crash_left_behind_its_journal_is_written_anew(tmp_path, cut):
    """It may lack the last answer or a part of it, and hold one that was taken back since."""
    output = tmp_path / "labels.jsonl"
    store = Store(output)
    store.add(answer("a", True))
    store.add(answer("b", False))
    first, second = output.read_bytes().splitlines(keepends=True)
    store.add({"event": "undo", "annotator": "Ann", "question": "a"})
    store.close()
    output.write_bytes(first + second[:cut])
    Store(output).close()
    assert output.read_bytes() == second


def test_a_file_address_names_the_same_file_as_its_path(tmp_path):
    theirs = tmp_path / "labels.jsonl"
    theirs.write_text('{"text": "by hand", "label": 1}\n')
    with pytest.raises(InputError, match="was not written here"):
        Store(theirs.as_uri())
    assert theirs.read_text() == '{"text": "by hand", "label": 1}\n'


def test_an_answer_that_only_the_journal_could_take_stands_and_reaches_the_label_file_later(tmp_path):
    output = tmp_path / "labels.jsonl"
    store = Store(output)
    output.unlink()
    output.mkdir()  # nothing can be appended, nor renamed over it
    store.add(answer("a", True))
    store.add(answer("b", False))
    output.rmdir()
    store.add(answer("c", True))
    assert labels(output) == [True, False, True]
    store.close()
