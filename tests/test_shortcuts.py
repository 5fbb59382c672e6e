"""The shortcut audit: what something that is not quality would get, and what a judge is worth within each source."""

import numpy as np
import pytest

from quality_judge.labels import LabelSet, flatten
from quality_judge.samples import CategoryRow, Sample
from quality_judge.shortcuts import auc_within, audit, languages, script_of


def audited(rows, raw, *, threshold=0.5):
    flat = flatten(LabelSet.of(rows, [f"made:{line}" for line in range(len(rows))]))
    raw = np.asarray(raw, float)
    return audit(flat, raw, 1 / (1 + np.exp(-raw)), threshold=threshold)


def rows_of(good, *, sources=None, languages=None, texts=None):
    n = len(good)
    return [
        Sample("", texts[i] if texts else f"words {i:04d}", bool(good[i]), source=sources[i] if sources else None,
               lang=languages[i] if languages else None)
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture
def by_source():
    """200 rows; the judge knows the source, which predicts the label, and nothing else."""
    dice = np.random.default_rng(0)
    sources = ["books" if i % 2 else "forum" for i in range(200)]
    good = np.array([dice.random() < (0.9 if source == "books" else 0.1) for source in sources])
    raw = np.array([2.0 if source == "books" else -2.0 for source in sources])
    return rows_of(good, sources=sources), raw, good


def test_a_judge_that_only_knows_the_source_is_found_out(by_source):
    rows, raw, _ = by_source
    found = audited(rows, raw)
    assert found["alone"]["source"]["roc_auc"] > 0.8
    assert found["within"]["source"] == 0.5
    assert [(each["kind"], each["shortcut"]) for each in found["warnings"]] == [
        ("near", "source"),
        ("within", "source"),
    ]


def test_what_is_kept_of_each_source_is_counted_with_an_interval(by_source):
    rows, raw, good = by_source
    books, forum = sorted(audited(rows, raw)["by_source"], key=lambda entry: entry["name"])
    assert (books["name"], books["n"], books["keep_rate"]) == ("books", 100, 1.0)
    assert books["good_rate"] == good[1::2].mean()
    assert (forum["keep_rate"], forum["keep_rate_ci"][0]) == (0.0, 0.0)
    assert 0.02 < forum["keep_rate_ci"][1] < 0.05
    assert books["roc_auc_ci"][0] <= books["roc_auc"] <= books["roc_auc_ci"][1]


def test_a_judge_of_quality_raises_no_alarm():
    dice = np.random.default_rng(1)
    good = dice.random(300) < 0.5
    rows = rows_of(good, sources=["abc"[i % 3] for i in range(300)], texts=["x" * dice.integers(5, 90) for _ in good])
    found = audited(rows, 2 * good + dice.normal(size=300))
    assert found["warnings"] == []
    assert found["within"]["source"] > 0.85
    for name in ("length", "source"):
        low, high = found["alone"][name]["roc_auc_ci"]
        assert low < 0.58
        assert high > 0.46


@pytest.mark.parametrize("groups", [1, 2, 30, 300])
def test_a_group_that_says_nothing_is_worth_nothing_however_many_groups_there_are(groups):
    """Shares over all rows would reach 1.0 with a group for every row."""
    dice = np.random.default_rng(2)
    aucs = []
    for _ in range(20):
        good = dice.random(300) < 0.5
        values = [str(value) for value in dice.integers(0, groups, 300)]
        found = audited(rows_of(good, sources=[*values[:-1], "other"]), np.zeros(300))
        aucs.append(found["alone"]["source"]["roc_auc"])
    assert abs(np.mean(aucs) - 0.5) < 0.04


def test_two_groups_are_worth_what_their_shares_are():
    good = np.array([True] * 80 + [False] * 20 + [True] * 20 + [False] * 80)
    found = audited(rows_of(good, sources=["a"] * 100 + ["b"] * 100), np.zeros(200))
    assert found["alone"]["source"]["roc_auc"] == pytest.approx(0.8)


def test_length_counts_either_way_round():
    texts = ["long " * 9 if i % 2 else "short" for i in range(40)]
    for good in ([i % 2 == 0 for i in range(40)], [i % 2 == 1 for i in range(40)]):
        assert audited(rows_of(good, texts=texts), np.zeros(40))["alone"]["length"]["roc_auc"] == 1.0


def test_a_stated_language_goes_before_the_script():
    rows = rows_of([True, False] * 4, languages=["en", "de"] * 4)
    assert [entry["name"] for entry in audited(rows, np.zeros(8))["by_language"]] == ["de", "en"]
    mixed = rows_of(
        [True, False] * 4, texts=[f"{text} {i}" for i in range(4) for text in ("水在高山上沸腾", "water boils")]
    )
    found = audited(mixed, np.zeros(8))
    assert [entry["name"] for entry in found["by_language"]] == ["Han", "Latin"]
    assert found["alone"]["language"]["roc_auc"] == 1.0
    assert found["alone"]["source"] is None
    assert found["by_source"] == []


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Water boils.", "Latin"), ("水在高山上沸腾", "Han"), ("山の上では水が沸く", "Kana"), ("Вода", "Cyrillic"),
        ("الماء يغلي", "Arabic"), ("물이 끓는다", "Hangul"), ("12 + 3 = 15 !!", "none"), ("", "none"),
        ("see 水 and more words of English", "Latin"),
    ],
)  # fmt: skip
def test_the_script_is_that_of_most_letters(text, script):
    assert script_of(text) == script


def test_within_groups_only_pairs_of_one_group_count():
    good = np.array([True, False, True, False])
    scores = np.array([1.0, 2.0, 9.0, 8.0])
    assert auc_within(["a", "a", "b", "b"], good, scores) == 0.5
    assert auc_within(["a", "b", "c", "d"], good, scores) is None


def test_an_unscored_row_is_not_kept_and_ranks_last():
    rows = [CategoryRow("", f"text {i}", {"spam": i < 5}, source="web") for i in range(10)]
    found = audited(rows, [0.0] * 5 + [1.0] * 4 + [np.nan], threshold=0.6)
    (web,) = found["by_source"]
    assert web["keep_rate"] == 0.4
    assert web["roc_auc"] == (20 + 2.5) / 25


def test_labels_of_one_class_or_none_give_an_audit_without_numbers():
    found = audited(rows_of([True, True]), [0.0, 1.0])
    assert found["alone"]["length"] == {"roc_auc": None, "roc_auc_ci": None}
    assert found["warnings"] == []
    assert audited([], [])["by_language"] == []


def test_only_languages_that_can_be_told_are_named():
    texts = ["水在高山上沸腾"] * 10 + ["water boils"] * 9 + ["물이 끓는다"]
    flat = flatten(LabelSet.of(rows_of([True] * 20, texts=texts), [str(i) for i in range(20)]))
    assert languages(flat) == ("ko", "zh")  # Latin letters do not tell English from German
    stated = rows_of([True] * 40, languages=["de"] * 39 + ["fr"])
    assert languages(flatten(LabelSet.of(stated, [str(i) for i in range(40)]))) == ("de",)
