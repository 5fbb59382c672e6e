"""The four kinds of expert label, and the names of their columns. No other file spells a column of labels.

    Sample       prompt, completion, label        one answer or text, good or bad (a KTO row)
    Preference   prompt, chosen, rejected         one is better than the other (a DPO row)
    Ranking      prompt, completions, cut         best first (an RLHF row: A > B | C > D)
    CategoryRow  prompt, completion, categories   which defects or hazards a text has (a Llama Guard row)

It knows nothing of files, tokens or models. The column names are those of TRL's datasets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PROMPT = "prompt"
COMPLETION = "completion"
LABEL = "label"
CHOSEN = "chosen"
REJECTED = "rejected"
COMPLETIONS = "completions"
CUT = "cut"
TEXT = "text"
CATEGORIES = "labels"
ROW_ID = "id"
ANNOTATOR = "annotator"
SOURCE = "source"
GROUP = "group"  # rows alike for a reason beside their text: chunks of one page, answers of one author
LANGUAGE = "lang"
WEIGHT = "weight"
MESSAGES = "messages"  # a chat: what the assistant said last is the completion, what stands before it the prompt
ROLE = "role"
CONTENT = "content"
ASSISTANT = "assistant"
# Neither space nor control by their Unicode category, and yet nothing is drawn: fillers, blank braille, selectors. What
# stands between the brackets of a regular expression.
UNSEEN_MARKS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef"


@dataclass(frozen=True, slots=True)
class Sample:
    """One judged text. `prompt` may be empty; `label` is True for desirable; `weight` is > 0.

    probability: P(desirable) where several annotators or a teacher leave it open; None where `label` says it all.
    Training learns it; whatever is measured or promised goes by `label`.
    """

    prompt: str
    completion: str
    label: bool
    id: str | None = None
    annotator: str | None = None
    source: str | None = None
    weight: float = 1.0
    probability: float | None = None
    lang: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Preference:
    """Two completions of one prompt, the better one first."""

    prompt: str
    chosen: str
    rejected: str
    id: str | None = None
    annotator: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """At least two completions of one prompt, best first, none tied. The first `cut` are good and the rest bad.

    A cut of None says nothing of good and bad, only of better and worse.
    """

    prompt: str
    completions: tuple[str, ...]
    id: str | None = None
    annotator: str | None = None
    cut: int | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One text with, for each category, True (it has it), False (it has not) or None (nobody said, or all at a tie).

    contested: those who judged it are at odds on a category, as many for as against.
    """

    prompt: str
    completion: str
    categories: Mapping[str, bool | None] = field(default_factory=dict)
    id: str | None = None
    annotator: str | None = None
    source: str | None = None
    lang: str | None = None
    group: str | None = None
    contested: bool = False

    @property
    def label(self) -> bool | None:
        """False when any category applies, True when none does and one was looked at, None otherwise.

        None, too, where none is known to apply and one is contested.
        """
        said = [value for value in self.categories.values() if value is not None]
        if any(said):
            return False
        return None if not said or self.contested else True
