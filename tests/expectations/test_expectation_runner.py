"""The runner: planted faults are noticed on both engines, nothing goes missing, no row text comes out."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_tables import (
    CANARY,
    CODE,
    FAULTS,
    JUDGE,
    SCORE,
    filtered_rows,
    pandas_frame,
    planted,
    scored_rows,
    spark_frame,
)
from pyspark.errors import AnalysisException

from quality_judge.config import conf_folder
from quality_judge.errors import ConfigError, CorpusError, InputError
from quality_judge.expectations import ExpectationSpec, SuiteSpec, load_suite
from quality_judge.expectations import validate as validated
from quality_judge.profile import BINS, ScoreProfile

ROWS = {"scored": scored_rows, "filtered": filtered_rows}
OURS = ("pass_rate", "usable_scores", "agreement", "mean_score", "single_value", "drift")


def validate(frame, spec, rows_in=20):
    return validated(frame, spec, parameters={"rows_in": rows_in})


def suite(name):
    return load_suite(conf_folder() / "expectations" / f"{name}.yaml")


def failed_notes(spec, report):
    pairs = zip(spec.expectations, report.results, strict=True)
    return [expectation.note for expectation, result in pairs if not result.success]


def ours(report):
    return [
        (result.expectation, result.success, None if result.observed is None else round(result.observed, 12))
        for result in report.results
        if any(name in result.expectation for name in OURS)
    ]


@pytest.mark.parametrize("name", ["scored", "filtered"])
def test_a_sound_table_passes_and_all_was_evaluated(name):
    report = validate(pandas_frame(ROWS[name]()), suite(name))
    assert report.success
    assert report.message is None
    assert report.evaluated == report.declared == len(suite(name).expectations)
    assert report.rows == 20


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_its_expectation_in_pandas(fault):
    name, changes, note = FAULTS[fault]
    spec = suite(name)
    report = validate(pandas_frame(planted(ROWS[name](), changes)), spec)
    assert not report.success
    assert any(said.startswith(note) for said in failed_notes(spec, report))


@pytest.mark.spark
@pytest.mark.parametrize("name", ["scored", "filtered"])
def test_a_sound_table_gives_the_same_numbers_on_spark(spark, name):
    rows, spec = ROWS[name](), suite(name)
    on_spark, on_pandas = validate(spark_frame(spark, rows), spec), validate(pandas_frame(rows), spec)
    assert on_spark.success
    assert ours(on_spark) == ours(on_pandas)
    assert on_spark.rows == on_pandas.rows


# About two seconds each, so not all of them.
ON_SPARK = ("score 1.2", "NaN score", "two fingerprints", "unknown code", "low pass rate", "null decision")


@pytest.mark.spark
@pytest.mark.parametrize("fault", ON_SPARK)
def test_a_planted_fault_fails_its_expectation_on_spark_with_the_same_numbers(spark, fault):
    name, changes, note = FAULTS[fault]
    spec, rows = suite(name), planted(ROWS[name](), changes)
    report = validate(spark_frame(spark, rows), spec)
    assert not report.success
    assert any(said.startswith(note) for said in failed_notes(spec, report))
    assert ours(report) == ours(validate(pandas_frame(rows), spec))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.none() | st.floats(-0.5, 1.5) | st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_observed_numbers_equal_a_plain_restatement(pairs):
    frame = pandas_frame([[score, "OK" if ok else "TOO_LONG", "f1", ""] for score, ok in pairs])
    observed = {result.expectation: result.observed for result in validate(frame, suite("scored")).results}

    good = [score is not None and 0 <= score <= 1 for score, _ in pairs]
    none = [score is None or math.isnan(score) for score, _ in pairs]
    agrees = [usable if ok else missing for (_, ok), usable, missing in zip(pairs, good, none, strict=True)]
    assert observed["expect_column_usable_scores_fraction_to_be_between"] == pytest.approx(sum(good) / len(pairs))
    assert observed["expect_column_score_code_agreement_to_be_between"] == pytest.approx(sum(agrees) / len(pairs))
    scores = [score for (score, _), usable in zip(pairs, good, strict=True) if usable]
    mean = observed["expect_column_mean_score_to_be_between"]
    assert mean == pytest.approx(sum(scores) / len(scores)) if scores else mean is None


def test_an_expectation_that_goes_missing_fails_the_suite():
    sound = ExpectationSpec(type="expect_column_values_to_not_be_null", kwargs={"column": "quality_code"})
    gone = ExpectationSpec(type="expect_column_that_nobody_registered", kwargs={"column": "text"})
    report = validate(pandas_frame(scored_rows()), SuiteSpec(name="s", expectations=(sound, gone)))
    assert (report.evaluated, report.declared, report.success) == (1, 2, False)
    assert "1 of 2 declared expectations were evaluated" in report.message
    assert [result.success for result in report.results] == [True, False]


def only(type, severity="critical", frame=None, **kwargs):
    """The report of a suite of one expectation on the sound table, or on `frame`."""
    spec = ExpectationSpec(type=type, kwargs=kwargs, severity=severity)
    frame = pandas_frame(scored_rows()) if frame is None else frame
    return validate(frame, SuiteSpec(name="s", expectations=(spec,)))


def test_a_warning_is_reported_and_does_not_fail_the_suite_unless_it_raised():
    lost = only("expect_column_values_to_not_be_null", "warning", column="text")
    assert (lost.success, lost.results[0].success) == (True, False)
    text_for_scores = pandas_frame(planted(scored_rows(), {("all", SCORE): CANARY}))
    bounds = {"min_value": 0.0, "max_value": 1.0}
    raised = only(
        "expect_column_mean_score_to_be_between", "warning", text_for_scores, column="quality_score", **bounds
    )
    assert not raised.success
    assert "raised ValueError" in raised.message


def test_a_warning_that_looks_for_a_column_that_is_not_there_is_reported_and_fails_nothing():
    report = only("expect_column_values_to_not_be_null", "warning", column="source")
    assert (report.success, report.message, report.evaluated) == (True, None, 1)
    assert (report.results[0].success, report.results[0].error) == (
        False,
        "looks for 'source', a column that the table does not have",
    )


@pytest.mark.parametrize(
    ("type", "kwargs"),
    [
        ("expect_column_values_to_not_be_null", {"column": "gone"}),
        (
            "expect_column_slice_pass_rate_to_be_between",
            {"column": "quality_code", "pass_values": ["OK"], "slice_column": "gone", "min_rows": 1},
        ),
        (
            "expect_column_score_code_agreement_to_be_between",
            {"column": "quality_score", "code_column": "gone", "scored_codes": ["OK"]},
        ),
        ("expect_column_pair_values_to_be_equal", {"column_A": "quality_code", "column_B": "gone"}),
        ("expect_compound_columns_to_be_unique", {"column_list": ["quality_code", "gone"]}),
    ],
)
def test_every_column_that_is_not_there_is_named_and_fails_a_critical_expectation(type, kwargs):
    bounds = {"min_value": 0.0, "max_value": 1.0} if type.endswith("between") else {}
    report = only(type, **kwargs, **bounds)
    assert not report.success
    assert (
        report.message == f"{type}({kwargs.get('column', '')}) looks for 'gone', a column that the table does not have"
    )
    assert only(type, "warning", **kwargs, **bounds).success


def test_a_table_below_min_rows_fails_and_an_empty_one_has_no_numbers():
    spec = suite("scored")
    report = validate(pandas_frame(scored_rows()).head(0), spec)
    assert "0 rows and the suite wants at least 1" in report.message
    assert not any(result.success for result in report.results if any(name in result.expectation for name in OURS))


HOSTILE = {
    "unknown code": {(3, CODE): CANARY},
    "text for a score": {(3, SCORE): CANARY},
    "a text like a traceback": {(3, SCORE): f"x\nTraceback (most recent call last):\n{CANARY}Error: {CANARY}"},
}


@pytest.mark.parametrize("fault", HOSTILE)
@pytest.mark.parametrize("engine", ["pandas", pytest.param("spark", marks=pytest.mark.spark)])
def test_row_text_is_in_no_report_and_no_log(engine, fault, request, capfd, caplog, tmp_path):
    rows = planted(scored_rows(), HOSTILE[fault])
    frame = pandas_frame(rows) if engine == "pandas" else spark_frame(request.getfixturevalue("spark"), rows)
    capfd.readouterr()
    report = validate(frame, suite("scored"))
    written = report.write(tmp_path / "deep" / "report.json").read_text()
    printed = capfd.readouterr()
    assert not report.success
    for said in (written, report.message, printed.out, printed.err, caplog.text):
        assert "078-05" not in said
        assert "ssn" not in said.lower()


@pytest.mark.spark
def test_the_settings_of_the_session_are_as_they_were_after_validation(spark):
    spark.conf.set("spark.sql.ansi.enabled", "true")
    validate(spark_frame(spark, scored_rows()), suite("scored"))
    assert spark.conf.get("spark.sql.ansi.enabled") == "true"
    assert spark.sparkContext._jsc.getPersistentRDDs().isEmpty()


def test_the_report_is_plain_json_and_written_whole(tmp_path):
    report = validate(pandas_frame(scored_rows()), suite("scored"))
    path = report.write(tmp_path / "report.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(report.to_dict()))
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("path", ["s3a://bucket/run/report.json", Path("hdfs://nn/report.json"), "file://host/r.json"])
def test_a_report_that_would_lie_on_another_file_system_is_refused_and_nothing_is_written(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = validate(pandas_frame(scored_rows()), suite("scored"))
    with pytest.raises(InputError, match=r"is written on this machine; got .*; give a local path"):
        report.write(path)
    assert not list(tmp_path.iterdir())


def test_a_report_is_written_where_its_file_address_says(tmp_path):
    report = validate(pandas_frame(scored_rows()), suite("scored"))
    for name, path in {"a": f"file://{tmp_path}/a", "b": f"file:{tmp_path}/b", "c": f"{tmp_path}/c"}.items():
        assert report.write(path) == tmp_path / name
        assert (tmp_path / name).is_file()


def test_something_else_than_a_frame_is_refused():
    with pytest.raises(CorpusError, match="give a pandas or a Spark DataFrame"):
        validate([{"text": "x"}], suite("scored"))


def test_importing_the_package_does_not_import_great_expectations():
    code = "import sys, quality_judge.expectations; assert not {'great_expectations', 'pyspark'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.spark
def test_pyspark_can_still_report_its_own_errors_after_a_validation(spark, tmp_path):
    frame = spark.createDataFrame([(0.5,)], "quality_score double")
    path = tmp_path / "suite.yaml"
    path.write_text(
        "name: one\nexpectations:\n- {type: expect_column_mean_score_to_be_between, "
        "kwargs: {column: quality_score, min_value: 0.0, max_value: 1.0}}\n",
        encoding="utf-8",
    )
    assert validate(frame, load_suite(path)).success
    with pytest.raises(AnalysisException, match="UNRESOLVED_COLUMN"):
        frame.select("nothing").collect()


@pytest.mark.parametrize("given", [{}, {"rows_in": 21}, {"rows_in": 19}])
def test_rows_that_went_missing_and_a_count_that_nobody_gives_fail_the_filtered_suite(given):
    report = validated(pandas_frame(filtered_rows()), suite("filtered"), parameters=given)
    assert not report.success
    assert "expect_table_row_count_to_equal" in report.message


def drift_suite(tmp_path, shift):
    """The shipped suite against a profile whose scores lie `shift` bins higher than those of `many_rows`."""
    counts = [0] * BINS
    for row in many_rows():
        counts[min(BINS - 1, int(row[SCORE] * BINS) + shift)] += 1
    profile = ScoreProfile(rows_in=600, decisions={"keep": 600}, histogram={"keep": counts})
    (tmp_path / "_quality_profile.json").write_text(json.dumps(profile.to_dict()))
    return load_suite(conf_folder() / "expectations" / "drift.yaml", reference=tmp_path / "_quality_profile.json")


def many_rows(lost=None):
    """600 decided rows of two sources; of the source `lost` none is kept."""
    rows = [[0.05 + 0.0014 * i, "OK", "f1", "", "drop" if i < 300 else "keep", "", "ab"[i % 2]] for i in range(600)]
    return [[*row[:4], "drop", *row[5:]] if row[6] == lost else row for row in rows]


def with_source(engine, rows, request):
    if engine == "pandas":
        return pandas_frame([row[:6] for row in rows]).assign(source=[row[6] for row in rows])
    schema = "quality_score double, quality_code string, quality_judge string, text string, quality_decision string"
    session = request.getfixturevalue("spark")
    return session.createDataFrame([tuple(row) for row in rows], f"{schema}, quality_reason string, source string")


@pytest.mark.parametrize("engine", ["pandas", pytest.param("spark", marks=pytest.mark.spark)])
def test_drift_and_a_source_that_is_lost_whole_are_noticed(engine, request, tmp_path):
    sound = validate(with_source(engine, many_rows(), request), drift_suite(tmp_path, 0))
    assert (sound.success, [result.success for result in sound.results]) == (True, [True] * 3)
    shifted = validate(with_source(engine, many_rows(), request), drift_suite(tmp_path, 12))
    assert not shifted.success
    assert [result.success for result in shifted.results] == [False, False, True]
    assert shifted.results[1].observed == pytest.approx(12 / 43 - math.sqrt(-math.log(0.0005) / 600), abs=0.03)
    lost = validate(with_source(engine, many_rows(lost="b"), request), drift_suite(tmp_path, 0))
    assert [result.success for result in lost.results] == [True, True, False]
    assert lost.results[2].observed == 0


@pytest.mark.parametrize("engine", ["pandas", pytest.param("spark", marks=pytest.mark.spark)])
def test_a_corpus_without_a_source_passes_the_drift_suite_and_the_report_names_the_column(engine, request, tmp_path):
    frame = with_source(engine, many_rows(), request)
    frame = frame.drop(columns="source") if engine == "pandas" else frame.drop("source")
    report = validate(frame, drift_suite(tmp_path, 0))
    assert (report.success, report.message) == (True, None)
    assert [result.success for result in report.results] == [True, True, False]
    assert report.results[2].error == "looks for 'source', a column that the table does not have"


def test_a_filtered_cascade_passes_the_suite_that_is_made_for_it_and_no_other():
    of_two = pandas_frame(planted(filtered_rows(), {(row, JUDGE): "f2" for row in range(5)}))
    assert validate(of_two, suite("cascade-filtered")).success
    assert "expect_column_to_have_single_value(quality_judge)" in validate(of_two, suite("filtered")).message
    of_three = pandas_frame(planted(filtered_rows(), {(row, JUDGE): f"f{row}" for row in range(3)}))
    assert not validate(of_three, suite("cascade-filtered")).success


def test_a_reference_that_is_not_there_is_refused_with_what_to_name(tmp_path):
    with pytest.raises(ConfigError, match=r"_quality_profile\.json of a filtered corpus"):
        load_suite(conf_folder() / "expectations" / "drift.yaml", reference=tmp_path / "nothing.json")


def test_a_raw_corpus_is_held_against_its_suite():
    sound = pandas_frame(scored_rows())
    assert validate(sound, suite("raw")).success
    assert not validate(sound.assign(text=None), suite("raw")).success
    assert not validate(sound.drop(columns="text"), suite("raw")).success


def test_a_reference_that_a_suite_does_not_compare_with_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"compares with no reference"):
        load_suite(conf_folder() / "expectations" / "scored.yaml", reference=tmp_path / "nothing.json")
