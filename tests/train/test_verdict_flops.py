"""What a label costs: counted in floating point operations, ours against TRL's KTOTrainer on the same rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_label_costs_at_most_a_quarter_of_what_it_costs_trl(smollm2):
    """On the first layers only, for time; `python benchmarks/verdict_flops.py` counts the whole model."""
    pytest.importorskip("trl", reason="pip install 'trl>=1.16,<2'")
    command = [sys.executable, "benchmarks/verdict_flops.py", "--layers", "6"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    counted = json.loads(done.stdout.splitlines()[-1])
    assert counted["ours_gflop_per_label_and_epoch"] > 0
    assert counted["ours_of_trl"] <= 0.25
