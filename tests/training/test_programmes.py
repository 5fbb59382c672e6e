"""The programmes of `training/` keep their word: one JSON line last, an exit code, metrics.json as promised.

One judge is trained in a process of its own, as a person would; what only differs in its arguments runs in this one.
"""

import csv
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.config import conf_folder
from quality_judge.judge import METRICS_FILE, load_judge
from quality_judge.stats.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
PROMISED = {"test", "baselines", "certificate", "labels", "seconds"}
MEASURED = {"n", "per_category", *METRICS, *(f"{name}_ci" for name in METRICS)}
PRIVATE = "a sentence of a label file that nobody else may read"


def demo(language, first, last):
    lines = (conf_folder() / "demo" / f"labels.{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[first:last]]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def spoken(stdout):
    """The one JSON object on stdout."""
    lines = stdout.splitlines()
    assert len(lines) == 1, lines
    return json.loads(lines[0])


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_base):
    """Label files and the settings of a tiny judge, by name."""
    folder = tmp_path_factory.mktemp("files")
    settings = folder / "tiny.yaml"
    settings.write_text(
        f"name: tiny\nbase: {tiny_base('bert')}\nmax_tokens: 32\n"
        "train: {method: frozen, folds: 2, surface: false, below_baseline: allow}\n"
    )
    rows = demo("en", 0, 60)
    return {
        "tiny": settings, "train": jsonl(folder / "train.jsonl", rows),
        "held_out": jsonl(folder / "held_out.jsonl", demo("en", 60, 100)),
        "chinese": jsonl(folder / "chinese.jsonl", demo("zh", 0, 60)), "rows": rows,
        "orders": jsonl(folder / "orders.jsonl", [
            {"prompt": f"question {i}", "chosen": f"water boils {i}", "rejected": f"click free {i}"} for i in range(30)
        ]),
    }  # fmt: skip


@pytest.fixture
def programme(monkeypatch, capsys):
    """A function that runs a programme in this process: (exit code, its JSON object or None, stderr)."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            runpy.run_path(str(ROOT / "training" / f"{name}.py"), run_name="__main__")
        said = capsys.readouterr()
        return exited.value.code, spoken(said.out) if said.out.strip() else None, said.err

    return run


@pytest.fixture(scope="module")
def trained(files, packaged_base, tmp_path_factory):
    """The default judge, frozen, trained in its own process on Parquet labels: (the process, its judge's folder)."""
    folder = tmp_path_factory.mktemp("judges")
    labels = folder / "labels.parquet"
    pq.write_table(pa.Table.from_pylist(demo("en", 0, 110)), labels)
    command = [
        sys.executable, "training/train_judge.py", "--labels", str(labels), "--output", str(folder / "default-1"),
        "--set", "train.method=frozen", "--set", "max_tokens=64", "--set", "train.below_baseline=allow",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    return found, folder / "default-1"


def test_training_says_one_json_object_last_and_saves_a_judge_that_loads(trained):
    process, folder = trained
    assert process.returncode == 0, process.stderr
    said = spoken(process.stdout)
    assert said["ok"]
    assert Path(said["judge"]) == folder
    assert said["fingerprint"] == load_judge(folder).fingerprint
    assert said["method"] == "frozen"
    assert (said["labels"], said["held_out"]) == (88, 22)
    assert 0 <= said["roc_auc_ci"][0] <= said["roc_auc"] <= said["roc_auc_ci"][1] <= 1
    assert said["best_baseline"]["name"] in ("tfidf_logistic", "frozen_base", "length_only")


def test_rows_that_nobody_labelled_are_drawn_from_a_corpus_learnt_from_and_stand_in_the_card(
    programme, files, tmp_path
):
    corpus = pa.table({"body": [row["completion"] for row in demo("en", 100, 160)] + [None, "", "x" * 10_000]})
    (tmp_path / "corpus" / "day=1").mkdir(parents=True)
    pq.write_table(corpus, tmp_path / "corpus" / "day=1" / "part.parquet")
    given = ("--config", files["tiny"], "--labels", files["train"], "--test-labels", files["held_out"])
    asked = ("--unlabelled", tmp_path / "corpus", "--text-column", "body", "--set", "train.surface=true")
    code, said, told = programme("train_judge", *given, *asked, "--output", tmp_path / "helped")
    assert code == 0
    assert "labels against the corpus: told apart with a ROC AUC of 0." in told
    judge = load_judge(said["judge"])
    likeness = json.loads((tmp_path / "helped" / METRICS_FILE).read_text())["labels"]["likeness"]
    assert likeness["corpus_texts"] == 61
    assert f"Of {likeness['labelled_texts']} labelled texts and 61 of" in (tmp_path / "helped" / "card.md").read_text()
    assert judge.spec.training["surface"]["unlabelled_texts"] == 61
    assert "61 more texts of the corpus" in (tmp_path / "helped" / "card.md").read_text(encoding="utf-8")
    code, alone, _ = programme("train_judge", *given, "--set", "train.surface=true", "--output", tmp_path / "alone")
    assert code == 0
    assert alone["fingerprint"] != said["fingerprint"]
    assert "more texts of the corpus" not in (tmp_path / "alone" / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("--text-column", "txt"), "no column 'txt'; it has body"),
        (("--text-column", "body"), "train.surface is false"),
        (("--unlabelled", "nowhere"), "nowhere has no files on this machine"),
        (("--text-column", "body", "--set", "train.surface=true"), "hold 1 different texts; expected 10 or more"),
    ],
)
def test_a_corpus_that_cannot_teach_is_refused_before_anything_is_trained(
    programme, files, tmp_path, change, complaint
):
    pq.write_table(pa.table({"body": ["a text"] * 20}), tmp_path / "corpus.parquet")
    code, _, said = programme(
        "train_judge", "--config", files["tiny"], "--labels", files["train"], "--output", tmp_path / "judge",
        "--unlabelled", tmp_path / "corpus.parquet", *change,
    )  # fmt: skip
    assert code == 2
    assert complaint in said
    assert not (tmp_path / "judge").exists()


def test_metrics_json_has_the_promised_keys_and_intervals(trained):
    metrics = json.loads((trained[1] / METRICS_FILE).read_text())
    assert set(metrics) >= PROMISED
    assert set(metrics["test"]) == MEASURED
    assert set(metrics["baselines"]) == {"tfidf_logistic", "frozen_base", "length_only", "zero_shot"}
    assert metrics["baselines"]["zero_shot"] is None
    for name in ("tfidf_logistic", "frozen_base", "length_only"):
        assert set(metrics["baselines"][name]) == MEASURED
        assert metrics["baselines"][name]["n"] == metrics["test"]["n"] == 22
    for name in METRICS:
        value, interval = metrics["test"][name], metrics["test"][f"{name}_ci"]
        assert (value is None) == (interval is None) == (name in ("pair_accuracy", "kendall_tau"))
    assert metrics["certificate"]["n"] == 22


def test_the_shipped_judge_learns_from_a_hundred_demo_labels(trained):
    metrics = json.loads((trained[1] / METRICS_FILE).read_text())
    assert load_judge(trained[1]).spec.training["out_of_fold"]["judge"] > 0.75
    assert metrics["test"]["roc_auc"] > 0.6


def test_the_judge_knows_its_command_its_licence_and_a_cut_to_certify_next(trained):
    spec = load_judge(trained[1]).spec
    assert spec.training["command"].startswith("python training/train_judge.py --labels labels.parquet")
    assert (spec.license, spec.thresholds["proposed"] is None or 0 < spec.thresholds["proposed"] < 1) == (
        "apache-2.0", True,
    )  # fmt: skip
    assert "license: apache-2.0" in (trained[1] / "card.md").read_text()
    assert str(trained[1].parent) not in (trained[1] / "card.md").read_text()


def test_no_label_row_stands_in_what_training_says_or_writes(trained):
    process, folder = trained
    written = "".join((folder / name).read_text() for name in ("card.md", METRICS_FILE, "golden.json", "judge.json"))
    texts = [row["completion"] for row in demo("en", 0, 110) if len(row["completion"]) > 40]
    assert not [text for text in texts if text[:40] in process.stdout + process.stderr + written]


def test_evaluating_exits_1_where_a_bar_is_missed_and_still_writes_the_metrics(trained, files, tmp_path):
    output = tmp_path / "metrics.json"
    command = [
        sys.executable, "training/evaluate_judge.py", "--judge", str(trained[1]), "--labels", str(files["chinese"]),
        "--output", str(output), "--min", "roc_auc=0.99",
    ]  # fmt: skip
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    said = spoken(found.stdout)
    assert not said["ok"]
    assert said["missed"] == [f"roc_auc is {said['roc_auc']}, below 0.99"]
    metrics = json.loads(output.read_text())
    assert set(metrics) >= PROMISED
    assert set(metrics["test"]) == MEASURED
    assert metrics["test"]["n"] == said["n"] == 60


def test_evaluating_exits_0_where_every_bar_holds(programme, trained, files, tmp_path):
    arguments = ("--judge", trained[1], "--labels", files["held_out"], "--output", tmp_path / "new" / "m.json")
    bars = ("--min", "roc_auc=0.4", "accuracy=0.1", "--min", "f1=0", "--max", "ece=0.99")
    code, said, _ = programme("evaluate_judge", *arguments, *bars)
    assert (code, said["ok"], said["missed"]) == (0, True, [])
    assert set(METRICS) <= set(said)
    assert json.loads((tmp_path / "new" / "m.json").read_text())["test"]["roc_auc"] == said["roc_auc"]


def test_a_metric_that_should_be_low_has_a_bar_from_above(programme, trained, files, tmp_path):
    arguments = ("--judge", trained[1], "--labels", files["held_out"], "--output", tmp_path / "m.json")
    code, said, _ = programme("evaluate_judge", *arguments, "--max", "brier=0.0")
    assert (code, said["missed"]) == (1, [f"brier is {said['brier']}, above 0.0"])


def test_a_bar_on_a_metric_that_does_not_apply_is_missed(programme, trained, files, tmp_path):
    arguments = ("--judge", trained[1], "--labels", files["held_out"], "--output", tmp_path / "m.json")
    code, said, _ = programme("evaluate_judge", *arguments, "--min", "kendall_tau=-1")
    assert code == 1
    assert said["missed"] == ["kendall_tau is None, below -1.0"]


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        ("roc_auk=0.5", "did you mean 'roc_auc'?"),
        ("roc_auc=high", "'high' is not a number"),
        ("roc_auc=nan", "'nan' is not a number"),
        ("roc_auc", "is not a number"),
        ("ece=0.1", "of ece less is better; use --max"),
    ],
)
def test_a_bar_that_cannot_be_read_is_refused_before_anything_is_scored(programme, tmp_path, bar, message):
    arguments = ("--judge", tmp_path / "none", "--labels", tmp_path / "none.jsonl", "--output", tmp_path / "m.json")
    code, said, complaint = programme("evaluate_judge", *arguments, "--min", bar)
    assert (code, said["error"]) == (2, "ConfigError")
    assert message in complaint


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_scored(programme, trained, files, tmp_path):
    arguments = ("--judge", tmp_path / "none", "--labels", files["held_out"], "--output", tmp_path)
    code, said, _ = programme("evaluate_judge", *arguments)
    assert (code, said["retry"]) == (2, False)
    assert "is a folder; name a file" in said["message"]


def test_an_unknown_setting_exits_2_with_the_nearest_one(programme, files, tmp_path):
    arguments = ("--labels", files["train"], "--output", tmp_path / "judge", "--set", "train.epoch=3")
    code, said, complaint = programme("train_judge", *arguments)
    assert (code, said["ok"], said["error"]) == (2, False, "ConfigError")
    assert "did you mean 'epochs'?" in complaint
    assert not (tmp_path / "judge").exists()


@pytest.mark.parametrize("name", ["train_judge", "calibrate_judge"])
def test_an_existing_output_is_refused_at_once(programme, tmp_path, name):
    (tmp_path / "judge").mkdir()
    arguments = ["--labels", tmp_path / "none.jsonl", "--output", tmp_path / "judge"]
    code, said, _ = programme(name, *arguments, *(["--judge", "none"] if name == "calibrate_judge" else []))
    assert code == 2
    assert "never overwritten" in said["message"]
    assert not list((tmp_path / "judge").iterdir())


def test_bad_labels_exit_2_naming_file_and_line_and_no_row_text(programme, files, tmp_path):
    rows = [*files["rows"][:3], {"completion": PRIVATE, "label": PRIVATE}, {"completion": PRIVATE}]
    code, said, complaint = programme(
        "train_judge", "--labels", jsonl(tmp_path / "bad.jsonl", rows), "--output", tmp_path / "judge"
    )
    assert (code, said["error"]) == (2, "LabelError")
    assert "bad.jsonl:4" in complaint
    assert "bad.jsonl:5" in complaint
    assert [fault.split(": ")[0] for fault in said["faults"]] == ["bad.jsonl:4", "bad.jsonl:5"]
    assert "nobody else" not in complaint + json.dumps(said)
    assert not (tmp_path / "judge").exists()


def test_labels_of_one_class_exit_2(programme, files, tmp_path):
    good = jsonl(tmp_path / "good.jsonl", [row for row in files["rows"] if row["label"]])
    arguments = ("--config", files["tiny"], "--labels", good, "--output", tmp_path / "judge")
    code, said, complaint = programme("train_judge", *arguments)
    assert (code, said["error"]) == (2, "LabelError")
    assert "label the other class" in complaint


def test_test_labels_of_one_class_promise_nothing_and_say_so(programme, files, tmp_path):
    good = jsonl(tmp_path / "good.jsonl", [row for row in demo("en", 60, 100) if row["label"]])
    arguments = ("--config", files["tiny"], "--labels", files["train"], "--test-labels", good)
    code, said, complaint = programme("train_judge", *arguments, "--output", tmp_path / "judge")
    assert (code, said["certified"], said["roc_auc"]) == (0, False, None)
    assert "are all of one class" in complaint


def test_test_labels_that_all_contradict_one_another_are_refused_before_anything_is_trained(
    programme, trained, files, tmp_path
):
    tied = jsonl(tmp_path / "tied.jsonl", [{"completion": "One text.", "label": label} for label in (True, False)])
    asked = ("--config", files["tiny"], "--labels", files["train"], "--test-labels", tied)
    code, said, _ = programme("train_judge", *asked, "--output", tmp_path / "judge")
    assert (code, said["error"], said["retry"]) == (2, "LabelError", False)
    assert "none of 2 rows is left to measure on" in said["message"]
    asked = ("--judge", trained[1], "--labels", tied, "--output", tmp_path / "metrics.json")
    code, said, _ = programme("evaluate_judge", *asked)
    assert (code, said["error"]) == (2, "LabelError")
    assert not (tmp_path / "metrics.json").exists()


def test_labels_that_all_stand_in_the_test_labels_are_said_to(programme, files, tmp_path):
    arguments = ("--config", files["tiny"], "--labels", files["train"], "--test-labels", files["train"])
    code, _, complaint = programme("train_judge", *arguments, "--output", tmp_path / "judge")
    assert code == 2
    assert "60 rows were left out, for their texts or groups stand in the test labels" in complaint


def test_a_target_that_cannot_be_met_is_refused_before_anything_is_scored(programme, files, tmp_path):
    arguments = ("--judge", tmp_path / "none", "--labels", files["train"], "--output", tmp_path / "judge")
    code, said, _ = programme("calibrate_judge", *arguments, "--target-precision", 1.5)
    assert code == 2
    assert "certificate target is 1.5" in said["message"]


def test_csv_parquet_and_jsonl_labels_give_the_same_judge(programme, files, tmp_path):
    rows = [{name: row[name] for name in ("prompt", "completion", "label", "id")} for row in files["rows"]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    jsonl(tmp_path / "rows.jsonl", rows)
    found = {}
    for form in ("csv", "parquet", "jsonl"):
        arguments = ("--config", files["tiny"], "--labels", tmp_path / f"rows.{form}", "--output", tmp_path / form)
        code, said, complaint = programme("train_judge", *arguments)
        assert code == 0, complaint
        found[form] = said["fingerprint"]
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "_SUCCESS").touch()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table" / "part-0.parquet")
    arguments = ("--config", files["tiny"], "--labels", tmp_path / "table", "--output", tmp_path / "folder")
    assert programme("train_judge", *arguments, "--set", "train.seed=0", "train.folds=2")[1]["fingerprint"] in (
        found.values()
    )
    assert len(set(found.values())) == 1


def test_given_test_labels_are_what_is_measured_and_no_training_label_leaks_in(programme, files, tmp_path):
    both = jsonl(tmp_path / "both.jsonl", [*demo("en", 55, 60), *demo("en", 60, 90)])
    arguments = ("--config", files["tiny"], "--labels", files["train"], "--test-labels", both)
    code, said, complaint = programme("train_judge", *arguments, "--output", tmp_path / "judge")
    assert (code, said["held_out"], said["labels"]) == (0, 35, 55)
    assert "also stands in the test labels" in complaint


def test_orders_alone_train_a_judge_that_is_measured_by_pairs(programme, files, tmp_path):
    arguments = ("--config", files["tiny"], "--labels", files["orders"], "--output", tmp_path / "judge")
    code, said, told = programme("train_judge", *arguments)
    assert code == 0
    assert "roc_auc" not in said
    assert said["pair_accuracy"] > 0.8
    assert (said["threshold"], said["certified"]) == (None, False)
    assert (said["probability"], said["labels_missing"]) == (False, 20)
    assert "20 more texts called good or bad are needed" in told
    card = (tmp_path / "judge" / "card.md").read_text()
    assert "**No probability is stated.**" in card
    assert "20 more labels are needed" in card
    metrics = json.loads((tmp_path / "judge" / METRICS_FILE).read_text())
    assert metrics["certificate"] is None
    assert metrics["test"]["accuracy"] is None


@pytest.mark.parametrize(("allowed", "expected"), [("refuse", 1), ("allow", 0)])
def test_a_judge_below_its_own_baseline_is_saved_and_exits_1_unless_allowed(
    programme, monkeypatch, files, tmp_path, allowed, expected
):
    """The baseline here knows the answers; no judge can be level with it."""
    from quality_judge.train import baselines

    def knows_the_answers(fitted, held_out):
        raw = np.where(held_out.label == 1, 5.0, -5.0)
        return {"length_only": baselines.Answers(raw, 1 / (1 + np.exp(-raw))), "zero_shot": None}

    monkeypatch.setattr(baselines, "baseline_answers", knows_the_answers)
    arguments = ("--config", files["tiny"], "--labels", files["train"], "--output", tmp_path / "judge")
    code, said, complaint = programme("train_judge", *arguments, "--set", f"train.below_baseline={allowed}")
    assert (code, said["ok"]) == (expected, expected == 0)
    assert "below the baseline length_only" in complaint
    assert said["best_baseline"] == {"name": "length_only", "roc_auc": 1.0}
    assert load_judge(tmp_path / "judge").fingerprint == said["fingerprint"]


def test_suspects_are_written_where_asked_counted_in_the_metrics_and_hold_no_text(programme, files, tmp_path):
    options = ("--config", files["tiny"], "--labels", files["train"], "--output")
    code, said, _ = programme("train_judge", *options, tmp_path / "judge", "--suspects", tmp_path / "suspects.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "suspects.jsonl").read_text().splitlines()]
    metrics = json.loads((tmp_path / "judge" / METRICS_FILE).read_text())
    assert code == 0
    assert said["suspects"] == metrics["labels"]["suspects"]["listed"] == len(lines) >= 5
    assert all(set(line) == {"origin", "id", "label", "probability", "reasons"} for line in lines)
    row = files["rows"][int(lines[0]["origin"].removeprefix("train.jsonl:")) - 1]
    assert (lines[0]["id"], lines[0]["label"]) == (row["id"], row["label"])
    more = ("--suspects", tmp_path / "texts.jsonl", "--include-text")
    assert programme("train_judge", *options, tmp_path / "again", *more)[0] == 0
    first = json.loads((tmp_path / "texts.jsonl").read_text().splitlines()[0])
    assert first["completion"] == row["completion"]


def test_an_audit_that_fails_costs_no_judge_and_exits_1(programme, monkeypatch, files, tmp_path):
    from quality_judge.train import audit

    def fails(*_, **options):
        raise ValueError(PRIVATE)

    monkeypatch.setattr(audit, "audit_labels", fails)
    arguments = ("--config", files["tiny"], "--labels", files["train"], "--output", tmp_path / "judge")
    code, said, told = programme("train_judge", *arguments, "--suspects", tmp_path / "suspects.jsonl")
    assert (code, said["ok"], said["suspects"]) == (1, False, None)
    assert load_judge(tmp_path / "judge").fingerprint == said["fingerprint"]
    assert "no suspects are listed: ValueError" in told
    assert PRIVATE not in told
    assert not (tmp_path / "suspects.jsonl").exists()


def test_suspects_that_cannot_be_written_are_refused_before_anything_is_trained(programme, files, tmp_path):
    arguments = ("--labels", files["train"], "--output", tmp_path / "judge")
    code, said, _ = programme("train_judge", *arguments, "--suspects", tmp_path)
    assert code == 2
    assert "is a folder; name a file" in said["message"]


def test_calibrating_anew_gives_a_new_judge_and_leaves_the_old_one(programme, trained, files, tmp_path):
    before = load_judge(trained[1]).fingerprint
    arguments = ("--judge", trained[1], "--labels", files["held_out"], files["chinese"])
    code, said, _ = programme("calibrate_judge", *arguments, "--output", tmp_path / "new", "--target-precision", 0.6)
    assert code == 0
    renewed = load_judge(tmp_path / "new")
    assert said["fingerprint"] == renewed.fingerprint != before == load_judge(trained[1]).fingerprint
    metrics = json.loads((tmp_path / "new" / METRICS_FILE).read_text())
    assert set(metrics) >= PROMISED
    assert set(metrics["test"]) == MEASURED
    assert metrics["test"]["n"] == metrics["certificate"]["n"] == 100
    assert said["ece"] == metrics["test"]["ece"]
    assert said["certified"] == metrics["certificate"]["granted"]


def test_fresh_labels_certify_the_cut_they_were_drawn_at_and_change_no_score(programme, trained, tmp_path):
    judge = load_judge(trained[1])
    mark = {"keep_at": 0.5, "drop_below": 0.5, "quality_judge": judge.fingerprint}
    there = {"kept": {"drawn": 30, "texts_there": 300, "rows_there": 600},
             "dropped": {"drawn": 10, "texts_there": 100, "rows_there": 100}}  # fmt: skip
    rows = [
        mark | {"completion": f"row {i}", "strategy": side, "quality_score": score} | there[side]
        for i, (side, score) in enumerate([("kept", 0.9)] * 30 + [("dropped", 0.1)] * 10)
    ]
    drawn = jsonl(tmp_path / "drawn.jsonl", rows)
    said = [row | {"label": None if row["completion"] == "row 3" else row["strategy"] == "kept"} for row in rows]
    labels = jsonl(tmp_path / "said.jsonl", said)
    arguments = ("--judge", trained[1], "--fresh", drawn, "--labels", labels, "--target-npv", 0.7,
                 "--target-precision", 0.8)  # fmt: skip
    code, said, complaint = programme("calibrate_judge", *arguments, "--output", tmp_path / "new")
    assert code == 0, complaint
    assert (said["certified"], said["threshold"], said["drop_below"]) == (True, 0.5, 0.5)
    assert said["fingerprint"] == judge.fingerprint
    assert "50% of the rows from the cut on repeat another" in complaint
    certificate = json.loads((tmp_path / "new" / METRICS_FILE).read_text())["certificate"]
    assert (certificate["sampling"], certificate["n"], certificate["n_errors"]) == ("fresh", 30, 1)
    assert "1 of them nobody labelled" in certificate["message"]


def test_calibrating_on_orders_alone_exits_2(programme, trained, files, tmp_path):
    arguments = ("--judge", trained[1], "--labels", files["orders"], "--output", tmp_path / "new")
    code, said, _ = programme("calibrate_judge", *arguments)
    assert (code, said["error"]) == (2, "LabelError")
    assert "label 20 more" in said["message"]


@pytest.mark.parametrize("name", ["train_judge", "evaluate_judge", "calibrate_judge"])
def test_every_programme_explains_itself(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as exited:
        runpy.run_path(str(ROOT / "training" / f"{name}.py"), run_name="__main__")
    assert exited.value.code == 0
    assert f"python training/{name}.py" in capsys.readouterr().out
