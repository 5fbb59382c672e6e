"""The red team as a command, on a judge nobody trained: it measures, writes JSON, and puts the result into a card."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quality_judge.judge import load_judge

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_command_measures_a_judge_and_writes_it_into_a_new_card(sound_judge, tmp_path):
    judge = load_judge(sound_judge("bert")[0])
    command = [sys.executable, "-m", "quality_judge", "redteam", judge.folder]
    options = ["--output", tmp_path / "r.json", "--save", tmp_path / "attacked"]
    done = subprocess.run([*command, *map(str, options)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["control"]["points_over_apart"] <= 1
    attacked = load_judge(tmp_path / "attacked")
    assert attacked.fingerprint == judge.fingerprint
    card = attacked.path("card.md").read_text()
    assert "Texts written to please it" in card
    assert "points lost beyond those" in card
    assert json.loads(attacked.path("metrics.json").read_text())["redteam"] == found
