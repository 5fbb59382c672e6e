"""Distilling: a student learns what its teacher says of rows nobody labelled, and says honestly whose word it keeps."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.config import conf_folder
from quality_judge.distillation import drawn_rows, teacher_labels
from quality_judge.engine.scorer import load_scorer
from quality_judge.judge import METRICS_FILE, load_judge

ROOT = Path(__file__).resolve().parents[2]


def demo(first, last):
    lines = (conf_folder() / "demo" / "labels.en.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[first:last]]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def execute(name, *arguments):
    """Runs a programme in this process; its exit code."""
    before, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as exited:
            runpy.run_path(str(ROOT / "training" / f"{name}.py"), run_name="__main__")
    finally:
        sys.argv = before
    return exited.value.code


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny_base):
    """Settings of a tiny judge, a teacher of 200 labels, a table of unlabelled rows, and labels of experts."""
    folder = tmp_path_factory.mktemp("taught")
    settings = folder / "tiny.yaml"
    settings.write_text(
        f"name: tiny\nbase: {tiny_base('bert')}\nmax_tokens: 32\n"
        "train: {method: frozen, folds: 2, below_baseline: allow}\n"
    )
    labels = jsonl(folder / "labels.jsonl", demo(0, 200))
    arguments = ("--config", settings, "--labels", labels, "--output", folder / "teacher")
    assert execute("train_judge", *arguments) == 0
    unlabelled = folder / "rows.parquet"
    texts = [row["completion"] for row in demo(0, 330)]
    pq.write_table(
        pa.table({"text": [*texts, "", None], "about": [f"question {n}" for n in range(len(texts) + 2)]}), unlabelled
    )
    return {
        "config": settings, "teacher": folder / "teacher", "input": unlabelled,
        "experts": jsonl(folder / "experts.jsonl", demo(300, 404)),
    }  # fmt: skip


@pytest.fixture
def distil(taught, capsys, tmp_path):
    """A function from more arguments to (exit code, the JSON object on stdout, metrics.json or None, stderr)."""

    def run(*arguments, teacher=None, output="student"):
        folder = tmp_path / output
        code = execute(
            "distill_judge", "--judge", teacher or taught["teacher"], "--config", taught["config"],
            "--output", folder, *arguments,
        )  # fmt: skip
        said = capsys.readouterr()
        metrics = folder / METRICS_FILE
        found = json.loads(metrics.read_text()) if metrics.exists() else None
        return code, json.loads(said.out.splitlines()[-1]), found, said.err

    return run


def test_a_student_agrees_with_its_teacher_on_rows_it_has_not_seen(distil, taught, tmp_path):
    code, said, metrics, told = distil("--input", taught["input"])
    assert code == 0
    assert "of the labelled texts are longer than what is read of one (at most 32 tokens)" in told
    teacher, student = load_judge(taught["teacher"]), load_judge(tmp_path / "student")
    assert said["teacher"] == teacher.fingerprint != student.fingerprint == said["fingerprint"]
    assert metrics["distillation"]["codes"] == {"OK": 330, "NULL_TEXT": 1, "EMPTY_TEXT": 1}
    found = metrics["distillation"]["agreement"]
    assert found == said["agreement"]
    assert found["n"] == metrics["labels"]["agreement_rows"]["rows"] >= 50
    assert found["roc_auc"] > 0.75
    assert found["spearman"] > 0.4
    assert found["mean_absolute_difference"] < 0.25


def test_without_experts_the_student_keeps_its_teachers_threshold_and_promises_nothing(distil, taught, tmp_path):
    _, said, metrics, _ = distil("--input", taught["input"])
    student = load_judge(tmp_path / "student").spec
    assert student.threshold == said["threshold"] == load_judge(taught["teacher"]).spec.threshold
    assert (metrics["test"], metrics["certificate"], said["certified"]) == ({}, None, False)
    assert said["calibrated_by"] == "teacher"
    assert student.training["distilled_from"]["fingerprint"] == said["teacher"]
    card = (tmp_path / "student" / "card.md").read_text()
    assert "its probability is that of the teacher" in card
    assert "training/distill_judge.py" in card


def test_experts_calibrate_measure_and_certify_the_student_and_their_rows_are_not_learnt(distil, taught, tmp_path):
    code, said, metrics, _ = distil("--input", taught["input"], "--labels", taught["experts"])
    assert code == 0
    assert said["calibrated_by"] == "experts"
    assert metrics["test"]["n"] == 104
    assert metrics["certificate"] is not None
    assert said["roc_auc"] == metrics["test"]["roc_auc"]
    assert metrics["labels"]["train"]["rows"] + metrics["labels"]["agreement_rows"]["rows"] <= 300
    assert "calibrated by experts" in (tmp_path / "student" / "card.md").read_text()


def test_no_more_rows_are_scored_than_asked_for_and_prompts_are_read(distil, taught):
    code, _, metrics, _ = distil(
        "--input", taught["input"], "--rows", 120, "--text-column", "text", "--prompt-column", "about"
    )
    assert code == 0
    assert sum(metrics["distillation"]["codes"].values()) == 120


def test_a_table_of_bytes_teaches_the_same_texts_as_one_of_strings(taught):
    teacher = load_scorer(load_judge(taught["teacher"]))
    table = drawn_rows(pq.read_table(taught["input"]), "rows.parquet", rows=40, seed=0)
    as_bytes = table.cast(pa.schema([("text", pa.binary()), ("about", pa.binary()), *list(table.schema)[2:]]))
    said = [teacher_labels(teacher, rows, text_column="text", prompt_column="about") for rows in (table, as_bytes)]
    assert said[0] == said[1]
    assert said[0][0].samples[0].prompt.startswith("question ")


def test_no_row_stands_in_what_is_said_or_written(distil, taught, tmp_path):
    _, said, _, told = distil("--input", taught["input"])
    names = ("card.md", METRICS_FILE, "judge.json", "golden.json")
    written = "".join((tmp_path / "student" / name).read_text() for name in names)
    texts = [row["completion"][:40] for row in demo(0, 330) if len(row["completion"]) > 40]
    assert not [text for text in texts if text in json.dumps(said, ensure_ascii=False) + told + written]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text-column", "txt"), "did you mean 'text'?"),
        (("--rows", 0), "expected at least 1"),
        (("--input", "rows.xml"), "expected one of"),
    ],
)
def test_what_cannot_be_read_exits_2(distil, taught, tmp_path, arguments, message):
    code, said, metrics, told = distil("--input", taught["input"], *arguments)
    assert (code, said["ok"], metrics) == (2, False, None)
    assert message in told


@pytest.mark.parametrize(("good", "bad", "missing"), [(8, 7, 5), (30, 0, 1), (0, 0, 20)])
def test_experts_too_few_to_calibrate_are_refused_before_the_teacher_is_loaded(distil, tmp_path, good, bad, missing):
    rows = [{"text": f"the words of row number {at}", "label": at < good} for at in range(good + bad)]
    pair = {"prompt": "which?", "chosen": "water boils when hot", "rejected": "click here"}
    experts = jsonl(tmp_path / "few.jsonl", [*rows, pair])
    arguments = ("--input", tmp_path / "none.parquet", "--labels", experts)
    code, said, metrics, _ = distil(*arguments, teacher=tmp_path / "no-teacher")
    assert (code, said["error"], metrics) == (2, "LabelError", None)
    assert said["message"].startswith(f"{good + bad} labelled texts to calibrate on; at least 20 of both classes")
    assert said["message"].endswith(f"label {missing} more")


def test_a_teacher_without_a_probability_is_refused(distil, taught, tmp_path):
    orders = jsonl(tmp_path / "orders.jsonl", [
        {"prompt": f"question {i}", "chosen": f"water boils {i}", "rejected": f"click free {i}"} for i in range(30)
    ])  # fmt: skip
    arguments = ("--config", taught["config"], "--labels", orders, "--output", tmp_path / "orders")
    assert execute("train_judge", *arguments) == 0
    code, said, _, _ = distil("--input", taught["input"], teacher=tmp_path / "orders")
    assert (code, said["error"]) == (2, "JudgeError")
    assert "calibrate it first" in said["message"]


def test_agreement_with_oneself_is_whole_and_with_a_constant_is_none():
    from types import SimpleNamespace

    from quality_judge.distillation import teacher_agreement
    from quality_judge.labels import LabelSet
    from quality_judge.samples import Sample

    said = np.linspace(0.05, 0.95, 19)
    rows = [Sample("", f"t{at}", bool(p >= 0.5), probability=float(p)) for at, p in enumerate(said)]
    labels = LabelSet.of(rows, [row.completion for row in rows])
    same = teacher_agreement(SimpleNamespace(probability=said), labels, threshold=0.3)
    assert [same[name] for name in ("roc_auc", "cohen_kappa", "same_decision")] == [1, 1, 1]
    assert (same["pearson"], same["spearman"], same["mean_absolute_difference"]) == pytest.approx((1, 1, 0))
    flat = teacher_agreement(SimpleNamespace(probability=np.append(said[:-1] * 0 + 0.5, np.nan)), labels, threshold=0.3)
    assert (flat["n"], flat["unscored"], flat["roc_auc"], flat["pearson"]) == (18, 1, 0.5, None)
