"""A real cascade of two judges: made from labels, scored in two passes, each row decided by the judge it names."""

import json
import math
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.cascade import Cascade, load_cascade, save_cascade
from quality_judge.cli.reading import report
from quality_judge.config import conf_folder, load_judge_config
from quality_judge.engine.scorer import load_scorer
from quality_judge.errors import InputError, JudgeError
from quality_judge.evaluation import make_cascade
from quality_judge.judge import save_judge
from quality_judge.labels import load_labels
from quality_judge.stats.certificate import Certificate
from quality_judge.train.fit import fit_judge
from quality_judge.train.save import draft_judge

TRAINED_ON = 60  # lines of each language that the fixture `judge` has seen
KEPT = Certificate("precision", 0.7, 0.9, 0.5, 60, 30, 3, 0.75, 0.9, True, 0, "precision >= 0.7")


def demo(first, last):
    found = []
    for language in ("en", "zh"):
        file = conf_folder() / "demo" / f"labels.{language}.jsonl"
        found += file.read_text(encoding="utf-8").splitlines()[first:last]
    return found


@pytest.fixture(scope="module")
def cheap(tmp_path_factory, tiny_base):
    """A judge that costs next to nothing: a tiny random base, whose surface features do the work."""
    folder = tmp_path_factory.mktemp("cheap")
    (folder / "labels.jsonl").write_text("\n".join(demo(0, TRAINED_ON)), encoding="utf-8")
    (folder / "tiny.yaml").write_text(
        f"name: cheap\nbase: {tiny_base('bert')}\nmax_tokens: 32\n"
        "train: {method: frozen, folds: 2, below_baseline: allow}\n"
    )
    config, labels = load_judge_config(folder / "tiny.yaml", []), load_labels([folder / "labels.jsonl"])
    return draft_judge(folder, fit_judge(labels, config), config, labels)


@pytest.fixture(scope="module")
def large(tmp_path_factory, judge):
    """The judge of all Spark tests with a threshold that no label here has had a part in."""
    spec = judge.spec.model_copy(update={"thresholds": {"best": 0.5}})
    return save_judge(tmp_path_factory.mktemp("large") / "judge", spec, {n: judge.path(n) for n in judge.spec.files})


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Demo labels that neither judge has seen."""
    file = tmp_path_factory.mktemp("labels") / "fresh.jsonl"
    file.write_text("\n".join(demo(TRAINED_ON, 180)), encoding="utf-8")
    return load_labels([file])


@pytest.fixture(scope="module")
def made(cheap, large, labels):
    """(cascade, how it was chosen)."""
    return make_cascade(load_scorer(cheap), load_scorer(large), labels, precision=0.7, recall=0.6, confidence=0.9)


def test_a_real_cheap_judge_saves_rows_and_the_certificates_say_what_holds(made, cheap, large):
    cascade, choice = made
    assert cascade is not None, choice.message
    assert (cascade.cheap, cascade.large, cascade.cut) == (cheap.fingerprint, large.fingerprint, 0.5)
    assert cascade.low <= 0.5 <= cascade.high
    assert cascade.saving > 0
    assert cascade.agreement > 0.5
    assert [each["metric"] for each in cascade.promises] == ["precision", "recall"]
    assert all(each["lower_bound"] >= each["target"] for each in cascade.promises)


@pytest.fixture(scope="module")
def already():
    """What `passes` has made; its jobs need a fixture of each test."""
    return []


@pytest.fixture
def passes(already, made, cheap, large, run_job, texts, tmp_path_factory):
    """(cheap table, large table, table of the cascade, its summary, their folder) of the same rows."""
    if already:
        return already[0]
    tmp_path = tmp_path_factory.mktemp("passes")
    some = [text.encode() if isinstance(text, str) else text for text in texts[:60]]
    pq.write_table(pa.table({"id": range(60), "text": pa.array(some, pa.binary())}), tmp_path / "in.parquet")
    cascade, _ = made
    save_cascade(tmp_path / "c.json", cascade)
    for name, folder in (("cheap", cheap.folder), ("large", large.folder)):
        code, _, _ = run_job("score_corpus", judge=folder, input=tmp_path / "in.parquet", output=tmp_path / name)
        assert code == 0
    given = {"judge": large.folder, "cascade": tmp_path / "c.json", "input": tmp_path / "cheap"}
    code, said, shown = run_job("score_corpus", **given, output=tmp_path / "both")
    assert code == 0, shown
    already.append((*[by_id(tmp_path / name) for name in ("cheap", "large", "both")], said, tmp_path))
    return already[0]


def by_id(folder):
    return {row["id"]: row for row in pq.read_table(folder).to_pylist()}


def test_each_row_carries_every_column_of_the_judge_that_decided_it_and_of_no_other(passes, made):
    few, many, both, said, folder = passes
    cascade, _ = made
    assert len(both) == said["rows"] == 60
    decided = {cascade.cheap: few, cascade.large: many}
    for i, row in both.items():
        assert row == decided[row["quality_judge"]][i]
        score = few[i]["quality_score"]
        within = score is not None and cascade.low <= score <= cascade.high
        asked = within or (score is None and few[i]["quality_code"] != "NULL_TEXT")
        assert (row["quality_judge"] == cascade.large) is asked
    assert {row["quality_judge"] for row in both.values()} == set(decided)
    manifest = json.loads((folder / "both" / "_quality_manifest.json").read_text())
    assert manifest["cascade"]["low"] == cascade.low
    assert manifest["threshold"] == cascade.cut


def test_a_policy_at_the_threshold_keeps_what_the_cascade_keeps_and_the_report_shows_its_promise(
    passes, made, large, run_job
):
    few, many, _, _, folder = passes
    cascade, _ = made
    (folder / "policy.yaml").write_text("name: plain\nkeep_at: judge\n")
    code, said, _ = run_job(
        "filter_corpus", scored=folder / "both", policy=folder / "policy.yaml", output=folder / "filtered"
    )
    assert code == 0
    kept = set(by_id(folder / "filtered" / "kept"))

    def score(i):
        asked = few[i]["quality_score"] is None or cascade.low <= few[i]["quality_score"] <= cascade.high
        return (many if asked else few)[i]["quality_score"]

    assert kept == {i for i in few if (score(i) or -math.inf) >= cascade.cut}
    assert said["kept"] == len(kept)
    report(folder / "filtered", folder / "report.html", judge=Path(large.folder))
    assert large.spec.certificate is None
    assert "At least 70% of" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_cut_to_drop_at_that_one_judge_certified_is_not_that_of_a_cascade(passes, run_job):
    folder = passes[-1]
    (folder / "drops.yaml").write_text("name: drops\nkeep_at: judge\ndrop_below: judge\n")
    manifest = json.loads((folder / "both" / "_quality_manifest.json").read_text())
    manifest["judge_says"]["thresholds"]["certified_drop"] = 0.05
    shutil.copytree(folder / "both", folder / "certified")
    (folder / "certified" / "_quality_manifest.json").write_text(json.dumps(manifest))
    given = {"scored": folder / "certified", "policy": folder / "drops.yaml", "output": folder / "dropped"}
    code, said, _ = run_job("filter_corpus", **given)
    assert (code, said["error"]) == (2, "ConfigError")


def test_a_cut_that_the_large_judge_has_moved_is_not_that_of_the_cascade_and_its_promise(passes, large, run_job):
    folder = passes[-1]
    files = {name: large.path(name) for name in large.spec.files}
    thresholds = {**large.spec.thresholds, "certified": 0.95}
    moved = save_judge(folder / "moved", large.spec.model_copy(update={"thresholds": thresholds}), files)
    (folder / "keeps.yaml").write_text("name: keeps\nkeep_at: judge\n")
    given = {"scored": folder / "both", "policy": folder / "keeps.yaml", "output": folder / "kept"}
    code, said, _ = run_job("filter_corpus", **given, judge=moved.folder)
    assert (code, said["error"]) == (2, "JudgeError")
    assert "make a cascade for that cut" in said["message"]
    assert run_job("filter_corpus", **given, judge=large.folder)[0] == 0


def test_the_large_judge_reads_the_columns_that_the_cheap_one_read(passes, large, run_job):
    folder = passes[-1]
    given = {"judge": large.folder, "cascade": folder / "c.json", "input": folder / "cheap", "output": folder / "no"}
    code, said, _ = run_job("score_corpus", **given, prompt_column="text")
    assert (code, said["error"]) == (2, "ConfigError")
    assert "give the large one the same columns" in said["message"]


def test_a_table_of_another_judge_and_one_that_nobody_scored_are_refused(passes, large, run_job):
    folder = passes[-1]
    given = {"judge": large.folder, "cascade": folder / "c.json", "output": folder / "no"}
    code, said, _ = run_job("score_corpus", **given, input=folder / "large")
    assert (code, said["error"]) == (2, "JudgeError")
    assert "made for the cheap judge" in said["message"]
    code, said, _ = run_job("score_corpus", **given, input=folder / "in.parquet")
    assert (code, said["error"]) == (2, "CorpusError")


def test_a_store_serves_the_large_pass_too(passes, large, run_job):
    _, _, both, _, folder = passes
    given = {"judge": large.folder, "cascade": folder / "c.json", "input": folder / "cheap", "store": folder / "store"}
    for name, new in (("first", True), ("second", False)):
        code, said, _ = run_job("score_corpus", **given, output=folder / name)
        assert (code, said["store"]["contents_scored"] > 0) == (0, new)
        assert by_id(folder / name) == both


def small(**changes):
    fields = {
        "cheap": "a" * 16, "large": "b" * 16, "low": 0.2, "high": 0.8, "cut": 0.5, "confidence": 0.9,
        "promises": (KEPT.to_dict(),), "saving": 0.4, "agreement": 0.9, "saving_ci": (0.3, 0.5),
        "agreement_ci": (0.8, 1.0), "n_selection": 30, "n_certification": 60, "labels_sha256": "0" * 64,
    }  # fmt: skip
    return Cascade(**fields | changes)


def test_a_cascade_file_says_what_it_said_and_a_damaged_one_is_refused(tmp_path):
    save_cascade(tmp_path / "c.json", small())
    assert load_cascade(tmp_path / "c.json") == small()
    data = json.loads((tmp_path / "c.json").read_text())
    refused = [{"low": 0.6}, {"high": 0.4}, {"cheap": "x"}, {"extra": 1}, {"promises": []}, {"cut": 0.51}]
    refused += [{"promises": [KEPT.to_dict() | {"granted": False}]}]
    for change in refused:
        (tmp_path / "bad.json").write_text(json.dumps(data | change))
        with pytest.raises(InputError):
            load_cascade(tmp_path / "bad.json")
    with pytest.raises(InputError):
        load_cascade(tmp_path / "nowhere.json")


def test_a_cascade_for_a_threshold_that_has_moved_is_refused(large):
    moved = small(large=large.fingerprint, cut=0.55, promises=({**KEPT.to_dict(), "threshold": 0.55},))
    with pytest.raises(JudgeError, match="make a new one"):
        moved.check("a" * 16, large)
    small(large=large.fingerprint).check("a" * 16, large)
