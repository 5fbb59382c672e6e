"""Training in several processes: they share the batches and end with the judge that one process makes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from quality_judge.train.parallel import Peers, peers

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
from safetensors.torch import save_file
sys.path[:0] = [sys.argv[3], sys.argv[3] + "/tests/train"]
from conftest import judge_config, label_set, samples, rankings
from quality_judge.train.fit import fit_judge
from quality_judge.train.parallel import peers
import torch
torch.set_num_threads(1)
rows = [*samples(41), *rankings(5)]
found = fit_judge(label_set(rows), judge_config(sys.argv[1], epochs=3, learning_rate=1e-3))
head = {f"head.{name}": p.detach() for name, p in found.model.head.named_parameters()}
save_file(found.adapter | head | {"raw": torch.from_numpy(found.raw)}, f"{sys.argv[2]}/{peers().rank}.safetensors")
"""


@pytest.mark.parametrize("count", [2, 3])
def test_the_shares_of_a_batch_are_whole_units_each_taken_once(count):
    unit = np.repeat(np.arange(6), [1, 3, 1, 2, 1, 1])
    rows = np.flatnonzero(unit != 4)
    shares = [Peers(rank, count).share(unit, rows) for rank in range(count)]
    assert sorted(np.concatenate([mine for mine, _ in shares]).tolist()) == rows.tolist()
    assert sum(part for _, part in shares) == pytest.approx(1)
    owners = [set(unit[mine].tolist()) for mine, _ in shares]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 5


def test_a_process_started_alone_leads_and_takes_everything():
    alone = peers()
    parameter = torch.nn.Parameter(torch.ones(2))
    assert alone.leads
    assert alone.share(np.arange(3), np.arange(3))[1] == 1
    assert (alone.agreed(0.5), alone.add_up([parameter], 2.0)) == (0.5, 2.0)
    assert parameter.grad is None


@pytest.mark.slow
def test_two_processes_make_the_judge_of_one(tiny_base, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for start, name in (([sys.executable], "one"), (launch, "two")):
        (tmp_path / name).mkdir()
        arguments = [str(script), str(tiny_base("bert")), str(tmp_path / name), str(ROOT)]
        done = subprocess.run([*start, *arguments], env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
    one, first, second = (
        load_file(tmp_path / name) for name in ("one/0.safetensors", "two/0.safetensors", "two/1.safetensors")
    )
    assert one.keys() == first.keys() == second.keys()
    for name in one:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], one[name], rtol=2e-2, atol=2e-3)
