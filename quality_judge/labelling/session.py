"""Who is asked what next, what they said, how far they are and how far they agree: the state behind the page.

Every expert gets the rows in the order of the file. With `per_row` a row goes to that many experts and no more, and is
promised to whoever has it on screen. Of pairs and rankings each expert sees the texts in an order of their own, so that
no place is favoured. It knows nothing of HTTP; safe to call from many threads.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import combinations
from typing import Any

import numpy as np

from quality_judge.errors import InputError
from quality_judge.labelling.store import ANSWER, SKIP, UNDO, Store
from quality_judge.labels.agreement import krippendorff_alpha
from quality_judge.labels.annotators import MIN_SHARED_VOTES
from quality_judge.labels.questions import CATEGORY, GOOD_BAD, NOTE, PAIR, RANK, Answer, Question, answered
from quality_judge.rubric import Rubric
from quality_judge.samples import ANNOTATOR, CATEGORIES, CHOSEN, COMPLETIONS, LABEL

COLUMN_OF = {GOOD_BAD: LABEL, PAIR: CHOSEN, RANK: COMPLETIONS, CATEGORY: CATEGORIES}  # what an answer stands in
PROMISED_SECONDS = 900.0  # a row on the screen of somebody who went home is free again


class Session:
    """One round of labelling. The methods return plain dicts, ready for JSON."""

    def __init__(
        self, questions: Sequence[Question], mode: str, rubric: Rubric, store: Store, *, per_row: int | None = None
    ) -> None:
        if mode == CATEGORY and not rubric.categories:
            raise InputError(f"the rubric {rubric.name!r} has no categories; give one that has, or another --mode")
        self.questions = {question.key: question for question in questions}
        self.mode, self.rubric, self.store, self.per_row = mode, rubric, store, per_row
        self._lock = threading.Lock()
        self._promised: dict[str, dict[str, float]] = defaultdict(dict)
        self._history: dict[str, list[str]] = defaultdict(list)
        self._said: dict[str, dict[str, Mapping[str, Any] | None]] = defaultdict(dict)
        for event in store.standing.values():
            if event["question"] in self.questions:  # the file may hold an earlier round too, which stays as it is
                self._refuse_other_mode(event.get("row"))
                self._remember(event)

    @property
    def labels(self) -> int:
        """How many answers stand, of all experts."""
        return sum(event["event"] == ANSWER for event in self.store.standing.values())

    def next(self, annotator: str) -> dict[str, Any]:
        """The next question of this expert (None when there is none), and how far all of them are."""
        with self._lock:
            return self._state(annotator, self._next(annotator))

    def answer(self, annotator: str, key: str, said: Any, *, note: str, seconds: float | None) -> dict[str, Any]:
        """Keeps an answer, then `next`. said: as the page shows the row; None skips it. Raises InputError if unfit."""
        with self._lock:
            question = self._asked(key)
            event: dict[str, Any] = {"event": SKIP, "annotator": annotator, "question": key, "at": _now()}
            if said is None:
                event |= {NOTE: note} if note else {}
            else:
                fit = as_answer(said, self.mode, self._order(annotator, question), self.rubric)
                row = answered(
                    question, self.mode, fit, annotator=annotator, note=note, seconds=seconds, at=event["at"]
                )
                event |= {"event": ANSWER, "row": row}
            self.store.add(event)
            self._remember(event)
            return self._state(annotator, self._next(annotator))

    def undo(self, annotator: str) -> dict[str, Any]:
        """Takes back the last answer or skip of this expert and asks it again; `undone` is False without one."""
        with self._lock:
            if not self._history[annotator]:
                return self._state(annotator, self._next(annotator)) | {"undone": False}
            key = self._history[annotator][-1]
            question = self._asked(key)
            note = (self.store.standing[annotator, key].get("row") or self.store.standing[annotator, key]).get(NOTE, "")
            self.store.add({"event": UNDO, "annotator": annotator, "question": key, "at": _now()})
            self._history[annotator].pop()
            del self._said[key][annotator]
            self._promised[key][annotator] = time.monotonic()
            return self._state(annotator, question) | {"undone": True, "note": note}

    def _asked(self, key: str) -> Question:
        if key not in self.questions:
            raise InputError("this row is not among those to be labelled; load the page again")
        return self.questions[key]

    def _refuse_other_mode(self, row: Mapping[str, Any] | None) -> None:
        given = next((mode for mode, column in COLUMN_OF.items() if row is not None and column in row), self.mode)
        if given != self.mode:
            raise InputError(
                f"{self.store.output} holds answers of mode {given} to rows that are now asked in mode {self.mode}; "
                f"choose another --output, or --mode {given}"
            )

    def _remember(self, event: Mapping[str, Any]) -> None:
        annotator, key = event["annotator"], event["question"]
        self._promised[key].pop(annotator, None)
        self._said[key][annotator] = event.get("row")
        history = self._history[annotator]
        if key in history:
            history.remove(key)
        history.append(key)

    def _next(self, annotator: str) -> Question | None:
        now = time.monotonic()
        for key, question in self.questions.items():
            said = self._said[key]
            if annotator in said:
                continue
            if self.per_row is not None:
                promised = {who for who, at in self._promised[key].items() if now - at < PROMISED_SECONDS}
                others = {who for who, row in said.items() if row is not None} | promised
                if len(others - {annotator}) >= self.per_row:
                    continue
            self._promised[key][annotator] = now
            return question
        return None

    def _order(self, annotator: str, question: Question) -> list[int]:
        order = list(range(len(question.texts)))
        random.Random(f"{annotator} {question.key}").shuffle(order)  # noqa: S311 - no secret hangs on it  # nosec B311
        return order

    def _state(self, annotator: str, question: Question | None) -> dict[str, Any]:
        mine = [self._said[key][annotator] for key in self.questions if annotator in self._said[key]]
        shown = None
        if question is not None:
            texts = [question.texts[place] for place in self._order(annotator, question)]
            shown = {"key": question.key, "prompt": question.prompt, "texts": texts}
        everyone = {who for said in self._said.values() for who, row in said.items() if row is not None}
        return {
            "question": shown, "rows": len(self.questions), "done": len(mine), "skipped": mine.count(None),
            "experts": len(everyone), "agreement": self._agreement(),
        }  # fmt: skip

    def _agreement(self) -> dict[str, Any]:
        """Krippendorff's alpha over all verdicts on rows that two experts judged (None of a few), and how many such.

        Of pairs and rankings neither side is good, so each two texts count both ways, as in `labels agreement`.
        """
        said = {key: {who: row for who, row in each.items() if row is not None} for key, each in self._said.items()}
        shared = {key: each for key, each in said.items() if len(each) > 1}
        names = sorted({who for each in shared.values() for who in each})
        columns = []
        for key, each in shared.items():
            verdicts = {who: verdicts_of(row, self.mode, self.questions[key]) for who, row in each.items()}
            units = {unit for found in verdicts.values() for unit in found}
            columns += [[float(verdicts.get(who, {}).get(unit, np.nan)) for who in names] for unit in sorted(units)]
        if self.mode in (PAIR, RANK):
            columns += [[1 - verdict for verdict in column] for column in columns]
        alpha = krippendorff_alpha(np.array(columns, float).T) if columns else None
        return {"rows": len(shared), "alpha": alpha if len(shared) >= MIN_SHARED_VOTES else None}


def as_answer(said: Any, mode: str, order: Sequence[int], rubric: Rubric) -> Answer:
    """What the page said, in terms of the question: it speaks of places on screen, `order` says what stood there."""
    if mode == GOOD_BAD and isinstance(said, bool):
        return said
    if mode == PAIR and type(said) is int and 0 <= said < len(order):
        return order[said]
    if mode == RANK and isinstance(said, Mapping) and set(said) == {"order", "cut"}:
        places, cut = said["order"], said["cut"]
        fits = isinstance(places, list) and all(type(place) is int for place in places)
        if fits and sorted(places) == sorted(order) and (cut is None or type(cut) is int):
            return tuple(order[place] for place in places), cut
    codes = [category.code for category in rubric.categories]
    if mode == CATEGORY and isinstance(said, list) and all(code in codes for code in said):
        return {code: code in said for code in codes}
    raise InputError(f"this is no answer to a question of mode {mode}")


def verdicts_of(row: Mapping[str, Any], mode: str, question: Question) -> dict[Any, bool]:
    """Every yes or no that an answer says: one of a text or a pair, one of each pair of a ranking or each category."""
    if mode == GOOD_BAD:
        return {0: row[LABEL]}
    if mode == PAIR:
        return {0: row[CHOSEN] == question.texts[0]}
    if mode == RANK:
        place = {text: at for at, text in enumerate(row[COMPLETIONS])}
        pairs = combinations(range(len(question.texts)), 2)
        return {pair: place[question.texts[pair[0]]] < place[question.texts[pair[1]]] for pair in pairs}
    return {code: bool(value) for code, value in row[CATEGORIES].items()}


def checked_name(name: str) -> str:
    """The name of an expert, tidied. Raises InputError for one that is empty, too long, or holds odd characters."""
    tidy = " ".join(name.split())
    if not 0 < len(tidy) <= 60 or not tidy.isprintable():
        raise InputError(f"{ANNOTATOR} is a name of {len(tidy)} characters; expected 1 to 60 that can be printed")
    return tidy


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
