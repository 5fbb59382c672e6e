"""A judge as an MLflow model gives the scores it gives otherwise, in pandas and in Spark, and holds no pickle.

Skipped where MLflow is not installed: pip install 'quality-judge[mlflow]'.
"""

import math
from pathlib import Path

import pytest

mlflow = pytest.importorskip("mlflow", reason="pip install 'quality-judge[mlflow]'")

TEXTS = [
    "Water boils at a lower temperature on a mountain.",
    "click here buy now",
    "",
    None,
    "水在高山上沸腾的温度更低。",
]


@pytest.fixture(scope="module")
def judge(tmp_path_factory, tiny_base):
    from quality_judge.config import conf_folder, load_judge_config
    from quality_judge.labels import load_labels
    from quality_judge.train.fit import fit_judge
    from quality_judge.train.save import draft_judge

    quick = [
        f"base={tiny_base('bert')}",
        "train.method=frozen",
        "train.folds=2",
        "max_tokens=32",
        "train.surface=false",
    ]
    config = load_judge_config(conf_folder() / "judges" / "default.yaml", quick)
    labels = load_labels([conf_folder() / "demo" / "labels.en.jsonl"])
    return draft_judge(tmp_path_factory.mktemp("judge"), fit_judge(labels, config), config, labels)


@pytest.fixture(scope="module")
def model(judge, tmp_path_factory):
    from quality_judge.mlflow_model import save_judge_model

    folder = tmp_path_factory.mktemp("mlflow") / "model"
    save_judge_model(judge.folder, folder)
    return folder


def expected(judge):
    from quality_judge.engine.scorer import load_scorer

    scores = load_scorer(judge).score(TEXTS)
    return [(None if math.isnan(p) else p, code) for p, code in zip(scores.probability, scores.codes(), strict=True)]


def test_the_pyfunc_gives_the_same_scores_and_the_model_holds_no_pickle(judge, model):
    import pandas as pd

    found = mlflow.pyfunc.load_model(str(model)).predict(pd.DataFrame({"text": TEXTS}))
    assert [
        (None if math.isnan(s) else s, c) for s, c in zip(found.quality_score, found.quality_code, strict=True)
    ] == (expected(judge))
    assert set(found.quality_judge) == {judge.fingerprint}
    assert not [path for path in Path(model).rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]


@pytest.mark.spark
def test_spark_udf_gives_the_same_scores(judge, model, spark):
    result = "quality_score double, quality_code string"
    udf = mlflow.pyfunc.spark_udf(spark, str(model), env_manager="local", result_type=result)
    rows = spark.createDataFrame([(text,) for text in TEXTS], "text string").select(udf("text").alias("q")).collect()
    scores = [(None if row.q.quality_score is None or math.isnan(row.q.quality_score) else row.q.quality_score,
               row.q.quality_code) for row in rows]  # fmt: skip
    assert scores == expected(judge)
