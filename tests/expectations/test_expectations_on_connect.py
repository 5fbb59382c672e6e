"""The same verdicts on Spark Connect as on classic Spark: a sound table holds, and each planted fault is seen."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from planted_tables import CANARY, FAULTS, filtered_rows, planted, scored_rows, spark_frame

from quality_judge.config import conf_folder
from quality_judge.expectations import load_suite, validate

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUITES = conf_folder() / "expectations"
PLANTED = ("score 1.2", "NaN score", "unknown code", "two fingerprints", "null decision", "kept unscored")
SOUND = {"scored": scored_rows, "filtered": filtered_rows}

# A session of Connect and a classic one cannot share a process.
CONNECT = """
import json
from pyspark.sql import SparkSession
from test_expectations_on_connect import verdicts
spark = SparkSession.builder.remote("local[1]").config("spark.ui.enabled", "false").getOrCreate()
assert "connect" in type(spark).__module__
print(json.dumps(verdicts(spark)))
"""


def verdicts(session):
    """{table: [holds, rows, {expectation: holds}]} of the sound tables and of those with a fault."""
    tables = {name: (name, rows()) for name, rows in SOUND.items()}
    tables |= {fault: (FAULTS[fault][0], planted(SOUND[FAULTS[fault][0]](), FAULTS[fault][1])) for fault in PLANTED}
    found = {}
    for name, (suite, rows) in tables.items():
        parameters = {"rows_in": len(rows)} if suite == "filtered" else {}
        said = validate(spark_frame(session, rows), load_suite(SUITES / f"{suite}.yaml"), parameters=parameters)
        results = {f"{result.expectation}({result.column})": result.success for result in said.results}
        assert not [result.error for result in said.results if result.error]
        found[name] = [said.success, said.rows, results]
    return found


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.skipif(find_spec("grpc_status") is None, reason="pip install 'quality-judge[connect]'")
def test_a_sound_table_holds_and_planted_faults_do_not_on_connect_as_on_classic_spark(spark):
    path = os.pathsep.join([str(ROOT), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": path, "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        [sys.executable, "-c", CONNECT], env=environment, capture_output=True, text=True, timeout=300
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: holds for name, (holds, _, _) in found.items()} == dict.fromkeys(SOUND, True) | dict.fromkeys(
        PLANTED, False
    )
    assert found == verdicts(spark)
    assert CANARY not in done.stdout + done.stderr
