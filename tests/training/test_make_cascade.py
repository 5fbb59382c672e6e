"""make_cascade.py: a cascade is written when its promise holds, and nothing when it does not."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from quality_judge.cascade import load_cascade
from quality_judge.config import conf_folder, load_judge_config
from quality_judge.engine.golden import golden_content, golden_rows
from quality_judge.judge import GOLDEN_FILE, save_judge
from quality_judge.labels import load_labels
from quality_judge.train.fit import fit_judge
from quality_judge.train.save import draft_judge

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_base):
    """A folder with a cheap and a large judge and the labels `fresh.jsonl`, which neither has seen."""
    folder = tmp_path_factory.mktemp("cascade")
    lines = (conf_folder() / "demo" / "labels.en.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "seen.jsonl").write_text("\n".join(lines[:120]), encoding="utf-8")
    (folder / "fresh.jsonl").write_text("\n".join(lines[120:320]), encoding="utf-8")
    (folder / "tiny.yaml").write_text(
        f"name: tiny\nbase: {tiny_base('bert')}\nmax_tokens: 32\n"
        "train: {method: frozen, folds: 2, below_baseline: allow}\n"
    )
    config, labels = load_judge_config(folder / "tiny.yaml", []), load_labels([folder / "seen.jsonl"])
    cheap = draft_judge(folder, fit_judge(labels, config), config, labels)
    stack = cheap.spec.stack.model_copy(update={"bias": cheap.spec.stack.bias + 0.1})
    changes = {"stack": stack, "thresholds": {"best": 0.5}}
    _, golden = golden_rows(cheap)
    shifted = golden_content({precision: raw + 0.1 for precision, raw in golden.items()})
    files = {name: cheap.path(name) for name in cheap.spec.files} | {GOLDEN_FILE: json.dumps(shifted).encode()}
    large = save_judge(folder / "large", cheap.spec.model_copy(update=changes), files)
    return folder, Path(cheap.folder), Path(large.folder)


def execute(place, capsys, *arguments):
    """(exit code, the last line parsed) of the programme, run in this process."""
    folder, cheap, large = place
    given = ["--cheap", cheap, "--large", large, "--labels", folder / "fresh.jsonl", *arguments]
    before, sys.argv = sys.argv, ["make_cascade", *map(str, given)]
    try:
        with pytest.raises(SystemExit) as exited:
            runpy.run_path(str(ROOT / "training" / "make_cascade.py"), run_name="__main__")
    finally:
        sys.argv = before
    return exited.value.code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_what_holds_is_written_with_saving_and_agreement(place, capsys, tmp_path):
    code, said = execute(place, capsys, "--output", tmp_path / "c.json", "--target-precision", 0.4)
    assert (code, said["ok"]) == (0, True)
    cascade = load_cascade(tmp_path / "c.json")
    assert said["band"] == [cascade.low, cascade.high]
    assert said["saving"] == cascade.saving > 0.5, "a judge nearly the same as the large one saves most of its work"
    assert said["agreement"] > 0.8
    assert cascade.n_selection + cascade.n_certification <= 200


def test_what_cannot_be_promised_is_not_written_and_exits_1(place, capsys, tmp_path):
    code, said = execute(place, capsys, "--output", tmp_path / "c.json", "--target-precision", 0.999)
    assert (code, said["ok"], said["output"]) == (1, False, None)
    assert "not even the large judge alone" in said["message"]
    assert not (tmp_path / "c.json").exists()


def test_an_existing_file_is_not_replaced(place, capsys, tmp_path):
    (tmp_path / "c.json").write_text("mine")
    code, said = execute(place, capsys, "--output", tmp_path / "c.json")
    assert (code, said["error"]) == (2, "InputError")
    assert (tmp_path / "c.json").read_text() == "mine"
