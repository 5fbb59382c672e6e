"""Labels from other tools: what kind of file it is, its answers as label rows, how many, and every fault once.

Known are Label Studio's JSON and JSON-MIN, spreadsheets that `sheet` wrote, and label files as `load_labels` reads.
What is wrong is named by file and row, never by what stands in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quality_judge.errors import InputError, LabelError
from quality_judge.labels.files import MAX_FILE_BYTES, read_rows
from quality_judge.labels.label_studio import annotations_of, as_found, is_export, plain_choices
from quality_judge.labels.parse import parse_row
from quality_judge.labels.questions import Question, answered
from quality_judge.labels.sheet import read_sheet, sheet_answers
from quality_judge.rubric import NO_RUBRIC, Rubric
from quality_judge.samples import ANNOTATOR

Outcome = dict[str, Any] | str | None  # a label row, what is wrong with it, or None where nothing was said


@dataclass(frozen=True)
class Imported:
    """rows: label rows, ready for JSON lines. counts: labels, unanswered, cancelled, and files of each format."""

    rows: tuple[dict[str, Any], ...]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Reading:
    """How to read. rubric: its words for good and bad, its categories. rating_cut: the least rating that is good.

    known: the questions as they were asked, by key: their other columns stand beside each answer. annotator: the name
    where a row gives none. encoding: of spreadsheets and CSV.
    """

    rubric: Rubric = NO_RUBRIC
    rating_cut: float | None = None
    known: Mapping[str, Question] | None = None
    annotator: str | None = None
    encoding: str = "utf-8"


def import_labels(paths: Sequence[str | Path], reading: Reading | None = None) -> Imported:
    """The labels of all files, in the order given. Raises one LabelError that names every fault in every file."""
    reading = reading or Reading()
    rows: list[dict[str, Any]] = []
    faults: list[str] = [] if paths else ["no file was given"]
    counts: Counter[str] = Counter(labels=0, unanswered=0, cancelled=0)
    for path in map(Path, paths):
        try:
            kind, outcomes = _opened(path, reading, counts)
            counts[kind] += 1
            for number, outcome in outcomes:
                fault = outcome if isinstance(outcome, str) else None
                if isinstance(outcome, dict):
                    fault = "; ".join(parse_row(outcome)[1]) or None
                if fault is not None:
                    faults.append(f"{path.name}:{number}: {fault}")
                elif isinstance(outcome, dict):
                    rows.append(outcome)
                else:
                    counts["unanswered"] += 1
        except InputError as error:
            faults.append(f"{path.name}: {error}")
        except OSError as error:
            faults.append(f"{path.name}: cannot be read ({error.strerror or type(error).__name__}); check the path")
    if faults:
        raise LabelError(f"{len(faults)} faults in {len(paths)} files; correct them and import again", faults)
    counts["labels"] = len(rows)
    return Imported(tuple(rows), dict(counts))


def _opened(path: Path, reading: Reading, counts: Counter[str]) -> tuple[str, Iterator[tuple[int, Outcome]]]:
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        table = read_sheet(_text(path, reading.encoding))
        if table is not None:
            return "sheet_files", _from_sheet(table, reading)
    rows = list(read_rows(path, encoding=reading.encoding))
    if is_export([row for _, row in rows]):
        return "label_studio_files", _from_label_studio(rows, reading, counts)
    return "label_files", _as_they_are(rows, reading)


def _from_label_studio(
    rows: Sequence[tuple[int, object]], reading: Reading, counts: Counter[str]
) -> Iterator[tuple[int, Outcome]]:
    plain = plain_choices([task for _, task in rows], reading.rubric)
    for number, task in rows:
        for data, said, about, cancelled in annotations_of(task, plain):
            if cancelled:
                counts["cancelled"] += 1
                continue
            found = as_found(data, said, about, reading.rubric, rating_cut=reading.rating_cut)
            if found is None or isinstance(found, str):
                yield number, found
            else:
                yield number, _label(found.question, found.mode, found.answer, found.said, reading)


def _from_sheet(table: Sequence[Mapping[str, str]], reading: Reading) -> Iterator[tuple[int, Outcome]]:
    for number, found in enumerate(sheet_answers(table, reading.known or {}, reading.rubric), 1):
        yield number, found if found is None or isinstance(found, str) else _label(*found, reading)


def _as_they_are(rows: Sequence[tuple[int, object]], reading: Reading) -> Iterator[tuple[int, Outcome]]:
    for number, row in rows:
        if not isinstance(row, Mapping):
            yield number, "; ".join(parse_row(row)[1])
            continue
        said = {str(name): value for name, value in row.items() if value is not None}
        yield number, ({ANNOTATOR: reading.annotator} if reading.annotator else {}) | said


def _label(question: Question, mode: str, answer: Any, said: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    asked = (reading.known or {}).get(question.key)
    if asked is not None:
        question = replace(question, cells={**question.cells, **asked.cells})
    return answered(question, mode, answer, **{**said, ANNOTATOR: said.get(ANNOTATOR) or reading.annotator})


def _text(path: Path, encoding: str) -> str:
    data = path.read_bytes()
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"is over {MAX_FILE_BYTES} bytes; expected a spreadsheet of labels")
    decode: Callable[[str], str] = data.decode
    try:
        return decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else encoding)
    except (UnicodeDecodeError, LookupError):
        advice = "save it as CSV UTF-8, or name its encoding with --encoding, such as gb18030"
        raise InputError(f"is not {encoding}; {advice}") from None
