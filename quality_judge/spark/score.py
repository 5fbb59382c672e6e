"""Scores a DataFrame: checks it before anything runs, then adds the quality_* columns in place. (driver)

Scores are never joined back by an id, so that duplicate or missing ids cannot lose or double a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, reduce
from pathlib import Path

from pyspark.resource import ResourceProfile
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, DataType, StringType, StructType

from quality_judge.errors import CorpusError, listed
from quality_judge.judge import Judge, load_judge
from quality_judge.judge_spec import WITHOUT_PROMPTS
from quality_judge.scores import (
    BAD_RECORD,
    CODE_COLUMN,
    DECIDED_COLUMNS,
    FLAGS,
    FLAGS_COLUMN,
    NEAR_THRESHOLD,
    SCORE_COLUMN,
    SCORED_COLUMNS,
    TOO_LONG,
)  # fmt: skip
from quality_judge.spark.chat import chat_columns, is_chat
from quality_judge.spark.fault import refused_read
from quality_judge.spark.stage import gpu_profile, scored_in_stage
from quality_judge.spark.udf import score_udf

CORRUPT_COLUMN = "_corrupt_record"
STRUCT_COLUMN = "_quality"
KEY_COLUMN = "_quality_key"
PARTITIONS_PER_CORE = 3
BYTES_PER_PARTITION = 1 << 20
CHATS = ", or as text column chats: array<struct<role string, content string>>"
_RESERVED = (*SCORED_COLUMNS, *DECIDED_COLUMNS, STRUCT_COLUMN, KEY_COLUMN)


@dataclass(frozen=True)
class Scoring:
    """A function for `df.transform`: every row and column of `df` and the columns of SCORED_COLUMNS; see `score`.

    Its parts are of use where scores come from elsewhere: what the judge reads, and how its answer becomes columns.
    """

    judge: Judge
    text_column: str = "text"
    prompt_column: str | None = None
    max_bytes: int | None = None
    gpus_per_task: float | None = None

    def __call__(self, df: DataFrame) -> DataFrame:
        self.refuse(df)
        texts = self.texts(df)
        if self.gpus_per_task is None:
            return self.finished(df, df.withColumn(STRUCT_COLUMN, score_udf(self.judge)(*texts)))
        judged = scored_in_stage(
            df, STRUCT_COLUMN, texts, self.judge, profile=self._profile, gpus_per_task=self.gpus_per_task
        )
        return self.finished(df, judged)

    @cached_property
    def _profile(self) -> ResourceProfile:
        """One for all calls: Spark keeps every profile it has seen."""
        return gpu_profile(self.gpus_per_task or 0.0)

    def refuse(self, df: DataFrame) -> None:
        """Raises CorpusError for a missing column, one that is no text, or a name that is taken."""
        refuse_unfit(df, self.text_column, self.prompt_column)
        self._refuse_prompts(df)

    def _refuse_prompts(self, df: DataFrame) -> None:
        prompts = len(judged_texts(df, self.text_column, self.prompt_column)) > 1
        if prompts and not self.judge.spec.encoding.takes_prompts:
            raise CorpusError(WITHOUT_PROMPTS)

    def texts(self, df: DataFrame) -> list[Column]:
        """What the judge reads of each row; all of it null where a text is too long, or the record was not understood:
        of a line of CSV with too many commas the text column holds a part."""
        texts = judged_texts(df, self.text_column, self.prompt_column)
        if self.max_bytes is None and CORRUPT_COLUMN not in df.columns:
            return texts
        return [F.when(~(self.too_long(df) | _malformed(df)), text) for text in texts]

    def too_long(self, df: DataFrame) -> Column:
        """Whether a text of the row has more than `max_bytes`; such a text never leaves the JVM."""
        if self.max_bytes is None:
            return F.lit(False)
        texts = judged_texts(df, self.text_column, self.prompt_column)
        return reduce(Column.__or__, [_longer(text, self.max_bytes) for text in texts])

    def finished(self, df: DataFrame, judged: DataFrame) -> DataFrame:
        """The columns of `df` and the scored ones. judged: `df` with the struct of `udf` in STRUCT_COLUMN."""
        plain = [F.col(f"{STRUCT_COLUMN}.{name}").alias(name) for name in SCORED_COLUMNS]
        scored = judged.select(*[named(df, name) for name in df.columns], *plain)
        if self.max_bytes is not None:
            code = F.when(self.too_long(df), TOO_LONG).otherwise(F.col(CODE_COLUMN))
            scored = scored.withColumn(CODE_COLUMN, code)
        if CORRUPT_COLUMN in df.columns:
            scored = scored.withColumn(CODE_COLUMN, F.when(_malformed(df), BAD_RECORD).otherwise(F.col(CODE_COLUMN)))
        return scored


def score(
    judge: Judge | str | Path, *, text_column: str = "text", prompt_column: str | None = None,
    max_bytes: int | None = None, gpus_per_task: float | None = None,
) -> Scoring:  # fmt: skip
    """A function for `df.transform`: every row and column of `df` and the columns of SCORED_COLUMNS.

    text_column: a column or, as in `doc.text`, a field of strings, bytes or chats (see `engine.chat`).
    max_bytes: a row with a longer text gets the code TOO_LONG; by default it is cut and scored.
    gpus_per_task: how much of a GPU each task asks for, in a stage of its own (see `stage`); None: as the job has it.
    Raises CorpusError, before any job starts, for a missing column, one that is no text, or a name that is taken.
    """
    loaded = judge if isinstance(judge, Judge) else load_judge(judge)
    return Scoring(loaded, text_column, prompt_column, max_bytes, gpus_per_task)


def _malformed(df: DataFrame) -> Column:
    """Whether the reader did not understand the row's record."""
    return F.col(CORRUPT_COLUMN).isNotNull() if CORRUPT_COLUMN in df.columns else F.lit(False)


def _longer(text: Column, max_bytes: int) -> Column:
    """Whether the text has more bytes; a null has none."""
    return F.coalesce(F.octet_length(text) > F.lit(max_bytes), F.lit(False))


def balanced(df: DataFrame) -> DataFrame:
    """`df` over enough partitions that no core waits long for the last, its rows dealt out in turn, long and short.

    Some for each task that can run at once, but none with less than BYTES_PER_PARTITION of input, as Spark estimates
    it: a few rows do not fill a batch. Untouched when there are as many already.
    """
    context = df.sparkSession.sparkContext
    slots = max(1, context.defaultParallelism // int(context.getConf().get("spark.task.cpus", "1")))
    wanted = min(PARTITIONS_PER_CORE * slots, max(slots, estimated_bytes(df) // BYTES_PER_PARTITION))
    return df if df.rdd.getNumPartitions() >= wanted else df.repartition(wanted)


def estimated_bytes(df: DataFrame) -> int:
    """How many bytes Spark's planner takes `df` for, without reading any; for files their size."""
    return int(str(df._jdf.queryExecution().optimizedPlan().stats().sizeInBytes()))


def rows_in(df: DataFrame) -> int:
    """How many rows there are, by a count of its own. Raises CorpusError when a file cannot be read."""
    with refused_read():
        return df.count()


def judged_texts(df: DataFrame, text_column: str, prompt_column: str | None = None) -> list[Column]:
    """(completion), or (prompt, completion) where there is a prompt column or the text column holds chats."""
    text = named(df, text_column)
    if is_chat(type_of(df.schema, text_column)):
        return list(chat_columns(text))
    return [text] if prompt_column is None else [named(df, prompt_column), text]


def refuse_unfit(df: DataFrame, text_column: str, prompt_column: str | None = None) -> None:
    """Raises CorpusError unless the columns are there and hold text, and no scored column stands there yet."""
    for column in filter(None, (prompt_column, text_column)):
        kind = type_of(df.schema, column)
        if kind is None:
            near = get_close_matches(column, df.columns, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise CorpusError(f"there is no column {column!r}; the table has {listed(df.columns)}{hint}")
        if column == text_column and is_chat(kind):
            if prompt_column is not None:
                raise CorpusError(f"column {column!r} holds chats, which have prompts of their own; leave prompts out")
        elif not isinstance(kind, StringType | BinaryType):
            raise CorpusError(f"column {column!r} is of type {kind.simpleString()}; expected string or binary{CHATS}")
    taken = sorted({name for name in df.columns if name.lower() in _RESERVED})
    if taken:
        raise CorpusError(
            f"the table already has {', '.join(taken)}; rename or drop them, scores never overwrite a column"
        )
    doubled = sorted({name for name in df.columns if [other.lower() for other in df.columns].count(name.lower()) > 1})
    if doubled:
        raise CorpusError(f"the table has columns that differ in case only: {listed(doubled)}; rename them")


def named(df: DataFrame, path: str) -> Column:
    """The column of that name, whatever characters are in it, else the field within a column as in `doc.text`."""
    parts = [path] if path in df.columns else _parts(df.schema, path)
    return F.col(".".join("`" + part.replace("`", "``") + "`" for part in parts) if parts else path)


def type_of(schema: StructType, path: str) -> DataType | None:
    """The type of a column, or of a field within it as in `doc.text`; None when there is none."""
    kind: DataType = schema
    for part in _parts(schema, path):
        assert isinstance(kind, StructType)
        kind = kind[part].dataType
    return None if kind is schema else kind


def _parts(schema: StructType, path: str) -> list[str]:
    """The names of the columns within one another that a path names; a name may hold points. Empty when none does."""
    if path in schema.fieldNames():
        return [path]
    first, _, rest = path.partition(".")
    within = schema[first].dataType if rest and first in schema.fieldNames() else None
    inner = _parts(within, rest) if isinstance(within, StructType) else []
    return [first, *inner] if inner else []


def flags_at_threshold(judge: Judge) -> Column:
    """FLAGS_COLUMN of a scored table, its NEAR_THRESHOLD told anew by the threshold that the judge has today."""
    others, threshold, band = (
        F.array_remove(FLAGS_COLUMN, NEAR_THRESHOLD),
        judge.spec.threshold,
        judge.spec.precision_band,
    )
    if threshold is None or band is None:
        return others
    near = F.coalesce(F.abs(F.col(SCORE_COLUMN) - F.lit(threshold)) <= F.lit(band), F.lit(False))
    marked = F.array_union(F.array(F.lit(NEAR_THRESHOLD)), others)
    ordered = F.array_intersect(F.array(*[F.lit(flag) for flag in FLAGS]), marked)
    return F.when(near, ordered).otherwise(others)
