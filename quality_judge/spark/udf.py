"""A judge as a Spark function: an iterator pandas UDF that gives one struct for each row. (driver)

Only the judge's path and fingerprint travel; weights are loaded where the rows are. The UDF is marked
non-deterministic, so that Spark evaluates it once for each row: a plain one runs again for every filter on its score.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas import functions as pandas_functions

from quality_judge.errors import CorpusError
from quality_judge.judge import Judge, load_judge
from quality_judge.judge_spec import WITHOUT_PROMPTS
from quality_judge.scores import CATEGORIES_COLUMN, CODE_COLUMN, FLAGS_COLUMN, JUDGE_COLUMN, RAW_COLUMN, SCORE_COLUMN
from quality_judge.spark.chat import chat_columns

STRUCT = (
    f"{SCORE_COLUMN} double, {RAW_COLUMN} double, {CODE_COLUMN} string, {FLAGS_COLUMN} array<string>, "
    f"{CATEGORIES_COLUMN} array<string>, {JUDGE_COLUMN} string"
)


class ScoreUdf:
    """Call it with a text column, or with a prompt and a completion column; it gives a struct column.

    score = score_udf("judges/mine-1")
    scored = corpus.withColumn("quality", score("text"))
    kept = scored.where("quality.quality_score >= 0.8")
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def __call__(self, *columns: str | Column) -> Column:
        """The struct of `STRUCT` for each row. The columns hold strings or bytes; bytes need not be UTF-8."""
        if len(columns) not in (1, 2):
            raise CorpusError(f"a judge takes (completion) or (prompt, completion); got {len(columns)} columns")
        self._refuse(with_prompt=len(columns) == 2)
        as_bytes = [(F.col(column) if isinstance(column, str) else column).cast("binary") for column in columns]
        return _one_column(self.judge)(*as_bytes) if len(columns) == 1 else _two_columns(self.judge)(*as_bytes)

    def chat(self, column: str | Column) -> Column:
        """The same for a column of chats, array<struct<role string, content string>>; see `engine.chat`."""
        return self(*chat_columns(F.col(column) if isinstance(column, str) else column))

    def register(self, spark: SparkSession, name: str, *, with_prompt: bool = False) -> None:
        """Makes `SELECT name(text)` work in SQL, or `SELECT name(prompt, text)`.

        Cast a column to binary there when it may not be UTF-8.
        """
        self._refuse(with_prompt=with_prompt)
        spark.udf.register(name, _two_columns(self.judge) if with_prompt else _one_column(self.judge))

    def _refuse(self, *, with_prompt: bool) -> None:
        if with_prompt and not self.judge.spec.encoding.takes_prompts:
            raise CorpusError(WITHOUT_PROMPTS)


def score_udf(judge: Judge | str | Path) -> ScoreUdf:
    """The function that scores with `judge`, a folder that every executor can read. Verifies the folder now."""
    return ScoreUdf(judge if isinstance(judge, Judge) else load_judge(judge))


# asNondeterministic changes the UDF it is called on, hence a fresh one for each use. The annotations are evaluated
# by pandas_udf, and the bodies import by name because closures are copied for every task.
def _one_column(judge: Judge) -> Any:
    folder, fingerprint = judge.folder, judge.fingerprint

    def score(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        from quality_judge.spark.worker import score_batches

        yield from score_batches(folder, fingerprint, batches)

    return _declared(score, Iterator[pd.Series])


def _two_columns(judge: Judge) -> Any:
    folder, fingerprint = judge.folder, judge.fingerprint

    def score(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        from quality_judge.spark.worker import score_batches

        yield from score_batches(folder, fingerprint, batches)

    return _declared(score, Iterator[tuple[pd.Series, pd.Series]])


def _declared(score: Any, takes: Any) -> Any:
    score.__annotations__ = {"batches": takes, "return": Iterator[pd.DataFrame]}
    declare: Any = pandas_functions.pandas_udf
    return declare(score, STRUCT).asNondeterministic()
