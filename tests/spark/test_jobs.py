"""The programmes: exit codes, one JSON line, every input format, each row in exactly one place, no text on a screen."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from quality_judge.config import conf_folder
from quality_judge.evaluation import certified_fresh
from quality_judge.judge import save_judge
from quality_judge.labels import load_labels
from quality_judge.labels.drawn import read_drawing
from quality_judge.profile import ScoreProfile
from quality_judge.scores import DECISION_FOLDERS, SCORED_COLUMNS
from quality_judge.stats.certificate import Targets

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-078-05-1120"
SCORED_KEYS = {"ok", "rows", "scored", "codes", "flags", "seconds", "rows_per_second", "judge", "input", "output"} | {
    "shards", "shards_reused", "files_quarantined",
}  # fmt: skip
FILTERED_KEYS = {
    "ok", "rows", "kept", "review", "dropped", "unscored", "reasons", "policy", "keep_at", "drop_below", "judge",
    "seconds", "output",
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, texts):
    """60 rows with ids, two sources, a null and an empty text, and a canary in each text that is long enough."""
    folder = tmp_path_factory.mktemp("corpus") / "rows"
    folder.mkdir()
    rows = [{"id": i, "text": text, "source": "ab"[i % 2]} for i, text in enumerate([None, "", *texts[8:66]])]
    for row in rows[2:]:
        row["text"] = f"{row['text'][:400]} {CANARY}"
    for part in (0, 1):
        pq.write_table(pa.Table.from_pylist(rows[part::2]), folder / f"{part}.parquet")
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory, spark, judge, corpus):
    """The corpus scored by the programme; (folder, its last line)."""
    output = tmp_path_factory.mktemp("scored") / "out"
    done, said = submitted("score_corpus", judge=judge.folder, input=corpus, output=output)
    assert done.returncode == 0, done.stderr
    return output, said, done


def submitted(name, *, spark_submit=False, **options):
    """(the finished process, its last line parsed) of a programme run as a user runs it."""
    scripts = Path(sys.executable).parent
    first = (
        [scripts / "spark-submit", "--master", "local[2,4]", "--conf", "spark.ui.enabled=false"]
        if spark_submit
        else [sys.executable]
    )
    given = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", value)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }
    done = subprocess.run(
        [str(word) for word in (*first, ROOT / "jobs" / f"{name}.py", *given)],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return done, json.loads(lines[-1]) if lines else None


def rows_of(folder):
    return pq.read_table(folder).to_pylist()


def test_a_run_says_what_it_did_in_one_line_and_keeps_every_row_and_column(scored, corpus, judge):
    output, said, done = scored
    assert set(said) == SCORED_KEYS
    assert (said["ok"], said["rows"], said["scored"]) == (True, 60, 58)
    assert said["codes"] == {"OK": 58, "NULL_TEXT": 1, "EMPTY_TEXT": 1}
    assert said["judge"] == judge.fingerprint
    before, after = {row["id"]: row for row in rows_of(corpus)}, {row["id"]: row for row in rows_of(output)}
    assert {i: {name: row[name] for name in before[i]} for i, row in after.items()} == before
    assert set(after[0]) == {"id", "text", "source", *SCORED_COLUMNS}
    assert CANARY not in done.stdout + done.stderr


def test_a_run_on_this_machine_does_not_fill_the_screen(scored):
    assert not [line for line in scored[2].stderr.splitlines() if " WARN " in line or "log4j" in line]


def test_the_manifest_says_what_scored_the_table(scored, judge):
    manifest = json.loads((scored[0] / "_quality_manifest.json").read_text(encoding="utf-8"))
    assert manifest["judge"] == judge.fingerprint
    assert manifest["threshold"] == judge.spec.threshold
    assert manifest["judge_says"]["base"]["id"] == judge.spec.base.id
    assert (manifest["rows"], manifest["text_column"], manifest["prompt_column"]) == (60, "text", None)


@pytest.mark.parametrize("policy", ["default", "strict", "best_third"])
def test_filtering_puts_every_row_in_exactly_one_folder(scored, run_job, tmp_path, policy):
    path = conf_folder() / "policies" / f"{policy}.yaml"
    code, said, shown = run_job("filter_corpus", scored=scored[0], policy=path, output=tmp_path / "out")
    assert code == 0
    assert set(said) == FILTERED_KEYS
    assert said["rows"] == said["kept"] + said["review"] + said["dropped"] + said["unscored"] == 60
    assert said["unscored"] == 2
    found = {folder: rows_of(tmp_path / "out" / folder) for folder in DECISION_FOLDERS.values()}
    assert {folder: len(rows) for folder, rows in found.items()} == {name: said[name] for name in found}
    assert sorted(row["id"] for rows in found.values() for row in rows) == list(range(60))
    assert {row["quality_decision"] for row in found["kept"]} <= {"keep"}
    assert Counter(row["quality_reason"] for rows in found.values() for row in rows) == said["reasons"]
    assert CANARY not in shown


def test_a_table_that_was_scored_inline_is_filtered_and_drawn_from_by_cuts_that_are_given(
    scored, judge, run_job, tmp_path
):
    inline = tmp_path / "inline"
    inline.mkdir()
    rows = [{("body" if name == "text" else name): row[name] for name in row} for row in rows_of(scored[0])]
    pq.write_table(pa.Table.from_pylist(rows), inline / "rows.parquet")
    policies = conf_folder() / "policies"
    given = {"scored": inline, "text_column": "body"}
    code, said, shown = run_job("filter_corpus", **given, policy=policies / "strict.yaml", output=tmp_path / "out")
    assert (code, said["rows"], said["unscored"], said["judge"]) == (0, 60, 2, judge.fingerprint)
    assert "whether all rows that were scored are in it is not known" in shown
    by_judge = {"policy": policies / "default.yaml", "output": tmp_path / "by-judge"}
    code, said, _ = run_job("filter_corpus", **given, **by_judge)
    assert (code, said["error"]) == (2, "ConfigError")
    code, said, _ = run_job("filter_corpus", **given, **by_judge, judge=judge.folder)
    assert (code, said["keep_at"]) == (0, judge.spec.threshold)
    code, said, _ = run_job("sample_for_labels", **given, count=9, output=tmp_path / "rows.jsonl")
    assert (code, said["rows"]) == (0, 9)


def test_the_profile_of_a_filtered_corpus_can_be_read_back_and_adds_up(scored, run_job, tmp_path):
    policy = conf_folder() / "policies" / "strict.yaml"
    _, said, _ = run_job("filter_corpus", scored=scored[0], policy=policy, output=tmp_path / "out")
    text = (tmp_path / "out" / "_quality_profile.json").read_text(encoding="utf-8")
    profile = ScoreProfile.from_dict(json.loads(text))
    assert profile.rows_in == 60
    assert sum(map(sum, profile.histogram.values())) == 58
    assert sum(row.rows for row in profile.slices["source"]) == 60
    kept = rows_of(tmp_path / "out" / "kept")
    assert profile.characters_kept == sum(len(row["text"]) for row in kept)
    assert CANARY not in text
    assert json.loads((tmp_path / "out" / "_quality_manifest.json").read_text())["policy"]["name"] == said["policy"]


def test_the_programmes_score_each_row_once_and_filter_without_scoring(
    scored, judge, corpus, run_job, tmp_path, python_evaluations
):
    assert run_job("score_corpus", judge=judge.folder, input=corpus, output=tmp_path / "scored")[0] == 0
    assert python_evaluations() == [[60]]
    policy = conf_folder() / "policies" / "best_third.yaml"
    assert run_job("filter_corpus", scored=tmp_path / "scored", policy=policy, output=tmp_path / "out")[0] == 0
    assert python_evaluations() == [[60]]


@pytest.mark.parametrize("kind", ["json", "csv", "text"])
def test_every_format_gives_the_scores_of_parquet(scored, corpus, judge, run_job, tmp_path, kind):
    rows = [{"id": row["id"], "text": " ".join(row["text"].split())} for row in rows_of(corpus) if row["text"]]
    file = tmp_path / "rows"
    if kind == "csv":
        pa.csv.write_csv(pa.Table.from_pylist(rows), file)
    elif kind == "json":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        file.write_text("".join(row["text"] + "\n" for row in rows), encoding="utf-8")
    code, said, _ = run_job("score_corpus", judge=judge.folder, input=file, output=tmp_path / "out", format=kind)
    assert (code, said["rows"], said["scored"]) == (0, 58, 58)
    found = {row["text"]: row["quality_score"] for row in rows_of(tmp_path / "out")}
    unchanged = {row["text"]: row["quality_score"] for row in rows_of(scored[0]) if row["text"] in found}
    assert len(unchanged) > 20
    assert {text: found[text] for text in unchanged} == unchanged


def test_columns_that_spark_cannot_hash_are_kept_and_the_rest_is_hashed(spark, judge, run_job, tmp_path):
    kept = ["map('a', text) as words", "array(struct(map('b', 1) as m)) as deep", "parse_json('[1]') as parsed"]
    spark.createDataFrame([("One text.",), ("Another.",)], "text string").selectExpr("*", *kept).write.parquet(
        str(tmp_path / "in")
    )
    code, said, shown = run_job("score_corpus", judge=judge.folder, input=tmp_path / "in", output=tmp_path / "scored")
    assert (code, said["rows"]) == (0, 2), shown
    row = spark.read.parquet(str(tmp_path / "scored")).where("text = 'Another.'").selectExpr("*", "to_json(parsed) j")
    assert (row.first()["words"], row.first()["j"]) == ({"a": "Another."}, "[1]")


def test_an_empty_corpus_gives_an_empty_table_that_filters(judge, run_job, tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in" / "a.parquet")
    code, said, _ = run_job("score_corpus", judge=judge.folder, input=tmp_path / "in", output=tmp_path / "scored")
    assert (code, said["rows"], said["codes"]) == (0, 0, {})
    policy = conf_folder() / "policies" / "strict.yaml"
    code, said, _ = run_job("filter_corpus", scored=tmp_path / "scored", policy=policy, output=tmp_path / "out")
    assert (code, said["rows"]) == (0, 0)
    code, said, _ = run_job("sample_for_labels", scored=tmp_path / "scored", output=tmp_path / "rows.jsonl")
    assert (code, said["error"]) == (2, "CorpusError")
    assert not (tmp_path / "rows.jsonl").exists()


def test_sampled_rows_are_a_label_file_that_lacks_only_its_labels(scored, run_job, tmp_path):
    code, said, shown = run_job("sample_for_labels", scored=scored[0], count=10, output=tmp_path / "rows.jsonl")
    assert (code, said["rows"], said["uncertain"], said["uniform"]) == (0, 10, 7, 3)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    keys = {"prompt", "completion", "id", "source", "quality_score", "copies", "strategy", "inclusion_probability"}
    assert len(rows) == 10
    assert all(set(row) == {*keys, "quality_judge"} for row in rows)
    assert CANARY not in shown


def test_rows_of_label_files_are_not_drawn_again_and_stay_out_of_the_logs(scored, run_job, tmp_path):
    first, second = tmp_path / "rows.jsonl", tmp_path / "next.jsonl"
    _, said, _ = run_job("sample_for_labels", scored=scored[0], strategy="uniform", count=1000, output=first)
    rows = [json.loads(line) for line in first.read_text(encoding="utf-8").splitlines()]
    labelled, left = rows[:-5], rows[-5:]
    known = tmp_path / "labels.jsonl"
    known.write_text("".join(json.dumps(row | {"label": True}) + "\n" for row in labelled), encoding="utf-8")
    code, said, shown = run_job(
        "sample_for_labels", scored=scored[0], strategy="uniform", count=1000, labelled=[known], output=second
    )
    assert (code, said["rows"]) == (0, 5)
    drawn = [json.loads(line)["completion"] for line in second.read_text(encoding="utf-8").splitlines()]
    assert sorted(drawn) == sorted(row["completion"] for row in left)
    assert CANARY not in shown


def test_a_cut_certified_on_fresh_labels_filters_the_table_that_was_scored_before(scored, judge, run_job, tmp_path):
    drawn = tmp_path / "drawn.jsonl"
    code, said, shown = run_job(
        "sample_for_labels", scored=scored[0], strategy="kept", count=16, keep_at=0.0, output=drawn
    )
    assert (code, said["kept"], said["dropped"], said["keep_at"], said["drop_below"]) == (0, 12, 0, 0.0, 0.0)
    rows = [json.loads(line) | {"label": True} for line in drawn.read_text(encoding="utf-8").splitlines()]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    labels = load_labels([tmp_path / "said.jsonl"])
    renewed, promise = certified_fresh(judge, read_drawing(drawn), labels, tmp_path / "renewed", Targets(0.8))
    assert (promise.keep_at, promise.keep.n, promise.keep.n_errors) == (0.0, 12, 0)
    policy = conf_folder() / "policies" / "default.yaml"
    where = {"scored": scored[0], "policy": policy, "judge": renewed.folder}
    code, said, _ = run_job("filter_corpus", **where, output=tmp_path / "out")
    assert (code, said["keep_at"], said["dropped"]) == (0, 0.0, 0)
    assert CANARY not in shown


def test_flags_of_a_filtered_table_go_by_the_threshold_it_is_filtered_by(scored, judge, run_job, tmp_path):
    before = {row["id"]: row for row in pq.read_table(scored[0]).to_pylist()}
    near = next(row for row in before.values() if row["quality_score"] is not None and not row["quality_flags"])
    thresholds = {**judge.spec.thresholds, "certified": near["quality_score"]}
    files = {name: judge.path(name) for name in judge.spec.files}
    changed = judge.spec.model_copy(update={"thresholds": thresholds, "precision_band": 1e-9})
    moved = save_judge(tmp_path / "moved", changed, files)
    assert (moved.fingerprint, moved.spec.threshold) == (judge.fingerprint, near["quality_score"])
    policy = tmp_path / "near.yaml"
    policy.write_text("name: near\nkeep_at: judge\non_flags: {NEAR_THRESHOLD: review}\n", encoding="utf-8")
    where = {"scored": scored[0], "policy": policy, "judge": moved.folder}
    assert run_job("filter_corpus", **where, output=tmp_path / "out")[0] == 0
    found = pq.read_table(tmp_path / "out" / "review").to_pylist()
    flagged = {row["id"] for row in found if "NEAR_THRESHOLD" in row["quality_flags"]}
    assert flagged == {key for key, row in before.items() if row["quality_score"] == near["quality_score"]}


def test_a_budget_by_a_column_that_is_no_number_is_bad_input(scored, run_job, tmp_path):
    table = pq.read_table(scored[0]).replace_schema_metadata()  # Spark would go by the columns named there
    pq.write_table(table.append_column("tokens", pa.array([[1, 2]] * len(table))), tmp_path / "scored.parquet")
    policy = tmp_path / "budget.yaml"
    policy.write_text("name: b\nkeep_at: 0\ntoken_budget: {tokens: 9, column: tokens}\n", encoding="utf-8")
    given = {"scored": tmp_path / "scored.parquet", "policy": policy, "output": tmp_path / "out"}
    code, said, _ = run_job("filter_corpus", **given)
    assert (code, said["error"], said["retry"]) == (2, "CorpusError", False)
    assert "for the policy b" in said["message"]


def test_the_cuts_of_a_judge_with_other_scores_are_refused(scored, other_judge, run_job, tmp_path):
    policy = conf_folder() / "policies" / "default.yaml"
    where = {"scored": scored[0], "policy": policy, "judge": other_judge.folder}
    code, said, _ = run_job("filter_corpus", **where, output=tmp_path / "out")
    assert (code, said["error"]) == (2, "JudgeError")
    assert "score them anew" in said["message"]


def test_a_page_on_a_filtered_corpus_is_of_the_judge_that_scored_it(scored, judge, other_judge, run_job, tmp_path):
    policy = conf_folder() / "policies" / "default.yaml"
    assert run_job("filter_corpus", scored=scored[0], policy=policy, output=tmp_path / "out")[0] == 0
    page = ["--filtered", str(tmp_path / "out"), "--output", str(tmp_path / "new folder" / "page.html")]

    def report(*words):
        command = [sys.executable, "-m", "quality_judge", "report", *page, *map(str, words)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    for words, says in (
        (("--judge", other_judge.folder), "scored these rows"),
        (("--validation", tmp_path / "none.json"), "was it written by validate_corpus.py?"),
        (("--validation", tmp_path / "out" / "_quality_manifest.json"), "holds no results"),
    ):
        refused = report(*words)
        assert refused.returncode == 2
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr
    assert report("--judge", judge.folder).returncode == 0
    assert (tmp_path / "new folder" / "page.html").is_file()


def test_without_a_proposed_cut_rows_are_drawn_at_the_judges_threshold(scored, judge, run_job, tmp_path):
    assert judge.spec.thresholds.get("proposed") is None
    code, said, _ = run_job("sample_for_labels", scored=scored[0], strategy="kept", output=tmp_path / "rows.jsonl")
    assert (code, said["keep_at"]) == (0, judge.spec.threshold)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"strategy": "uniform", "keep_at": 0.5}, "ConfigError"),
        ({"strategy": "uncertain", "drop_below": 0.5}, "ConfigError"),
        ({"strategy": "uniform", "text_column": "txet"}, "CorpusError"),
    ],
)
def test_an_option_that_would_say_nothing_is_refused(scored, run_job, tmp_path, given, error):
    code, said, _ = run_job("sample_for_labels", scored=scored[0], output=tmp_path / "rows.jsonl", **given)
    assert (code, said["error"]) == (2, error)
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_filter_is_not_told_of_a_text_that_the_table_lacks(scored, run_job, tmp_path):
    given = {"scored": scored[0], "policy": conf_folder() / "policies" / "default.yaml", "output": tmp_path / "out"}
    code, said, _ = run_job("filter_corpus", **given, text_column="txet")
    assert (code, said["error"]) == (2, "CorpusError")
    assert "it has id, text" in said["message"]


def test_the_judge_that_vanishes_during_a_run_ends_it_and_nothing_is_published(
    other_judge, corpus, run_job, tmp_path, monkeypatch
):
    module = importlib.import_module("quality_judge.spark.run")
    count = module.input_files

    def counted_and_gone(df):
        shutil.rmtree(other_judge.folder)
        return count(df)

    monkeypatch.setattr(module, "input_files", counted_and_gone)
    code, said, shown = run_job("score_corpus", judge=other_judge.folder, input=corpus, output=tmp_path / "out")
    assert (code, said["error"]) == (2, "JudgeError")
    assert other_judge.folder in said["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == []
    assert CANARY not in shown


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("score_corpus", {"judge": "nowhere"}, "JudgeError", "is not a folder"),
        ("score_corpus", {"text_column": "txt"}, "CorpusError", "did you mean 'text'"),
        ("score_corpus", {"input": "nowhere"}, "CorpusError", "nowhere"),
        ("filter_corpus", {"scored": "corpus"}, "CorpusError", "holds no _quality_manifest.json"),
        ("filter_corpus", {"policy": "nowhere.yaml"}, "ConfigError", "nowhere.yaml"),
        ("sample_for_labels", {"scored": "corpus"}, "CorpusError", "holds no _quality_manifest.json"),
        ("sample_for_labels", {"count": 0}, "ConfigError", "--count 0"),
        ("sample_for_labels", {"strategy": "stratified"}, "ConfigError", "--stratum"),
        ("sample_for_labels", {"strategy": "stratified", "stratum": "lang"}, "CorpusError", "no column lang"),
    ],
)
def test_bad_options_exit_2_with_one_line_that_says_what_to_do(
    scored, corpus, judge, run_job, tmp_path, name, options, error, said
):
    fine = {
        "score_corpus": {"judge": judge.folder, "input": corpus},
        "filter_corpus": {"scored": scored[0], "policy": conf_folder() / "policies" / "strict.yaml"},
        "sample_for_labels": {"scored": scored[0]},
    }
    given = {key: corpus if value == "corpus" else value for key, value in options.items()}
    code, summary, shown = run_job(name, **fine[name] | {"output": tmp_path / "out"} | given)
    assert (code, summary["ok"], summary["error"]) == (2, False, error)
    assert said in summary["message"]
    assert CANARY not in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_failing_run_shows_no_row_on_any_stream(judge, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        table = pa.table(
            {"text": [f"{CANARY} {i} Water boils at a lower temperature on a mountain." for i in range(50)]}
        )
        pq.write_table(table, folder / f"{name}.parquet", compression="none", use_dictionary=False)
    content = bytearray((folder / "b.parquet").read_bytes())
    content[4:40] = bytes(36)
    (folder / "b.parquet").write_bytes(content)
    done, said = submitted("score_corpus", judge=judge.folder, input=folder, output=tmp_path / "out")
    assert (done.returncode, said["ok"]) == (2, False), done.stderr
    assert "b.parquet" in said["message"]
    assert CANARY not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_spark_submit_gives_the_same_rows_on_the_master_it_was_given(scored, corpus, judge, tmp_path):
    done, said = submitted("score_corpus", spark_submit=True, judge=judge.folder, input=corpus, output=tmp_path / "out")
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(said) == SCORED_KEYS
    key = "id"
    assert sorted(rows_of(tmp_path / "out"), key=lambda row: row[key]) == sorted(
        rows_of(scored[0]), key=lambda row: row[key]
    )
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.slow
def test_spark_submit_settings_are_never_overridden(tmp_path):
    (tmp_path / "show.py").write_text(
        "from quality_judge.spark.session import spark_session\n"
        "s = spark_session('show')\n"
        "print(s.sparkContext.master, s.conf.get('spark.sql.session.timeZone'), s.conf.get('spark.speculation'))\n"
    )
    command = [Path(sys.executable).parent / "spark-submit", "--master", "local[1]"]
    command += [
        "--conf",
        "spark.sql.session.timeZone=Asia/Shanghai",
        "--conf",
        "spark.ui.enabled=false",
        tmp_path / "show.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=200, env=environment)
    assert done.stdout.splitlines()[-1] == "local[1] Asia/Shanghai false", done.stderr[-2000:]


def test_a_judge_that_only_orders_is_filtered_by_rank_and_never_by_a_probability(run_job, judge, corpus, tmp_path):
    """From scoring to the kept rows, and to the uniform rows whose labels would give it a probability."""
    spec = judge.spec.model_copy(update={"calibration": None, "thresholds": {}, "category_calibrations": {}})
    orders = save_judge(tmp_path / "orders", spec, {name: judge.path(name) for name in judge.spec.files})
    code, said, _ = run_job("score_corpus", judge=orders.folder, input=corpus, output=tmp_path / "scored")
    assert (code, said["scored"]) == (0, 58)
    rows = rows_of(tmp_path / "scored")
    assert {row["quality_score"] for row in rows} == {None}
    code, said, _ = run_job(
        "filter_corpus", scored=tmp_path / "scored", policy=conf_folder() / "policies" / "default.yaml",
        output=tmp_path / "refused",
    )  # fmt: skip
    assert (code, said["error"]) == (2, "ConfigError")
    code, said, _ = run_job(
        "filter_corpus", scored=tmp_path / "scored", policy=conf_folder() / "policies" / "best_third.yaml",
        output=tmp_path / "filtered",
    )  # fmt: skip
    assert (code, said["kept"], said["unscored"]) == (0, 19, 2)
    best = sorted((row["quality_raw"] for row in rows if row["quality_raw"] is not None), reverse=True)[:19]
    assert sorted((row["quality_raw"] for row in rows_of(tmp_path / "filtered" / "kept")), reverse=True) == best
    drawn = {"scored": tmp_path / "scored", "output": tmp_path / "rows.jsonl"}
    assert run_job("sample_for_labels", strategy="uncertain", **drawn)[0] == 2
    code, said, _ = run_job("sample_for_labels", strategy="uniform", **drawn)
    assert code == 0
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 20
