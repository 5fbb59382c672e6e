"""Which rows of a scored table an expert should look at next, with the chance each had of being chosen. (driver)

Equal texts are one: an expert sees each once, `copies` says how many rows it stands for, and chances are over texts.
Metrics stay unbiased only over texts whose chance is known: `uniform` ones serve to measure and certify, `uncertain`
ones and `disagreement` ones (on which two judges differ most) to learn from, and `kept` ones, drawn on either side of
a cut, to certify that cut from fresh labels (`labels.drawn`). `review` ones are the band between dropped and kept: for
experts to decide, not to measure by. The rows hold text, which is what the file is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError, InputError
from quality_judge.labels.drawn import DRAWN, DROP_BELOW, DROPPED, INCLUSION, KEEP_AT, KEPT, ROWS, STRATEGY, TEXTS
from quality_judge.samples import COMPLETION, GROUP, LANGUAGE, PROMPT, ROW_ID, SOURCE
from quality_judge.scores import CODE_COLUMN, JUDGE_COLUMN, OK, SCORE_COLUMN
from quality_judge.spark.score import judged_texts, named, type_of

STRATEGIES = ("uniform", "uncertain", "stratified", "kept", "disagreement", "review")
OTHER_SCORE = "other_score"
COPIES = "copies"
STRATUM = "stratum"
SAID = (ROW_ID, SOURCE, LANGUAGE, GROUP, STRATUM)  # what else is known of a row, and goes along
KEY = "key"
UNCERTAIN_SHARE = 0.7
DROPPED_SHARE = 0.25  # of `kept` rows: those drawn from below the cut, to tell what is lost there


@dataclass(frozen=True)
class Other:
    """The same corpus as another judge scored it, and the names of its columns."""

    df: DataFrame
    text_column: str
    prompt_column: str | None = None


def rows_for_labels(
    df: DataFrame, count: int, strategy: str, *, text_column: str, prompt_column: str | None, threshold: float | None,
    stratum: str | None = None, seed: int = 0, cuts: tuple[float, float] | None = None, other: Other | None = None,
    labelled: Sequence[tuple[str, str]] = (), group: str | None = None,
) -> list[dict[str, object]]:  # fmt: skip
    """At most `count` rows as plain dicts: prompt, completion, id, source and lang if known, score, judge, copies,
    strategy, chance.

    uncertain: 70% nearest to `threshold`, the rest uniform among the others. stratified: as many from each value of
    `stratum`. kept: three quarters uniform from `cuts[0]` on, the rest uniform below `cuts[1]`, with both cuts, how
    many texts and rows a side has, how many were drawn of it, and the judge's fingerprint on every row. disagreement:
    70% where the score of `other` is furthest from this one, the rest uniform among the others. review: between
    `cuts[1]` and `cuts[0]`, uniform; without cuts the band around `threshold` that holds `count` texts, all of it.
    labelled: (prompt, completion) of texts that are left out, of the chances too. group: column that says which rows
    belong together; what it says goes along.
    The same table and seed give the same rows, however it is partitioned; scores of another judge give others, of
    `kept` other cuts or another count do. Raises CorpusError for a missing column, when no scored row is left, or for
    `kept` rows of two judges.
    """
    _refuse_missing(df, (SCORE_COLUMN, CODE_COLUMN, text_column, prompt_column, stratum, group), "the table")
    # A judge that only orders has scored its OK rows and states no probability: to get one it needs uniform rows.
    known = F.col(SCORE_COLUMN).isNotNull() | F.lit(strategy in ("uniform", "stratified"))
    usable = (F.col(CODE_COLUMN) == OK) & known
    shown = _shown(df.where(usable), text_column, prompt_column, stratum, group)
    # Another strategy draws other rows: what certifies a cut must not be what the judge was trained on. Nor what
    # another cut was refused by: labels that chose the stricter one would be more often right there. Nor what the judge
    # before it was measured on, for that has become what this one learnt from.
    salt = f"{seed} {strategy} {cuts} {count}" if strategy == "kept" else f"{seed} {strategy} {_first_judge(shown)}"
    shown = _without(_keyed(shown, salt), labelled, salt)
    texts = shown.groupBy(KEY).agg(
        F.min(SCORE_COLUMN).alias(SCORE_COLUMN), F.min(STRATUM).alias(STRATUM), F.count("*").alias(COPIES)
    )
    n = texts.count()
    if n == 0:
        raise CorpusError(
            "no row of the table has a score, or all are labelled; there is nothing to sample (of a judge without "
            "probabilities: uniform)"
        )
    if strategy == "stratified":
        return _told(shown, _stratified(texts, count))
    if strategy == "kept":
        keep_at, drop_below = _checked_cuts(cuts)
        _refuse_two_judges(shown)
        return _told(shown, *_by_cut(texts, count, keep_at, drop_below))
    distance = F.abs(F.col(SCORE_COLUMN) - F.lit(0.5 if threshold is None else threshold))
    if strategy == "review":
        return _band(shown, texts, count, distance, cuts)
    first: list[int] = []
    marks: dict[int, dict[str, object]] = {}
    most = min(n, round(UNCERTAIN_SHARE * count))
    if strategy == "uncertain":
        first = _keys(texts.orderBy(distance, KEY), most)
    elif strategy == "disagreement":
        marks = _furthest(texts, other, most, salt)
        first = list(marks)
    nearest = dict.fromkeys(first, (strategy, 1.0))
    left, wanted = n - len(nearest), min(n, count) - len(nearest)
    others = texts.where(~F.col(KEY).isin(list(nearest))) if nearest else texts
    uniform = dict.fromkeys(_keys(others.orderBy(KEY), wanted), ("uniform", wanted / left if left else 0.0))
    return _told(shown, nearest | uniform, marks)


def _refuse_missing(df: DataFrame, names: Sequence[str | None], table: str) -> None:
    missing = sorted({name for name in names if name is not None and type_of(df.schema, name) is None})
    if missing:
        raise CorpusError(f"{table} has no column {', '.join(missing)}; it has {', '.join(df.columns)}")


def shares(sizes: Mapping[str | None, int], count: int) -> dict[str | None, int]:
    """How many of `count` each stratum gives: as even as their sizes allow, the names decide who gives one more."""
    given = dict.fromkeys(sizes, 0)
    left = min(count, sum(sizes.values()))
    while left:
        open_ones = sorted((name for name in sizes if given[name] < sizes[name]), key=str)
        each = max(1, left // len(open_ones))
        for name in open_ones[:left]:
            more = min(each, sizes[name] - given[name], left)
            given[name], left = given[name] + more, left - more
    return given


def _furthest(texts: DataFrame, other: Other | None, most: int, salt: str) -> dict[int, dict[str, object]]:
    """The texts on which two judges differ most, with what the other one says; texts that it did not score are none."""
    if other is None:
        raise InputError("disagreement needs a second scored table; give one with --other")
    _refuse_missing(other.df, (SCORE_COLUMN, other.text_column), "the other table")
    theirs = _keyed(_shown(other.df, other.text_column, other.prompt_column), salt)
    scores = theirs.groupBy(KEY).agg(F.min(SCORE_COLUMN).alias(OTHER_SCORE)).where(F.col(OTHER_SCORE).isNotNull())
    gap = F.abs(F.col(SCORE_COLUMN) - F.col(OTHER_SCORE))
    found = texts.join(scores, KEY).where(gap > 0).orderBy(gap.desc(), KEY).select(KEY, OTHER_SCORE).limit(most)
    marks: dict[int, dict[str, object]] = {row[KEY]: {OTHER_SCORE: row[OTHER_SCORE]} for row in found.collect()}
    if not marks:
        raise CorpusError("the two tables share no text that both judges scored and differ on; score the same corpus")
    return marks


def _band(
    shown: DataFrame, texts: DataFrame, count: int, distance: Column, cuts: tuple[float, float] | None
) -> list[dict[str, object]]:
    """The rows of the review band, with its bounds: those of `cuts`, or as wide as `count` texts allow."""
    if cuts is None:
        chosen, chance = _keys(texts.orderBy(distance, KEY), count), 1.0
        found = _told(shown, dict.fromkeys(chosen, ("review", chance)))
        scores = [float(str(row[SCORE_COLUMN])) for row in found]
        return [row | {KEEP_AT: max(scores), DROP_BELOW: min(scores)} for row in found]
    keep_at, drop_below = _checked_cuts(cuts)
    inside = texts.where((F.col(SCORE_COLUMN) >= drop_below) & (F.col(SCORE_COLUMN) < keep_at))
    n = inside.count()
    if n == 0:
        raise CorpusError(f"no row has a score from {drop_below:g} up to {keep_at:g}; there is nothing to review")
    chosen, chance = _keys(inside.orderBy(KEY), count), min(1.0, count / n)
    found = _told(shown, dict.fromkeys(chosen, ("review", chance)))
    return [row | {KEEP_AT: keep_at, DROP_BELOW: drop_below} for row in found]


def _stratified(texts: DataFrame, count: int) -> dict[int, tuple[str, float]]:
    sizes = {row[STRATUM]: row["count"] for row in texts.groupBy(STRATUM).count().collect()}
    given = shares(sizes, count)
    place = F.row_number().over(Window.partitionBy(STRATUM).orderBy(KEY))
    first = texts.withColumn("place", place).where(F.col("place") <= max(given.values())).select(KEY, STRATUM, "place")
    chosen = [row for row in first.collect() if row["place"] <= given[row[STRATUM]]]
    return {row[KEY]: ("stratified", given[row[STRATUM]] / sizes[row[STRATUM]]) for row in chosen}


def _by_cut(
    texts: DataFrame, count: int, keep_at: float, drop_below: float
) -> tuple[dict[int, tuple[str, float]], dict[int, dict[str, object]]]:
    """Texts of either side of the cut, and of each how many texts and rows its side has and how many were drawn."""
    score, below = F.col(SCORE_COLUMN), round(DROPPED_SHARE * count)
    sides = {KEPT: (texts.where(score >= keep_at), count - below), DROPPED: (texts.where(score < drop_below), below)}
    chosen: dict[int, tuple[str, float]] = {}
    marks: dict[int, dict[str, object]] = {}
    for side, (inside, wanted) in sides.items():
        n, rows = inside.agg(F.count("*"), F.coalesce(F.sum(COPIES), F.lit(0))).collect()[0]
        if n == 0 and side == KEPT:
            raise CorpusError(f"no row has a score of {keep_at:g} or more; choose a lower cut")
        keys = _keys(inside.orderBy(KEY), wanted)
        chosen |= dict.fromkeys(keys, (side, min(1.0, wanted / n) if n else 0.0))
        said = {KEEP_AT: keep_at, DROP_BELOW: drop_below, DRAWN: len(keys), TEXTS: n, ROWS: rows}
        marks |= dict.fromkeys(keys, said)
    return chosen, marks


def _first_judge(shown: DataFrame) -> str | None:
    """The fingerprint of the judge that scored the rows, the first by name of several."""
    (found,) = shown.agg(F.min(JUDGE_COLUMN)).collect()
    return found[0]


def _refuse_two_judges(shown: DataFrame) -> None:
    judges = sorted(row[0] for row in shown.select(JUDGE_COLUMN).distinct().limit(2).collect() if row[0] is not None)
    if len(judges) > 1:
        raise CorpusError(
            f"the judges {' and '.join(judges)} scored rows of the table, as in a cascade; `kept` rows certify a cut "
            "of one judge. Draw from a table that it scored alone; make_cascade.py certifies a cascade"
        )


def _checked_cuts(cuts: tuple[float, float] | None) -> tuple[float, float]:
    if cuts is None or not 0 <= cuts[1] <= cuts[0] <= 1:
        raise InputError(f"cuts to draw at are {cuts}; expected 0 <= drop_below <= keep_at <= 1")
    return cuts


def _keyed(shown: DataFrame, salt: str) -> DataFrame:
    return shown.withColumn(KEY, F.xxhash64(F.lit(salt), PROMPT, COMPLETION))


def _without(shown: DataFrame, labelled: Sequence[tuple[str, str]], salt: str) -> DataFrame:
    """`shown`, keyed with `salt`, without the texts of `labelled`, which reach Spark as data and stand in no plan."""
    if not labelled:
        return shown
    known = shown.sparkSession.createDataFrame(list(labelled), f"{PROMPT} string, {COMPLETION} string")
    return shown.join(_keyed(known, salt).select(KEY).distinct(), KEY, "left_anti")


def _shown(
    df: DataFrame, text_column: str, prompt_column: str | None, stratum: str | None = None, group: str | None = None
) -> DataFrame:
    (*prompts, completion) = judged_texts(df, text_column, prompt_column)
    prompt = F.coalesce(prompts[0].cast("string"), F.lit("")) if prompts else F.lit("")
    own = {name: name if name in df.columns else None for name in (JUDGE_COLUMN, ROW_ID, SOURCE, LANGUAGE)}
    known = own | {STRATUM: stratum, GROUP: group}
    return df.select(
        prompt.alias(PROMPT),
        completion.cast("string").alias(COMPLETION),
        F.col(SCORE_COLUMN),
        *((named(df, column) if column else F.lit(None)).cast("string").alias(name) for name, column in known.items()),
    )


def _keys(ordered: DataFrame, count: int) -> list[int]:
    return [row[KEY] for row in ordered.select(KEY).limit(count).collect()] if count > 0 else []


def _told(
    shown: DataFrame, chosen: Mapping[int, tuple[str, float]], marks: Mapping[int, Mapping[str, object]] | None = None
) -> list[dict[str, object]]:
    """The chosen texts as dicts, in the order they were chosen, with their marks; what is unknown is left out."""
    marks = marks or {}
    what = F.struct(PROMPT, COMPLETION, SCORE_COLUMN, JUDGE_COLUMN)
    whole = (F.min(what).alias("what"), *(F.min(name).alias(name) for name in SAID), F.count("*").alias(COPIES))
    found = (
        shown.where(F.col(KEY).isin(list(chosen)))
        .groupBy(KEY)
        .agg(*whole)
        .select(KEY, "what.*", *SAID, COPIES)
        .collect()
    )
    by_key = {
        row[KEY]: {name: value for name, value in row.asDict().items() if name != KEY and value is not None}
        for row in found
    }
    return [
        {**by_key[key], **marks.get(key, {}), STRATEGY: strategy, INCLUSION: chance}
        for key, (strategy, chance) in chosen.items()
    ]
