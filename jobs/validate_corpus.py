"""Holds a scored table, or a filtered corpus, against a suite of expectations and writes a report.

    spark-submit jobs/validate_corpus.py --scored OUT --suite conf/expectations/scored.yaml --output report.json

OUT is a table of scored rows, or a folder with kept/ review/ dropped/ unscored/, which are read together. A corpus that
is not scored yet is read, too (conf/expectations/raw.yaml), when it is Parquet. The report is a file on this machine.
The last line on stdout is one JSON object. Exit 0: the suite holds. 1: it does not, or not all of it was evaluated.
2: bad input. Neither the report nor that line holds row text.
"""

from __future__ import annotations

from argparse import Namespace
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from quality_judge.errors import CorpusError, UnreadableFile
from quality_judge.expectations import SuiteSpec, ValidationReport, load_suite, validate
from quality_judge.files import local_path
from quality_judge.programme import parser, run
from quality_judge.scores import DECISION_FOLDERS
from quality_judge.spark.corpus import read_corpus
from quality_judge.spark.fault import refused_read
from quality_judge.spark.places import Place, located, refuse_password
from quality_judge.spark.publish import MANIFEST_FILE, read_json
from quality_judge.spark.session import spark_session


def main(options: Namespace) -> dict[str, Any]:
    """Loads the suite before Spark starts, validates, writes the report; returns the summary."""
    output = local_path(options.output)
    suite = load_suite(options.suite, reference=options.reference)
    report = report_of(spark_session("validate_corpus"), options.scored, suite)
    report.write(output)
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


def report_of(spark: SparkSession, path: str, suite: SuiteSpec) -> ValidationReport:
    """The suite's outcome on the table at `path`. Raises CorpusError for a table that cannot be read to its end."""
    refuse_password(path)
    with refused_read():
        rows = read_rows(spark, path)
        report = validate(rows, suite, parameters=parameters(spark, path))
        if any((item.error or "").startswith("raised") for item in report.results):
            # Of an exception the report keeps the type alone. Where a file is damaged this raises it again, to name it.
            rows.write.format("noop").mode("overwrite").save()
    return report


def parameters(spark: SparkSession, path: str) -> dict[str, Any]:
    """What a suite may ask for: `rows_in`, the rows that the job which wrote the table was given."""
    if not Place.at(spark, f"{path.rstrip('/')}/{MANIFEST_FILE}").exists():
        return {}
    return {"rows_in": read_json(spark, path, MANIFEST_FILE, keys=("rows",))["rows"]}


def read_rows(spark: SparkSession, path: str) -> DataFrame:
    """The rows of a scored table, or of all four folders of a filtered corpus."""
    folders = {f"{name}/": f"{path.rstrip('/')}/{name}" for name in DECISION_FOLDERS.values()}
    missing = [name for name, folder in folders.items() if not is_there(spark, folder)]
    if len(missing) == len(folders):
        return read_parquet(spark, path)
    if missing:
        raise CorpusError(f"{path} is a filtered corpus without {', '.join(missing)}; run filter_corpus.py again")
    return reduce(DataFrame.unionByName, [read_parquet(spark, folder) for folder in folders.values()])


def read_parquet(spark: SparkSession, path: str) -> DataFrame:
    """The parquet table at `path`. Raises CorpusError when there is none, or a file of it cannot be read."""
    wanted = "give --scored what score_corpus.py or filter_corpus.py wrote, or a corpus as Parquet"
    if not is_there(spark, path):
        raise CorpusError(f"{path} holds no parquet table; {wanted}")
    try:
        return read_corpus(spark, path)
    except UnreadableFile as error:
        if error.file.endswith(".parquet"):
            raise
        said = f"{path} is no parquet table: {error.file} cannot be read as one ({error.reason}); {wanted}"
        raise CorpusError(said) from None


def is_there(spark: SparkSession, path: str) -> bool:
    """Whether something is at `path`, or matches it where it is a pattern."""
    files, pattern = located(spark, path)
    return bool(files.globStatus(pattern))


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument("--scored", required=True, help="folder of a scored table, a filtered or a plain corpus")
    arguments.add_argument(
        "--suite", required=True, help="YAML file of expectations, such as those in conf/expectations/"
    )
    arguments.add_argument(
        "--reference", metavar="PROFILE", help="_quality_profile.json to compare with, in place of the suite's own"
    )
    arguments.add_argument("--output", required=True, help="JSON file on this machine that the report is written to")
    options = arguments.parse_args()
    run(lambda: main(options))
