"""Resuming: a run that was killed goes on and ends as if it never had been; nothing is taken from another run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from quality_judge.config import TrainConfig
from quality_judge.rubric import NO_RUBRIC
from quality_judge.train.checkpoint import Checkpoint, Checkpoints, remove_checkpoints, run_key
from quality_judge.train.examples import build_examples
from quality_judge.train.fit import choose_folds
from quality_judge.train.loop import train_model
from quality_judge.train.model_fit import ModelFitter

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """Stands for the end of a process, within one."""


@pytest.fixture
def fitter(tiny_base, encoder, made):
    """A function that gives a fresh ModelFitter of one synthetic set, its settings changed."""
    from quality_judge.bases import find_base

    coder = encoder("bert")
    examples = build_examples(made.label_set(made.samples(40)), coder)

    def make(**settings):
        config = made.judge_config(tiny_base("bert"), **settings).train
        folds = choose_folds(examples, examples, config)
        return ModelFitter(find_base(str(tiny_base("bert"))), coder.encoding, examples, folds, config, lambda _: None)

    return make


def trained(fitter, method, checkpoint=None, *, die_after=None):
    """Trains a fresh model of `fitter`; what it gives, and its trained tensors. It dies after so many epochs."""
    model = fitter._prepared(method, fitter.folds != 0)
    scores = iter([0.5, 0.7, 0.6, 0.9, 0.8, 0.8])
    told = []

    def develop():
        told.append(next(scores))
        return told[-1]

    if checkpoint and (state := checkpoint.load()):
        for _ in range(state.values["epoch"]):
            next(scores)

    def progress(step, steps, loss):
        if die_after is not None and len(told) == die_after:
            raise Killed

    result = train_model(
        model, fitter.examples, fitter.folds != 0, config=fitter.config, learning_rate=1e-3, develop=develop, seed=3,
        progress=progress, checkpoint=checkpoint,
    )  # fmt: skip
    return result, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_training_that_died_in_any_epoch_ends_with_the_very_same_tensors(fitter, tmp_path, method, epoch):
    straight, tensors = trained(fitter(epochs=5), method)
    checkpoint = Checkpoint(tmp_path / "part.safetensors", 0.0)
    with pytest.raises(Killed):
        trained(fitter(epochs=5), method, checkpoint, die_after=epoch)
    assert checkpoint.load().values["epoch"] == epoch
    resumed, again = trained(fitter(epochs=5), method, checkpoint)
    assert (resumed.epochs, resumed.history) == (straight.epochs, straight.history)
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert checkpoint.load().values["finished"]
    finished, once_more = trained(fitter(epochs=5), method, checkpoint, die_after=0)
    assert finished.history == straight.history
    assert all(torch.equal(once_more[name], tensors[name]) for name in tensors)


def test_a_state_comes_back_as_it_was_saved(tmp_path):
    checkpoint = Checkpoint(tmp_path / "new" / "part.safetensors", 10.0)
    assert checkpoint.load() is None
    assert not checkpoint.due()
    random = np.random.default_rng(5)
    values = {"random": random.bit_generator.state, "loss": 0.1 + 0.2, "none": None}
    checkpoint.save({"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)}, values)
    state = checkpoint.load()
    assert state.values == values
    assert torch.equal(state.tensors["a"], torch.arange(3.0))
    assert state.tensors["b"].dtype == torch.bfloat16
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["part.safetensors"]


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_damaged_state_counts_as_none(tmp_path, content):
    checkpoint = Checkpoint(tmp_path / "part.safetensors", 0.0)
    checkpoint.save({"a": torch.ones(64)}, {"epoch": 1})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-9] if content is None else content)
    assert checkpoint.load() is None


def test_the_key_changes_with_settings_labels_order_and_base(tiny_base, encoder, made):
    coder, rows = encoder("bert"), made.samples(30)

    def key(rows=rows, base="0" * 64, rubric=NO_RUBRIC, **settings):
        config = made.judge_config(tiny_base("bert"), **settings)
        examples = build_examples(made.label_set(rows), coder)
        return run_key(config, rubric, examples, choose_folds(examples, examples, TrainConfig()), base)

    keys = [key(), key(seed=1), key(rows[:-1]), key(rows[::-1]), key(base="1" * 64)]
    keys.append(key(rubric=NO_RUBRIC.model_copy(update={"criteria": "Is it true?"})))
    assert key() == keys[0]
    assert len(set(keys)) == len(keys)


def test_what_is_left_is_removed_for_this_output_only(tmp_path):
    for output, key in (("a", "1" * 64), ("a", "2" * 64), ("b", "1" * 64)):
        Checkpoints(tmp_path / output, key).part("x").save({"a": torch.ones(1)}, {})
    remove_checkpoints(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == [f".b.training-{'1' * 16}"]


@pytest.mark.slow
def test_a_killed_run_given_again_makes_the_judge_of_an_undisturbed_one(tiny_base, made, tmp_path):
    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        "".join(json.dumps({"completion": s.completion, "label": s.label}) + "\n" for s in made.samples(80))
    )

    def command(output):
        settings = {
            "base": tiny_base("bert"), "max_tokens": 32, "train.method": "full", "train.epochs": 3, "train.folds": 3,
            "train.below_baseline": "allow", "train.batch_size": 2,
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        programme = [sys.executable, str(ROOT / "training" / "train_judge.py")]
        return [*programme, "--labels", str(labels), "--output", str(tmp_path / output), *words]

    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    straight = subprocess.run(command("straight"), env=environment, check=True, **quiet)
    running = subprocess.Popen(command("killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (left := list(tmp_path.glob(".killed.training-*/full-part-*.safetensors"))) and time.monotonic() < until:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    part = int(left[0].stem.removeprefix("full-part-")) + 1
    assert not (tmp_path / "killed").exists()
    again = subprocess.run(command("killed"), env=environment, check=True, **quiet)
    first, second = (json.loads(done.stdout.splitlines()[-1]) for done in (straight, again))
    assert second["fingerprint"] == first["fingerprint"]
    for file in ("head.safetensors", "adapter.safetensors"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "straight" / file).read_bytes()
    assert f"part {part} of 3: step" in straight.stderr
    assert f"part {part} of 3: step" not in again.stderr
    assert "on all labels: step" in again.stderr
    assert not list(tmp_path.glob(".killed.*"))
