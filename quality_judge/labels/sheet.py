"""A spreadsheet of questions, for experts who have only that, and their answers read back from it.

It is written as CSV with a byte order mark, which Excel needs for Chinese; a cell that a spreadsheet would take for a
formula is disarmed with an apostrophe, and armed again when it is read. Spreadsheets change long texts, so each row
carries a short hash of what was asked. It does not know what becomes of the labels.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quality_judge.errors import InputError
from quality_judge.labels.questions import (
    CATEGORY,
    GOOD_BAD,
    NOTE,
    PAIR,
    QUESTION,
    RANK,
    Answer,
    Question,
    verdict_of,
)
from quality_judge.rubric import Rubric
from quality_judge.samples import ANNOTATOR, PROMPT, ROW_ID, TEXT

BOM = "\ufeff"
MOST_IN_A_CELL = 32_000  # Excel cuts at 32,767
FORMULA = re.compile(r"'*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
DISARMED = re.compile(r"'+[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
ANSWER_COLUMN = {GOOD_BAD: "label", PAIR: "better", RANK: "order", CATEGORY: "categories"}
MODE_OF = {column: mode for mode, column in ANSWER_COLUMN.items()}
GOOD_ONES = "how_many_good"
NONE = ("none", "无", "0")
LETTERS = "ABCDEFGH"
KEY_MARK = "q"  # a spreadsheet would round a key that reads as a number


def sheet(questions: Sequence[Question], mode: str) -> str:
    """The spreadsheet as text, to be written as UTF-8: one row a question, an empty column for the answer, a note."""
    most = max(len(question.texts) for question in questions)
    texts = [TEXT] if most == 1 else [f"{TEXT}_{letter}" for letter in LETTERS[:most]]
    answers = [ANSWER_COLUMN[mode], *([GOOD_ONES] if mode == RANK else []), NOTE, ANNOTATOR]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([QUESTION, ROW_ID, PROMPT, *texts, *answers])
    for question in questions:
        cells = [question.prompt, *question.texts, *[""] * (most - len(question.texts))]
        shown = [disarmed(text[:MOST_IN_A_CELL]) for text in cells]
        writer.writerow(
            [KEY_MARK + question.key, disarmed(str(question.cells.get(ROW_ID, ""))), *shown, *[""] * len(answers)]
        )
    return BOM + out.getvalue()


def disarmed(cell: str) -> str:
    """The cell, with an apostrophe before what a spreadsheet would run as a formula. `armed` undoes it exactly."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def armed(cell: str) -> str:
    """The cell as it was before `disarmed`."""
    return cell[1:] if DISARMED.match(cell) else cell


def read_sheet(text: str) -> list[dict[str, str]] | None:
    """The rows of such a spreadsheet, saved again with commas, semicolons or tabs; None for any other table."""
    text = text.removeprefix(BOM)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    usual = csv.field_size_limit(max(len(text), 1))
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval=""))
    except csv.Error:
        return None
    finally:
        csv.field_size_limit(usual)
    names = set(rows[0]) if rows else set()
    if QUESTION not in names or not names & set(MODE_OF):
        return None
    return [{name: armed(cell) for name, cell in row.items() if name and isinstance(cell, str)} for row in rows]


def sheet_answers(
    rows: Sequence[Mapping[str, str]], known: Mapping[str, Question], rubric: Rubric
) -> Iterator[tuple[Question, str, Answer, dict[str, Any]] | str | None]:
    """Of each row its question, mode, answer, and annotator and note; None without an answer; or what is wrong with it.

    known: the questions by key; where one is not there, the texts of the sheet stand in, if they are unchanged.
    """
    for row in rows:
        mode = next((mode for column, mode in MODE_OF.items() if row.get(column, "").strip()), None)
        if mode is None:
            yield None
            continue
        question = known.get(_key(row)) or _as_it_was(row)
        if question is None:
            yield "its text was changed by the spreadsheet; give the rows it was made from with --rows"
            continue
        try:
            answer = _answer(row, mode, len(question.texts), rubric)
        except InputError as error:
            yield str(error)
            continue
        yield question, mode, answer, {ANNOTATOR: row.get(ANNOTATOR, "").strip(), NOTE: row.get(NOTE, "").strip()}


def _as_it_was(row: Mapping[str, str]) -> Question | None:
    """The question from its own cells, when its hash says that they are as they were written."""
    names = [TEXT] if TEXT in row else [f"{TEXT}_{letter}" for letter in LETTERS]
    cells = {ROW_ID: row[ROW_ID]} if row.get(ROW_ID) else {}
    for clean in (str, lambda text: text.replace("\r\n", "\n")):  # Excel may write its own ends of lines
        texts = tuple(clean(row[name]) for name in names if row.get(name))
        question = Question(clean(row.get(PROMPT, "")), texts, cells)
        if question.key == _key(row):
            return question
    return None


def _key(row: Mapping[str, str]) -> str:
    return row[QUESTION].strip().removeprefix(KEY_MARK)


def _answer(row: Mapping[str, str], mode: str, texts: int, rubric: Rubric) -> Answer:
    """What the cell says. Raises InputError that says what was expected, never what stood there."""
    said = row[ANSWER_COLUMN[mode]].strip()
    if mode == GOOD_BAD:
        verdict = verdict_of(said, rubric)
        if verdict is None:
            raise InputError("label is no word for good or bad; expected good or bad, 1 or 0, 好 or 坏, 是 or 否")
        return verdict
    letters = re.sub(r"[\s,;>、，＞|]+", "", said.upper())
    if mode == PAIR:
        if letters not in ("A", "B", "1", "2"):
            raise InputError("better is neither A nor B")
        return int(letters in ("B", "2"))
    if mode == RANK:
        cut = row.get(GOOD_ONES, "").strip()
        if sorted(letters) != list(LETTERS[:texts]) or not (not cut or (cut.isdecimal() and int(cut) <= texts)):
            raise InputError(f"order is not each of the letters {LETTERS[:texts]} once, best first")
        return tuple(LETTERS.index(letter) for letter in letters), int(cut) if cut else None
    known = {name.casefold(): each.code for each in rubric.categories for name in (each.code, each.name)}
    words = [word for word in re.split(r"[\n,;、，；]+|\s{2,}", said.casefold()) if word.strip()]
    chosen = [known.get(word.strip()) for word in words if word.strip() not in NONE]
    if not known or None in chosen:
        raise InputError("categories holds a name that the rubric has not; expected its codes with commas, or none")
    return {each.code: each.code in chosen for each in rubric.categories}
