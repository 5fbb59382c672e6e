"""Rows an expert is asked about, and the label rows that their answers become.

A question has a mode: is one text good or bad, which of two is better, in which order do several stand, which
categories apply. Every column of the row that is not a label is kept beside the answer, so that the chance a row had
of being drawn goes with it. It does not know who asks: a page, a spreadsheet or another tool.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_judge.errors import InputError, LabelError, unknown
from quality_judge.labels.files import KIND_COLUMNS, read_rows
from quality_judge.labels.parse import LABEL_VALUES, parse_row
from quality_judge.rubric import Rubric
from quality_judge.samples import (
    ANNOTATOR,
    CATEGORIES,
    CHOSEN,
    COMPLETION,
    COMPLETIONS,
    CUT,
    LABEL,
    PROMPT,
    REJECTED,
    TEXT,
    Preference,
    Ranking,
    Sample,
)  # fmt: skip

GOOD_BAD, PAIR, RANK, CATEGORY = "good-bad", "pair", "rank", "categories"
MODES = (GOOD_BAD, PAIR, RANK, CATEGORY)
NOTE = "note"
QUESTION = "question"
MOST_RANKED = 8
NOT_KEPT = {*KIND_COLUMNS, CUT, ANNOTATOR, NOTE, QUESTION}
OTHER_WORDS = {
    "keep": True, "accept": True, "ok": True, "y": True, "g": True, "对": True, "保留": True, "合格": True,
    "drop": False, "reject": False, "n": False, "b": False, "错": False, "删除": False, "丢弃": False, "不合格": False,
}  # fmt: skip
Answer = bool | int | Mapping[str, bool] | tuple[tuple[int, ...], int | None]


@dataclass(frozen=True)
class Question:
    """One row to be judged. texts: one, two of a pair, or those to be ranked. cells: its other columns."""

    prompt: str
    texts: tuple[str, ...]
    cells: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A short name of what is asked, the same wherever it is asked: a hash of prompt and texts."""
        return hashlib.sha256(json.dumps([self.prompt, *self.texts]).encode()).hexdigest()[:16]


def read_questions(paths: Sequence[str | Path], mode: str | None = None) -> tuple[str, tuple[Question, ...]]:
    """The mode (by default that of the first row) and what is asked, each text once, in the order of the files.

    Raises one LabelError that names every row that cannot be asked in that mode, without a word of it.
    """
    if mode is not None and mode not in MODES:
        raise InputError(unknown("mode", mode, MODES))
    found: dict[str, Question] = {}
    faults: list[str] = []
    for path in map(Path, paths):
        try:
            for line, cells in read_rows(path):
                mode = mode or mode_of(cells)
                question, wrong = as_question(cells, mode)
                faults += [f"{path.name}:{line}: {fault}" for fault in wrong]
                if question is not None:
                    found.setdefault(question.key, question)
        except InputError as error:
            faults.append(f"{path.name}: {error}")
        except OSError as error:
            faults.append(f"{path.name}: cannot be read ({error.strerror or type(error).__name__}); check the path")
    if faults or not found:
        summary = f"{len(faults)} faults in the rows to be labelled; correct them and start again"
        raise LabelError(summary, faults or ["they hold no rows; draw some with sample_for_labels.py"])
    return mode or GOOD_BAD, tuple(found.values())


def mode_of(cells: object) -> str:
    """What a row seems to ask: an order of three or more texts, the better of two, or good or bad."""
    if isinstance(cells, Mapping) and (texts := cells.get(COMPLETIONS)) is not None:
        return PAIR if isinstance(texts, list) and len(texts) == 2 else RANK
    return PAIR if isinstance(cells, Mapping) and cells.get(CHOSEN) is not None else GOOD_BAD


def as_question(cells: object, mode: str) -> tuple[Question | None, list[str]]:
    """What a row asks in that mode, or None, and what is wrong with it."""
    if not isinstance(cells, Mapping):
        return None, parse_row(cells)[1]
    if mode in (GOOD_BAD, CATEGORY):
        text = COMPLETION if cells.get(COMPLETION) is not None else TEXT
        asked = {name: cells.get(name) for name in (PROMPT, text)} | {LABEL: True}
    elif cells.get(CHOSEN) is not None:
        asked = {name: cells.get(name) for name in (PROMPT, CHOSEN, REJECTED)}
    else:
        asked = {name: cells.get(name) for name in (PROMPT, COMPLETIONS)}
    row, faults = parse_row(asked)
    if isinstance(row, Sample):
        texts: tuple[str, ...] = (row.completion,)
    elif isinstance(row, Preference):
        texts = tuple(sorted((row.chosen, row.rejected)))  # the order must not say what an earlier expert chose
    elif isinstance(row, Ranking):
        texts = row.completions
    else:
        return None, faults
    fault = _unaskable(texts, mode)
    kept = {name: value for name, value in cells.items() if name not in NOT_KEPT and value is not None}
    return (None, [fault]) if fault else (Question(row.prompt, texts, kept), [])


def answered(question: Question, mode: str, answer: Answer, **said: Any) -> dict[str, Any]:
    """The label row, as `load_labels` reads it. said: annotator, note and the like; None and "" are left out.

    answer: good-bad, True for good; pair, the place of the better text; rank, the places best first and how many of
    them are good, or None; categories, each code with whether it applies. Raises InputError for any other.
    """
    row: dict[str, Any] = {**question.cells, PROMPT: question.prompt}
    if mode == GOOD_BAD and isinstance(answer, bool):
        row |= {COMPLETION: question.texts[0], LABEL: answer}
    elif mode == PAIR and type(answer) is int and answer in (0, 1):
        row |= {CHOSEN: question.texts[answer], REJECTED: question.texts[1 - answer]}
    elif mode == RANK and isinstance(answer, tuple) and _is_order(answer, len(question.texts)):
        order, cut = answer
        row |= {COMPLETIONS: [question.texts[place] for place in order]} | ({} if cut is None else {CUT: cut})
    elif mode == CATEGORY and isinstance(answer, Mapping) and answer:
        row |= {COMPLETION: question.texts[0], CATEGORIES: {code: int(value) for code, value in answer.items()}}
    else:
        raise InputError(f"this is no answer to a question of mode {mode}")
    return row | {name: value for name, value in said.items() if value not in (None, "")} | {QUESTION: question.key}


def verdict_of(word: str, rubric: Rubric) -> bool | None:
    """Good (True) or bad (False) as people write it in English or Chinese, or in the rubric's words; else None."""
    plain = word.strip().casefold()
    own = {rubric.good.strip().casefold(): True, rubric.bad.strip().casefold(): False}
    return {**LABEL_VALUES, **OTHER_WORDS, **own}.get(plain)


def _is_order(answer: tuple[tuple[int, ...], int | None], n: int) -> bool:
    order, cut = answer
    return sorted(order) == list(range(n)) and (cut is None or 0 <= cut <= n)


def _unaskable(texts: tuple[str, ...], mode: str) -> str | None:
    if mode == PAIR and len(texts) != 2:
        return f"holds {len(texts)} texts; mode pair needs two"
    if mode == RANK and not 2 <= len(texts) <= MOST_RANKED:
        return f"holds {len(texts)} texts to rank; expected 2 to {MOST_RANKED}"
    if len(set(texts)) < len(texts):
        return "holds the same text twice; there is nothing to compare"
    return None
