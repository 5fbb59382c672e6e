"""Suites: every fault in the file is named before a table is looked at."""

import pytest

from quality_judge.config import conf_folder
from quality_judge.errors import ConfigError
from quality_judge.expectations import load_suite
from quality_judge.scores import CODES, DECISIONS

SUITE = "name: s\nexpectations:\n  - {{type: {type}, kwargs: {kwargs}}}\n"
BOUNDS = "min_value: 0.1, max_value: 0.9"


def written(tmp_path, type="expect_column_pass_rate_to_be_between", kwargs=""):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.format(type=type, kwargs=f"{{{kwargs}}}"))
    return path


def test_the_shipped_suites_load_and_know_every_code_and_decision():
    folder = conf_folder() / "expectations"
    scored, filtered = load_suite(folder / "scored.yaml"), load_suite(folder / "filtered.yaml")
    assert scored.expectations[0].kwargs["pass_values"] == list(CODES)
    assert filtered.expectations[0].kwargs["pass_values"] == list(DECISIONS)


@pytest.mark.parametrize(("one", "two"), [("scored", "cascade"), ("filtered", "cascade-filtered")])
def test_the_suites_of_a_cascade_differ_in_how_many_judges_they_allow_and_in_nothing_else(one, two):
    of_one, of_two = (load_suite(conf_folder() / "expectations" / f"{name}.yaml").expectations for name in (one, two))
    differ = [(a.type, b.type) for a, b in zip(of_one, of_two, strict=True) if a != b]
    assert differ == [("expect_column_to_have_single_value", "expect_column_unique_value_count_to_be_between")]


def test_a_misspelt_expectation_is_refused_with_the_right_one(tmp_path):
    path = written(tmp_path, type="expect_column_pas_rate_to_be_between", kwargs=f"column: c, {BOUNDS}")
    with pytest.raises(ConfigError, match="did you mean 'expect_column_pass_rate_to_be_between'"):
        load_suite(path)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        (f"column: c, pass_value: [keep], {BOUNDS}", "pass_value"),
        (f"pass_values: [keep], {BOUNDS}", "column"),
        (f"column: c, {BOUNDS}", "pass_values"),
        ("column: c, pass_values: [keep], min_value: 0.1", "max_value"),
        ("column: c, pass_values: [keep], min_value: 0.9, max_value: 0.1", "is above max_value"),
        ("column: c, pass_values: [keep], min_value: 0.1, max_value: .inf", "not finite"),
        (f"column: c, pass_values: [keep], {BOUNDS}, result_format: COMPLETE", "set by the runner"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(tmp_path, kwargs, said):
    with pytest.raises(ConfigError, match=said):
        load_suite(written(tmp_path, kwargs=kwargs))


def test_a_number_that_no_report_could_hold_is_refused_wherever_it_stands(tmp_path):
    path = written(tmp_path, "expect_column_values_to_be_in_set", "column: c, value_set: [1, .nan]")
    with pytest.raises(ConfigError, match="value_set: nan is not finite"):
        load_suite(path)


def test_an_unknown_key_and_an_empty_suite_are_refused(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text("name: s\nmin_row: 3\nexpectations: []\n")
    with pytest.raises(ConfigError) as refused:
        load_suite(path)
    assert "did you mean 'min_rows'" in str(refused.value)
    assert "expectations" in str(refused.value)
