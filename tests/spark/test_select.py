"""Rows for experts: as many as asked, each once, with the chance it had, the same whatever the partitions."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError, InputError
from quality_judge.spark.select import Other, rows_for_labels, shares

COLUMNS = "id int, text string, prompt string, source string, quality_score double, quality_code string"
OPTIONS = {"text_column": "text", "prompt_column": None, "threshold": 0.6}


@pytest.fixture(scope="module")
def table(spark):
    """100 scored texts from three sources of unequal size, 40 copies of one of them, and 10 rows without a score."""
    rows = [(i, f"text {i}", None if i % 2 else "why", "abc"[min(i % 7, 2)], i / 100, "OK") for i in range(100)]
    rows += [(1000 + i, "text 7", None, "a", 0.07, "OK") for i in range(40)]
    rows += [(2000 + i, None, None, "a", None, "NULL_TEXT") for i in range(10)]
    return spark.createDataFrame(rows, COLUMNS).cache()


def test_uniform_rows_are_distinct_and_carry_their_chance(table):
    rows = rows_for_labels(table, 30, "uniform", **OPTIONS)
    assert len({row["completion"] for row in rows}) == len(rows) == 30
    assert {row["inclusion_probability"] for row in rows} == {30 / 100}
    assert {row["strategy"] for row in rows} == {"uniform"}
    assert all(row["prompt"] == "" and row["quality_score"] is not None for row in rows)


@pytest.mark.parametrize("strategy", ["uniform", "uncertain", "review"])
def test_a_labelled_text_is_not_drawn_again_and_chances_are_over_the_rest(table, strategy):
    labelled = [("", f"text {i}") for i in range(0, 100, 2)] * 2 + [("another prompt", "text 61"), ("", "not there")]
    rows = rows_for_labels(table, 100, strategy, labelled=labelled, **OPTIONS)
    assert sorted(int(row["completion"].split()[1]) for row in rows) == list(range(1, 100, 2))
    assert {row["inclusion_probability"] for row in rows} == {1.0}


def test_a_text_labelled_under_one_prompt_is_drawn_under_another(table):
    options = OPTIONS | {"prompt_column": "prompt"}
    rows = rows_for_labels(table, 100, "uniform", labelled=[("why", "text 4"), ("why", "text 5")], **options)
    assert {"text 4", "text 5"} & {row["completion"] for row in rows} == {"text 5"}


def test_nothing_is_left_when_all_is_labelled(table):
    with pytest.raises(CorpusError, match="nothing to sample"):
        rows_for_labels(table, 5, "uniform", labelled=[("", f"text {i}") for i in range(100)], **OPTIONS)


def test_uncertain_rows_are_the_nearest_to_the_threshold_and_the_rest_is_uniform(table):
    rows = rows_for_labels(table, 20, "uncertain", **OPTIONS)
    uncertain = [row for row in rows if row["strategy"] == "uncertain"]
    assert Counter(row["strategy"] for row in rows) == {"uncertain": 14, "uniform": 6}
    assert max(abs(row["quality_score"] - 0.6) for row in uncertain) < 0.071
    assert {row["inclusion_probability"] for row in rows} == {1.0, 6 / 86}
    assert len({row["completion"] for row in rows}) == 20


def test_strata_give_as_many_each_and_their_own_chance(table):
    rows = rows_for_labels(table, 31, "stratified", stratum="source", **OPTIONS)
    assert Counter(row["source"] for row in rows) == {"a": 11, "b": 10, "c": 10}
    chances = {row["source"]: row["inclusion_probability"] for row in rows}
    assert chances == {"a": 11 / 15, "b": 10 / 15, "c": 10 / 70}


def test_a_stratum_stands_beside_what_is_said_of_a_row_and_not_in_its_place(table):
    spoken = table.withColumn("lang", F.when(F.col("id") % 2 == 0, "zh").otherwise("en"))
    rows = rows_for_labels(spoken, 20, "stratified", stratum="lang", **OPTIONS)
    assert Counter(row["stratum"] for row in rows) == {"zh": 10, "en": 10}
    assert all(row["lang"] == row["stratum"] and row["source"] in "abc" for row in rows)


def test_rows_say_what_they_belong_to_where_a_column_is_named_for_it(table):
    rows = rows_for_labels(table, 10, "uniform", group="id", **OPTIONS)
    assert [row["group"] for row in rows] == [row["id"] for row in rows]
    assert all("group" not in row for row in rows_for_labels(table, 10, "uniform", **OPTIONS))
    with pytest.raises(CorpusError, match="no column page"):
        rows_for_labels(table, 10, "uniform", group="page", **OPTIONS)


def test_a_text_that_stands_in_many_rows_is_shown_once_and_says_so(table):
    rows = rows_for_labels(table, 100, "uniform", **OPTIONS)
    assert len(rows) == 100
    assert {row["completion"]: row["copies"] for row in rows}["text 7"] == 41
    assert {row["inclusion_probability"] for row in rows} == {1.0}


def test_rows_of_a_cut_come_from_either_side_of_it_with_their_chance_and_the_cut(table):
    rows = rows_for_labels(table, 40, "kept", cuts=(0.7, 0.5), **OPTIONS)
    sides = {name: [row for row in rows if row["strategy"] == name] for name in ("kept", "dropped")}
    assert [len(side) for side in sides.values()] == [30, 10]
    assert min(row["quality_score"] for row in sides["kept"]) >= 0.7
    assert max(row["quality_score"] for row in sides["dropped"]) < 0.5
    assert {row["inclusion_probability"] for row in sides["kept"]} == {30 / 30}
    assert {row["inclusion_probability"] for row in sides["dropped"]} == {10 / 50}
    assert {(row["keep_at"], row["drop_below"]) for row in rows} == {(0.7, 0.5)}
    told = {(row["strategy"], row["drawn"], row["texts_there"], row["rows_there"]) for row in rows}
    assert told == {("kept", 30, 30, 30), ("dropped", 10, 50, 90)}


def test_each_row_names_the_judge_that_scored_it_and_a_cut_is_certified_of_one_judge_only(table):
    cascade = table.withColumn("quality_judge", F.when(F.col("quality_score") > 0.9, "large").otherwise("cheap"))
    for strategy in ("uniform", "uncertain"):
        rows = rows_for_labels(cascade, 100, strategy, **OPTIONS)
        assert {(row["quality_score"] > 0.9, row["quality_judge"]) for row in rows} == {
            (True, "large"),
            (False, "cheap"),
        }
    with pytest.raises(CorpusError, match="the judges cheap and large scored"):
        rows_for_labels(cascade, 8, "kept", cuts=(0.5, 0.5), **OPTIONS)
    alone = cascade.where("quality_judge = 'cheap'")
    assert {row["quality_judge"] for row in rows_for_labels(alone, 8, "kept", cuts=(0.5, 0.5), **OPTIONS)} == {"cheap"}


def test_rows_to_measure_a_judge_are_not_those_that_were_drawn_for_the_one_before_it(table):
    judged = [table.withColumn("quality_judge", F.lit(judge)) for judge in ("first", "second", "first")]
    drawn = [{row["completion"] for row in rows_for_labels(df, 30, "uniform", **OPTIONS)} for df in judged]
    assert drawn[0] == drawn[2]
    assert len(drawn[0] & drawn[1]) < 20


def test_rows_to_certify_a_cut_are_not_those_that_another_strategy_drew_with_the_same_seed(table):
    uniform = {row["completion"] for row in rows_for_labels(table, 30, "uniform", **OPTIONS)}
    kept = {row["completion"] for row in rows_for_labels(table, 40, "kept", cuts=(0.0, 0.0), **OPTIONS)}
    assert len(uniform & kept) < 20


@pytest.mark.parametrize(
    ("cuts", "said"), [((0.995, 0.5), "no row has a score"), ((0.5, 0.6), "expected"), (None, "expected")]
)
def test_a_cut_that_nothing_can_be_drawn_at_is_refused(table, cuts, said):
    with pytest.raises(InputError, match=said):
        rows_for_labels(table, 40, "kept", cuts=cuts, **OPTIONS)


def test_rows_on_which_two_judges_differ_most_come_first_with_both_scores_and_the_rest_is_uniform(table):
    # The other judge turns the order of every fifth text round, knows nothing of `text 3`, and calls the column `body`.
    theirs = table.selectExpr(
        "text as body", "prompt", "if(id % 5 = 0, 1 - quality_score, quality_score) as quality_score"
    ).where("body != 'text 3'")
    rows = rows_for_labels(table, 20, "disagreement", other=Other(theirs, "body"), **OPTIONS)
    apart = [row for row in rows if row["strategy"] == "disagreement"]
    assert Counter(row["strategy"] for row in rows) == {"disagreement": 14, "uniform": 6}
    gaps = [abs(row["quality_score"] - row["other_score"]) for row in apart]
    assert gaps == sorted(gaps, reverse=True)
    assert min(gaps) > 0.3
    assert {int(row["id"]) % 5 for row in apart} == {0}
    assert {row["inclusion_probability"] for row in rows} == {1.0, 6 / 86}
    assert not any("other_score" in row for row in rows if row["strategy"] == "uniform")


def test_the_review_band_is_as_wide_as_the_budget_or_drawn_evenly_from_the_one_asked_for(table):
    rows = rows_for_labels(table, 11, "review", **OPTIONS)
    assert sorted(row["quality_score"] for row in rows) == [at / 100 for at in range(55, 66)]
    assert {(row["drop_below"], row["keep_at"], row["inclusion_probability"]) for row in rows} == {(0.55, 0.65, 1.0)}
    rows = rows_for_labels(table, 5, "review", cuts=(0.4, 0.2), **OPTIONS)
    assert len(rows) == 5
    assert all(0.2 <= row["quality_score"] < 0.4 for row in rows)
    assert {(row["drop_below"], row["keep_at"], row["inclusion_probability"]) for row in rows} == {(0.2, 0.4, 5 / 20)}
    with pytest.raises(CorpusError, match="nothing to review"):
        rows_for_labels(table, 5, "review", cuts=(0.995, 0.995), **OPTIONS)


def test_two_tables_that_share_nothing_to_differ_on_are_refused(table):
    for theirs, said in ((table, "share no text"), (table.drop("quality_score"), "no column quality_score")):
        with pytest.raises(CorpusError, match=said):
            rows_for_labels(table, 5, "disagreement", other=Other(theirs, "text"), **OPTIONS)
    with pytest.raises(InputError, match="--other"):
        rows_for_labels(table, 5, "disagreement", **OPTIONS)


@pytest.mark.parametrize("strategy", ["uniform", "uncertain", "stratified", "kept"])
def test_the_same_seed_gives_the_same_rows_however_the_table_is_partitioned(table, strategy):
    stratum = "source" if strategy == "stratified" else None
    cuts = (0.7, 0.5) if strategy == "kept" else None
    first = rows_for_labels(table.repartition(1), 20, strategy, stratum=stratum, cuts=cuts, **OPTIONS)
    assert rows_for_labels(table.repartition(5), 20, strategy, stratum=stratum, cuts=cuts, **OPTIONS) == first
    other = rows_for_labels(table, 20, strategy, stratum=stratum, cuts=cuts, seed=1, **OPTIONS)
    assert {row["completion"] for row in other} != {row["completion"] for row in first}


def test_more_than_there_is_gives_all_there_is(table):
    for strategy in ("uniform", "uncertain", "stratified"):
        rows = rows_for_labels(table, 500, strategy, stratum="source", **OPTIONS)
        assert len({row["completion"] for row in rows}) == len(rows) == 100
        assert {row["inclusion_probability"] for row in rows} == {1.0}


def test_prompts_are_part_of_what_is_labelled(table):
    rows = rows_for_labels(table, 100, "uniform", **OPTIONS | {"prompt_column": "prompt"})
    assert Counter(row["prompt"] for row in rows) == {"why": 50, "": 50}


def test_a_table_without_a_score_or_a_column_is_refused(table):
    with pytest.raises(CorpusError, match="nothing to sample"):
        rows_for_labels(table.where("quality_code != 'OK'"), 5, "uniform", **OPTIONS)
    with pytest.raises(CorpusError, match="no column lang"):
        rows_for_labels(table, 5, "stratified", stratum="lang", **OPTIONS)


@given(
    st.dictionaries(st.one_of(st.none(), st.text(max_size=2)), st.integers(1, 50), min_size=1, max_size=8),
    st.integers(1, 200),
)
def test_shares_are_even_and_add_up(sizes, count):
    given_to = shares(sizes, count)
    assert sum(given_to.values()) == min(count, sum(sizes.values()))
    assert all(0 <= given_to[name] <= sizes[name] for name in sizes)
    unfilled = [given_to[name] for name in sizes if given_to[name] < sizes[name]]
    assert not unfilled or max(given_to.values()) - min(unfilled) <= 1


@pytest.mark.parametrize("other", [{"cuts": (0.6, 0.6)}, {"count": 24}])
def test_rows_for_another_cut_or_count_are_drawn_anew_not_taken_from_the_last_drawing(table, other):
    """Of 100 texts 15 are drawn and then 15 or 18: 2.25 or 2.7 alike are expected, and 12 or more once in 10^6."""
    first, second = (
        {row["completion"] for row in rows_for_labels(table, strategy="kept", **OPTIONS, **asked)}
        for asked in ({"count": 20, "cuts": (0.0, 0.0)}, {"count": 20, "cuts": (0.0, 0.0)} | other)
    )
    assert len(first & second) < 12
