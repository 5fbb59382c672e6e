"""One row of a label file becomes the label it says: its kind is told by its columns.

Every fault of the row is told, and never with a word of row text. It does not know how a file is read (`files`), of
which file the row is (`load`), nor whether labels agree with one another (`validate`).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quality_judge.errors import listed
from quality_judge.labels.files import (
    EXPECTED_COLUMNS,
    KIND_COLUMNS,
    KNOWN_COLUMNS,
    Unreadable,
    parsed_json,
    type_name,
)
from quality_judge.labels.label_set import Row
from quality_judge.samples import (
    ANNOTATOR,
    ASSISTANT,
    CATEGORIES,
    CHOSEN,
    COMPLETION,
    COMPLETIONS,
    CONTENT,
    CUT,
    GROUP,
    LABEL,
    LANGUAGE,
    MESSAGES,
    PROMPT,
    REJECTED,
    ROLE,
    ROW_ID,
    SOURCE,
    TEXT,
    UNSEEN_MARKS,
    WEIGHT,
    CategoryRow,
    Preference,
    Ranking,
    Sample,
)

Messages = list[tuple[str, str]]

# A label's word or a number: any other odd value may be row text in the wrong column, which never stands in an error.
SHOWN = re.compile("[!-~]{1,20}|.{1,3}")

BINARY_VALUES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
LABEL_WORDS = {
    "good": True, "yes": True, "desirable": True, "好": True, "是": True,
    "bad": False, "no": False, "undesirable": False, "坏": False, "否": False,
}  # fmt: skip
LABEL_VALUES = BINARY_VALUES | LABEL_WORDS
# What would be left unread by a kind, and says otherwise than the row's order does.
CONTRADICTING = {"preference": (LABEL, CATEGORIES), "ranking": (LABEL, CATEGORIES)}
SAYING = {LABEL, CATEGORIES, CHOSEN, REJECTED, COMPLETIONS}
UNASSIGNED = "Cn"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
BLANK_MARKS = re.compile(f"[{UNSEEN_MARKS}]")


def parse_row(cells: object) -> tuple[Row | None, list[str]]:
    """The label that one row of a file says, or None, and what is wrong with it."""
    if isinstance(cells, Unreadable):
        return None, [str(cells)]
    if not isinstance(cells, Mapping):
        return None, [f"the row is {type_name(cells)}; expected an object with columns {EXPECTED_COLUMNS}"]
    parser = _Parser(cells)
    row = parser.row()
    return (None if parser.faults else row), parser.faults


def is_open(cells: object) -> bool:
    """Whether the row holds a text to judge, and nothing that anybody said of it."""
    if not isinstance(cells, Mapping):
        return False
    filled = {name for name in KNOWN_COLUMNS if cells.get(name) not in (None, "")}
    return bool(filled & {COMPLETION, TEXT, MESSAGES}) and not filled & SAYING


class _Parser:
    """One row on its way to a label; what is wrong with it gathers in `faults`."""

    def __init__(self, cells: Mapping[Any, Any]) -> None:
        # A table that mixes kinds has every column on every row, so null is the same as absent.
        self.cells = {name: cells[name] for name in KNOWN_COLUMNS if cells.get(name) is not None}
        self.others = [str(name) for name in cells if name not in KNOWN_COLUMNS]
        self.faults: list[str] = []

    def row(self) -> Row | None:
        kinds = self.kinds()
        if len(kinds) != 1:
            found = ", ".join(name for name in KIND_COLUMNS if name in self.cells) or "none of these"
            problem = f"columns of {' and '.join(kinds)} at once" if kinds else "columns of no kind of label"
            alike = [name for name in self.others if name.strip().lower() in KIND_COLUMNS]
            problem += f", for names are in small letters, and {listed(alike)} is not" if alike else ""
            self.faults.append(f"{problem} (filled: {found}); expected one of: {EXPECTED_COLUMNS}")
            return None
        for name in CONTRADICTING.get(kinds[0], ()):
            if self.cells.get(name) not in (None, ""):
                self.faults.append(f"{name} is filled in a {kinds[0]}, where the order says it all; leave it out")
        builders: dict[str, Callable[[], Row | None]] = {
            "sample": self.sample,
            "preference": self.preference,
            "ranking": self.ranking,
            "categories": self.category_row,
        }
        return builders[kinds[0]]()

    def kinds(self) -> list[str]:
        has = self.cells.keys()
        judged = COMPLETION in has or TEXT in has or MESSAGES in has
        complete = {
            "sample": judged and LABEL in has,
            "preference": CHOSEN in has and REJECTED in has,
            "ranking": COMPLETIONS in has,
            "categories": judged and CATEGORIES in has,
        }
        return [kind for kind, stands in complete.items() if stands]

    def sample(self) -> Sample:
        prompt, (completion,) = self.texts([self.completion_column()])
        label = self.binary(LABEL, self.cells[LABEL], LABEL_VALUES)
        return Sample(
            prompt, completion, label, id=self.name(ROW_ID), annotator=self.name(ANNOTATOR), source=self.name(SOURCE),
            weight=self.weight(), lang=self.name(LANGUAGE), group=self.name(GROUP),
        )  # fmt: skip

    def preference(self) -> Preference:
        prompt, (chosen, rejected) = self.texts([(CHOSEN, self.cells[CHOSEN]), (REJECTED, self.cells[REJECTED])])
        if chosen == rejected:
            self.faults.append(f"{CHOSEN} and {REJECTED} are the same text; expected two different ones")
        return Preference(prompt, chosen, rejected, self.name(ROW_ID), self.name(ANNOTATOR), self.name(GROUP))

    def ranking(self) -> Ranking | None:
        values = self.unpacked(COMPLETIONS)
        if not isinstance(values, list) or len(values) < 2:
            got = f"a list of {len(values)}" if isinstance(values, list) else type_name(values)
            self.faults.append(f"{COMPLETIONS} is {got}; expected a list of at least 2 texts, best first")
            return None
        prompt, completions = self.texts([(f"{COMPLETIONS}[{place}]", value) for place, value in enumerate(values)])
        cut = self.cut(len(values))
        return Ranking(prompt, tuple(completions), self.name(ROW_ID), self.name(ANNOTATOR), cut, self.name(GROUP))

    def category_row(self) -> CategoryRow:
        prompt, (completion,) = self.texts([self.completion_column()])
        said = self.unpacked(CATEGORIES)
        if not isinstance(said, Mapping) or not said or not all(isinstance(name, str) and name for name in said):
            expected = "expected categories with 0, 1 or null each"
            self.faults.append(
                f"{CATEGORIES} is {type_name(said)}; {expected} (one label for the whole text goes in {LABEL})"
            )
            said = {}
        categories = {
            _clean(name): None if value is None else self.binary(f"{CATEGORIES}[{_shown(name)}]", value, BINARY_VALUES)
            for name, value in said.items()
        }
        return CategoryRow(
            prompt, completion, categories, id=self.name(ROW_ID), annotator=self.name(ANNOTATOR),
            source=self.name(SOURCE), lang=self.name(LANGUAGE), group=self.name(GROUP),
        )  # fmt: skip

    def completion_column(self) -> tuple[str, object]:
        if MESSAGES in self.cells:
            return MESSAGES, self.answered_chat()
        name = COMPLETION if COMPLETION in self.cells else TEXT
        beside, value = self.cells.get(TEXT), self.cells[name]
        if isinstance(beside, str) and isinstance(value, str) and beside.strip() not in ("", value.strip()):
            self.faults.append(
                f"{COMPLETION} and {TEXT} are both filled and differ; leave out {TEXT}, or rename it to {COMPLETION}"
            )
        return name, value

    def answered_chat(self) -> object:
        """The chat of a row; a fault unless its last message is the answer that is judged and it has no other text."""
        chat, others = self.unpacked(MESSAGES), [name for name in (PROMPT, COMPLETION, TEXT) if name in self.cells]
        if others:
            self.faults.append(f"{MESSAGES} and {others[0]} are both filled; expected the chat alone")
        last = chat[-1] if isinstance(chat, list) and chat else None
        if not isinstance(last, Mapping) or last.get(ROLE) != ASSISTANT:
            self.faults.append(
                f"{MESSAGES} does not end with a message of the role {ASSISTANT}; expected the judged answer last"
            )
        return chat

    def texts(self, columns: Sequence[tuple[str, object]]) -> tuple[str, list[str]]:
        """The prompt and the text of each column.

        Chats that all begin alike, without a prompt or with one that stands in what they share: that is the prompt.
        """
        prompt = _joined(self.messages(PROMPT, self.cells.get(PROMPT, "")))
        chats = [self.messages(name, value) for name, value in columns]
        shared = 0
        while all(len(chat) > shared + 1 and chat[shared] == chats[0][shared] for chat in chats):
            shared += 1
        opening = _joined(chats[0][:shared])
        if shared and prompt.strip() in opening:
            prompt, chats = opening, [chat[shared:] for chat in chats]
        completions = [_joined(chat) for chat in chats]
        for (name, _), chat, text in zip(columns, chats, completions, strict=True):
            if chat and is_blank(text):
                self.faults.append(f"{name} is empty or holds only invisible characters; expected text")
        return prompt, completions

    def messages(self, name: str, value: object) -> Messages:
        """A string as one message, a chat as its messages; [] and a fault for anything else."""
        if isinstance(value, str):
            return [("", _clean(value))]
        if (
            isinstance(value, list)
            and value
            and all(isinstance(message, Mapping) and isinstance(message.get(CONTENT), str) for message in value)
        ):
            return [(str(message.get(ROLE, "")), _clean(message[CONTENT])) for message in value]
        self.faults.append(
            f"{name} is {type_name(value)}; expected text, or chat messages with a role and a content in text"
        )
        return []

    def unpacked(self, name: str) -> object:
        """The cell, or what it says in JSON where a format has no lists and objects (CSV)."""
        value = self.cells[name]
        return parsed_json(value) if isinstance(value, str) else value

    def binary(self, name: str, value: object, allowed: Mapping[str, bool]) -> bool:
        label = allowed.get(str(value).strip().casefold()) if isinstance(value, bool | int | float | str) else None
        if label is None:
            self.faults.append(f"{name} is {_shown(value)}; expected true or false, or one of: {', '.join(allowed)}")
        return bool(label)

    def name(self, column: str) -> str | None:
        value = self.cells.get(column, "")
        if isinstance(value, str):
            return _clean(value) or None
        if isinstance(value, float) and value.is_integer():  # pandas turns whole numbers beside a null into floats
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        self.faults.append(f"{column} is {type_name(value)}; expected text or a whole number")
        return None

    def cut(self, most: int) -> int | None:
        """How many of a ranking's texts are good, None where nobody said; 2, 2.0 and "2" say the same."""
        value = self.cells.get(CUT)
        if value is None:
            return None
        try:
            cut = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            cut = math.nan
        if not (cut.is_integer() and 0 <= cut <= most):
            self.faults.append(
                f"{CUT} is {_shown(value)}; expected how many of the {most} texts are good: a whole number, 0 to {most}"
            )
            return None
        return int(cut)

    def weight(self) -> float:
        value = self.cells.get(WEIGHT, 1.0)
        try:
            weight = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            weight = math.nan
        if not 0 < weight < math.inf:
            self.faults.append(f"{WEIGHT} is {_shown(value)}; expected a number above 0")
        return weight


def is_blank(text: str) -> bool:
    """Whether nothing of `text` would be seen: spaces, controls, format characters, fillers; as in scoring."""
    return all(_is_unseen(mark) for mark in text)


def _is_unseen(mark: str) -> bool:
    category = unicodedata.category(mark)
    return (category[0] in "ZC" and category != UNASSIGNED) or BLANK_MARKS.match(mark) is not None


def _joined(messages: Messages) -> str:
    return "\n".join(content for _, content in messages)


def _clean(text: str) -> str:
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text)


def _shown(value: object) -> str:
    """The value when it is a number or a short word; otherwise its type and length, because it may be row text."""
    shown = value if isinstance(value, str) else repr(value)
    if isinstance(value, str | bool | int | float) and SHOWN.fullmatch(shown):
        return repr(value)
    return f"{type_name(value)} of {len(shown)} characters"
