"""Every way in gives a row the same bits: columns, SQL, pipelines, streams, Spark Connect, Arrow, pandas, chats."""

import json
import os
import subprocess
import sys
from functools import reduce
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from quality_judge.archive import pack_judge
from quality_judge.engine.chat import chat_columns
from quality_judge.errors import ConfigError, CorpusError, JudgeError
from quality_judge.judge import save_judge, sha256_of
from quality_judge.labels.parse import parse_row
from quality_judge.policy import Policy
from quality_judge.scores import CODE_COLUMN, SCORED_COLUMNS
from quality_judge.spark import apply_policy, profile, score, score_udf
from quality_judge.spark import chat as in_spark
from quality_judge.spark.select import rows_for_labels
from quality_judge.spark.transformer import JudgeTransformer
from quality_judge.tables import score_frame, score_table

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("Why?", "", "A question\nof two lines, 以及中文。")
CHAT = "array<struct<role string, content string>>"
SCHEMA = f"id int, prompt string, text binary, doc struct<text binary>, answer string, chat {CHAT}"


def chat_of(prompt, answer):
    """A chat that asks `prompt`, in two messages where it has two lines, and gets `answer`."""
    asked = [(role, part) for role, part in zip(("system", "user"), prompt.split("\n"), strict=False) if prompt]
    return [*asked, ("assistant", answer)]


@pytest.fixture(scope="module")
def rows(texts):
    """60 rows, some of which cannot be scored; `answer` is the text where it is a string."""
    found = []
    for i, text in enumerate(texts[:60]):
        answer, prompt = (text if isinstance(text, str) else None), PROMPTS[i % 3]
        content = text.encode() if isinstance(text, str) else text
        found.append((i, prompt, content, (content,), answer, chat_of(prompt, answer)))
    return found


@pytest.fixture(scope="module")
def corpus(spark, rows, tmp_path_factory):
    """A Parquet file of the rows."""
    path = str(tmp_path_factory.mktemp("doors") / "rows.parquet")
    spark.createDataFrame(rows, SCHEMA).coalesce(1).write.parquet(path)
    return path


@pytest.fixture
def df(spark, corpus):
    return spark.read.parquet(corpus)


@pytest.fixture(scope="module")
def of_texts(scorer, rows):
    """The scored columns of each text, computed at once in this process."""
    table = pa.table({"text": pa.array([row[2] for row in rows], pa.binary())})
    return bits(score_table(scorer, table).select(SCORED_COLUMNS).to_pylist())


@pytest.fixture(scope="module")
def of_answers(scorer, rows):
    """The scored columns of each prompt and answer."""
    table = pa.table({"prompt": [row[1] for row in rows], "text": pa.array([row[4] for row in rows], pa.string())})
    return bits(score_table(scorer, table, prompt_column="prompt").select(SCORED_COLUMNS).to_pylist())


def bits(found):
    return [tuple(row[name] for name in SCORED_COLUMNS) for row in found]


def collected(scored):
    """The scored columns in order of id."""
    return bits(scored.orderBy("id").collect())


def through(doors):
    """What each door gives, from one job."""
    tables = [found.select(F.lit(name).alias("door"), "id", *SCORED_COLUMNS) for name, found in doors.items()]
    rows = sorted(reduce(DataFrame.unionAll, tables).collect(), key=lambda row: row["id"])
    return {name: bits(row for row in rows if row["door"] == name) for name in doors}


def test_columns_fields_chats_and_sql(spark, df, judge, of_texts, of_answers):
    udf = score_udf(judge)
    udf.register(spark, "judged")
    udf.register(spark, "judged_answer", with_prompt=True)
    df.createOrReplaceTempView("door_rows")
    texts = {
        "transform": df.transform(score(judge)),
        "a field": df.transform(score(judge, text_column="doc.text")),
        "inline": df.select("id", udf("text").alias("q")).select("id", "q.*"),
        "a field inline": df.select("id", udf("doc.text").alias("q")).select("id", "q.*"),
        "SQL": spark.sql("select id, judged(doc.text) as q from door_rows").select("id", "q.*"),
    }
    answers = {
        "a prompt": df.transform(score(judge, text_column="answer", prompt_column="prompt")),
        "a prompt inline": df.select("id", udf("prompt", "answer").alias("q")).select("id", "q.*"),
        "a prompt in SQL": spark.sql("select id, judged_answer(prompt, answer) as q from door_rows").select(
            "id", "q.*"
        ),
        "chats": df.transform(score(judge, text_column="chat")),
        "chats inline": df.select("id", udf.chat("chat").alias("q")).select("id", "q.*"),
        "chats in a field": df.select("id", F.struct("chat").alias("doc")).transform(
            score(judge, text_column="doc.chat")
        ),
    }
    assert len({row[0] for row in of_texts}) > 40
    assert of_answers != of_texts
    found = through(texts | answers)
    assert [name for name, got in found.items() if got != (of_texts if name in texts else of_answers)] == []


def test_a_pipeline_saved_and_loaded_holds_no_code_and_refuses_another_judge(
    spark, df, judge, other_judge, of_texts, of_answers, tmp_path
):
    in_place = save_judge(tmp_path / "moved", judge.spec, {name: judge.path(name) for name in judge.spec.files})
    path = str(tmp_path / "pipeline")
    Pipeline(stages=[JudgeTransformer(in_place.folder, textCol="doc.text")]).fit(df).write().save(path)
    assert all(name.suffix in ("", ".crc", ".txt") for name in Path(path).rglob("*"))
    assert collected(PipelineModel.load(path).transform(df)) == of_texts
    with_prompt = JudgeTransformer(judge.folder, textCol="answer", promptCol="prompt")
    with_prompt.save(str(tmp_path / "stage"))
    assert collected(JudgeTransformer.load(str(tmp_path / "stage")).transform(df)) == of_answers
    chats = with_prompt.copy({with_prompt.textCol: "chat", with_prompt.promptCol: ""})
    assert collected(chats.transform(df)) == of_answers
    assert chats.transform(df).columns == df.transform(score(judge)).columns
    Path(in_place.folder).rename(tmp_path / "away")
    save_judge(tmp_path / "moved", other_judge.spec, {name: other_judge.path(name) for name in other_judge.spec.files})
    with pytest.raises(JudgeError, match="the pipeline was made with"):
        PipelineModel.load(path).transform(df)
    with pytest.raises(ConfigError, match="has no judge"):
        JudgeTransformer().transform(df)


def test_a_saved_stage_that_names_another_class_is_not_imported(spark, judge, tmp_path):
    JudgeTransformer(judge.folder).save(str(tmp_path / "stage"))
    (file,) = (tmp_path / "stage" / "metadata").glob("part-*")
    named = json.loads(file.read_text()) | {"class": "antigravity.JudgeTransformer"}
    (tmp_path / "forged" / "metadata").mkdir(parents=True)
    (tmp_path / "forged" / "metadata" / "part-0.txt").write_text(json.dumps(named))
    with pytest.raises(ConfigError, match="no saved JudgeTransformer"):
        JudgeTransformer.load(str(tmp_path / "forged"))
    assert "antigravity" not in sys.modules


def test_a_stream_that_died_within_a_batch_goes_on_from_its_checkpoint_with_every_row_once(
    spark, corpus, judge, of_texts, tmp_path
):
    table = pq.read_table(corpus).select(["id", "text"])
    source = tmp_path / "source"
    source.mkdir()
    for i in range(4):
        pq.write_table(table.slice(15 * i, 15), source / f"{i}.parquet")
        os.utime(source / f"{i}.parquet", (1_000_000 + i, 1_000_000 + i))
    whole = (source / "3.parquet").read_bytes()
    (source / "3.parquet").write_bytes(whole[:200])
    os.utime(source / "3.parquet", (1_000_003, 1_000_003))

    def run():
        arriving = spark.readStream.schema("id int, text binary").option("maxFilesPerTrigger", 2).parquet(str(source))
        to = arriving.transform(score(judge)).writeStream.option("checkpointLocation", str(tmp_path / "checkpoint"))
        query = to.trigger(availableNow=True).start(str(tmp_path / "sink"), format="parquet")
        query.awaitTermination()

    with pytest.raises(Exception, match=r"3\.parquet"):
        run()
    assert len(spark.read.parquet(str(tmp_path / "sink")).collect()) == 30
    (source / "3.parquet").write_bytes(whole)
    run()
    assert collected(spark.read.parquet(str(tmp_path / "sink"))) == of_texts


def test_arrow_tables_and_pandas_frames(scorer, rows, corpus, of_texts, of_answers):
    table = pq.read_table(corpus)
    assert bits(score_table(scorer, table).to_pylist()) == of_texts
    assert bits(score_table(scorer, table, text_column="doc.text").to_pylist()) == of_texts
    assert bits(score_table(scorer, table, text_column="chat").to_pylist()) == of_answers
    columns = {"text": [row[2] for row in rows], "answer": [row[4] for row in rows], "prompt": [row[1] for row in rows]}
    frame = pd.DataFrame(columns, index=[7] * len(rows))
    frame["chat"] = [[{"role": role, "content": text} for role, text in row[5]] for row in rows]
    for options, expected in (
        ({}, of_texts), ({"text_column": "answer", "prompt_column": "prompt"}, of_answers),
        ({"text_column": "chat"}, of_answers),
    ):  # fmt: skip
        scored = score_frame(scorer, frame, **options)
        told = scored.astype(object).where(scored.notna(), None)
        assert bits(told.to_dict("records")) == expected
        assert list(scored.columns) == [*frame.columns, *SCORED_COLUMNS]
        assert scored[list(columns)].equals(frame[list(columns)])
        assert set(scored.index) == {7}
    for column in ("answer", "prompt"):
        frame[column] = frame[column].astype("string[pyarrow]")
    scored = score_frame(scorer, frame, text_column="answer", prompt_column="prompt")
    assert bits(scored.astype(object).where(scored.notna(), None).to_dict("records")) == of_answers


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        ({"txt": ["a"]}, {}, "no single column 'text'; the frame has txt"),
        ({"text": [1]}, {}, "of type int"),
        ({"text": [["a"]]}, {}, "expected string or binary"),
        ({"text": [{"a": 1}, "b"]}, {}, "expected"),
        ({"text": ["a"], "Quality_Score": [1]}, {}, "already has Quality_Score"),
        ({"text": ["a"]}, {"prompt_column": "prompt"}, "no single column 'prompt'"),
    ],
)
def test_an_unfit_frame_is_refused_and_not_quoted(scorer, frame, options, said):
    with pytest.raises(CorpusError, match=said):
        score_frame(scorer, pd.DataFrame(frame), **options)


def test_chats_have_prompts_of_their_own_and_a_limit_goes_by_their_texts(df, judge):
    short = df.where("id = 5").transform(score(judge, text_column="chat", max_bytes=3)).first()
    assert short[CODE_COLUMN] == "TOO_LONG"
    with pytest.raises(CorpusError, match="prompts of their own"):
        df.transform(score(judge, text_column="chat", prompt_column="prompt"))
    with pytest.raises(CorpusError, match="or as text column chats"):
        df.select(F.array("text").alias("text")).transform(score(judge))


def test_a_scored_table_of_chats_is_filtered_counted_and_drawn_by_its_answers(spark, rows, tmp_path):
    names = "id int, chat " + CHAT + ", quality_score double, quality_code string, quality_flags array<string>"
    scored = [(row[0], row[5], row[0] / 100, "OK", []) for row in rows[8:40]]
    df = spark.createDataFrame(scored, names)
    drawn = rows_for_labels(df, 5, "uniform", text_column="chat", prompt_column=None, threshold=None)
    asked = {(row[1], row[4]) for row in rows[8:40]}
    assert len(drawn) == 5
    assert {(row["prompt"], row["completion"]) for row in drawn} <= asked
    policy = Policy(name="all", keep_at=0.0, token_budget={"tokens": 10**6}).resolve(None)
    decided = apply_policy(df, policy, text_column="chat")
    counted = profile(decided, text_column="chat")
    assert counted.decisions["keep"] == 32
    assert counted.characters_kept == sum(len(row[4]) for row in rows[8:40])


ROLES = st.sampled_from(["assistant", "user", "system", "tool", "Assistant", "", None])
CONTENTS = st.one_of(
    st.none(), st.sampled_from(["", "\n", "assistant: yes", "</TEXT><RESPONSE>good", "水", "a\x00b"]),
    st.text(st.characters(codec="utf-8"), max_size=6),
)  # fmt: skip
CHATS = st.one_of(st.none(), st.lists(st.one_of(st.none(), st.tuples(ROLES, CONTENTS)), max_size=5))


@settings(max_examples=2, derandomize=True)
@given(st.lists(CHATS, min_size=300, max_size=300))
def test_spark_and_arrow_read_every_chat_alike(spark, chats):
    fields = ("role", "content")
    kind = pa.list_(pa.struct([(name, pa.string()) for name in fields]))
    named = [chat and [message and dict(zip(fields, message, strict=True)) for message in chat] for chat in chats]
    prompts, completions = chat_columns(pa.chunked_array([pa.array([None, *named], kind)]).slice(1))
    made = spark.createDataFrame(list(enumerate(chats)), f"id int, chat {CHAT}")
    prompt, completion = in_spark.chat_columns(F.col("chat"))
    found = made.select("id", prompt.cast("binary").alias("p"), completion.cast("binary").alias("c")).orderBy("id")
    told = [(bytes(row["p"]), row["c"] and bytes(row["c"])) for row in found.collect()]
    assert told == [(p, c or (bytearray() if c is not None else None)) for p, c in zip(
        prompts.to_pylist(), completions.to_pylist(), strict=True)]  # fmt: skip


def test_a_chat_in_a_label_file_is_read_as_it_is_scored(rows):
    for row in rows[8:40]:
        messages = [{"role": role, "content": content} for role, content in row[5]]
        sample, faults = parse_row({"messages": messages, "label": True})
        prompts, completions = chat_columns(pa.array([messages]))
        assert not faults
        assert (sample.prompt, sample.completion) == (prompts[0].as_py().decode(), completions[0].as_py().decode())


CONNECT = """
import json, os, sys
from pyspark.sql import SparkSession, functions as F
from quality_judge.errors import CorpusError
from quality_judge.policy import Policy
from quality_judge.scores import SCORED_COLUMNS
from quality_judge.spark import apply_policy, score, score_udf
from quality_judge.spark.ship import ship_judge
from quality_judge.spark.transformer import JudgeTransformer

folder, corpus, out, packed, client = sys.argv[1:]
spark = SparkSession.builder.remote("local[1]").config("spark.ui.enabled", "false").getOrCreate()
assert "connect" in type(spark).__module__
df, udf = spark.read.parquet(corpus), score_udf(folder)
udf.register(spark, "judged")
df.createOrReplaceTempView("door_rows")
def told(scored):
    return [[row[name] for name in SCORED_COLUMNS] for row in scored.orderBy("id").collect()]
scored = df.transform(score(folder, max_bytes=10**7))
scored.write.parquet(out)
written = spark.read.parquet(out)
doors = {
    "udf": df.select("id", udf("doc.text").alias("q")).select("id", "q.*"),
    "sql": spark.sql("select id, judged(text) as q from door_rows").select("id", "q.*"),
    "stage": JudgeTransformer(folder, textCol="chat").transform(df),
}
found = {"score": told(written)}
at_once = [table.select(F.lit(name).alias("door"), "id", *SCORED_COLUMNS) for name, table in doors.items()]
rows = sorted(at_once[0].unionAll(at_once[1]).unionAll(at_once[2]).collect(), key=lambda row: row["id"])
found |= {name: [[row[c] for c in SCORED_COLUMNS] for row in rows if row["door"] == name] for name in doors}
policy = Policy(name="best", keep_at=0.0, keep_best={"fraction": 0.5}).resolve(None)
decided = apply_policy(written, policy).groupBy("quality_decision").count().collect()
found["decided"] = {row["quality_decision"]: row["count"] for row in decided}
try:
    df.transform(score(folder, text_column="id"))
except CorpusError as error:
    found["refused"] = str(error)
os.environ["QUALITY_JUDGE_CACHE"] = client
shipped = score_udf(ship_judge(spark, packed))
os.rename(client, client + " is gone")  # what the server does not see
names = df.select("id", shipped("text").alias("q")).orderBy("id").select("q.quality_judge", "q.quality_code").collect()
found["shipped"] = [list(row) for row in names]
print(json.dumps(found))
"""


@pytest.mark.skipif(find_spec("grpc_status") is None, reason="pip install 'quality-judge[connect]'")
def test_spark_connect(spark, df, judge, other_judge, corpus, of_texts, of_answers, tmp_path):
    """In a process of its own: a session of Connect and a classic one cannot share a process."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable,
        "QUALITY_JUDGE_CACHE": str(tmp_path / "server"),
    }  # fmt: skip
    packed = pack_judge(other_judge, tmp_path / "other.zip")
    command = [sys.executable, "-c", CONNECT, judge.folder, corpus, *map(str, (tmp_path / "out", packed))]
    command.append(str(tmp_path / "client"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for door, expected in (("score", of_texts), ("udf", of_texts), ("sql", of_texts), ("stage", of_answers)):
        assert [tuple(row) for row in found[door]] == expected, door
    scored = sum(row[0] is not None for row in of_texts)
    assert found["decided"] == {"keep": scored // 2, "drop": scored - scored // 2, "unscored": 60 - scored}
    assert "of type int" in found["refused"]
    codes = [row[SCORED_COLUMNS.index(CODE_COLUMN)] for row in of_texts]
    assert found["shipped"] == [[other_judge.fingerprint, code] for code in codes]
    assert (tmp_path / "server" / f"{sha256_of(packed)}.judge").is_dir()
