"""What is known of a scored table: what the job that wrote it says beside it or, of one scored inline, what its own
columns say. It decides and samples nothing. (driver)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError, listed
from quality_judge.programme import tell
from quality_judge.scores import CODE_COLUMN, JUDGE_COLUMN, SCORE_COLUMN
from quality_judge.spark.fault import refused_read
from quality_judge.spark.places import Place
from quality_judge.spark.publish import MANIFEST_FILE, read_json
from quality_judge.spark.score import type_of

KEYS = ("judge", "threshold", "text_column", "prompt_column", "judge_says")
TEXT_COLUMN = "text"


def about_scored(
    scored: DataFrame, folder: str, *, text_column: str | None = None, prompt_column: str | None = None
) -> dict[str, Any]:
    """KEYS of the manifest in `folder`, whose table is `scored`; without a manifest what the columns say.

    Then the judge is known, and whether it states probabilities, but no cut of it. text_column, prompt_column: what was
    judged, where that is not to be taken from the manifest. Raises CorpusError for a damaged manifest, a given column
    that the table lacks, and a table without a manifest that lacks a scored column or that several judges scored.
    """
    spark = scored.sparkSession
    with refused_read():
        written = Place.at(spark, f"{folder.rstrip('/')}/{MANIFEST_FILE}").exists()
    found = read_json(spark, folder, MANIFEST_FILE, keys=KEYS) if written else _inline(scored, folder)
    given = {"text_column": text_column, "prompt_column": prompt_column}
    named = {name: column for name, column in given.items() if column is not None}
    if missing := [column for column in named.values() if type_of(scored.schema, column) is None]:
        raise CorpusError(f"{folder} has no column {listed(missing)}; it has {listed(scored.columns)}")
    return found | named


def _inline(scored: DataFrame, folder: str) -> dict[str, Any]:
    missing = [name for name in (SCORE_COLUMN, CODE_COLUMN, JUDGE_COLUMN) if type_of(scored.schema, name) is None]
    if missing:
        raise CorpusError(
            f"{folder} holds no {MANIFEST_FILE} and its table no {listed(missing)}; give a folder that score_corpus.py "
            "wrote, or a table with all columns of a judge"
        )
    with refused_read():
        known = scored.agg(F.count(SCORE_COLUMN).alias("stated"), F.collect_set(JUDGE_COLUMN).alias("judges")).collect()
    judges: Sequence[str] = sorted(known[0]["judges"])
    if len(judges) != 1:
        raise CorpusError(f"{folder} holds no {MANIFEST_FILE}, and {len(judges)} judges scored it; expected one")
    tell(f"{folder} holds no {MANIFEST_FILE}: whether all rows that were scored are in it is not known")
    return {
        "judge": judges[0], "threshold": None, "text_column": TEXT_COLUMN, "prompt_column": None,
        "judge_says": {"calibration": {} if known[0]["stated"] else None, "thresholds": {}},
    }  # fmt: skip
