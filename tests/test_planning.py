"""Cost before the run: the sample is fair and small, counts add up, nothing is claimed that was not measured."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from quality_judge.cli import app
from quality_judge.corpus_sample import sample_corpus
from quality_judge.engine.scorer import load_scorer
from quality_judge.errors import ConfigError, CorpusError, InputError
from quality_judge.planning import in_words, make_plan
from quality_judge.stats.clustered import clustered_interval

CANARY = "canary-078-05-1120"
TEXTS = [f"{CANARY} 水 water {i} " * (1 + i % 40) for i in range(3000)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """3,000 rows in 30 row groups of 2 files, the short ones first."""
    folder = tmp_path_factory.mktemp("corpus")
    ordered = sorted(TEXTS, key=len)
    for part in (0, 1):
        rows = ordered[part * 1500 : (part + 1) * 1500]
        pq.write_table(pa.table({"text": rows, "id": range(1500)}), folder / f"{part}.parquet", row_group_size=100)
    (folder / "_SUCCESS").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory, tiny_base):
    """A judge on a tiny random base, trained on a few demo labels."""
    from quality_judge.config import conf_folder, load_judge_config
    from quality_judge.labels import load_labels
    from quality_judge.train.fit import fit_judge
    from quality_judge.train.save import draft_judge

    folder = tmp_path_factory.mktemp("planned")
    lines = (conf_folder() / "demo" / "labels.en.jsonl").read_text(encoding="utf-8").splitlines()[:80]
    (folder / "labels.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tiny.yaml").write_text(
        f"name: tiny\nbase: {tiny_base('bert')}\nmax_tokens: 64\n"
        "train: {method: frozen, folds: 2, below_baseline: allow}\n"
    )
    config, labels = load_judge_config(folder / "tiny.yaml", []), load_labels([folder / "labels.jsonl"])
    return draft_judge(folder, fit_judge(labels, config), config, labels)


def planned(*arguments):
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


def test_rows_of_parquet_are_counted_from_footers_and_the_sample_is_as_long_on_average_as_the_corpus(corpus):
    sample = sample_corpus(corpus, ["text"], rows=1000)
    assert (sample.rows, sample.exact, sample.files, len(sample)) == (3000, True, 2, 1000)
    lengths = np.array([len(value.as_py()) for value in sample.columns["text"]])
    assert abs(lengths.mean() / np.mean([len(text.encode()) for text in TEXTS]) - 1) < 0.25
    assert sorted(sample_corpus(corpus, ["text"], rows=10_000).columns["text"].to_pylist()) == sorted(
        text.encode() for text in TEXTS
    )


def write_groups(file, groups):
    """A Parquet file with one row group of each of `groups`, lists of texts."""
    with pq.ParquetWriter(file, pa.schema([("text", pa.string())])) as opened:
        for texts in groups:
            opened.write_table(pa.table({"text": texts}), row_group_size=len(texts))


def drawn_of(sample):
    """The rows as text, of which none may have been drawn twice."""
    found = [value.as_py().decode() for value in sample.columns["text"]]
    assert len(set(found)) == len(found)
    return found


def test_tiny_row_groups_beside_large_ones_give_no_more_than_their_share(tmp_path):
    """A tiny group gives a row or none, in systematic draws, so the sum varies less than Poisson's: 5 of its standard
    deviations are passed with P < 1e-6."""
    large = [[f"large {group} {row}" for row in range(10_000)] for group in range(3)]
    write_groups(tmp_path / "a.parquet", [*large, *([f"tiny {g} {row}" for row in range(10)] for g in range(100))])
    samples = [drawn_of(sample_corpus(tmp_path, ["text"], rows=300, seed=seed)) for seed in range(40)]
    tiny, expected = sum(row.startswith("tiny") for rows in samples for row in rows), 40 * 300 * 1000 / 31_000
    assert abs(tiny - expected) < 5 * expected**0.5
    assert all(abs(len(rows) - 300) <= 20 for rows in samples)


def test_every_row_group_gives_its_share_where_groups_give_several_rows_at_a_time(tmp_path):
    """A group's draws are one of two neighbours, so over n samples they are 3 sqrt(n) off with P < 2 exp(-18) by
    Hoeffding; of 40 groups one is with P < 2e-6."""
    sizes = [20, 60, 100, 500] * 10
    write_groups(tmp_path / "a.parquet", [[f"{at} {row}" for row in range(size)] for at, size in enumerate(sizes)])
    given = np.zeros(len(sizes))
    for seed in range(400):
        for row in drawn_of(sample_corpus(tmp_path, ["text"], rows=200, seed=seed, rows_read_per_row=10)):
            given[int(row.split()[0])] += 1
    each = np.minimum(10, np.array(sizes) // 10)
    expected = 400 * 200 * np.array(sizes) / sum(sizes)
    assert (abs(given - expected) / each < 3 * 400**0.5).all()


@pytest.mark.parametrize(("per_row", "most_groups"), [(50, 101), (5, 21)])
def test_how_many_rows_are_read_for_each_that_is_taken_can_be_said(tmp_path, per_row, most_groups):
    """1,000 of 100,000 rows in groups of 500, of which ten are taken at a time, or as many as a twentieth of all."""
    write_groups(tmp_path / "a.parquet", [[f"{at} {row}" for row in range(500)] for at in range(200)])
    drawn = drawn_of(sample_corpus(tmp_path, ["text"], rows=1_000, rows_read_per_row=per_row))
    assert len({row.split()[0] for row in drawn}) <= most_groups
    assert abs(len(drawn) - 1_000) <= 50


def test_the_clusters_give_an_interval_that_covers_where_rows_of_a_group_are_alike(tmp_path):
    """It covers 95 of 100 times; of 200 fewer than 175 times with P < 2e-5."""
    lengths = np.random.default_rng(0).integers(1, 100, 300)
    write_groups(tmp_path / "a.parquet", [["x" * length] * 50 for length in lengths])
    covered = naive = 0
    for seed in range(200):
        sample = sample_corpus(tmp_path, ["text"], rows=200, seed=seed, rows_read_per_row=1)
        drawn = np.array([len(value) for value in sample.columns["text"].to_pylist()])
        low, high = clustered_interval(drawn, sample.cluster)
        covered += low <= lengths.mean() <= high
        naive += abs(drawn.mean() - lengths.mean()) <= 1.96 * drawn.std() / len(drawn) ** 0.5
    assert covered >= 175
    assert naive < 150


def test_lines_are_drawn_once_and_each_with_the_same_chance_however_long_and_in_whichever_file(tmp_path):
    """Long lines are a third of all; of 300 rows drawn at random their number is 5 standard deviations off with
    P < 1e-6, and blocks at equal distances vary less."""
    for at in range(100):
        (tmp_path / f"{at}.jsonl").write_text("".join(f'{{"text": "short {at} {row}"}}\n' for row in range(120)))
    long = [json.dumps({"text": f"long {row} " + "x" * 800}) for row in range(6000)]
    (tmp_path / "long.jsonl").write_text("\n".join(long))
    sample = sample_corpus(tmp_path, ["text"], rows=300)
    drawn = drawn_of(sample)
    assert not sample.exact
    assert abs(sum(row.startswith("long") for row in drawn) - 100) < 5 * (300 * 2 / 9) ** 0.5


def test_of_a_corpus_just_too_large_to_read_whole_no_line_is_drawn_twice(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{row} {"x" * 80}"}}\n' for row in range(45_000)))
    assert len(drawn_of(sample_corpus(tmp_path, ["text"]))) == 1000


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_rows_of_line_formats_are_estimated_from_bytes_within_a_tenth_and_said_to_be(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("quality_judge.corpus_sample.BLOCK_BYTES", 1 << 11)
    shuffled = [TEXTS[i] for i in np.random.default_rng(0).permutation(len(TEXTS))]
    rows = [{"id": i, "text": f"{text}\n2" if kind == "csv" else text} for i, text in enumerate(shuffled)]
    file = tmp_path / f"rows.{kind}"
    if kind == "csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sample = sample_corpus(file, ["text"], rows=500)
    assert not sample.exact
    assert abs(sample.rows / 3000 - 1) < 0.1
    assert {value.as_py().decode() for value in sample.columns["text"]} <= {row["text"] for row in rows}


def test_a_small_json_file_is_read_whole_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": null}\nbroken\n', encoding="utf-8")
    sample = sample_corpus(tmp_path / "a.jsonl", ["text"])
    assert (sample.rows, sample.exact) == (3, True)
    assert sample.columns["text"].to_pylist() == [b"one", None, None]


def test_the_command_prints_the_histogram_and_ends_in_json_whose_numbers_agree(corpus, judge):
    found, shown = planned("--judge", judge.folder, "--input", corpus, "--rows", 300, "--workers", 4)
    sample, here, estimate = found["sample"], found["here"], found["estimate"]
    assert sum(sample["histogram"].values()) == here["scored"] == sample["rows"] == 300
    assert 0 <= sample["padding"] < 1
    assert here["cut"] > 0
    assert here["memory_bytes"] > 50e6
    assert estimate["hours"] == pytest.approx(3000 / here["rows_per_second"] / 3600 / 4)
    assert estimate["hours_95"][0] < estimate["hours"] < estimate["hours_95"][1]
    assert "#" in shown
    assert CANARY not in shown


def test_rows_that_the_judge_cannot_read_are_counted_and_said(judge, tmp_path):
    rows = ["water boils on a mountain"] * 30 + ["未知文字未知文字"] * 10
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet")
    plan = make_plan(load_scorer(judge, threads=1), sample_corpus(tmp_path, ["text"]))
    assert plan["sample"]["unread_rows"] == 10
    assert any("25.0% of the rows are mostly unknown" in line for line in in_words(plan))
    readable = {**plan, "sample": {**plan["sample"], "unread_rows": 0}}
    assert not any("unknown" in line for line in in_words(readable))


def test_twice_the_workers_take_half_the_hours_at_the_same_cost(corpus, judge):
    scorer, sample = load_scorer(judge, threads=1), sample_corpus(corpus, ["text"], rows=50)
    one, two = (make_plan(scorer, sample, workers=n, price_per_hour=3.0)["estimate"] for n in (1, 2))
    hours = {n: part["hours"] * n for n, part in ((1, one), (2, two))}
    assert one["cost"] == pytest.approx(3 * hours[1])
    assert two["cost"] == pytest.approx(3 * hours[2])


def test_the_range_of_hours_is_wider_where_rows_of_a_row_group_are_alike(judge, tmp_path):
    write_groups(tmp_path / "a.parquet", [["water " * (1 + group % 50)] * 50 for group in range(100)])
    sample = sample_corpus(tmp_path, ["text"], rows=200, rows_read_per_row=1)
    plan = make_plan(load_scorer(judge, threads=1), sample)
    lengths = np.repeat([int(edge) for edge in plan["sample"]["histogram"]], [*plan["sample"]["histogram"].values()])
    assert plan["sample"]["mean_tokens_95"] > 2 * 1.96 * lengths.std() / 200**0.5
    low, high = plan["estimate"]["hours_95"]
    assert (high - low) / 2 / plan["estimate"]["hours"] == pytest.approx(
        plan["sample"]["mean_tokens_95"] / plan["sample"]["mean_tokens"]
    )


def test_of_one_large_csv_file_no_range_is_given_since_only_its_beginning_was_read(judge, tmp_path, monkeypatch):
    monkeypatch.setattr("quality_judge.corpus_sample.BLOCK_BYTES", 16)
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"{'water ' * (row % 9)} {row}\n" for row in range(1000)))
    plan = make_plan(load_scorer(judge, threads=1), sample_corpus(tmp_path, ["text"], rows=50))
    assert plan["estimate"]["hours"] > 0
    assert plan["estimate"]["hours_95"] is None
    assert "does not say" in in_words(plan)[-1]


def test_of_a_gpu_that_is_not_here_nothing_is_claimed(corpus, judge, monkeypatch):
    monkeypatch.setattr("quality_judge.planning.gpu_count", lambda: 0)
    plan = make_plan(load_scorer(judge, device="cpu"), sample_corpus(corpus, ["text"], rows=20), gpus=8)
    assert plan["estimate"] == {"workers": 8, "of": "GPU", "hours": None, "hours_95": None, "cost": None}
    assert "nothing is claimed" in in_words(plan)[-1]


def test_a_prompt_column_counts_as_tokens(judge, tmp_path):
    pq.write_table(pa.table({"text": ["short answer"] * 50, "ask": ["what is it " * 5] * 50}), tmp_path / "a.parquet")
    scorer = load_scorer(judge, threads=1)
    alone, asked = (
        make_plan(scorer, sample_corpus(tmp_path, wanted))["sample"]["tokens"] for wanted in (["text"], ["ask", "text"])
    )
    assert asked > 2 * alone


@pytest.mark.parametrize(
    ("make", "columns", "said"),
    [
        (lambda folder: None, ["text"], "has no files"),
        (lambda folder: (folder / "a.xml").write_text("x"), ["text"], "expected one of .parquet"),
        (lambda folder: (folder / "a.parquet").write_bytes(b"PAR1 but no more"), ["text"], "cannot be read as parquet"),
        (lambda folder: pq.write_table(pa.table({"text": ["a"]}), folder / "a.parquet"), ["txt"], "no column 'txt'"),
        (lambda folder: pq.write_table(pa.table({"text": [1]}), folder / "a.parquet"), ["text"], "of type int64"),
        (lambda folder: pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "a.parquet"), ["text"],
         "no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_refused_in_words(tmp_path, make, columns, said):
    make(tmp_path)
    with pytest.raises(CorpusError, match=said):
        sample_corpus(tmp_path, columns)


def test_no_workers_and_no_rows_are_refused(corpus, judge):
    sample = sample_corpus(corpus, ["text"], rows=10)
    with pytest.raises(ConfigError, match="--workers 0"):
        make_plan(load_scorer(judge, threads=1), sample, workers=0)
    with pytest.raises(InputError, match="rows 0"):
        sample_corpus(corpus, ["text"], rows=0)
