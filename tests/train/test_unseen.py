"""What a model in training says of unseen rows: at its best epoch, asked once, and in an equal share of the threads."""

import time

import numpy as np
import pytest
import torch

from quality_judge.bases import find_base
from quality_judge.config import TrainConfig
from quality_judge.engine.kinds import ScalarModel
from quality_judge.engine.weights import hidden_size, load_body
from quality_judge.errors import CheckFailed
from quality_judge.train import adapters
from quality_judge.train.forward import predicted
from quality_judge.train.loop import TrainResult, train_model
from quality_judge.train.parts import refuse_ended, side_by_side
from quality_judge.train.unseen import Unseen

ROWS = np.arange(20, 32)


@pytest.fixture
def trained(tiny_base, build, made):
    """(model, examples, Unseen of ROWS, result) after three epochs whose rate is too high to get better each time."""
    base = find_base(str(tiny_base("bert")))
    config = made.judge_config(base.folder).train.model_copy(update={"epochs": 3, "patience": 3})
    examples = build(made.samples(32))
    model = ScalarModel(
        adapters.prepared(load_body(base, attention="eager"), "full", config), hidden_size(base), 1, "layers"
    )
    unseen = Unseen(model, examples, ROWS)
    among = ~np.isin(np.arange(32), ROWS)
    result = train_model(model, examples, among, config=config, learning_rate=1e-2, develop=unseen.score, seed=0)
    return model, examples, unseen, result


def test_the_outputs_are_those_of_the_model_that_training_leaves(trained):
    model, examples, unseen, result = trained
    assert len(unseen.said) == len(result.history) == 3
    assert np.array_equal(unseen.outputs(result), predicted(model, examples, ROWS))
    others = [said for epoch, said in enumerate(unseen.said, 1) if epoch != result.epochs]
    assert not any(np.array_equal(said, unseen.outputs(result)) for said in others)


@pytest.mark.parametrize("heard", [0, 1, 2])
def test_what_was_heard_before_a_kill_is_asked_again(trained, heard):
    """A run that goes on has heard the last epochs only, or none where it had ended."""
    model, examples, unseen, result = trained
    unseen.said = unseen.said[len(unseen.said) - heard :]
    assert np.array_equal(unseen.outputs(result), predicted(model, examples, ROWS))


def test_a_method_without_epochs_is_asked(trained):
    model, examples, _, _ = trained
    assert np.array_equal(
        Unseen(model, examples, ROWS).outputs(TrainResult({}, 1, ())), predicted(model, examples, ROWS)
    )


def test_a_score_that_is_no_number_ends_training(trained):
    model, _, unseen, _ = trained
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    with pytest.raises(CheckFailed, match="training diverged"):
        unseen.score()


@pytest.mark.parametrize(("threads", "workers", "share"), [(2, 2, 1), (5, 2, 2), (4, 1, 4), (1, 3, 1)])
def test_parts_trained_at_the_same_time_share_the_threads(threads, workers, share):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = side_by_side(lambda fold, _: (fold, torch.get_num_threads()), list(range(workers)), [None] * workers)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found == [(fold, share) for fold in range(workers)]


@pytest.mark.parametrize("error", [CheckFailed("collapsed"), KeyboardInterrupt()])
def test_a_part_that_nobody_waits_for_any_more_ends_at_its_next_step(trained, error):
    model, examples, _, _ = trained
    steps = []

    def train(fold, _):
        if fold:
            while not steps:
                time.sleep(0.01)
            raise error
        return train_model(
            model, examples, np.ones(len(examples), bool), config=TrainConfig(epochs=200, batch_size=2),
            learning_rate=1e-5, develop=None, seed=0, progress=lambda step, *_: steps.append(step),
        )  # fmt: skip

    with pytest.raises(type(error)):
        side_by_side(train, [0, 1], [model, None])
    assert steps[-1] < 200 * len(examples) // 4
    side_by_side(lambda *_: refuse_ended(), [0, 1], [None, None])  # it is over with those
