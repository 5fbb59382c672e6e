"""Rows that were drawn on either side of a cut, and what experts then said of them: what a fresh certificate rests on.

The file of drawn rows (JSON lines, from `sample_for_labels --strategy kept`) was written before any of them had a
label. It says for which judge and at which cut they were drawn, and out of how many; the labels may come in any file
and form, and are found again by their text. It does not know what is certified from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_judge.errors import InputError, LabelError
from quality_judge.labels.files import read_rows
from quality_judge.labels.label_set import LabelSet, label_of
from quality_judge.labels.parse import parse_row
from quality_judge.labels.statements import plain
from quality_judge.labels.validate import clean_labels
from quality_judge.samples import LABEL, CategoryRow, Sample
from quality_judge.scores import JUDGE_COLUMN, SCORE_COLUMN
from quality_judge.stats.fresh import Region

STRATEGY = "strategy"
INCLUSION = "inclusion_probability"
KEEP_AT = "keep_at"
DROP_BELOW = "drop_below"
DRAWN, TEXTS, ROWS = "drawn", "texts_there", "rows_there"  # of a row's side of the cut
KEPT, DROPPED = "kept", "dropped"
UNDECODED = "\ufffd"  # in the place of bytes that are not UTF-8

Text = tuple[str, str]


@dataclass(frozen=True)
class Drawing:
    """Which rows were drawn, for which judge (its fingerprint), at which cuts.

    kept, dropped: the drawn (prompt, completion) of each side; two may be alike whose bytes were not.
    populations: how many different texts each side has. rows: how many rows of the table these texts stand in.
    """

    judge: str
    keep_at: float
    drop_below: float
    kept: tuple[Text, ...]
    dropped: tuple[Text, ...]
    populations: Mapping[str, int]
    rows: Mapping[str, int]

    @property
    def copies(self) -> float:
        """The share of the kept rows that repeat another: a promise counts each text once, and a filter keeps all."""
        return 1 - self.populations[KEPT] / self.rows[KEPT]

    def regions(self, labels: LabelSet) -> tuple[Region, Region | None]:
        """What was found on the kept and, where rows of it were drawn, on the dropped side.

        Of several experts the verdict of the majority counts; a tie counts as not labelled. Raises LabelError when no
        label is of a drawn text.
        """
        said: dict[Text, set[bool]] = {}
        for row in clean_labels(labels, measuring=True)[0].rows():
            label = label_of(row)
            if isinstance(row, Sample | CategoryRow) and label is not None:
                said.setdefault(_alike((row.prompt, row.completion)), set()).add(label)
        if not said.keys() & {_alike(text) for text in (*self.kept, *self.dropped)}:
            raise LabelError(
                f"none of the {len(said)} labelled texts is among the rows drawn; give the labels of those"
            )
        kept = _region(self.kept, self.populations[KEPT], said)
        return kept, _region(self.dropped, self.populations[DROPPED], said) if self.dropped else None


def read_drawing(path: str | Path) -> Drawing:
    """The drawing in a file that `sample_for_labels` wrote. Raises LabelError that names what is not as it wrote it."""
    path = Path(path)
    found: dict[str, dict[object, Text]] = {KEPT: {}, DROPPED: {}}
    counts: dict[str, set[tuple[int, ...]]] = {KEPT: set(), DROPPED: set()}
    designs: set[tuple[Any, ...]] = set()
    try:
        for line, cells in read_rows(path):
            strategy, text = _drawn(cells, f"{path.name}:{line}")
            broken = any(UNDECODED in part for part in text)  # others may read the same that had other bytes
            found[strategy][line if broken else text] = text
            counts[strategy].add(tuple(cells[name] for name in (DRAWN, TEXTS, ROWS)))  # type: ignore[index]
            designs.add(tuple(cells[name] for name in (JUDGE_COLUMN, KEEP_AT, DROP_BELOW)))  # type: ignore[index]
    except OSError as error:
        raise LabelError(f"{path} cannot be read ({error.strerror or type(error).__name__}); check the path") from None
    if len(designs) != 1 or any(len(each) > 1 for each in counts.values()) or not found[KEPT]:
        raise LabelError(
            f"{path.name} is not one drawing of rows to keep; give a file as sample_for_labels.py wrote it"
        )
    ((judge, keep_at, drop_below),) = designs
    sides = {name: next(iter(each), (0, 0, 0)) for name, each in counts.items()}
    for name, (drawn, _, _) in sides.items():
        if drawn != len(found[name]):
            raise LabelError(
                f"{path.name} holds {len(found[name])} of the {drawn} rows that were drawn as {name!r}; give all of "
                "them as they were drawn: a row without a label counts against the promise"
            )
    texts, rows = ({name: side[at] for name, side in sides.items()} for at in (1, 2))
    return Drawing(judge, keep_at, drop_below, tuple(found[KEPT].values()), tuple(found[DROPPED].values()), texts, rows)


def _drawn(cells: object, where: str) -> tuple[str, Text]:
    """The side a row was drawn from, and its text; refuses a row that its own record contradicts."""
    needed = (STRATEGY, KEEP_AT, DROP_BELOW, DRAWN, TEXTS, ROWS, JUDGE_COLUMN, SCORE_COLUMN)
    if not isinstance(cells, Mapping) or (missing := [name for name in needed if cells.get(name) is None]):
        lacks = ", ".join(missing) if isinstance(cells, Mapping) else "everything"
        raise LabelError(f"{where}: lacks {lacks}; draw rows with sample_for_labels.py --strategy kept")
    numbers = [cells[name] for name in (KEEP_AT, DROP_BELOW, SCORE_COLUMN)]
    if not all(isinstance(each, int | float) and math.isfinite(each) and 0 <= each <= 1 for each in numbers):
        raise LabelError(f"{where}: a cut or score is no number from 0 to 1")
    counts = [cells[name] for name in (DRAWN, TEXTS, ROWS)]
    if not all(isinstance(each, int) for each in counts) or not 1 <= counts[0] <= counts[1] <= counts[2]:
        raise LabelError(f"{where}: {counts[0]} drawn of {counts[1]} texts in {counts[2]} rows; the file was changed")
    keep_at, drop_below, score = numbers
    side = cells[STRATEGY]
    fits = {KEPT: score >= keep_at, DROPPED: score < drop_below}.get(side, False)
    if not fits:
        raise LabelError(f"{where}: a score of {score:g} was not drawn as {side!r} at {keep_at:g} and {drop_below:g}")
    row, faults = parse_row({**cells, LABEL: True})
    if not isinstance(row, Sample):
        raise LabelError(f"{where}: {'; '.join(faults) or 'holds no text'}")
    return str(side), (row.prompt, row.completion)


def _alike(text: Text) -> Text:
    """What labels of one text share, of which `clean_labels` keeps one."""
    return plain(text[0]), plain(text[1])


def _region(texts: Sequence[Text], population: int, said: Mapping[Text, set[bool]]) -> Region:
    answers = [said.get(_alike(text), set()) for text in texts]
    good, bad = answers.count({True}), answers.count({False})
    if population < len(texts):
        raise InputError(f"{len(texts)} rows drawn out of {population}; the file of drawn rows is damaged")
    return Region(population, good, bad, len(texts) - good - bad)
