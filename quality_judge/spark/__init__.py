"""A judge in Spark: the pandas UDF, scoring and filtering of tables, and publishing that loses nothing."""

from quality_judge.spark.corpus import read_corpus
from quality_judge.spark.filter import apply_policy
from quality_judge.spark.profile import profile
from quality_judge.spark.score import score
from quality_judge.spark.session import spark_session
from quality_judge.spark.udf import ScoreUdf, score_udf

__all__ = ["ScoreUdf", "apply_policy", "profile", "read_corpus", "score", "score_udf", "spark_session"]
