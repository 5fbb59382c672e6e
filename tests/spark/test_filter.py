"""The columns of `apply_policy` say, row by row, what `policy.decide` says; a rank rule never keeps too much."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from quality_judge.errors import CorpusError
from quality_judge.policy import Policy, decide
from quality_judge.scores import CODES, DECISION_COLUMN, FLAGS, KEEP, REASON_COLUMN, UNSCORED, order_of
from quality_judge.spark import apply_policy
from quality_judge.spark.filter import RANK_BINS, find_rank_cut

COLUMNS = (
    "id int, quality_score double, quality_code string, quality_flags array<string>, lang string, text string, "
    "n_tokens int"
)
SLICES = {"column": "lang", "values": {"en": {"keep_at": 0.9, "drop_below": 0.2}, "zh": {"keep_at": 0.1}}}
POLICIES = {
    "one threshold": {"keep_at": 0.5},
    "review between": {"keep_at": 0.75, "drop_below": 0.25},
    "slices": {"keep_at": 0.6, "drop_below": 0.4, "slices": SLICES},
    "flags": {
        "keep_at": 0.3, "drop_below": 0.1, "slices": SLICES,
        "on_flags": {"TRUNCATED": "review", "INVALID_UTF8": "drop", "HIDDEN_CHARS": "drop", "NEAR_THRESHOLD": "review"},
    },
    "keep best": {"keep_at": 0.0, "keep_best": {"fraction": 0.29}, "on_flags": {"TRUNCATED": "review"}},
    "keep best of slices": {"keep_at": 0.5, "keep_best": {"fraction": 0.05}, "beyond": "review", "slices": SLICES},
    "token budget": {"keep_at": 0.0, "token_budget": {"tokens": 700, "column": "n_tokens"}},
    "characters": {"keep_at": 0.2, "token_budget": {"tokens": 150, "characters_per_token": 3}, "beyond": "review"},
}  # fmt: skip
SCORES = st.one_of(
    st.floats(0, 1),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1 - 2**-20, None, math.nan, math.inf, -math.inf]),
)
ROW = st.tuples(
    SCORES,
    st.one_of(st.just("OK"), st.just("OK"), st.sampled_from([*CODES, None])),
    st.one_of(st.none(), st.lists(st.sampled_from(FLAGS), unique=True, max_size=3)),
    st.sampled_from(["en", "zh", "de", "", None]),
    st.sampled_from([None, "", "some words", "x" * 40]),
    st.one_of(st.none(), st.integers(0, 60)),
)


@settings(max_examples=2, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(ROW, min_size=300, max_size=300))
def test_every_policy_decides_each_row_as_its_reference_does(spark, made):
    rows = [(i, *row) for i, row in enumerate(made)]
    df = spark.createDataFrame(rows, COLUMNS).repartition(3).cache()
    values = [math.nan if row[1] is None else row[1] for row in rows]
    for name, content in POLICIES.items():
        policy = Policy(name=name, **content).resolve(None)
        cut = find_rank_cut(df, policy) if policy.rank else None
        expected = decide(
            policy, values, [row[2] for row in rows], [row[3] for row in rows], [row[4] for row in rows], cut
        )
        found = apply_policy(df, policy).orderBy("id").select(DECISION_COLUMN, REASON_COLUMN).collect()
        assert [tuple(row) for row in found] == list(zip(*expected, strict=True)), name
        assert_within_budget(policy, rows, [row[0] for row in found])
    df.unpersist()


def assert_within_budget(policy, rows, decisions):
    kept = [row for row, decision in zip(rows, decisions, strict=True) if decision == KEEP]
    if policy.name.startswith("keep best"):
        assert len(kept) <= policy.wanted(sum(decision != UNSCORED for decision in decisions))
    if policy.name == "token budget":
        assert sum(row[6] if row[6] is not None else math.ceil(len(row[5] or "") / 4) for row in kept) <= 700
    if policy.name == "characters":
        assert sum(math.ceil(len(row[5] or "") / 3) for row in kept) <= 150


def scores(spark, values):
    rows = [(i, value, "OK", [], "en", "four", 1) for i, value in enumerate(values)]
    return spark.createDataFrame(rows, COLUMNS)


def kept(df, content):
    policy = Policy(name="p", **content).resolve(None)
    return apply_policy(df, policy).where(F.col(DECISION_COLUMN) == KEEP)


def test_a_judge_that_is_sure_of_most_rows_still_keeps_the_share_that_was_asked_for(spark):
    sure = scores(spark, [1 - i * 1e-8 for i in range(200)])  # all of them in one bin of the histogram
    assert 1 / RANK_BINS > 200 * 1e-8
    best = kept(sure, {"keep_at": 0.0, "keep_best": {"fraction": 0.25}})
    assert sorted(row["id"] for row in best.collect()) == list(range(50))


def test_equal_scores_at_the_cut_are_never_kept_beyond_the_budget(spark):
    assert kept(scores(spark, [0.9] * 3 + [0.8] * 5), {"keep_at": 0, "keep_best": {"fraction": 0.5}}).count() == 3
    assert kept(scores(spark, [0.9] * 8), {"keep_at": 0, "keep_best": {"fraction": 0.5}}).count() == 0


def test_a_rank_rule_on_an_empty_table_keeps_nothing(spark):
    assert kept(scores(spark, []), {"keep_at": 0, "keep_best": {"fraction": 0.5}}).count() == 0


def test_counts_near_the_largest_number_neither_wrap_around_nor_end_the_job(spark):
    rows = [(i, 0.5 if i < 3 else 0.9, "OK", [], 2**63 - 1 if i < 3 else 10, "x") for i in range(6)]
    columns = "id int, quality_score double, quality_code string, quality_flags array<string>, n long, text string"
    policy = Policy(name="few", keep_at=0, token_budget={"tokens": 100, "column": "n"}).resolve(None)
    decided = apply_policy(spark.createDataFrame(rows, columns), policy).where(F.col(DECISION_COLUMN) == KEEP)
    assert sorted(row["id"] for row in decided.collect()) == [3, 4, 5]


def test_a_count_that_is_no_number_goes_by_characters_and_none_is_below_zero(spark):
    rows = [(i, 0.9 - i / 100, "OK", [], tokens, "x" * 40) for i, tokens in enumerate(["-5", "many", None, "10"])]
    columns = (
        "id int, quality_score double, quality_code string, quality_flags array<string>, n_tokens string, text string"
    )
    budget = {"keep_at": 0, "token_budget": {"tokens": 20, "column": "n_tokens"}}
    assert [row["id"] for row in kept(spark.createDataFrame(rows, columns), budget).orderBy("id").collect()] == [
        0,
        1,
        2,
    ]


def test_a_budget_counts_characters_of_bytes_too(spark):
    df = scores(spark, [0.9, 0.8]).withColumn("text", F.lit("水在高山上沸腾的温度更低").cast("binary"))
    assert kept(df, {"keep_at": 0, "token_budget": {"tokens": 6}}).count() == 2


@pytest.mark.parametrize(
    ("drop", "content", "said"),
    [
        ("quality_flags", {}, "no column quality_flags"),
        ("lang", {"slices": SLICES}, "no column lang"),
        ("n_tokens", {"token_budget": {"tokens": 5, "column": "n_tokens"}}, "no column n_tokens"),
        ("text", {"token_budget": {"tokens": 5}}, "no column text"),
    ],
)
def test_a_missing_column_is_refused(spark, drop, content, said):
    with pytest.raises(CorpusError, match=said):
        kept(scores(spark, [0.5]).drop(drop), {"keep_at": 0.5} | content)


def test_a_table_that_was_decided_before_is_refused(spark):
    with pytest.raises(CorpusError, match="already has Quality_Decision"):
        kept(scores(spark, [0.5]).withColumn("Quality_Decision", F.lit("keep")), {"keep_at": 0.5})


def test_raw_scores_alone_are_ranked_as_the_reference_ranks_them(spark):
    """A judge that only orders has no quality_score; its best are kept by quality_raw, whatever its scale."""
    raw = [-900.0, -1.5, 0.0, 0.25, 0.250001, 7.0, 8000.0, None]
    rows = [(i, None, "OK" if value is not None else "NULL_TEXT", None, None, "", 1) for i, value in enumerate(raw)]
    df = spark.createDataFrame(rows, COLUMNS)
    values = spark.createDataFrame(list(enumerate(raw)), "id int, quality_raw double")
    df = df.join(values, "id").cache()
    policy = Policy(name="best", keep_at=0.0, keep_best={"fraction": 0.43}).resolve(None, probability=False)
    order = [math.nan if value is None else order_of(value) for value in raw]
    cut = find_rank_cut(df, policy)
    expected = decide(policy, order, [row[2] for row in rows], rank_cut=cut)
    found = apply_policy(df, policy).orderBy("id").select(DECISION_COLUMN, REASON_COLUMN).collect()
    assert [row[0] for row in found] == expected[0] == ["drop"] * 4 + ["keep"] * 3 + ["unscored"]
    assert [row[1] for row in found] == expected[1]
