"""A judge as a stage of a Spark ML pipeline, saved as JSON: the judge's path and fingerprint, no code. (driver)

    model = PipelineModel(stages=[JudgeTransformer("judges/mine-1", textCol="text")])
    model.write().overwrite().save("pipelines/scored")
    PipelineModel.load("pipelines/scored").transform(corpus)

It adds what `score` adds, and refuses to work when another judge lies in the folder by then.
"""

from __future__ import annotations

from typing import Any, cast

from pyspark.ml import Transformer
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsReader, DefaultParamsWritable
from pyspark.sql import DataFrame

from quality_judge.errors import ConfigError, JudgeError
from quality_judge.judge import load_judge
from quality_judge.spark.score import score


class JudgeTransformer(Transformer, DefaultParamsReadable, DefaultParamsWritable):
    """Adds the columns of SCORED_COLUMNS. judge: a folder that every executor can read; it is verified now.

    textCol: strings, bytes or chats, may be a field as in `doc.text`. promptCol: "" for none. maxBytes: a row with a
    longer text gets the code TOO_LONG; 0 for no limit.
    """

    judge = Param(Params._dummy(), "judge", "the judge's folder", TypeConverters.toString)
    fingerprint = Param(Params._dummy(), "fingerprint", "of the judge that is meant", TypeConverters.toString)
    textCol = Param(Params._dummy(), "textCol", "the text, or chats", TypeConverters.toString)
    promptCol = Param(Params._dummy(), "promptCol", "the prompt before the text", TypeConverters.toString)
    maxBytes = Param(Params._dummy(), "maxBytes", "longer texts are TOO_LONG", TypeConverters.toInt)

    def __init__(
        self, judge: str | None = None, *, textCol: str = "text", promptCol: str = "", maxBytes: int = 0
    ) -> None:
        super().__init__()
        self._setDefault(textCol="text", promptCol="", maxBytes=0)
        if judge is not None:  # Spark makes an empty one to load into
            self._set(judge=judge, fingerprint=load_judge(judge).fingerprint)
            self._set(textCol=textCol, promptCol=promptCol, maxBytes=maxBytes)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        if not self.isDefined(self.judge):
            raise ConfigError("the transformer has no judge; make it as JudgeTransformer('path/to/judge')")
        judge = load_judge(self.getOrDefault(self.judge))
        meant = self.getOrDefault(self.fingerprint)
        if judge.fingerprint != meant:
            raise JudgeError(
                f"the judge in {judge.folder} has fingerprint {judge.fingerprint}, the pipeline was made with "
                f"{meant}: put that judge back, or make the pipeline again"
            )
        return score(
            judge, text_column=self.getOrDefault(self.textCol), prompt_column=self.getOrDefault(self.promptCol) or None,
            max_bytes=self.getOrDefault(self.maxBytes) or None,
        )(dataset)  # fmt: skip

    @classmethod
    def read(cls) -> DefaultParamsReader[Any]:
        """Reads what `write` wrote."""
        return _Reader(cast(Any, cls))


class _Reader(DefaultParamsReader):
    """Unlike Spark's own it imports no class that the file names: the file must name this one."""

    def load(self, path: str) -> JudgeTransformer:
        metadata = self.loadMetadata(path, self.sparkSession)
        if metadata.get("class") != f"{JudgeTransformer.__module__}.{JudgeTransformer.__name__}":
            raise ConfigError(f"{path} is no saved JudgeTransformer; load it with the class that wrote it")
        found = JudgeTransformer()
        found._resetUid(metadata["uid"])
        self.getAndSetParams(found, metadata)
        return found
