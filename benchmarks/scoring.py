"""How fast judges score, against what people use for it: same rows, weights and cores, one run, one table.

    python benchmarks/scoring.py [--rows 200] [--verdict-rows 24] [--rounds 3] [--full] [--again]
    python benchmarks/scoring.py --short --output /tmp/scoring.json

Each contender is a process of its own (`contender.py`), loaded once; rounds are interleaved after one that warms up,
and medians are compared. `loop` is what most people write: batches of 32 in order of arrival, padded to the longest,
float32; `spark pandas_udf` is the same in a whole Spark job. The best peer is the fastest that computes the same
weights without Spark, whoever wrote it, and changes few decisions; faster ones that change more are named. The limit is
the fastest matrix product of the same run. A contender that cannot run is said so and loses nothing else. Each judge is
written when it is done, and what stands in the output for the same rows, rounds, contenders and machine is taken up
unless --again. Prints ratios, never a lone time.
"""

from __future__ import annotations

import argparse
import json
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
from contender import Ids, torch_model
from contest import Contender, environment, installed, processor
from limits import flops, matmul_peak, shape_of
from prefix_reuse import BASE, untrained_judge
from rows import SHORT_LABELS, corpus_folder, frozen_judge, texts_of
from scoring_table import write_chart, write_table

from quality_judge.engine.gguf import ready_base
from quality_judge.engine.precision import precision_here
from quality_judge.judge import load_judge

HERE = Path(__file__).resolve().parent
OURS = ("engine", "engine float32", "spark")
MAIN = (*OURS[:2], "loop", "loop bfloat16 sorted", "spark", "spark pandas_udf", "spark predict_batch_udf")
PEERS = {"onnx": "onnxruntime", "onnx int8": "onnxruntime", "openvino": "openvino",
         "cross_encoder": "sentence-transformers"}  # fmt: skip
FULL = {"daft": "daft", "ray": "ray"}
VERDICT = ("engine", "loop", "causal_lm", "causal_lm bfloat16", "spark", "spark pandas_udf")
OTHER_WEIGHTS = ("cross_encoder",)
EXACT = ("engine float32", "loop", "causal_lm")
MOST_CHANGED = 0.05
LIBRARIES = ("torch", "transformers", "pyspark")


def measured(task: Path, names: tuple[str, ...], pythons: dict[str, str], rounds: int) -> dict[str, dict]:
    """For each contender its median seconds and its answers against those in float32, or why there are none."""
    contenders = [Contender(name, task, pythons.get(name, sys.executable)) for name in names]
    for _ in range(rounds + 1):
        for contender in contenders:
            contender.round()
    stack = load_judge(task / "judge").spec.stack
    answers = {}
    for contender in contenders:
        raw = contender.end()
        if raw is not None:  # peers give the model's own number
            answers[contender.name] = raw if contender.name in OURS else stack.bias + stack.model * raw
    exact = next((name for name in EXACT if name in answers), None)
    found = {}
    for contender in contenders:
        if contender.failed:
            found[contender.name] = {"failed": contender.failed}
            continue
        times = contender.seconds[1:]
        found[contender.name] = {
            "seconds": statistics.median(times), "slowest_to_fastest_round": round(max(times) / min(times), 2),
        }  # fmt: skip
        if contender.name in OTHER_WEIGHTS:
            found[contender.name]["other_weights"] = True
        elif exact and contender.name in answers:
            apart = compared(answers[contender.name], answers[exact])
            found[contender.name] |= {**apart, "held_against": exact}
    return found


def compared(raw: np.ndarray, exact: np.ndarray) -> dict:
    """How far the raw scores are from those in float32, and the share of rows on the other side of their median."""
    both, cut = np.isfinite(raw) & np.isfinite(exact), np.nanmedian(exact)
    return {
        "largest_difference": float(np.abs(raw - exact)[both].max()),
        "decisions_changed": float(((raw >= cut) != (exact >= cut))[both].mean()),
    }


def export(task: Path, python: str) -> None:
    """Lets the peers' environment, which has the tools, make the ONNX graph; peers without one will say so."""
    try:
        command = [python, str(HERE / "export_onnx.py"), str(task)]
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        print(f"no ONNX graph: {said[-1][:200] if said else error}", file=sys.stderr)


def limit(task: Path, texts: list[str], seconds: float | None) -> dict:
    """The share of the fastest matrix product that the engine reaches, tokens counted without padding.

    seconds: the engine's; None where it failed, and then there is no share.
    """
    ids = Ids(task)
    lengths = ids.encoder.encode(texts).tokens.lengths
    before = len(ids.judge.spec.encoding.prefix) if ids.judge.spec.kind == "verdict" else 0
    dtype, share = precision_here("cpu"), None
    if seconds:
        config = torch_model(task)[0].body.config
        needed = flops(shape_of(config), lengths - before, before=before)
        share = round(needed / seconds / matmul_peak(dtype), 3)
    return {
        "precision": str(dtype).removeprefix("torch."), "mean_tokens": float(lengths.mean()), "shared_tokens": before,
        "share_of_matmul_peak": share,
    }  # fmt: skip


def task_of(folder: Path, texts: list[str]) -> Path:
    """The folder with the rows written into it."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), folder / "rows.parquet")
    return folder


def usual(found: dict[str, dict], name: str) -> float | None:
    """The seconds of what most people write: the loop, for a whole Spark job the pandas UDF; None where it failed."""
    return found.get("spark pandas_udf" if name.startswith("spark") else "loop", {}).get("seconds")


def ratios(found: dict[str, dict]) -> dict:
    """What stands of the contest without a time: each contender's ratio to the usual, the engine's to the best peer.

    The best peer changes at most MOST_CHANGED of the decisions; `faster_but_unlike` are those that change more and are
    faster than it. A ratio that has no other side is left out; without the engine or any peer the next two are None.
    """
    contenders = {}
    for name, one in found.items():
        contenders[name] = {key: value for key, value in one.items() if key != "seconds"}
        if "seconds" in one and usual(found, name):
            contenders[name]["times_as_fast"] = round(usual(found, name) / one["seconds"], 2)
    rivals = {
        name: one["seconds"] for name, one in found.items()
        if "seconds" in one and name not in (*OURS, *OTHER_WEIGHTS) and not name.startswith("spark")
    }  # fmt: skip
    kept = {name: time for name, time in rivals.items() if found[name].get("decisions_changed", 0) <= MOST_CHANGED}
    best, engine = min(kept, key=kept.get, default=None), found.get("engine", {}).get("seconds")
    return {
        "contenders": contenders, "best_peer": best,
        "engine_to_best_peer": round(kept[best] / engine, 2) if best and engine else None,
        "faster_but_unlike": sorted(name for name in rivals if best and rivals[name] < kept[best]),
    }  # fmt: skip


def race(task: Path, names: tuple[str, ...], texts: list[str], options: argparse.Namespace) -> dict:
    """The entry of one judge: ratios, the limit, and the versions of the peers that ran."""
    found = measured(task, names, dict.fromkeys((*PEERS, *FULL), options.peer_python), options.rounds)
    packages = {package for name, package in (PEERS | FULL).items() if "seconds" in found.get(name, {})}
    return {
        "rows": len(texts), "rounds": options.rounds, **limit(task, texts, found["engine"].get("seconds")),
        "peers": installed(options.peer_python, sorted(packages)), **ratios(found),
    }  # fmt: skip


def scalar_entry(corpus: Path, scratch: Path, options: argparse.Namespace) -> dict:
    """The contest over a scalar judge on a frozen MiniLM."""
    texts = texts_of(corpus, options.rows)
    task = task_of(scratch / "minilm", texts)
    Path(frozen_judge(task / "made", most=SHORT_LABELS if options.short else None).folder).rename(task / "judge")
    if set(options.names) & set(PEERS):
        export(task, options.peer_python)
    return race(task, options.names, texts, options)


def verdict_entry(corpus: Path, scratch: Path, options: argparse.Namespace) -> dict:
    """The contest over an untrained verdict judge on SmolLM2-135M."""
    texts = texts_of(corpus, options.verdict_rows, seed=1)
    task = task_of(scratch / "verdict", texts)
    untrained_judge(task / "judge", ready_base(BASE))
    return race(task, VERDICT, texts, options)


def write(result: dict, output: Path) -> None:
    """Writes the figures, the table and the chart of what there is."""
    beside = output.with_suffix(".part")
    beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    beside.replace(output)
    write_table(result, output.with_suffix(".md"))
    write_chart(result, output.with_suffix(".svg"))


def known_entries(result: dict, options: argparse.Namespace) -> dict[str, dict]:
    """The entries that stand in the output of an earlier run on the same corpus and machine."""
    if options.again or not options.output.exists():
        return {}
    known = json.loads(options.output.read_text(encoding="utf-8"))
    return known["judges"] if all(known.get(key) == result[key] for key in ("corpus", "machine")) else {}


def main(options: argparse.Namespace) -> None:
    """Measures what is not known yet, and writes after each judge."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        corpus = corpus_folder(options.corpus, scratch)
        result = {
            "corpus": "shared" if options.corpus is None and corpus != scratch / "corpus" else "another",
            "machine": {"processor": processor(), "threads": torch.get_num_threads(),
                        **{library: version(library) for library in LIBRARIES}},
            "judges": {},
        }  # fmt: skip
        known = known_entries(result, options)
        asked = {
            "MiniLM, scalar": (scalar_entry, options.rows, options.names),
            "SmolLM2-135M, verdict": (verdict_entry, options.verdict_rows, VERDICT),
        }
        for judge, (entry, rows, names) in asked.items():
            if not rows:
                continue
            found = known.get(judge)
            if found is None or (found["rows"], found["rounds"], set(found["contenders"])) != (
                rows, options.rounds, set(names),
            ):  # fmt: skip
                found = entry(corpus, scratch, options)
            result["judges"][judge] = found
            write(result, options.output)
    said = ("engine_to_best_peer", "best_peer", "share_of_matmul_peak")
    print(json.dumps({name: {key: entry[key] for key in said} for name, entry in result["judges"].items()}))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--corpus", type=Path)
    arguments.add_argument("--rows", type=int, default=200)
    arguments.add_argument("--verdict-rows", type=int, default=24)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--full", action="store_true", help="Daft and Ray Data too")
    arguments.add_argument("--again", action="store_true", help="measure what stands in the output too")
    arguments.add_argument("--short", action="store_true", help="the engine and the loop alone, on a few rows")
    arguments.add_argument("--peer-python", default=str(HERE.parent / ".venv-bench" / "bin" / "python"))
    arguments.add_argument("--output", type=Path, default=HERE / "scoring.json")
    chosen = arguments.parse_args()
    chosen.names = (*MAIN, *PEERS, *(FULL if chosen.full else ()))
    if chosen.short:
        chosen.rows, chosen.verdict_rows, chosen.rounds, chosen.names = 24, 0, 1, ("engine", "loop")
    main(chosen)
