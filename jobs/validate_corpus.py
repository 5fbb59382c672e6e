"""Holds a scored table, or a filtered corpus, against a suite of expectations and writes a report.

    spark-submit jobs/validate_corpus.py --scored OUT --suite conf/expectations/scored.yaml --output report.json

OUT is a table of scored rows, or a folder with kept/ review/ dropped/ unscored/, which are read together.
The last line on stdout is one JSON object. Exit 0: the suite holds. 1: it does not, or not all of it was
evaluated. 2: bad input. Neither the report nor that line holds row text.
"""

from __future__ import annotations

from argparse import Namespace
from functools import reduce
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from quality_judge.errors import CorpusError
from quality_judge.expectations import load_suite, validate
from quality_judge.programme import parser, run
from quality_judge.scores import DECISION_FOLDERS
from quality_judge.spark.places import Place
from quality_judge.spark.publish import MANIFEST_FILE, read_json
from quality_judge.spark.session import spark_session


def main(options: Namespace) -> dict[str, Any]:
    """Loads the suite before Spark starts, validates, writes the report; returns the summary."""
    suite = load_suite(options.suite, reference=options.reference)
    spark = spark_session("validate_corpus")
    report = validate(read_rows(spark, options.scored), suite, parameters=parameters(spark, options.scored))
    report.write(options.output)
    return {
        "ok": report.success,
        "suite": report.suite,
        "rows": report.rows,
        "evaluated": report.evaluated,
        "declared": report.declared,
        "failed": [f"{item.expectation}({item.column or ''})" for item in report.results if not item.success],
        "message": report.message,
        "output": str(options.output),
        "seconds": report.seconds,
    }


def parameters(spark: SparkSession, path: str) -> dict[str, Any]:
    """What a suite may ask for: `rows_in`, the rows that the job which wrote the table was given."""
    if not Place.at(spark, f"{path.rstrip('/')}/{MANIFEST_FILE}").exists():
        return {}
    return {"rows_in": read_json(spark, path, MANIFEST_FILE, keys=("rows",))["rows"]}


def read_rows(spark: SparkSession, path: str) -> DataFrame:
    """The rows of a scored table, or of all four folders of a filtered corpus."""
    folders = {name: read_parquet(spark, f"{path.rstrip('/')}/{name}") for name in DECISION_FOLDERS.values()}
    tables = [table for table in folders.values() if table is not None]
    if tables and len(tables) < len(folders):
        missing = ", ".join(f"{name}/" for name, table in folders.items() if table is None)
        raise CorpusError(f"{path} is a filtered corpus without {missing}; run filter_corpus.py again")
    table = reduce(DataFrame.unionByName, tables) if tables else read_parquet(spark, path)
    if table is None:
        raise CorpusError(
            f"{path} holds no parquet table; give --scored what score_corpus.py or filter_corpus.py wrote"
        )
    return table


def read_parquet(spark: SparkSession, path: str) -> DataFrame | None:
    """The parquet table at `path`, or None when there is none."""
    try:
        return spark.read.parquet(path)
    except AnalysisException as error:
        if error.getCondition() in ("PATH_NOT_FOUND", "UNABLE_TO_INFER_SCHEMA"):
            return None
        raise


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--scored", required=True, help="folder of a scored table or of a filtered corpus")
    arguments.add_argument(
        "--suite", required=True, help="YAML file of expectations, such as those in conf/expectations/"
    )
    arguments.add_argument(
        "--reference", metavar="PROFILE", help="_quality_profile.json to compare with, in place of the suite's own"
    )
    arguments.add_argument("--output", required=True, help="JSON file the report is written to")
    options = arguments.parse_args()
    run(lambda: main(options))
