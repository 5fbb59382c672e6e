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

from quality_judge.engine.devices import gpu_count
from quality_judge.engine.golden import GOLDEN_TEXTS
from quality_judge.engine.scorer import Scorer, load_scorer
from quality_judge.errors import CheckFailed, JudgeError, QualityJudgeError
from quality_judge.judge import load_judge
from quality_judge.scores import (
    CATEGORIES_COLUMN,
    CODE_COLUMN,
    CODES,
    FLAGS,
    FLAGS_COLUMN,
    JUDGE_COLUMN,
    RAW_COLUMN,
    SCORE_COLUMN,
    SCORER_ERROR,
    Scores,
)  # fmt: skip
from quality_judge.spark.device import task_device

_LOCK = threading.Lock()
_SCORERS: dict[tuple[str, str], Scorer] = {}


def score_batches(
    folder: str, fingerprint: str, batches: Iterator[pd.Series | tuple[pd.Series, ...]]
) -> Iterator[pd.DataFrame]:
    """For each batch of one column (completion) or two (prompt, completion) of bytes, the struct that `udf` declares.

    Raises JudgeError when the judge cannot be used, CheckFailed when it stopped working; neither quotes a row.
    """
    for batch in batches:
        columns = batch if isinstance(batch, tuple) else (batch,)
        if not len(columns[0]):
            yield frame(unscored(0), fingerprint)
            continue
        scorer = scorer_for(folder, fingerprint)
        try:
            yield frame(score_or_isolate(scorer, [bytes_of(column) for column in columns]), fingerprint)
        except QualityJudgeError:
            raise
        except Exception as error:  # Spark logs what a worker raises, and a library's message may quote the row
            raise CheckFailed(
                f"a batch of {len(columns[0])} rows could not be scored: {type(error).__name__}"
            ) from None


def bytes_of(column: pd.Series) -> pa.Array:
    """The column as large_binary; a null is None or, in a column of strings, NaN."""
    return pa.Array.from_pandas(column, type=pa.large_binary())


def scorer_for(folder: str, fingerprint: str) -> Scorer:
    """This process's scorer of the judge in `folder`. Raises JudgeError when another judge lies there by now."""
    key = (fingerprint, task_device(gpu_count()))
    with _LOCK:
        if key not in _SCORERS:
            if "OMP_NUM_THREADS" in os.environ:  # Spark's cores per task; the tokenizers would take them all
                os.environ.setdefault("RAYON_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
            judge = load_judge(folder)
            if judge.fingerprint != fingerprint:
                raise JudgeError(
                    f"the judge in {folder} has fingerprint {judge.fingerprint}, the job was planned with "
                    f"{fingerprint}: the folder changed meanwhile; start the job again"
                )
            _SCORERS.clear()
            _SCORERS[key] = load_scorer(judge, device=key[1])
        return _SCORERS[key]


def score_or_isolate(scorer: Scorer, columns: Sequence[pa.Array]) -> Scores:
    """`Scores` of the rows; when scoring raises, halves are tried until only the rows that raise are left unscored."""
    try:
        return scorer.score(columns[-1], columns[0] if len(columns) == 2 else None)
    except QualityJudgeError:
        raise
    except Exception:
        n = len(columns[0])
        if n == 1:
            refuse_broken(scorer)
            return unscored(1, scorer.judge.spec.category_names)
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


def unscored(n: int, category_names: tuple[str, ...] = ()) -> Scores:
    """n rows whose scoring raised."""
    nothing, wide = np.full(n, np.nan), (n, len(category_names))
    code = np.full(n, CODES.index(SCORER_ERROR), np.int8)
    flags = np.zeros((n, len(FLAGS)), bool)
    return Scores(nothing, nothing, code, flags, np.full(wide, np.nan), np.zeros(wide, bool), category_names)


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
