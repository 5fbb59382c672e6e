"""What runs in a Python worker: one scorer for each judge and device, kept for the life of the process. (executor)

The UDF imports this module by name; a cache in a closure would be a new one for every task.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import TaskContext

from quality_judge.engine.devices import free_memory, gpu_count, limit_memory
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
from quality_judge.spark.device import memory_share, task_device, task_gpus
from quality_judge.spark.isolate import HANG_PROPERTY, ISOLATE_PROPERTY, Child, Died, Hung
from quality_judge.spark.ship import folder_here

HANG_SECONDS = 600.0
SUSPECT_SECONDS = 10.0
ISOLATED_FROM_TRY = 1
ROWS_APART = 256
MOST_FATAL_ROWS = 100
OUT_OF_MEMORY = ("allocate memory", "out of memory")
Rows: TypeAlias = pd.Series | pa.Array
_LOCK = threading.Lock()
# One for each device: a local master gives a process tasks on all GPUs.
_SCORERS: dict[tuple[str, str, str], Scorer] = {}


def score_batches(
    folder: str, fingerprint: str, batches: Iterator[Rows | tuple[Rows, ...]], gpus_per_task: float | None = None
) -> Iterator[pd.DataFrame]:
    """For each batch of one column (completion) or two (prompt, completion) of bytes, the struct that `udf` declares.

    The first try of a task scores here, where a row that crashes or hangs ends the process and Spark tries again; that
    second one scores in a process apart, which finds the row. gpus_per_task: what the stage asked for, None where the
    job's settings say it. Raises JudgeError when the judge cannot be used, CheckFailed when it stopped working or the
    task's GPU is not there; neither quotes a row.
    """
    share = memory_share(task_gpus(gpus_per_task))
    apart = Apart(folder, fingerprint, task_device(gpu_count()), share, hang_seconds()) if must_isolate() else None
    try:
        for batch in batches:
            columns = [bytes_of(column) for column in (batch if isinstance(batch, tuple) else (batch,))]
            if not len(columns[0]):
                yield frame(unscored(0), fingerprint)
            elif apart is not None:
                yield apart.score(columns)
            else:
                limit_memory(task_device(gpu_count()), share)
                scorer = scorer_for(folder, fingerprint)
                with watched(hang_seconds() / 2):
                    found = frame(scored_safely(scorer, columns), fingerprint)
                yield found
    finally:
        if apart is not None:
            apart.close()


class Apart:
    """Scores rows in a child process: some at a time, and one by one where that killed it or took suspiciously long.

    seconds: what a row that hangs may cost in all. The try before this one has spent a half of it; here such a row is
    suspected among others soon, for which nobody pays but time, and given up when it spends the other half alone.
    """

    def __init__(self, folder: str, fingerprint: str, device: str, memory_share: float | None, seconds: float) -> None:
        with _LOCK:
            make_room(device)
        self._fingerprint = fingerprint
        self._child = Child(folder_here(folder, fingerprint), fingerprint, device, memory_share=memory_share)
        self._alone = seconds / 2
        self._together = min(SUSPECT_SECONDS, seconds / 4)
        self._skipped = 0

    def score(self, columns: Sequence[pa.Array]) -> pd.DataFrame:
        """The struct of `udf` for the rows. Raises CheckFailed when more rows than can be bad rows are fatal."""
        parts, n = [], len(columns[0])
        for at in range(0, n, ROWS_APART):
            some = [column.slice(at, ROWS_APART) for column in columns]
            try:
                parts.append(self._child.score(some, seconds=self._together).to_pandas())
            except (Died, Hung):
                parts += self._one_by_one(some)
        return pd.concat(parts, ignore_index=True)

    def close(self) -> None:
        """Ends the child."""
        self._child.close()

    def _one_by_one(self, some: Sequence[pa.Array]) -> list[pd.DataFrame]:
        before = self._skipped
        found = [self._one([column.slice(i, 1) for column in some]) for i in range(len(some[0]))]
        if self._skipped == before:  # slow together, and none of them hangs: not to be suspected again
            self._together = self._alone
        return found

    def _one(self, columns: Sequence[pa.Array]) -> pd.DataFrame:
        try:
            return self._child.score(columns, seconds=self._alone).to_pandas()
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
    """What a row that hangs may cost in all: a half in the worker, and a half in the process apart that finds it."""
    task = TaskContext.get()
    said = task.getLocalProperty(HANG_PROPERTY) if task is not None else None
    return float(said) if said else HANG_SECONDS


def answered(scorer: Scorer, columns: Sequence[pa.Array]) -> pa.Table:
    """What `Apart` gets for its rows: the struct of `udf` as a table."""
    return in_arrow(frame(scored_safely(scorer, columns), scorer.judge.fingerprint))


def in_arrow(found: pd.DataFrame) -> pa.Table:
    """The columns of `frame` with the types of the UDF's struct."""
    words = pa.list_(pa.string())
    kinds = {RAW_COLUMN: pa.float64(), SCORE_COLUMN: pa.float64(), FLAGS_COLUMN: words, CATEGORIES_COLUMN: words}
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


def bytes_of(column: Rows) -> pa.Array:
    """The column as large_binary; a null is None or, among strings, NaN. Raises CheckFailed for another type."""
    try:
        if isinstance(column, pa.Array):
            return column.cast(pa.large_binary())
        return pa.Array.from_pandas(column, type=pa.large_binary())
    except pa.ArrowException as error:  # its message may quote a value
        raise CheckFailed(f"a column holds neither strings nor bytes: {type(error).__name__}") from None


def scorer_for(folder: str, fingerprint: str) -> Scorer:
    """This process's scorer of the judge in `folder`. Raises JudgeError when another judge lies there by now."""
    key = (fingerprint, task_device(gpu_count()), folder)  # two judges may differ in their cuts alone
    with _LOCK:
        if key not in _SCORERS:
            if "OMP_NUM_THREADS" in os.environ:  # Spark's cores per task; the tokenizers would take them all
                os.environ.setdefault("RAYON_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
            make_room(key[1])
            _SCORERS[key] = proven_scorer(folder_here(folder, fingerprint), fingerprint, key[1])
        return _SCORERS[key]


def make_room(device: str) -> None:
    """Lets go of what this process holds on the device: two copies of a model may not fit a GPU."""
    for key in [key for key in _SCORERS if key[1] == device]:
        del _SCORERS[key]
    free_memory(device)


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
    """Whether that is why it was raised; torch, which is not imported here, says so in words: on the CPU, on a GPU."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


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
