"""Scores with a cascade: a table that the cheap judge has scored goes in, and the large one decides its band. (driver)

Two passes with one judge each, so that no process holds two models. Every row says which judge decided it:
`quality_judge` and all scored columns are those of one judge, never a mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from quality_judge.cascade import Cascade
from quality_judge.errors import ConfigError, CorpusError
from quality_judge.scores import (
    BAD_RECORD,
    CODE_COLUMN,
    DECIDED_COLUMNS,
    JUDGE_COLUMN,
    NULL_TEXT,
    SCORE_COLUMN,
    SCORED_COLUMNS,
    TOO_LONG,
)  # fmt: skip
from quality_judge.spark.score import STRUCT_COLUMN, Scoring, judged_texts, named, refuse_unfit

WITHOUT_TEXT = (NULL_TEXT, BAD_RECORD, TOO_LONG)  # the large judge would find nothing to read either


@dataclass(frozen=True)
class Rescoring(Scoring):
    """A function for `df.transform` on a table scored by the cheap judge of `cascade`; `judge` is the large one."""

    cascade: Cascade | None = None

    def refuse(self, df: DataFrame) -> None:
        """Raises CorpusError unless the cheap judge has scored the table, and as `Scoring` does otherwise."""
        if missing := [name for name in SCORED_COLUMNS if name not in df.columns]:
            raise CorpusError(
                f"the table has no {', '.join(missing)}; a cascade needs one that the cheap judge has scored: run "
                "score_corpus.py with the cheap judge first, and give its output as --input"
            )
        if taken := [name for name in df.columns if name in DECIDED_COLUMNS]:
            raise CorpusError(f"the table already has {', '.join(taken)}; give the scored table, not a filtered one")
        refuse_unfit(df.drop(*SCORED_COLUMNS), self.text_column, self.prompt_column)
        self._refuse_prompts(df)

    def texts(self, df: DataFrame) -> list[Column]:
        """What the large judge reads: nothing where the cheap one has decided."""
        return [F.when(self.asked(df), text) for text in judged_texts(df, self.text_column, self.prompt_column)]

    def asked(self, df: DataFrame) -> Column:
        """Whether the large judge decides the row. A row of a third judge ends the job."""
        assert self.cascade is not None
        score, code = F.col(SCORE_COLUMN), F.col(CODE_COLUMN)
        within = F.coalesce(score.between(self.cascade.low, self.cascade.high), F.lit(False))
        asked = within | (score.isNull() & ~code.isin(*WITHOUT_TEXT))
        foreign = F.raise_error(F.lit("a row was not scored by the cheap judge of the cascade")).cast("boolean")
        return F.when(F.col(JUDGE_COLUMN) == F.lit(self.cascade.cheap), asked).otherwise(foreign)

    def finished(self, df: DataFrame, judged: DataFrame) -> DataFrame:
        """The table with the scored columns of the judge that decided each row."""
        asked = self.asked(df)
        chosen = [
            F.when(asked, F.col(f"{STRUCT_COLUMN}.{name}")).otherwise(F.col(name)).alias(name)
            for name in SCORED_COLUMNS
        ]
        others = [named(df, name) for name in df.columns if name not in SCORED_COLUMNS]
        return judged.select(*others, *chosen)


def rescore(large: Scoring, cascade: Cascade, *, scored_by: str) -> Rescoring:
    """What scores the band of a table that the judge with the fingerprint `scored_by` has scored.

    Raises JudgeError when the cascade was made for other judges or another threshold.
    """
    if large.max_bytes is not None:
        raise ConfigError("--max-bytes belongs to the run of the cheap judge, whose TOO_LONG rows stay as they are")
    cascade.check(scored_by, large.judge)
    return Rescoring(large.judge, large.text_column, large.prompt_column, None, large.gpus_per_task, cascade)
