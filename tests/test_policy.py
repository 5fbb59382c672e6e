"""Policies: what a file may say, and that every row gets one decision that follows from it."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quality_judge.config import conf_folder, parse
from quality_judge.errors import ConfigError, InputError
from quality_judge.policy import Policy, ResolvedPolicy, decide, rank_cut, shown
from quality_judge.scores import CODES, DECISIONS, FLAGS, OK, order_of

UNIT = st.integers(0, 20).map(lambda step: step / 20)
ROWS = st.lists(
    st.tuples(
        st.one_of(UNIT, st.just(math.nan)),
        st.sampled_from([OK, OK, OK, *CODES]),
        st.one_of(st.none(), st.lists(st.sampled_from(FLAGS), max_size=2)),
        st.sampled_from(["zh", "en", None]),
    ),
    max_size=30,
)


def policy(**settings) -> Policy:
    return parse(Policy, {"name": "p", "keep_at": 0.7, **settings}, where="policy")


@st.composite
def resolved(draw) -> ResolvedPolicy:
    def band():
        low, high = sorted((draw(UNIT), draw(UNIT)))
        return {"keep_at": high, "drop_below": low}

    settings = band()
    if draw(st.booleans()):
        settings["slices"] = {"column": "lang", "values": {"zh": band()}}
    settings["on_flags"] = draw(st.dictionaries(st.sampled_from(FLAGS), st.sampled_from(["review", "drop"])))
    settings["beyond"] = draw(st.sampled_from(["review", "drop"]))
    if draw(st.booleans()):
        settings["keep_best"] = {"fraction": 0.3}
    return policy(**settings).resolve(None)


def decided(rule: ResolvedPolicy, rows, cut: float = 0.5) -> tuple[list[str], list[str]]:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    return decide(rule, *columns, rank_cut=cut if rule.rank else None)


@hypothesis_settings(deadline=None)
@given(resolved(), ROWS)
def test_every_row_gets_exactly_one_decision_and_a_reason(rule, rows):
    decision, reason = decided(rule, rows)
    assert len(decision) == len(reason) == len(rows)
    assert all(one in DECISIONS for one in decision)
    assert all(reason)


@hypothesis_settings(deadline=None)
@given(resolved(), ROWS)
def test_a_row_is_unscored_exactly_when_it_has_no_score(rule, rows):
    decision, reason = decided(rule, rows)
    for (score, code, _, _), outcome, why in zip(rows, decision, reason, strict=True):
        assert (outcome == "unscored") == (code != OK or math.isnan(score))
        if code != OK:
            assert why == code


@hypothesis_settings(deadline=None)
@given(resolved(), ROWS)
def test_a_decision_depends_on_its_own_row_alone(rule, rows):
    together = decided(rule, rows)
    for index, row in enumerate(rows):
        assert decided(rule, [row]) == ([together[0][index]], [together[1][index]])


@hypothesis_settings(deadline=None)
@given(ROWS, UNIT, UNIT, UNIT)
def test_raising_keep_at_never_turns_a_row_into_a_keep(rows, low, middle, high):
    low, middle, high = sorted((low, middle, high))
    flags = {"TRUNCATED": "review", "CONTROL_TEXT": "drop"}
    lax, tight = (policy(keep_at=at, drop_below=low, on_flags=flags).resolve(None) for at in (middle, high))
    for before, after in zip(decided(lax, rows)[0], decided(tight, rows)[0], strict=True):
        assert before == "keep" or after != "keep"


def test_a_flagged_row_that_the_rank_rule_turns_away_goes_where_it_would_without_its_flag():
    rule = policy(keep_at=0, keep_best={"fraction": 0.3}, beyond="drop", on_flags={"TRUNCATED": "review"}).resolve(None)
    rows = [(score, OK, flags, None) for score in (0.9, 0.4) for flags in (None, ["TRUNCATED"])]
    decision, reason = decided(rule, rows)
    assert decision == ["keep", "review", "drop", "drop"]
    assert reason[1:] == ["flag TRUNCATED", "beyond best 30%", "beyond best 30%"]


@hypothesis_settings(deadline=None)
@given(resolved(), ROWS)
def test_a_flag_only_ever_lowers_a_decision(rule, rows):
    order = ["drop", "review", "keep"]
    bare = decided(rule, [(score, code, None, value) for score, code, _, value in rows])[0]
    for before, after in zip(bare, decided(rule, rows)[0], strict=True):
        assert before == after == "unscored" or order.index(after) <= order.index(before)


@hypothesis_settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20), st.integers(0, 100))
def test_a_rank_cut_keeps_as_much_as_fits_and_never_more(counts, wanted):
    lows = [bin_ / 20 for bin_ in range(len(counts))]
    cut = rank_cut(counts, lows, wanted)
    held = sum(count for count, low in zip(counts, lows, strict=True) if low >= cut)
    assert held <= wanted
    looser = [low for low in lows if low < cut]
    if looser:
        assert sum(count for count, low in zip(counts, lows, strict=True) if low >= looser[-1]) > wanted


def test_a_rank_cut_adds_token_counts_exactly():
    assert rank_cut(np.array([1, 2**53, 1]), [0.0, 0.5, 0.9], 2**53 + 1) == 0.5
    assert rank_cut([5, 5], [0.0, 0.5], 4) == math.inf


def test_reasons_are_the_agreed_words():
    rule = policy(
        keep_at=0.7,
        drop_below=0.3,
        on_flags={"TRUNCATED": "review", "CONTROL_TEXT": "drop"},
        slices={"column": "lang", "values": {"zh": {"keep_at": 0.6}}},
    ).resolve(None)
    rows = [
        (0.7, OK, None, None),
        (0.5, OK, [], "en"),
        (0.29, OK, None, "en"),
        (0.6, OK, None, "zh"),
        (0.59, OK, None, "zh"),
        (0.9, OK, ["TRUNCATED"], None),
        (0.9, OK, ["TRUNCATED", "CONTROL_TEXT"], None),
        (0.1, OK, ["TRUNCATED"], None),
        (math.nan, "NULL_TEXT", None, None),
        (math.nan, OK, None, None),
    ]
    decision, reason = decided(rule, rows)
    assert list(zip(decision, reason, strict=True)) == [
        ("keep", "score>=0.70"),
        ("review", "between 0.30 and 0.70"),
        ("drop", "score<0.30"),
        ("keep", "score>=0.60 (lang=zh)"),
        ("drop", "score<0.60 (lang=zh)"),
        ("review", "flag TRUNCATED"),
        ("drop", "flag CONTROL_TEXT"),
        ("drop", "score<0.30"),
        ("unscored", "NULL_TEXT"),
        ("unscored", "NON_FINITE"),
    ]


def test_a_rank_rule_turns_away_only_rows_that_were_kept():
    for settings, why in (
        ({"keep_best": {"fraction": 0.3}}, "beyond best 30%"),
        ({"token_budget": {"tokens": 9}}, "beyond token budget"),
    ):
        rule = policy(drop_below=0.2, beyond="review", **settings).resolve(None)
        decision, reason = decide(rule, [0.95, 0.8, 0.5, 0.1], [OK] * 4, rank_cut=0.9)
        assert decision == ["keep", "review", "review", "drop"]
        assert reason[1:] == [why, "between 0.20 and 0.70", "score<0.20"]


def test_a_rank_cut_of_counts_beyond_any_machine_integer_keeps_no_more():
    assert rank_cut([2**63 - 1, 2**63 - 1, 5], [0.1, 0.2, 0.3], 100) == 0.3


def test_the_rank_cut_must_be_there_exactly_when_the_rank_rule_is():
    rule = policy(keep_best={"fraction": 0.3}).resolve(None)
    with pytest.raises(InputError, match="no rank cut"):
        decide(rule, [0.9], [OK])
    with pytest.raises(InputError, match="no rank rule"):
        decide(rule.without_rank(), [0.9], [OK], rank_cut=0.5)


def test_what_a_rank_rule_wants_is_rounded_down_and_not_by_rounding_noise():
    assert policy(keep_best={"fraction": 0.29}).resolve(None).wanted(100) == 29
    assert policy(keep_best={"fraction": 0.3}).resolve(None).wanted(99) == 29
    assert policy(token_budget={"tokens": 7}).resolve(None).wanted(99) == 7
    assert policy().resolve(None).wanted(99) is None


def test_the_word_judge_stands_for_the_judges_threshold():
    rule = policy(keep_at="judge", slices={"column": "lang", "values": {"zh": {"keep_at": "judge"}}})
    assert rule.asks_judge
    assert rule.resolve(0.62).bands() == [("zh", 0.62, 0.62), (None, 0.62, 0.62)]
    with pytest.raises(ConfigError, match="calibrate the judge"):
        rule.resolve(None)
    with pytest.raises(ConfigError, match="above the judge's threshold"):
        policy(keep_at="judge", drop_below=0.5).resolve(0.4)


def test_the_word_judge_stands_for_its_certified_cuts_on_both_sides():
    rule = policy(keep_at="judge", drop_below="judge")
    assert rule.asks_judge
    assert rule.resolve(0.8, 0.3).bands() == [(None, 0.8, 0.3)]
    assert policy(keep_at=0.9, drop_below="judge").resolve(0.8, 0.3).bands() == [(None, 0.9, 0.3)]
    with pytest.raises(ConfigError, match="certify one with target_npv"):
        rule.resolve(0.8)
    # keep_at is only the judge's best guess here, and below 0.9 rows may be dropped for certain
    assert rule.resolve(0.8, 0.9).bands() == [(None, 0.9, 0.9)]


def test_thresholds_in_reasons_are_never_rounded_away():
    assert shown(0.7) == "0.70"
    assert shown(0.735421) == "0.735421"
    assert float(shown(0.999999999)) == 0.999999999


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep_at": 1.5}, "from 0 to 1"),
        ({"keep_at": "jugde"}, 'the word "judge"'),
        ({"keep_at": True}, "is no threshold"),
        ({"drop_below": 0.8}, "above keep_at"),
        ({"keep_best": {"fraction": 0.3}, "token_budget": {"tokens": 1}}, "at most one rank rule"),
        ({"keep_best": {"fraction": 0}}, "greater than 0"),
        ({"on_flags": {"TRUNCATE": "drop"}}, "did you mean 'TRUNCATED'"),
        ({"on_flags": {"TRUNCATED": "keep"}}, "'review' or 'drop'"),
        ({"keepat": 0.5}, "did you mean 'keep_at'"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        policy(**settings)


@pytest.mark.parametrize("path", sorted((conf_folder() / "policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_policy_loads_and_bears_its_files_name(path: Path):
    loaded = Policy.load(path)
    assert loaded.name == path.stem
    rule = loaded.resolve(0.6, 0.3)
    assert pickle.loads(pickle.dumps(rule)) == rule


def test_columns_of_different_length_are_refused():
    with pytest.raises(InputError, match="2 probabilities and 1 flags"):
        decide(policy().resolve(None), [0.1, 0.2], [OK, OK], flags=[None])


def test_a_judge_that_states_no_probability_keeps_rows_by_rank_alone():
    """Its raw scores may be any numbers; all that counts is their order."""
    by_rank = policy(keep_at=0.0, keep_best={"fraction": 0.5}).resolve(None, probability=False)
    raw = np.array([-700.0, 3.0, 2.999, 1e6])
    order = order_of(raw)
    assert (np.argsort(order) == np.argsort(raw)).all()
    assert (order > 0).all()
    assert (order < 1).all()
    decisions, reasons = decide(by_rank, order, [OK] * 4, rank_cut=float(order[1]))
    assert decisions == ["drop", "keep", "drop", "keep"]
    assert set(reasons) == {"among the best by order", "beyond best 50%"}


@pytest.mark.parametrize(
    "settings",
    [
        {"keep_at": 0.5},
        {"keep_at": "judge"},
        {"keep_at": 0.0},
        {"keep_at": 0.2, "keep_best": {"fraction": 0.5}},
        {
            "keep_at": 0.0,
            "keep_best": {"fraction": 0.5},
            "slices": {"column": "lang", "values": {"en": {"keep_at": 0.5}}},
        },
    ],
)
def test_a_policy_of_probabilities_is_refused_where_the_judge_states_none(settings):
    with pytest.raises(ConfigError, match="calibrate_judge"):
        policy(**settings).resolve(0.5, probability=False)
