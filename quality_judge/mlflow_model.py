"""A judge as an MLflow pyfunc model: the judge's folder and six lines of code, and no pickle.

    model = log_judge("judges/mine-1", name="judge")                          # in a run of yours, or a new one
    udf = mlflow.pyfunc.spark_udf(spark, model.model_uri, env_manager="local")   # the scores quality-judge gives

`save_judge_model` writes the same to a folder. The model takes a table with a column `text` and, if there is one,
`prompt`, and gives OUTPUTS. Whoever loads it needs quality-judge[engine]. Tracking and registry it leaves to MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quality_judge import __version__
from quality_judge.errors import MissingExtra
from quality_judge.judge import load_judge
from quality_judge.scores import CODE_COLUMN, JUDGE_COLUMN, RAW_COLUMN, SCORE_COLUMN

CODE_FILE = Path(__file__).with_name("mlflow_code.py")
ARTIFACT = "judge"
OUTPUTS = {SCORE_COLUMN: "double", RAW_COLUMN: "double", CODE_COLUMN: "string", JUDGE_COLUMN: "string"}


def log_judge(folder: str | Path, *, name: str, **options: Any) -> Any:
    """What `mlflow.pyfunc.log_model` returns. options: further arguments of it, such as registered_model_name."""
    return _pyfunc().log_model(name=name, **_described(folder), **options)


def save_judge_model(folder: str | Path, path: str | Path) -> None:
    """Writes the judge in `folder` as an MLflow model to `path`, which must not exist yet."""
    _pyfunc().save_model(path=str(path), **_described(folder))


def _described(folder: str | Path) -> dict[str, Any]:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    judge = load_judge(folder)
    asked = Schema([ColSpec("string", "text"), ColSpec("string", "prompt", required=False)])
    return {
        "python_model": str(CODE_FILE), "artifacts": {ARTIFACT: judge.folder},
        "signature": ModelSignature(asked, Schema([ColSpec(kind, name) for name, kind in OUTPUTS.items()])),
        "pip_requirements": [f"quality-judge[engine]=={__version__}"],
        "metadata": {"quality_judge": judge.fingerprint},
    }  # fmt: skip


def _pyfunc() -> Any:
    try:
        import mlflow.pyfunc
    except ImportError as error:
        raise MissingExtra("mlflow", "mlflow") from error
    return mlflow.pyfunc
