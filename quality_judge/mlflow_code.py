"""What MLflow copies into a model and runs when it loads it; see `mlflow_model`. Nothing else imports it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from quality_judge.engine.scorer import load_scorer
from quality_judge.judge import load_judge
from quality_judge.mlflow_model import ARTIFACT, OUTPUTS
from quality_judge.tables import score_table


class JudgeModel(PythonModel):
    """Scores tables with the judge among the model's artifacts."""

    def load_context(self, context: Any) -> None:
        """Verifies the judge and loads its weights."""
        self.scorer = load_scorer(load_judge(context.artifacts[ARTIFACT]))

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """A pandas DataFrame with a row of OUTPUTS for each row of `model_input`."""
        table = pa.Table.from_pandas(model_input, preserve_index=False)
        for name in {"text", "prompt"} & set(table.column_names):  # a column of nulls alone has no type
            at = table.column_names.index(name)
            table = table.set_column(at, name, table.column(name).cast(pa.string()))
        prompt = "prompt" if "prompt" in table.column_names else None
        return score_table(self.scorer, table, prompt_column=prompt).select(list(OUTPUTS)).to_pandas()


set_model(JudgeModel())
