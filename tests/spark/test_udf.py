"""The UDF: one evaluation a row, nothing heavy on the driver, and faults that stay in their row."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F

from quality_judge.errors import CheckFailed, CorpusError, JudgeError
from quality_judge.scores import CODE_COLUMN, JUDGE_COLUMN, SCORE_COLUMN, SCORED_COLUMNS, Scores
from quality_judge.spark import score, score_udf, worker

ROOT = Path(__file__).resolve().parents[2]


def test_a_filter_on_the_score_does_not_score_a_row_twice(spark, judge, texts, python_evaluations):
    rows = spark.createDataFrame([(i, text) for i, text in enumerate(texts[8:68])], "id int, text string")
    judged = rows.withColumn("quality", score_udf(judge)("text"))
    kept = judged.where("quality.quality_score > 0.3").select("id", "quality.quality_score", "quality.quality_code")
    found = kept.collect()
    assert 0 < len(found) < 60
    assert python_evaluations() == [[60]]


def test_a_table_that_is_kept_and_split_into_two_branches_scores_a_row_once(spark, judge, texts, python_evaluations):
    rows = spark.createDataFrame([(i, text) for i, text in enumerate(texts[8:68])], "id int, text string")
    scored = rows.transform(score(judge)).persist()
    kept = scored.where("quality_score > 0.3").select("id", "quality_score")
    dropped = scored.where("not quality_score > 0.3").select("id", "quality_code")
    plans = [branch._jdf.queryExecution().executedPlan().toString() for branch in (kept, dropped)]
    assert [plan.count("ArrowEvalPython") for plan in plans] == [1, 1]  # the one under the kept table
    found = [len(branch.collect()) for branch in (kept, dropped)]
    scored.unpersist()
    assert sum(found) == 60
    assert min(found) > 0
    assert sum(rows for query in python_evaluations()[:1] for rows in query) == 60


def test_the_struct_holds_the_scored_columns_and_the_judge(spark, judge):
    row = spark.createDataFrame([("one text",)], "text string").select(score_udf(judge)("text").alias("q")).first()["q"]
    assert tuple(row.asDict()) == SCORED_COLUMNS
    assert row[JUDGE_COLUMN] == judge.fingerprint


def test_sql_gives_the_same_as_the_column_function(spark, judge, texts):
    rows = [(text,) for text in texts[8:20]] + [(None,)]
    spark.createDataFrame(rows, "text string").createOrReplaceTempView("some_texts")
    score_udf(judge).register(spark, "judged")
    in_sql = spark.sql("select judged(text) as q from some_texts").collect()
    in_python = spark.table("some_texts").select(score_udf(judge)("text").alias("q")).collect()
    assert in_sql == in_python


def test_three_columns_are_refused(judge):
    with pytest.raises(CorpusError, match="got 3 columns"):
        score_udf(judge)("a", "b", "c")


def test_building_the_function_and_planning_load_neither_torch_nor_cuda(judge):
    code = (
        "import sys; from quality_judge.spark.udf import score_udf; from quality_judge.spark.score import score;"
        "from quality_judge.spark import read_corpus, spark_session, apply_policy, profile;"
        "import quality_judge.spark.device, quality_judge.spark.select, quality_judge.spark.publish;"
        "s = spark_session('plan'); d = s.createDataFrame([('a',)], 'text string');"
        f"p = score({judge.folder!r})(d); p.explain(); score_udf({judge.folder!r}).register(s, 'judged');"
        "print('torch' in sys.modules, 'transformers' in sys.modules, 'tokenizers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines()[-1] == "False False False", done.stderr


class Faulty:
    """A scorer that raises for each batch with a forbidden text in it, and quotes that text."""

    def __init__(self, *forbidden, categories=()):
        self.forbidden = forbidden
        self.judge = SimpleNamespace(spec=SimpleNamespace(category_names=categories))

    def score(self, completions, prompts=None):
        completions = completions if isinstance(completions, list | tuple) else completions.to_pylist()
        n, names = len(completions), self.judge.spec.category_names
        for text in completions:
            if text in self.forbidden:
                raise ValueError(f"cannot score {text!r}")
        raw = np.array([float(len(text)) for text in completions])
        wide = np.zeros((n, len(names)))
        return Scores(raw, raw / 100, np.zeros(n, np.int8), np.zeros((n, 5), bool), wide, wide > 0, names)


def scored_by(scorer, monkeypatch, values):
    monkeypatch.setattr(worker, "scorer_for", lambda folder, fingerprint: scorer)
    return pd.concat(worker.score_batches("judge", "0" * 16, iter([pd.Series(values)])))


@pytest.mark.parametrize("bad", [[3], [0], [0, 6], range(7)], ids=str)
@pytest.mark.parametrize("categories", [(), ("spam", "toxic")])
def test_an_exception_in_a_row_costs_that_row_alone(monkeypatch, bad, categories):
    values = [f"text {i}".encode() for i in range(7)]
    found = scored_by(Faulty(*[values[i] for i in bad], categories=categories), monkeypatch, values)
    assert [i for i, code in enumerate(found[CODE_COLUMN]) if code == "SCORER_ERROR"] == list(bad)
    assert all(np.isnan(score) == (i in bad) for i, score in enumerate(found[SCORE_COLUMN]))
    assert len(found) == 7


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB."),
    ],
    ids=["python", "cpu", "gpu"],
)  # fmt: skip
def test_a_row_that_memory_does_not_suffice_for_is_told_from_one_that_raises(monkeypatch, error):
    class Exhausted(Faulty):
        def score(self, completions, prompts=None):
            try:
                return super().score(completions, prompts)
            except ValueError:
                raise error from None

    found = scored_by(Exhausted(b"b"), monkeypatch, [b"a", b"b", b"c"])
    assert found[CODE_COLUMN].tolist() == ["OK", "OOM_ROW", "OK"]


def test_a_scorer_that_fails_on_everything_fails_the_task_instead_of_flagging_the_corpus(monkeypatch):
    class Dead(Faulty):
        def score(self, completions, prompts=None):
            raise RuntimeError("CUDA error: device-side assert, at 'the secret text'")

    with pytest.raises(CheckFailed, match=r"stopped working.*RuntimeError") as refused:
        scored_by(Dead(), monkeypatch, [b"a", b"b"])
    assert "secret" not in str(refused.value)


def test_what_a_worker_raises_never_quotes_a_row(monkeypatch):
    with pytest.raises(CheckFailed) as refused:
        scored_by(Faulty(), monkeypatch, [b"good", {"the secret": "row"}])
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_an_empty_batch_loads_no_judge():
    (empty,) = worker.score_batches("nowhere", "0" * 16, iter([pd.Series([], dtype=object)]))
    assert len(empty) == 0
    assert tuple(empty.columns) == SCORED_COLUMNS


def test_another_judge_in_the_folder_is_refused_by_the_worker(judge, monkeypatch):
    monkeypatch.setattr(worker, "_SCORERS", {})
    with pytest.raises(JudgeError, match="the folder changed meanwhile"):
        worker.scorer_for(judge.folder, "0" * 16)


def test_a_worker_keeps_one_judge_on_each_gpu_and_gives_its_memory_to_the_process_that_scores_apart(monkeypatch):
    loaded, freed, tasks = [], [], iter(["cuda:0", "cuda:1"] * 3 + ["cuda:1"])
    monkeypatch.setattr(worker, "_SCORERS", {})
    monkeypatch.setattr(worker, "task_device", lambda gpus: next(tasks))
    monkeypatch.setattr(worker, "proven_scorer", lambda folder, name, device: loaded.append((name, device)) or object())
    monkeypatch.setattr(worker, "free_memory", freed.append)
    for _ in range(6):
        worker.scorer_for("", "one judge")
    assert loaded == [("one judge", "cuda:0"), ("one judge", "cuda:1")]
    worker.scorer_for("", "another")
    assert set(worker._SCORERS) == {("one judge", "cuda:0", ""), ("another", "cuda:1", "")}
    freed.clear()
    worker.Apart("", "one judge", "cuda:0", None, 1.0).close()
    assert (set(worker._SCORERS), freed) == ({("another", "cuda:1", "")}, ["cuda:0"])


def test_a_judge_without_the_text_column_type_is_refused_at_plan_time(spark, judge):
    numbers = spark.createDataFrame([(1,)], "text int")
    with pytest.raises(Exception, match="DATATYPE_MISMATCH"):
        numbers.select(score_udf(judge)(F.col("text")))


def test_a_judge_with_the_same_scores_and_another_cut_is_loaded_for_itself(monkeypatch):
    monkeypatch.setattr(worker, "_SCORERS", {})
    monkeypatch.setattr(worker, "task_device", lambda gpus: "cpu")
    monkeypatch.setattr(worker, "proven_scorer", lambda folder, name, device: (folder, name))
    monkeypatch.setattr(worker, "folder_here", lambda folder, name: folder)
    assert worker.scorer_for("one", "same") == ("one", "same")
    assert worker.scorer_for("other", "same") == ("other", "same")


def test_a_judge_that_takes_no_prompts_is_given_none_however_it_is_asked(spark, judge, monkeypatch):
    encoding = judge.spec.encoding.model_copy(update={"fences": ("[TEXT]",), "between": ()})
    assert not encoding.takes_prompts
    function = score_udf(replace(judge, spec=judge.spec.model_copy(update={"encoding": encoding})))
    function("text")
    asked = [lambda: function("prompt", "text"), lambda: function.register(spark, "asked", with_prompt=True)]
    for ask in [*asked, lambda: function.chat("text")]:
        with pytest.raises(CorpusError, match="leave the prompts out"):
            ask()
