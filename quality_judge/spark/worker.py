"""What runs in a Python worker: one scorer for each judge and device, kept for the life of the process. (executor)

The UDF imports this module by name; a cache in a closure would be a new one for every task.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from quality_judge.engine.scorer import Scorer, load_scorer
from quality_judge.errors import JudgeError, QualityJudgeError
from quality_judge.judge import load_judge
from quality_judge.scores import (
    CATEGORIES_COLUMN, CODE_COLUMN, CODES, FLAGS, FLAGS_COLUMN, JUDGE_COLUMN, RAW_COLUMN, SCORE_COLUMN, SCORER_ERROR, Scores,
)  # fmt: skip
from quality_judge.spark.device import task_device

_LOCK = threading.Lock()
_SCORERS: dict[tuple[str, str], Scorer] = {}


def score_batches(folder: str, fingerprint: str, batches: Iterator[pd.Series | tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
    """For each batch of one column (completion) or two (prompt, completion) of bytes, the struct that `udf` declares."""
    for batch in batches:
        columns = batch if isinstance(batch, tuple) else (batch,)
        arrays = [pa.Array.from_pandas(column, type=pa.large_binary()) for column in columns]
        if not len(arrays[0]):
            yield frame(empty_scores(0), fingerprint)
            continue
        yield frame(score_or_isolate(scorer_for(folder, fingerprint), arrays), fingerprint)


def scorer_for(folder: str, fingerprint: str) -> Scorer:
    """This process's scorer of the judge in `folder`. Raises JudgeError when another judge lies there by now."""
    key = (fingerprint, task_device())
    with _LOCK:
        if key not in _SCORERS:
            judge = load_judge(folder)
            if judge.fingerprint != fingerprint:
                raise JudgeError(
                    f"the judge in {folder} has fingerprint {judge.fingerprint}, the job was planned with {fingerprint}: "
                    "the folder changed meanwhile; start the job again"
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
            return empty_scores(1, len(scorer.judge.spec.categories))
        halves = [[column.slice(0, n // 2) for column in columns], [column.slice(n // 2) for column in columns]]
        return joined([score_or_isolate(scorer, half) for half in halves])


def empty_scores(n: int, categories: int = 0) -> Scores:
    """n rows whose scoring raised."""
    nothing = np.full(n, np.nan)
    code = np.full(n, CODES.index(SCORER_ERROR), np.int8)
    return Scores(
        nothing, nothing, code, np.zeros((n, len(FLAGS)), bool), np.full((n, categories), np.nan), np.zeros((n, categories), bool)
    )


def joined(parts: Sequence[Scores]) -> Scores:
    """The rows of all parts behind one another."""
    names = ("raw", "probability", "code", "flags", "category_raw", "categories")
    return Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in names), parts[0].category_names)


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
