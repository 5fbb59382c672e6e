"""How fast judges score, against what people use for it: same rows, weights and cores, one run, one table.

    python benchmarks/scoring.py [--rows 300] [--verdict-rows 32] [--rounds 5] [--full]
    python benchmarks/scoring.py --short --output /tmp/scoring.json

Each contender is a process of its own (`contender.py`), loaded once; rounds are interleaved after one that warms up,
and medians are compared. `loop` is what most people write: batches of 32 in order of arrival, padded to the longest,
float32; `spark pandas_udf` is the same in a whole Spark job. The limit is the fastest matrix product of the same run.
Peers that are not installed are left out and said so. Prints ratios, never a lone time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from contender import torch_model
from limits import flops, matmul_peak, shape_of
from prefix_reuse import BASE, untrained_judge
from rows import corpus_folder, frozen_judge, texts_of
from scoring_table import write_table

from quality_judge.engine.gguf import ready_base
from quality_judge.engine.weights import precision_here
from quality_judge.judge import load_judge

HERE = Path(__file__).resolve().parent
MAIN = ("engine", "engine float32", "loop", "spark", "spark pandas_udf", "spark predict_batch_udf")
PEERS = ("onnx", "onnx int8", "openvino", "cross_encoder")
FULL = ("daft", "ray")
OURS = ("engine", "engine float32", "spark")
VERDICT = ("engine", "loop", "spark", "spark pandas_udf")
LIBRARIES = ("torch", "transformers", "pyspark")


class Contender:
    """The process of one contender. `failed` says why it cannot run."""

    def __init__(self, name: str, task: Path, python: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "TOKENIZERS_PARALLELISM": "true"}
        self._errors = (task / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            [python, str(HERE / "contender.py"), name, str(task)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, env=environment,
        )  # fmt: skip
        self.name, self.task, self.seconds = name, task, []
        self.failed = None if self._line() == "ready\n" else self._why()

    def round(self) -> None:
        """Scores all rows once."""
        if self.failed is None:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
            line = self._line()
            if line:
                self.seconds.append(json.loads(line)["seconds"])
            else:
                self.failed = self._why()

    def end(self) -> np.ndarray | None:
        """Ends the process; the scores of its last round."""
        self._process.stdin.close()
        self._process.wait(120)
        file = self.task / f"{self.name}.npy"
        return np.load(file) if file.exists() else None

    def _line(self) -> str:
        return self._process.stdout.readline()

    def _why(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1][:200] if lines else "it ended without a word"


def measured(task: Path, names: tuple[str, ...], pythons: dict[str, str], rounds: int) -> dict[str, dict]:
    """For each contender its median seconds and its answers against the first one's, or why there are none."""
    contenders = [Contender(name, task, pythons.get(name, sys.executable)) for name in names]
    for _ in range(rounds + 1):
        for contender in contenders:
            contender.round()
    stack = load_judge(task / "judge").spec.stack
    answers = {}
    for contender in contenders:
        raw = contender.end()
        ours = contender.name in OURS or raw is None
        answers[contender.name] = raw if ours else stack.bias + stack.model * raw  # peers give the model's own number
    exact = answers.get("engine float32", answers[names[0]])
    found = {}
    for contender in contenders:
        if contender.failed:
            found[contender.name] = {"failed": contender.failed}
            continue
        times = contender.seconds[1:]
        found[contender.name] = {
            "seconds": statistics.median(times), "slowest_to_fastest_round": round(max(times) / min(times), 2),
            **compared(answers[contender.name], exact, own=contender.name != "cross_encoder"),
        }  # fmt: skip
    return found


def compared(raw: np.ndarray, exact: np.ndarray, *, own: bool) -> dict:
    """How far the raw scores are from those in float32, and the share of rows on the other side of their median."""
    if not own:
        return {"largest_difference": None, "decisions_changed": None}
    both, cut = np.isfinite(raw) & np.isfinite(exact), np.nanmedian(exact)
    return {
        "largest_difference": float(np.abs(raw - exact)[both].max()),
        "decisions_changed": float(((raw >= cut) != (exact >= cut))[both].mean()),
    }


def export(task: Path) -> None:
    """The judge's model with its head as an ONNX graph of any batch and length."""
    model, ids = torch_model(task)
    batch, lengths = next(ids.batches(["Water boils at 100 degrees.", "Yes."], 2))
    model.body.config._attn_implementation = "eager"
    axes = {"ids": {0: "rows", 1: "tokens"}, "lengths": {0: "rows"}, "raw": {0: "rows"}}
    torch.onnx.export(
        model, (torch.from_numpy(batch), torch.from_numpy(lengths)), str(task / "model.onnx"), dynamo=False,
        input_names=["ids", "lengths"], output_names=["raw"], dynamic_axes=axes, opset_version=17,
    )  # fmt: skip


def limit(task: Path, texts: list[str], seconds: float) -> dict:
    """The share of the fastest matrix product that the engine reaches, tokens counted without padding."""
    model, ids = torch_model(task)
    lengths = ids.encoder.encode(texts).tokens.lengths
    before = len(ids.judge.spec.encoding.prefix) if ids.judge.spec.kind == "verdict" else 0
    dtype = precision_here("cpu")
    needed, peak = flops(shape_of(model.body.config), lengths - before, before=before), matmul_peak(dtype)
    return {
        "precision": str(dtype).removeprefix("torch."), "mean_tokens": float(lengths.mean()), "shared_tokens": before,
        "share_of_matmul_peak": round(needed / seconds / peak, 3),
    }  # fmt: skip


def task_of(folder: Path, texts: list[str]) -> Path:
    """The folder with the rows written into it."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), folder / "rows.parquet")
    return folder


def usual(found: dict[str, dict], name: str) -> float:
    """The seconds of what most people write: the loop, for a whole Spark job the pandas UDF."""
    return found["spark pandas_udf" if name.startswith("spark") else "loop"]["seconds"]


def race(task: Path, names: tuple[str, ...], texts: list[str], options: argparse.Namespace) -> dict:
    """The entry of one judge: ratios to the loop, and the limit."""
    pythons = dict.fromkeys((*PEERS, *FULL), options.peer_python)
    found = measured(task, names, pythons, options.rounds)
    entry = {"rows": len(texts), "rounds": options.rounds, **limit(task, texts, found["engine"]["seconds"])}
    entry["contenders"] = {
        name: {key: value for key, value in one.items() if key != "seconds"}
        | ({} if "failed" in one else {"times_as_fast": round(usual(found, name) / one["seconds"], 2)})
        for name, one in found.items()
    }
    rivals = {name: found[name]["seconds"] for name in (*PEERS, *FULL, "loop") if "seconds" in found.get(name, {})}
    best = min(rivals, key=rivals.get)
    entry["best_peer"], entry["engine_to_best_peer"] = best, round(rivals[best] / found["engine"]["seconds"], 2)
    return entry


def main(options: argparse.Namespace) -> None:
    """Measures both judges, writes the figures and the table."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        corpus = corpus_folder(options.corpus, scratch)
        result = {
            "corpus": "shared" if options.corpus is None and corpus != scratch / "corpus" else "another",
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(),
                        **{library: version(library) for library in LIBRARIES}},
            "judges": {},
        }  # fmt: skip
        texts = texts_of(corpus, options.rows)
        task = task_of(scratch / "minilm", texts)
        Path(frozen_judge(task / "made").folder).rename(task / "judge")
        if not options.short:
            export(task)
        result["judges"]["MiniLM, scalar"] = race(task, options.names, texts, options)
        if options.verdict_rows:
            texts = texts_of(corpus, options.verdict_rows, seed=1)
            task = task_of(scratch / "verdict", texts)
            untrained_judge(task / "judge", ready_base(BASE))
            result["judges"]["SmolLM2-135M, verdict"] = race(task, VERDICT, texts, options)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_table(result, options.output.with_suffix(".md"))
    said = ("engine_to_best_peer", "best_peer", "share_of_matmul_peak")
    print(json.dumps({name: {key: entry[key] for key in said} for name, entry in result["judges"].items()}))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--corpus", type=Path)
    arguments.add_argument("--rows", type=int, default=300)
    arguments.add_argument("--verdict-rows", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--full", action="store_true", help="Daft and Ray Data too")
    arguments.add_argument(
        "--short", action="store_true", help="the engine and the loop on a few rows, no table of peers"
    )
    arguments.add_argument("--peer-python", default=str(HERE.parent / ".venv-bench" / "bin" / "python"))
    arguments.add_argument("--output", type=Path, default=HERE / "scoring.json")
    chosen = arguments.parse_args()
    chosen.names = (*MAIN, *PEERS, *(FULL if chosen.full else ()))
    if chosen.short:
        chosen.rows, chosen.verdict_rows, chosen.rounds, chosen.names = 24, 0, 1, ("engine", "loop")
    main(chosen)
