"""One way to score the task's rows, in a process of its own: says `ready`, then for each line on stdin scores them all.

    python benchmarks/contender.py NAME TASK_FOLDER

The task folder holds judge/, rows.parquet (id, text), and for peers that need one an exported model.onnx. Answers are
one line of JSON each, {"seconds"}; at the end of stdin the raw scores of the last round are written to NAME.npy.
Peers compute the same weights on the same ids; only how they are batched, padded and computed is theirs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

PEER_BATCH = 32
Rows = Callable[[], np.ndarray]


def texts_of(task: Path) -> list[str]:
    """The rows, as they come."""
    import pyarrow.parquet as pq

    return pq.read_table(task / "rows.parquet").column("text").to_pylist()


def engine(task: Path, precision: str | None = None) -> Rows:
    """Our scorer without Spark."""
    import torch

    from quality_judge.engine.scorer import load_scorer
    from quality_judge.judge import load_judge

    dtype = getattr(torch, precision) if precision else None
    scorer, texts = load_scorer(load_judge(task / "judge"), precision=dtype, prove=False), texts_of(task)
    return lambda: scorer.score(texts).raw


class Ids:
    """Batches of padded ids, in order of arrival, as the judge's own encoder makes them."""

    def __init__(self, task: Path) -> None:
        from quality_judge.engine.encode import Encoder
        from quality_judge.judge import TOKENIZER_FILE, load_judge

        self.judge = load_judge(task / "judge")
        self.encoder = Encoder(self.judge.path(TOKENIZER_FILE).read_text(encoding="utf-8"), self.judge.spec.encoding)

    def batches(self, texts: list[str], size: int):
        """ids (B, T) padded to the longest on the right and lengths (B,), int64, of each batch."""
        for at in range(0, len(texts), size):
            tokens = self.encoder.encode(texts[at : at + size]).tokens
            rows = np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1])
            ids = np.full((len(rows), int(tokens.lengths.max())), self.judge.spec.encoding.pad, np.int64)
            for row, values in zip(ids, rows, strict=True):
                row[: len(values)] = values
            yield ids, tokens.lengths.astype(np.int64)


def torch_model(task: Path):
    """The judge's model in float32, and its ids."""
    from quality_judge.engine.weights import load_model

    ids = Ids(task)
    return load_model(ids.judge).eval(), ids


def loop_over(model, ids: Ids, texts: list[str], size: int = PEER_BATCH) -> np.ndarray:
    """What most people write: tokenize a batch, pad it to its longest, forward in float32."""
    import torch

    with torch.inference_mode():
        parts = [
            model(torch.from_numpy(batch), torch.from_numpy(lengths))[:, 0].numpy()
            for batch, lengths in ids.batches(texts, size)
        ]
    return np.concatenate(parts)


def loop(task: Path) -> Rows:
    """Batches of 32 in order of arrival, float32, torch's own threads."""
    model, ids = torch_model(task)
    texts = texts_of(task)
    return lambda: loop_over(model, ids, texts)


def onnx(task: Path, *, file: str = "model.onnx") -> Rows:
    """ONNX Runtime on the exported graph, rows sorted by length, its best batch of {8, 32, 64}."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(str(task / file), options, providers=["CPUExecutionProvider"])
    return sorted_and_tuned(task, lambda ids, n: session.run(None, {"ids": ids, "lengths": n})[0][:, 0])


def onnx_int8(task: Path) -> Rows:
    """The same with weights quantised to int8 as ONNX Runtime does it by default."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(task / "model.onnx", task / "model.int8.onnx")
    return onnx(task, file="model.int8.onnx")


def openvino(task: Path) -> Rows:
    """OpenVINO on the exported graph, in what is faster here: by itself it takes bfloat16 wherever it can."""
    import openvino as ov
    import torch

    from quality_judge.engine.precision import precision_here

    hint = "bf16" if precision_here("cpu") == torch.bfloat16 else "f32"
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    model = ov.Core().compile_model(str(task / "model.onnx"), "CPU", settings)
    return sorted_and_tuned(task, lambda ids, n: model({"ids": ids, "lengths": n})[0][:, 0])


def sorted_and_tuned(
    task: Path, forward: Callable[[np.ndarray, np.ndarray], np.ndarray], *, sizes: tuple[int, ...] = (8, 32, 64)
) -> Rows:
    """Scores rows sorted by length, at the batch size that is fastest on a fifth of them, or on as many as it holds."""
    ids, texts = Ids(task), texts_of(task)
    order = np.argsort([-len(text) for text in texts], kind="stable")
    ordered = [texts[i] for i in order]

    def run(size: int, rows: list[str]) -> np.ndarray:
        return np.concatenate([forward(batch, lengths) for batch, lengths in ids.batches(rows, size)])

    tried = ordered[:: max(1, min(5, len(ordered) // max(sizes)))]

    def cost(size: int) -> float:
        run(size, tried[:: max(1, len(tried) // 4)])
        started = time.perf_counter()
        run(size, tried)
        return time.perf_counter() - started

    best = min(sizes, key=cost)

    def score() -> np.ndarray:
        answers = np.empty(len(texts))
        answers[order] = run(best, ordered)
        return answers

    return score


def cross_encoder(task: Path) -> Rows:
    """sentence-transformers' CrossEncoder on the same base with a new head: the same cost, other answers."""
    from sentence_transformers import CrossEncoder

    from quality_judge.bases import find_base

    ids, texts = Ids(task), texts_of(task)
    model = CrossEncoder(
        str(find_base(ids.judge.spec.base.id).folder), num_labels=1, device="cpu",
        max_length=ids.judge.spec.encoding.max_tokens,
    )  # fmt: skip
    pairs = [(text, "") for text in texts]
    return lambda: model.predict(pairs, batch_size=PEER_BATCH, show_progress_bar=False)


def daft(task: Path) -> Rows:
    """Daft with a stateful batch function, 32 rows at a time."""
    import daft as df
    from daft import DataType

    @df.cls
    class Judge:
        def __init__(self) -> None:
            self.model, self.ids = torch_model(task)

        @df.method.batch(return_dtype=DataType.float64(), batch_size=PEER_BATCH)
        def score(self, text: df.Series) -> df.Series:
            found = loop_over(self.model, self.ids, text.to_pylist())
            return df.Series.from_pylist(found.tolist())

    judge = Judge()
    table = df.read_parquet(str(task / "rows.parquet"))
    return lambda: np.array(table.with_column("raw", judge.score(df.col("text"))).sort("id").to_pydict()["raw"])


def ray_data(task: Path) -> Rows:
    """Ray Data with one actor, 32 rows at a time."""
    import ray

    class Judge:
        def __init__(self) -> None:
            self.model, self.ids = torch_model(task)

        def __call__(self, batch: dict) -> dict:
            return {"id": batch["id"], "raw": loop_over(self.model, self.ids, list(batch["text"]))}

    threads = len(os.sched_getaffinity(0))
    ray.init(num_cpus=threads, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    table = ray.data.read_parquet(str(task / "rows.parquet")).materialize()

    def score() -> np.ndarray:
        scored = table.map_batches(Judge, batch_size=PEER_BATCH, concurrency=1, num_cpus=1).take_all()
        return np.array([row["raw"] for row in sorted(scored, key=lambda row: row["id"])])

    return score


def spark_rows(task: Path, scored: Callable) -> Rows:
    """A whole Spark job over the rows, read from Parquet, on all cores; only the write is left out."""
    from quality_judge.spark.session import spark_session

    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    session = spark_session("benchmark", scoring=True)
    table = scored(session.read.parquet(str(task / "rows.parquet")).repartition(len(os.sched_getaffinity(0))))
    kept = table.select("id", "raw")
    return lambda: kept.toPandas().sort_values("id")["raw"].to_numpy()


def spark(task: Path) -> Rows:
    """Our Spark transform."""
    from quality_judge.spark import score

    judged = score(str(task / "judge"))
    return spark_rows(task, lambda df: df.transform(judged).withColumnRenamed("quality_raw", "raw"))


def spark_pandas_udf(task: Path) -> Rows:
    """The pandas UDF most people write: the model in a global of the worker, batches of 32 in order of arrival."""
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    def raw(texts: pd.Series) -> pd.Series:
        from contender import worker_model

        return pd.Series(loop_over(*worker_model(str(task)), texts.tolist()))

    raw.__annotations__ = {"texts": pd.Series, "return": pd.Series}
    return spark_rows(task, lambda df: df.withColumn("raw", pandas_udf(raw, "double")("text")))


def spark_predict_batch(task: Path) -> Rows:
    """pyspark's own predict_batch_udf, 32 rows at a time."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import DoubleType

    def make():
        from contender import worker_model

        model = worker_model(str(task))
        return lambda texts: loop_over(*model, list(texts)).astype("float64")

    udf = predict_batch_udf(make, return_type=DoubleType(), batch_size=PEER_BATCH)
    return spark_rows(task, lambda df: df.withColumn("raw", udf("text")))


_MODELS: dict[str, tuple] = {}


def worker_model(task: str):
    """The model and ids, loaded once for each Python worker."""
    if task not in _MODELS:
        _MODELS[task] = torch_model(Path(task))
    return _MODELS[task]


def torch_peer(name: str) -> Callable[[Path], Rows]:
    """A peer of `torch_peers.py`, which needs this file."""

    def make(task: Path) -> Rows:
        import torch_peers

        return getattr(torch_peers, name)(task)

    return make


CONTENDERS: dict[str, Callable[[Path], Rows]] = {
    "engine": engine, "engine float32": lambda task: engine(task, "float32"), "loop": loop, "onnx": onnx,
    "onnx int8": onnx_int8, "openvino": openvino, "cross_encoder": cross_encoder, "daft": daft, "ray": ray_data,
    "spark": spark, "spark pandas_udf": spark_pandas_udf, "spark predict_batch_udf": spark_predict_batch,
    "loop bfloat16 sorted": torch_peer("loop_bfloat16"), "causal_lm": torch_peer("causal_lm"),
    "causal_lm bfloat16": torch_peer("causal_lm_bfloat16"),
}  # fmt: skip


def main(name: str, task: Path) -> None:
    """Makes it ready, answers each line, leaves the scores."""
    said, sys.stdout = sys.stdout, sys.stderr
    run = CONTENDERS[name](task)
    print("ready", file=said, flush=True)
    found = None
    for _ in sys.stdin:
        started = time.perf_counter()
        found = run()
        print(json.dumps({"seconds": time.perf_counter() - started}), file=said, flush=True)
    if found is not None:
        np.save(task / f"{name}.npy", np.asarray(found, float))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
