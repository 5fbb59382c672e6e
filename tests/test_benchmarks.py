"""The benchmarks count what torch counts, say what failed, and run in their smallest form."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """Their modules can be imported, as when one of them is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def counted(model, rows, length):
    """FLOPs of a forward pass by torch's own count, plain attention over all pairs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(rows, length, dtype=torch.long))
    return counter.get_total_flops()


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_flops_are_those_torch_counts(tiny_base, model_type):
    from limits import flops, shape_of
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_base(model_type))
    model.pooler = None
    shape = replace(shape_of(model.config), causal=False)  # torch counts what a causal mask then throws away
    assert flops(shape, np.full(3, 48)) == pytest.approx(counted(model, 3, 48), rel=0.03)


def test_flops_hold_where_heads_do_not_make_up_the_hidden_size():
    from limits import flops, shape_of
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=40,
        intermediate_size=64, vocab_size=64,
    )  # fmt: skip
    shape = replace(shape_of(config), causal=False)
    assert shape.query_width == 80
    assert flops(shape, np.full(2, 48)) == pytest.approx(counted(LlamaModel(config), 2, 48), rel=0.03)


def test_a_causal_row_is_counted_as_the_pairs_it_needs_and_a_shared_prefix_as_seen():
    from limits import Shape, flops

    shape = Shape(layers=1, hidden=8, inner=8, query_width=8, key_width=8, mlp_products=3, causal=True)
    whole = flops(shape, np.array([10]))
    parts = flops(shape, np.array([4])) + flops(shape, np.array([6]), before=4)
    assert parts == pytest.approx(whole)
    pairs = 10 * 11 / 2
    assert whole == pytest.approx(2 * 8 * (16 + 16 + 24) * 10 + 4 * 8 * pairs)


def one(seconds):
    return {
        "seconds": seconds, "slowest_to_fastest_round": 1.0, "largest_difference": 0.0, "decisions_changed": 0.0,
        "held_against": "loop",
    }  # fmt: skip


def entry_of(found):
    from scoring import ratios

    engine = found["engine"].get("seconds")
    return {
        "rows": 3, "rounds": 1, "mean_tokens": 9.0, "shared_tokens": 0, "precision": "float32", "peers": {},
        "share_of_matmul_peak": 0.5 if engine else None, **ratios(found),
    }  # fmt: skip


FAILED = {"failed": "ModuleNotFoundError: no | such module"}
OTHER = {"seconds": 0.1, "slowest_to_fastest_round": 1.0, "other_weights": True}
FOUND = {"engine": one(1.0), "loop": one(4.0), "onnx": one(2.0), "cross_encoder": OTHER, "spark": one(3.0),
         "spark pandas_udf": one(6.0)}  # fmt: skip


def test_the_best_peer_is_the_fastest_of_the_same_weights_without_spark():
    found = entry_of(FOUND)
    assert (found["best_peer"], found["engine_to_best_peer"]) == ("onnx", 2.0)
    assert {name: each["times_as_fast"] for name, each in found["contenders"].items()} == {
        "engine": 4.0, "loop": 1.0, "onnx": 2.0, "cross_encoder": 40.0, "spark": 2.0, "spark pandas_udf": 1.0,
    }  # fmt: skip


def test_a_peer_that_changes_decisions_is_named_and_is_not_the_best(tmp_path):
    from scoring_table import write_table

    entry = entry_of({**FOUND, "onnx int8": one(0.5) | {"decisions_changed": 0.16}})
    assert (entry["best_peer"], entry["faster_but_unlike"]) == ("onnx", ["onnx int8"])
    write_table({"corpus": "another", "machine": {}, "judges": {"MiniLM": entry}}, tmp_path / "scoring.md")
    said = (tmp_path / "scoring.md").read_text(encoding="utf-8")
    assert "(onnx). onnx int8 is faster and changes 16% of the decisions. It reaches" in said


@pytest.mark.parametrize("lost", [("loop",), ("engine",), ("spark pandas_udf",), ("engine", "loop", "onnx"), ("onnx",)])
def test_a_contender_that_failed_loses_only_its_own_ratios(tmp_path, lost):
    from scoring_table import write_chart, write_table

    entry = entry_of({name: FAILED if name in lost else each for name, each in FOUND.items()})
    result = {"corpus": "another", "machine": {"processor": "some"}, "judges": {"MiniLM & co": entry}}
    write_table(result, tmp_path / "scoring.md")
    write_chart(result, tmp_path / "scoring.svg")
    table = (tmp_path / "scoring.md").read_text(encoding="utf-8").splitlines()
    for name in FOUND:
        row = next(line for line in table if line.startswith(f"| {name} |"))
        assert row.count("|") == 5
        assert ("did not run: ModuleNotFoundError: no / such module" in row) == (name in lost)
    assert ("| cross_encoder | no ratio |" in "\n".join(table)) == ("loop" in lost)
    assert ("The engine did not run." in table) == ("engine" in lost)
    chart = (tmp_path / "scoring.svg").read_text(encoding="utf-8")
    assert chart.count("<rect") == sum("times_as_fast" in each for each in entry["contenders"].values())
    assert "MiniLM &amp; co" in chart


def test_a_contender_that_cannot_start_says_why(tmp_path):
    from contest import Contender

    cases = (("/nowhere/python", "engine", "its Python is not there"), (sys.executable, "none", "'none'"))
    for python, name, said in cases:
        contender = Contender(name, tmp_path, python)
        contender.round()
        assert said in contender.failed
        assert contender.end() is None


def run_gpu(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")


def test_the_gpu_benchmark_runs_in_its_tiny_form(tmp_path, monkeypatch):
    output = tmp_path / "gpu.json"
    run_gpu(monkeypatch, "--tiny", "--device", "cpu", "--rounds", "1", "--output", str(output))
    shapes = json.loads(output.read_text(encoding="utf-8"))["shapes"]
    assert all(each["rows_per_second"] > 0 and "share_of_matmul_peak" in each for each in shapes.values())
    assert shapes["tiny BERT"]["times_as_fast_as_loop"] > 0


def in_short(name, arguments, output):
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(output.read_text(encoding="utf-8"))


def test_the_memory_benchmark_runs_in_a_small_form(tmp_path):
    found = in_short("memory", ["--short"], tmp_path / "found.json")
    assert found["rows"] == [200, 2000]
    assert 0.8 < found["resident_memory_grew"] < 2  # kilobytes of text: neither a leak nor a worker that was not seen


def test_the_memory_benchmark_sees_its_own_workers_and_not_those_of_another_job():
    from memory import EVERY_SECONDS, Watch

    wait = "print(flush=True); input()"
    start_worker = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {wait!r}, 'pyspark.worker'])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    jobs = [subprocess.Popen([sys.executable, "-c", code], **pipes) for code in (start_worker, wait)]
    for job in jobs:
        job.stdout.readline()
    watches = [Watch(job.pid) for job in jobs]
    for watch in watches:
        watch.start()
    watches[0].ended.wait(20 * EVERY_SECONDS)
    for watch, job in zip(watches, jobs, strict=True):
        watch.ended.set()
        watch.join()
        job.communicate(b"\n")
    own, other = ([*watch.peaks.values()] for watch in watches)
    assert all(own)
    assert other == [0, 0]


def test_the_scoring_benchmark_runs_in_its_short_form(tmp_path):
    found = in_short("scoring", ["--short"], tmp_path / "found.json")["judges"]["MiniLM, scalar"]
    assert {name: each.get("failed") for name, each in found["contenders"].items()} == {"engine": None, "loop": None}
    assert found["share_of_matmul_peak"] > 0


def test_the_moderation_benchmark_scores_every_row_once_out_of_fold(shared_data, tmp_path):
    shared_data("openai_moderation")
    found = in_short("moderation_folds", ["--short", "--folds", "2"], tmp_path / "found.json")
    assert (found["rows"], found["folds"]) == (120, "2 of 2")
    assert set(found["average_precision"]) == {"ours", "tfidf_logistic", "frozen_base", "length_only"}
    assert found["average_precision"]["ours"] > found["unsafe"] / found["rows"], "what a blind guess has"
    assert not (tmp_path / "found.parts").exists()


def test_the_gpu_benchmark_refuses_without_a_gpu(monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SystemExit, match=r"^no GPU here: [^\n]*$"):
        run_gpu(monkeypatch)
