"""The whole loop, as docs/labelling.md tells it: rows drawn, two experts on the page, a judge renewed twice."""

import json
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelling_server import ROOT, RUBRIC, Server

from quality_judge.config import conf_folder
from quality_judge.engine.scorer import load_scorer
from quality_judge.evaluation import certified_fresh, recalibrated
from quality_judge.labels import clean_labels, load_labels
from quality_judge.labels.drawn import read_drawing
from quality_judge.stats.certificate import Targets

ROWS = 240


@pytest.fixture(scope="module")
def truth():
    """Texts of the demo that the judge has not seen, and whether each is good."""
    lines = [
        json.loads(line)
        for language in ("en", "zh")
        for line in (ROOT / "conf" / "demo" / f"labels.{language}.jsonl").read_text(encoding="utf-8").splitlines()[60:]
    ]
    return {line["completion"]: line["label"] for line in lines[:ROWS]}


def labelled(rows, output, truth):
    """What two experts say of the rows on the page, both at once: Ann is always right, Bo wrong on every tenth row."""
    server = Server(rows, output, "--annotator", "Ann", "--annotator", "Bo 博", "--rubric", RUBRIC)

    def expert(name, slips):
        said = server.ask("next", server.links[name])[1]
        while question := said["question"]:
            answer = truth[question["texts"][0]] ^ (slips and said["done"] % 10 == 3)
            said = server.ask("answer", server.links[name], key=question["key"], answer=answer, seconds=2)[1]

    try:
        threads = [threading.Thread(target=expert, args=each) for each in (("Ann", False), ("Bo 博", True))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        server.end()


def command(*words):
    done = subprocess.run(
        [sys.executable, "-m", "quality_judge", "labels", *map(str, words)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_drawn_rows_become_labels_agreement_a_judge_calibrated_anew_a_certified_cut_and_a_filtered_table(
    judge, truth, run_job, tmp_path
):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    pq.write_table(
        pa.Table.from_pylist([{"id": i, "text": text} for i, text in enumerate(truth)]), corpus / "0.parquet"
    )
    assert run_job("score_corpus", judge=judge.folder, input=corpus, output=tmp_path / "scored")[0] == 0
    drawn = tmp_path / "uniform.jsonl"
    assert run_job("sample_for_labels", scored=tmp_path / "scored", strategy="uniform", count=60, output=drawn)[0] == 0
    labelled(drawn, tmp_path / "page.jsonl", truth)
    said = command("import", tmp_path / "page.jsonl", "--output", tmp_path / "labels.jsonl")
    assert (said["labels"], said["label_files"]) == (120, 1)
    found = command("agreement", tmp_path / "labels.jsonl")["agreement"]
    assert found["shared_rows"] == 60
    assert 0.6 < found["alpha"] < 0.95
    assert found["annotators"]["Ann"]["sensitivity"] > found["annotators"]["Bo 博"]["sensitivity"] - 0.05
    kept = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["inclusion_probability"] for row in kept} == {60 / len(truth)}
    labels, report = clean_labels(load_labels([tmp_path / "labels.jsonl"]))
    report.raise_for_failures()
    renewed, metrics = recalibrated(judge, load_scorer(judge, threads=1), labels, tmp_path / "renewed", Targets(0.8))
    assert metrics["labels"]["calibration"]["samples"] == len(labels) > 50
    assert renewed.fingerprint != judge.fingerprint

    assert run_job("score_corpus", judge=renewed.folder, input=corpus, output=tmp_path / "again")[0] == 0
    fresh = tmp_path / "kept.jsonl"
    cut = {"scored": tmp_path / "again", "strategy": "kept", "count": 60, "keep_at": 0.75, "output": fresh}
    assert run_job("sample_for_labels", **cut)[0] == 0
    labelled(fresh, tmp_path / "second.jsonl", truth)
    answers, report = clean_labels(load_labels([tmp_path / "second.jsonl"]))
    certified, promise = certified_fresh(renewed, read_drawing(fresh), answers, tmp_path / "certified", Targets(0.6))
    assert promise.keep.granted, promise.keep.message
    assert promise.keep_at == 0.75
    policy = conf_folder() / "policies" / "default.yaml"
    where = {"scored": tmp_path / "again", "judge": certified.folder, "policy": policy, "output": tmp_path / "out"}
    code, said, shown = run_job("filter_corpus", **where)
    assert (code, said["rows"], said["keep_at"]) == (0, len(truth), 0.75)
    assert said["kept"] > 0
    texts = [row["text"] for row in pq.read_table(tmp_path / "out" / "kept").to_pylist()]
    assert sum(map(truth.get, texts)) / len(texts) >= 0.6  # the promise, checked against the truth itself
    assert not any(text[:40] in shown for text in truth if len(text) > 80)
