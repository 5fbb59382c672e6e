"""The store of scores: nothing is scored twice, every answer is the same with it and without it, damage is seen."""

import json
import shutil
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quality_judge.errors import CheckFailed
from quality_judge.scores import SCORED_COLUMNS
from quality_judge.spark.score import KEY_COLUMN
from quality_judge.spark.store import SCHEMA, ScoreStore, content_key, storable

LONG = "a line that is longer than others " * 40


@pytest.fixture(scope="module")
def rows(texts):
    """60 rows of 40 contents: bytes that are no UTF-8, nulls, empty ones, repeats, and Chinese."""
    some = [text if isinstance(text, bytes) or text is None else text.encode()[:300] for text in texts[:38]]
    some += ["水在高山上沸腾的温度更低。".encode(), LONG.encode()]
    return [{"id": i, "text": some[i % 40]} for i in range(60)]


def written(folder, rows, *, files=2):
    folder.mkdir()
    for part in range(files):
        kind = pa.schema([("id", pa.int64()), ("text", pa.binary())])
        pq.write_table(pa.Table.from_pylist(rows[part::files], kind), folder / f"{part}.parquet")
    return folder


def scored(folder):
    """The scored columns of each row by id."""
    return {row["id"]: tuple(map(repr, (row[name] for name in SCORED_COLUMNS))) for row in table(folder)}


def table(folder):
    return pq.read_table(folder).to_pylist()


@pytest.fixture
def score(run_job, judge):
    """A function from options to (exit code, summary, all that was printed) of a scoring run."""

    def call(**options):
        return run_job("score_corpus", judge=options.pop("judge", judge.folder), **options)

    return call


@pytest.fixture(scope="module")
def stored(spark, judge, rows, tmp_path_factory):
    """(corpus, store, its output) after a first run with a store."""
    from quality_judge.spark import read_corpus
    from quality_judge.spark.publish import published
    from quality_judge.spark.run import ScoringRun
    from quality_judge.spark.score import score as scoring

    folder = tmp_path_factory.mktemp("stored")
    corpus = written(folder / "in", rows)
    store = ScoreStore(spark, str(folder / "store"), judge)
    read = read_corpus(spark, str(corpus))

    def write(staging):
        return ScoringRun(judge, read, staging, input=str(corpus), said={}, store=store).write(scoring(judge))

    return corpus, folder / "store", folder / "out", published(spark, str(folder / "out"), write)


def test_scores_are_the_same_bits_with_a_store_and_without_and_each_content_is_scored_once(
    stored, score, rows, tmp_path, python_evaluations
):
    corpus, _, out, said = stored
    assert score(input=corpus, output=tmp_path / "plain")[0] == 0
    assert scored(out) == scored(tmp_path / "plain")
    assert len(scored(out)) == said["rows"] == 60
    distinct = len({row["text"] for row in rows})
    assert said["store"]["contents_scored"] == said["store"]["added"] == distinct
    assert said["codes"] == dict(Counter(row["quality_code"] for row in table(tmp_path / "plain")))
    assert {"NULL_TEXT", "EMPTY_TEXT", "BINARY_TEXT", "OK"} <= set(said["codes"])


def test_chats_get_the_same_bits_with_a_store_and_without(spark, judge, score, tmp_path):
    asked = ("Is water wet?", "Explain why, in a careful and precise way.", "Is water wet?")
    rows = [(i, [("user", text), ("assistant", "Yes, it is.")]) for i, text in enumerate(asked)]
    chats = spark.createDataFrame(rows, "id int, chat array<struct<role string, content string>>")
    chats.coalesce(1).write.parquet(str(tmp_path / "in"))
    given = {"input": tmp_path / "in", "text_column": "chat"}
    assert score(**given, output=tmp_path / "plain")[0] == 0
    for name, new in (("first", 2), ("again", 0)):
        code, said, _ = score(**given, output=tmp_path / name, store=tmp_path / "store")
        assert (code, said["store"]["contents_scored"]) == (0, new)
        assert scored(tmp_path / name) == scored(tmp_path / "plain")


def test_a_rerun_with_nothing_new_scores_nothing(stored, score, tmp_path, python_evaluations):
    corpus, store, out, _ = stored
    code, said, _ = score(input=corpus, output=tmp_path / "again", store=store)
    assert (code, said["store"]["contents_scored"], said["store"]["added"]) == (0, 0, 0)
    assert scored(tmp_path / "again") == scored(out)
    assert python_evaluations() == []


def test_appended_rows_alone_are_scored(stored, score, rows, tmp_path, python_evaluations):
    _, store, out, _ = stored
    shutil.copytree(store, tmp_path / "store")
    more = [*rows, {"id": 60, "text": b"A sentence nobody has scored."}, {"id": 61, "text": rows[9]["text"]}]
    corpus = written(tmp_path / "in", more, files=3)
    code, said, _ = score(input=corpus, output=tmp_path / "out", store=tmp_path / "store")
    assert (code, said["rows"], said["store"]["contents_scored"]) == (0, 62, 1)
    assert python_evaluations() == [[1]]
    found = scored(tmp_path / "out")
    assert {i: found[i] for i in range(60)} == scored(out)
    assert found[61] == found[9]


def test_another_judge_finds_nothing_in_the_store(stored, score, other_judge, tmp_path):
    corpus, store, _, first = stored
    shutil.copytree(store, tmp_path / "store")
    given = {"judge": other_judge.folder, "input": corpus, "store": tmp_path / "store"}
    code, said, _ = score(**given, output=tmp_path / "out")
    assert (code, said["store"]["contents_known"]) == (0, 0)
    assert said["store"]["contents_scored"] == first["store"]["contents_scored"]
    assert len(list((tmp_path / "store").glob("judge=*"))) == 2


def damaged(folder, how):
    (segment,) = folder.glob("judge=*/segment=*")
    (data,) = segment.glob("*.parquet")
    if how == "cut":
        data.write_bytes(data.read_bytes()[:-20])
    elif how == "changed":
        values = pq.read_table(data)
        at = values.schema.get_field_index("quality_score")
        higher = pa.array([1.0 if value is not None else None for value in values.column(at).to_pylist()], pa.float64())
        pq.write_table(values.set_column(at, "quality_score", higher), data)
        described = json.loads((segment / "_segment.json").read_text())
        described["files"] = {data.name: data.stat().st_size}
        (segment / "_segment.json").write_text(json.dumps(described))
    elif how == "garbled":
        content = bytearray(data.read_bytes())
        content[300:360] = bytes(60)
        data.write_bytes(content)
    elif how == "moved":
        described = json.loads((segment / "_segment.json").read_text())
        (segment / "_segment.json").write_text(json.dumps(described | {"judge": "0" * 16}))
    elif how == "older":
        described = json.loads((segment / "_segment.json").read_text())
        (segment / "_segment.json").write_text(json.dumps(described | {"format": 1}))
    elif how == "gone":
        data.unlink()
    elif how == "no json":
        (segment / "_segment.json").write_text("{")
    for check in segment.glob(".*.crc"):
        check.unlink()


@pytest.mark.parametrize("how", ["cut", "changed", "garbled", "moved", "older", "gone", "no json"])
def test_a_damaged_store_is_seen_said_and_never_used(stored, spark, judge, tmp_path, capsys, how):
    shutil.copytree(stored[1], tmp_path / "store")
    store = ScoreStore(spark, str(tmp_path / "store"), judge)
    assert len(store.segments()) == 1
    damaged(tmp_path / "store", how)
    assert store.segments() == []
    assert "segment that cannot be used" in capsys.readouterr().err


def test_with_a_damaged_store_the_scores_are_computed_anew(stored, score, tmp_path):
    corpus, store, out, first = stored
    shutil.copytree(store, tmp_path / "store")
    damaged(tmp_path / "store", "changed")
    code, said, shown = score(input=corpus, output=tmp_path / "out", store=tmp_path / "store")
    assert (code, said["store"]["contents_scored"]) == (0, first["store"]["contents_scored"])
    assert "segment that cannot be used" in shown
    assert scored(tmp_path / "out") == scored(out)


def test_what_a_killed_run_left_half_written_is_not_seen(stored, spark, judge, tmp_path, capsys):
    shutil.copytree(stored[1], tmp_path / "store")
    (segment,) = (tmp_path / "store").glob("judge=*/segment=*")
    (segment / "_segment.json").unlink()
    assert ScoreStore(spark, str(tmp_path / "store"), judge).segments() == []
    assert "damaged" not in capsys.readouterr().err


def test_two_runs_that_stored_the_same_contents_double_no_row(stored, score, tmp_path, spark, judge):
    corpus, store, out, _ = stored
    shutil.copytree(store, tmp_path / "store")
    kept = ScoreStore(spark, str(tmp_path / "store"), judge)
    (segment,) = kept.segments()
    again = kept.scores([segment]).select(KEY_COLUMN, "_quality.*")
    kept.add("another", again, rows=segment.rows)
    code, said, _ = score(input=corpus, output=tmp_path / "out", store=tmp_path / "store")
    assert (code, said["rows"], said["store"]["contents_scored"]) == (0, 60, 0)
    assert scored(tmp_path / "out") == scored(out)


@pytest.mark.parametrize("where", ["quality_judge.spark.store.storable", "quality_judge.spark.run.gather"])
def test_a_run_that_ended_half_way_goes_on_and_scores_no_content_again(
    stored, score, tmp_path, monkeypatch, python_evaluations, where
):
    def ended(*_):
        raise CheckFailed("the machine went away")

    corpus, _, out, first = stored
    given = {"input": corpus, "output": tmp_path / "out", "store": tmp_path / "store"}
    with monkeypatch.context() as patched:
        patched.setattr(where, ended)
        assert score(**given)[0] == 1
    assert not (tmp_path / "out").exists()
    code, said, _ = score(**given)
    assert (code, said["rows"]) == (0, 60)
    assert [sum(rows) for rows in python_evaluations()] == [first["store"]["contents_scored"]]
    assert scored(tmp_path / "out") == scored(out)
    assert len(list((tmp_path / "store").glob("judge=*/segment=*/_segment.json"))) == 1


def test_rows_with_a_fault_come_out_as_they_are_and_are_tried_again(stored, score, tmp_path, monkeypatch):
    for module in ("store", "reuse"):  # as if an empty text were a fault of the machine
        monkeypatch.setattr(f"quality_judge.spark.{module}.FAULTS", ("EMPTY_TEXT",))
    corpus, _, out, first = stored
    expected = [first["store"]["contents_scored"], 2]
    for name, new in zip(("first", "again"), expected, strict=True):
        code, said, _ = score(input=corpus, output=tmp_path / name, store=tmp_path / "store")
        assert (code, said["store"]["contents_scored"]) == (0, new)
        assert scored(tmp_path / name) == scored(out)
    assert said["store"]["added"] == 0


def test_codes_that_come_from_an_option_or_the_record_are_told_anew(stored, score, tmp_path):
    corpus, store, _, _ = stored
    shutil.copytree(store, tmp_path / "store")
    given = {"input": corpus, "max_bytes": 500}
    assert score(**given, output=tmp_path / "plain")[0] == 0
    code, said, _ = score(**given, output=tmp_path / "out", store=tmp_path / "store")
    assert (code, said["store"]["contents_scored"]) == (0, 0)
    assert said["codes"]["TOO_LONG"] == 1
    assert scored(tmp_path / "out") == scored(tmp_path / "plain")


def test_faults_are_not_stored_and_options_do_not_hide_in_the_store(spark):
    codes = ["OK", "OOM_ROW", "TIMEOUT_ROW", "SCORER_ERROR", "SKIPPED_CRASH", "TOO_LONG", "BAD_RECORD", "NON_FINITE"]
    rows = [(bytes([i]), None, None, code, ["NEAR_THRESHOLD", "TRUNCATED"], []) for i, code in enumerate(codes)]
    kept = storable(spark.createDataFrame(rows, SCHEMA)).collect()
    assert [row["quality_code"] for row in kept] == ["OK", "NULL_TEXT", "NULL_TEXT", "NON_FINITE"]
    assert all(row["quality_flags"] == ["TRUNCATED"] for row in kept)


def test_the_mark_near_the_threshold_follows_the_threshold_of_today(stored, spark, judge):
    _, store, out, _ = stored
    scores = sorted(row["quality_score"] for row in table(out) if row["quality_score"] is not None)
    spec = judge.spec.model_copy(
        update={"thresholds": {**judge.spec.thresholds, "certified": None, "best": scores[3]}, "precision_band": 1e-9}
    )
    moved = type(judge)(judge.folder, spec)
    assert moved.fingerprint == judge.fingerprint
    kept = ScoreStore(spark, str(store), moved)
    rows = kept.scores(kept.segments()).select("_quality.*").collect()
    marked = {row["quality_score"] for row in rows if "NEAR_THRESHOLD" in row["quality_flags"]}
    assert marked == {scores[3]}


def test_no_two_contents_have_the_same_key_and_equal_ones_have(spark):
    pairs = [(b"a", b"b"), (b"ab", b""), (b"", b"ab"), (None, b"ab"), (b"ab", None), (None, None), (b"", b""),
             (b"1:a", b"b"), (b"null", None)]  # fmt: skip
    frame = spark.createDataFrame(pairs, "p binary, t binary")
    keys = [bytes(row[0]) for row in frame.select(content_key([frame.p, frame.t])).collect()]
    alone = [bytes(row[0]) for row in frame.select(content_key([frame.t])).collect()]
    assert len({*keys, *alone}) == len(pairs) + len({t for _, t in pairs})
    assert all(len(key) == 32 for key in keys)


def test_a_store_within_the_corpus_or_of_a_name_that_is_a_pattern_is_refused(stored, score, tmp_path):
    corpus = stored[0]
    for store in (corpus / "store", tmp_path / "store[1]"):
        code, said, _ = score(input=corpus, output=tmp_path / "out", store=store)
        assert (code, said["error"]) == (2, "CorpusError")
        assert "--store" in said["message"]
