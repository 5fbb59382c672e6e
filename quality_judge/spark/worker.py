"""What runs in a Python worker: one scorer for each judge and device, kept for the life of the process. (executor)

The UDF imports this module by name; a cache in a closure would be a new one for every task.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import TaskContext

from quality_judge.engine.devices import gpu_count
from quality_judge.engine.golden import GOLDEN_TEXTS
from quality_judge.engine.scorer import Scorer, load_scorer
from quality_judge.engine.watchdog import watched
from quality_judge.errors import CheckFailed, JudgeError, QualityJudgeError
from quality_judge.judge import load_judge
from quality_judge.scores import (
    CATEGORIES_COLUMN,
    CODE_COLUMN,
    CODES,
    FLAGS,
    FLAGS_COLUMN,
    JUDGE_COLUMN,
    OOM_ROW,
    RAW_COLUMN,
    SCORE_COLUMN,
    SCORER_ERROR,
    SKIPPED_CRASH,
    TIMEOUT_ROW,
    Scores,
)  # fmt: skip
from quality_judge.spark.device import task_device
from quality_judge.spark.isolate import HANG_PROPERTY, ISOLATE_PROPERTY, Child, Died, Hung
from quality_judge.spark.ship import folder_here

HANG_SECONDS = 300.0
ISOLATED_FROM_TRY = 1
ROWS_APART = 256
MOST_FATAL_ROWS = 100
_LOCK = threading.Lock()
_SCORERS: dict[tuple[str, str], Scorer] = {}


def score_batches(
    folder: str, fingerprint: str, batches: Iterator[pd.Series | tuple[pd.Series, ...]]
) -> Iterator[pd.DataFrame]:
    """For each batch of one column (completion) or two (prompt, completion) of bytes, the struct that `udf` declares.

    The first try of a task scores here, where a row that crashes or hangs ends the process and Spark tries again; that
    second one scores in a process apart, which finds the row. Raises JudgeError when the judge cannot be used,
    CheckFailed when it stopped working; neither quotes a row.
    """
    apart = Apart(folder, fingerprint) if must_isolate() else None
    try:
        for batch in batches:
            columns = [bytes_of(column) for column in (batch if isinstance(batch, tuple) else (batch,))]
            if not len(columns[0]):
                yield frame(unscored(0), fingerprint)
            elif apart is not None:
                yield apart.score(columns)
            else:
                scorer = scorer_for(folder, fingerprint)
                with watched(hang_seconds()):
                    found = frame(scored_safely(scorer, columns), fingerprint)
                yield found
    finally:
        if apart is not None:
            apart.close()


class Apart:
    """Scores rows in a child process: some at a time, and one by one where that killed it."""

    def __init__(self, folder: str, fingerprint: str) -> None:
        with _LOCK:
            _SCORERS.clear()  # two copies of a model may not fit a GPU
        self._fingerprint = fingerprint
        self._child = Child(folder_here(folder), fingerprint, task_device(gpu_count()), seconds=hang_seconds())
        self._skipped = 0

    def score(self, columns: Sequence[pa.Array]) -> pd.DataFrame:
        """The struct of `udf` for the rows. Raises CheckFailed when more rows than can be bad rows are fatal."""
        parts, n = [], len(columns[0])
        for at in range(0, n, ROWS_APART):
            some = [column.slice(at, ROWS_APART) for column in columns]
            try:
                parts.append(self._child.score(some).to_pandas())
            except (Died, Hung):
                singles = [[column.slice(i, 1) for column in some] for i in range(len(some[0]))]
                parts += [self._one(single) for single in singles]
        return pd.concat(parts, ignore_index=True)

    def close(self) -> None:
        """Ends the child."""
        self._child.close()

    def _one(self, columns: Sequence[pa.Array]) -> pd.DataFrame:
        try:
            return self._child.score(columns).to_pandas()
        except (Died, Hung) as error:
            self._skipped += 1
            if self._skipped > MOST_FATAL_ROWS:
                raise CheckFailed(
                    f"more than {MOST_FATAL_ROWS} rows of one partition end the process that scores them: the judge or "
                    "the machine is at fault and not the rows"
                ) from None
            code = TIMEOUT_ROW if isinstance(error, Hung) else SKIPPED_CRASH
            return frame(unscored(1, code=code), self._fingerprint)


def must_isolate() -> bool:
    """Whether a try of the running task has failed, or its driver asks for isolation."""
    task = TaskContext.get()
    return task is not None and (
        task.attemptNumber() >= ISOLATED_FROM_TRY or task.getLocalProperty(ISOLATE_PROPERTY) == "true"
    )


def hang_seconds() -> float:
    """How long a batch may stand still before its process is ended."""
    task = TaskContext.get()
    said = task.getLocalProperty(HANG_PROPERTY) if task is not None else None
    return float(said) if said else HANG_SECONDS


def answered(scorer: Scorer, columns: Sequence[pa.Array]) -> pa.Table:
    """What `Apart` gets for its rows: the struct of `udf` as a table."""
    words = pa.list_(pa.string())
    kinds = {RAW_COLUMN: pa.float64(), SCORE_COLUMN: pa.float64(), FLAGS_COLUMN: words, CATEGORIES_COLUMN: words}
    found = frame(scored_safely(scorer, columns), scorer.judge.fingerprint)
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in found.columns])
    return pa.Table.from_pandas(found, schema, preserve_index=False)


def scored_safely(scorer: Scorer, columns: Sequence[pa.Array]) -> Scores:
    """`score_or_isolate`, whose errors never quote a row: Spark logs what a worker raises."""
    try:
        return score_or_isolate(scorer, columns)
    except QualityJudgeError:
        raise
    except Exception as error:
        raise CheckFailed(f"a batch of {len(columns[0])} rows could not be scored: {type(error).__name__}") from None


def bytes_of(column: pd.Series) -> pa.Array:
    """The column as large_binary; a null is None or, among strings, NaN. Raises CheckFailed for another type."""
    try:
        return pa.Array.from_pandas(column, type=pa.large_binary())
    except pa.ArrowException as error:  # its message may quote a value
        raise CheckFailed(f"a column holds neither strings nor bytes: {type(error).__name__}") from None


def scorer_for(folder: str, fingerprint: str) -> Scorer:
    """This process's scorer of the judge in `folder`. Raises JudgeError when another judge lies there by now."""
    key = (fingerprint, task_device(gpu_count()))
    with _LOCK:
        if key not in _SCORERS:
            if "OMP_NUM_THREADS" in os.environ:  # Spark's cores per task; the tokenizers would take them all
                os.environ.setdefault("RAYON_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
            _SCORERS.clear()
            _SCORERS[key] = proven_scorer(folder_here(folder), fingerprint, key[1])
        return _SCORERS[key]


def proven_scorer(folder: str, fingerprint: str, device: str) -> Scorer:
    """A new scorer of the judge in `folder`. Raises JudgeError when another judge lies there by now."""
    judge = load_judge(folder)
    if judge.fingerprint != fingerprint:
        raise JudgeError(
            f"the judge in {folder} has fingerprint {judge.fingerprint}, the job was planned with "
            f"{fingerprint}: the folder changed meanwhile; start the job again"
        )
    return load_scorer(judge, device=device)


def score_or_isolate(scorer: Scorer, columns: Sequence[pa.Array]) -> Scores:
    """`Scores` of the rows; when scoring raises, halves are tried until only the rows that raise are left unscored."""
    try:
        return scorer.score(columns[-1], columns[0] if len(columns) == 2 else None)
    except QualityJudgeError:
        raise
    except Exception as error:
        n = len(columns[0])
        if n == 1:
            refuse_broken(scorer)
            code = OOM_ROW if out_of_memory(error) else SCORER_ERROR
            return unscored(1, scorer.judge.spec.category_names, code=code)
        halves = [[column.slice(0, n // 2) for column in columns], [column.slice(n // 2) for column in columns]]
        return joined([score_or_isolate(scorer, half) for half in halves])


def refuse_broken(scorer: Scorer) -> None:
    """Raises CheckFailed when not even a known text can be scored: then the device is at fault and not the row.

    Spark then ends this process and tries the rows in a new one, where a GPU that had an error works again.
    """
    try:
        scorer.score(GOLDEN_TEXTS[:1])
    except Exception as error:
        raise CheckFailed(f"the judge stopped working in a worker process: {type(error).__name__}") from None


def out_of_memory(error: Exception) -> bool:
    """Whether that is why it was raised; torch says so on the CPU in words only."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def unscored(n: int, category_names: tuple[str, ...] = (), *, code: str = SCORER_ERROR) -> Scores:
    """n rows without a score, for the reason `code`."""
    nothing, wide = np.full(n, np.nan), (n, len(category_names))
    codes = np.full(n, CODES.index(code), np.int8)
    flags = np.zeros((n, len(FLAGS)), bool)
    return Scores(nothing, nothing, codes, flags, np.full(wide, np.nan), np.zeros(wide, bool), category_names)


def joined(parts: Sequence[Scores]) -> Scores:
    """The rows of all parts behind one another."""

    def whole(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Scores(
        whole("raw"), whole("probability"), whole("code"), whole("flags"), whole("category_raw"), whole("categories"),
        parts[0].category_names,
    )  # fmt: skip


def frame(scores: Scores, fingerprint: str) -> pd.DataFrame:
    """The scores as the columns of the UDF's struct; a score that is not there is null."""
    return pd.DataFrame({
        SCORE_COLUMN: pd.Series(scores.probability, dtype="float64"),
        RAW_COLUMN: pd.Series(scores.raw, dtype="float64"),
        CODE_COLUMN: scores.codes(),
        FLAGS_COLUMN: pd.Series(scores.flag_lists(), dtype=object),
        CATEGORIES_COLUMN: pd.Series(scores.category_lists(), dtype=object),
        JUDGE_COLUMN: [fingerprint] * len(scores),
    })  # fmt: skip
