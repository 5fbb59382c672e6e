"""What a failed Spark action is called, and whether another try may help; needs no session."""

import pytest

pytest.importorskip("pyspark", reason="pip install 'quality-judge[spark]'")

from py4j.protocol import Py4JNetworkError
from pyspark.errors import AnalysisException, PySparkException

from quality_judge.spark.fault import explained, refused_read


@pytest.mark.parametrize(
    ("error", "kind", "retry"),
    [
        (PySparkException("ExecutorLostFailure (executor 3 exited: evicted)"), "SparkFailed", True),
        (Py4JNetworkError("Answer from Java side is empty"), "SparkFailed", True),
        (PySparkException("quality_judge.errors.CheckFailed: the judge stopped working"), "SparkFailed", True),
        (PySparkException("quality_judge.errors.JudgeError: the folder changed"), "JudgeError", False),
        (PySparkException("[FAILED_READ_FILE.NO_HINT] reading file:/in/a.parquet"), "UnreadableFile", False),
        (AnalysisException("[PATH_NOT_FOUND] no"), "CorpusError", False),
    ],
)
def test_a_failure_of_spark_may_be_tried_again_and_bad_input_not(error, kind, retry):
    found = explained(error, "the input")
    assert (type(found).__name__, found.retry) == (kind, retry)
    with pytest.raises(type(found)), refused_read():
        raise error


def test_names_that_differ_in_capitals_alone_are_said_to():
    found = explained(AnalysisException("[COLUMN_ALREADY_EXISTS] no"), "the input")
    assert "alike but for their capitals" in str(found)
