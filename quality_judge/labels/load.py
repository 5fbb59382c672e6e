"""Label files become a `LabelSet`, with the file and line that each row comes from.

Every fault of every file is gathered and raised once. It does not know how a file is read (`files`), what a row says
(`parse`), whether the labels agree with one another (`validate`) nor what they are used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quality_judge.errors import InputError, LabelError
from quality_judge.labels.files import label_files, read_rows
from quality_judge.labels.label_set import LabelSet, Row
from quality_judge.labels.parse import is_open, parse_row


def load_labels(paths: Sequence[str | Path], *, open_rows: bool = False) -> LabelSet:
    """The labels of all files, in the order given. Raises one LabelError that names every fault in every file.

    paths: files, or folders of them, as Spark writes a table.
    open_rows: whether a row may hold a text that nobody has labelled; it is then left out, and else it is a fault.
    """
    files = [file for path in paths for file in label_files(Path(path))]
    rows: list[Row] = []
    origins: list[str] = []
    faults: list[str] = [] if files else ["no label file was given"]
    left_out = 0
    for file in files:
        name = file.name if sum(file.name == other.name for other in files) == 1 else str(file)
        before = len(rows) + len(faults) + left_out
        try:
            for line, cells in read_rows(file):
                if open_rows and is_open(cells):
                    left_out += 1
                    continue
                row, wrong = parse_row(cells)
                faults += [f"{name}:{line}: {fault}" for fault in wrong]
                if row is not None:
                    rows.append(row)
                    origins.append(f"{name}:{line}")
            if len(rows) + len(faults) + left_out == before:
                faults.append(f"{name}: holds no rows; expected at least one label")
        except InputError as error:
            faults.append(f"{name}: {error}")
        except OSError as error:
            faults.append(f"{name}: cannot be read ({error.strerror or type(error).__name__}); check the path")
    if faults:
        raise LabelError(f"{len(faults)} fault(s) in {len(files)} label file(s); correct them and load again", faults)
    return LabelSet.of(rows, origins)
