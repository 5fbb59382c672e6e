"""The demo's data: labels a person can trust, and a corpus that any Python environment can give."""

import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import mannwhitneyu

from quality_judge.config import conf_folder
from quality_judge.demo import FILES, SHARES, demo_labels, gather_corpus, source_folders
from quality_judge.errors import InputError
from quality_judge.rubric import Rubric


def read(folder):
    return pq.read_table([folder / name for name in FILES]).to_pylist()


@pytest.fixture(scope="module")
def labels():
    return [json.loads(line) for path in demo_labels() for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    assert gather_corpus(folder / "raw", folders=source_folders()[:2]) == len(read(folder / "raw"))
    return read(folder / "raw")


def test_a_python_environment_alone_gives_five_thousand_rows(corpus):
    assert len(corpus) >= 5_000


def test_no_kind_of_text_rules_the_corpus(corpus):
    counts = Counter(row["source"] for row in corpus)
    assert set(counts) <= {*SHARES, "planted"}
    assert max(counts.values()) <= 0.3 * len(corpus)


def test_corpus_ids_are_unique_and_texts_repeat_only_where_planted(corpus):
    assert len({row["id"] for row in corpus}) == len(corpus)
    found = [row["text"] for row in corpus if row["source"] != "planted"]
    assert len(set(found)) == len(found)
    assert all(0 < len(text) <= 4_000 for text in found)


def test_broken_rows_are_planted(corpus):
    planted = [row["text"] for row in corpus if row["source"] == "planted"]
    assert {None, ""} <= set(planted)
    assert any("\x00" in (text or "") for text in planted)
    assert max(len(text or "") for text in planted) == 200_000


def test_the_same_machine_and_seed_give_the_same_corpus(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        gather_corpus(tmp_path / name, rows=400, seed=seed, folders=source_folders()[:1])
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in FILES)
    assert read(tmp_path / "a") != read(tmp_path / "c")


def test_too_little_text_is_an_error_that_says_how_much_was_found(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "only.txt").write_text("One paragraph that is just about long enough to count.\n", "utf-8")
    with pytest.raises(InputError, match=r"41 rows .*readme 1.*at least 5000"):
        gather_corpus(tmp_path / "out", folders=[tmp_path / "in"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.doc").write_text("do not touch", "utf-8")
    with pytest.raises(InputError, match="thesis"):
        gather_corpus(tmp_path, rows=200)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_labels_are_well_formed_and_use_the_codes_of_the_rubric(labels):
    codes = {category.code for category in Rubric.load(conf_folder() / "rubrics" / "worth-keeping.yaml").categories}
    for row in labels:
        assert set(row) == {"prompt", "completion", "label", "id", "source", "category"}
        assert row["prompt"] == ""
        assert type(row["label"]) is bool
        assert row["completion"].strip()
        assert (row["category"] == "good") if row["label"] else (row["category"] in codes), row["id"]


def test_no_label_is_given_twice(labels):
    assert len({row["id"] for row in labels}) == len(labels) >= 270
    assert len({" ".join(row["completion"].lower().split()) for row in labels}) == len(labels)


def test_about_half_of_the_labels_of_each_language_are_good(labels):
    for language in {row["id"][:2] for row in labels}:
        assert 0.42 <= np.mean([row["label"] for row in labels if row["id"][:2] == language]) <= 0.58


def test_length_alone_does_not_tell_good_from_bad(labels):
    for language in {"", *(row["id"][:2] for row in labels)}:
        good, bad = (
            [len(r["completion"]) for r in labels if r["label"] is v and r["id"].startswith(language)]
            for v in (True, False)
        )
        area = mannwhitneyu(good, bad).statistic / (len(good) * len(bad))
        assert 0.40 <= area <= 0.60, language
