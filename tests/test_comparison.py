"""Two judges or two runs side by side: every difference is counted right, and none is claimed that may be chance."""

import json

import pytest
from page_outline import HOSTILE, Outline, assert_readable_without_eyes, assert_self_contained, text_of
from test_card import JUDGE, sample_metrics
from test_report import sample_profile
from typer.testing import CliRunner

from quality_judge.cli import app
from quality_judge.comparison import (
    MANIFEST_FILE,
    PROFILE_FILE,
    Side,
    compare,
    read_side,
    render_comparison,
    same_labels,
    stability_index,
)
from quality_judge.errors import CorpusError, InputError
from quality_judge.judge import METRICS_FILE, save_judge
from quality_judge.pages import LANGUAGES


def judge_side(name, **test):
    metrics = sample_metrics()
    metrics["test"] |= test
    return Side(name, "judge", JUDGE, metrics)


def run_side(name, **changes):
    return Side(name, "run", {"judge": "abc", "keep_at": 0.78}, sample_profile().to_dict() | changes)


def test_metrics_stand_side_by_side_with_their_difference():
    a, b = judge_side("a"), judge_side("b", roc_auc=0.9, roc_auc_ci=[0.88, 0.92])
    line = next(line for line in compare(a, b)["metrics"] if line.name == "roc_auc")
    assert (line.a, line.b) == (0.8123, 0.9)
    assert line.difference == pytest.approx(0.0877)


@pytest.mark.parametrize(
    ("name", "value", "better"),
    [("roc_auc", 0.9, "b"), ("roc_auc", 0.7, "a"), ("roc_auc", 0.83, "open"), ("ece", 0.7, "b"), ("ece", 0.99, "a")],
)
def test_better_is_told_only_where_the_intervals_are_apart_and_less_error_is_better(name, value, better):
    b = judge_side("b", **{name: value, f"{name}_ci": [value - 0.01, value + 0.01]})
    assert next(line for line in compare(judge_side("a"), b)["metrics"] if line.name == name).better == better


def test_a_metric_that_one_side_lacks_is_no_difference():
    b = judge_side("b", roc_auc=None, roc_auc_ci=None)
    line = next(line for line in compare(judge_side("a"), b)["metrics"] if line.name == "roc_auc")
    assert (line.b, line.difference, line.better) == (None, None, "")


def test_runs_are_compared_by_decision_code_and_slice():
    b = run_side("b", decisions={"keep": 30, "review": 0, "drop": 70, "unscored": 0})
    found = compare(run_side("a"), b)
    assert {line.name: line.b for line in found["decisions"]} == {
        "keep": 0.3,
        "review": 0.0,
        "drop": 0.7,
        "unscored": 0,
    }
    assert all(line.difference == 0 for line in found["codes"])
    (column, *_) = [part for part in found if part.startswith("slices ")]
    assert all(line.a == line.b for line in found[column])


def test_the_stability_index_is_zero_for_equal_scores_and_grows_as_they_part():
    histogram = sample_profile().to_dict()["histogram"]
    half = histogram | {"keep": [n // 2 for n in histogram["keep"]]}
    tenth = histogram | {"keep": [n // 10 for n in histogram["keep"]]}
    assert stability_index(histogram, histogram) == 0
    assert 0 < stability_index(histogram, half) < stability_index(histogram, tenth)
    assert stability_index(histogram, {}) is None
    assert stability_index({"keep": [1, 3]}, {"keep": [3, 1]}) == pytest.approx(1.0986, abs=1e-4)  # 2 * 0.5 * ln 3


def test_whether_both_were_measured_on_the_same_labels_is_said():
    sides = [Side(name, "judge", JUDGE, {"labels": {"held_out_sha256": name}}) for name in "ab"]
    assert (same_labels(sides[0], sides[0]), same_labels(*sides)) == (True, False)
    assert same_labels(sides[0], judge_side("c")) is None
    assert "measured on different labels" in text_of(render_comparison(*sides))


def test_a_judge_and_a_run_are_not_compared():
    with pytest.raises(InputError, match="compare two judges or two runs"):
        compare(judge_side("a"), run_side("b"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("make", [judge_side, run_side])
def test_the_page_is_self_contained_and_served_to_readers_without_eyes(make, language):
    page = render_comparison(make("first"), make("second"), language=language)
    assert_self_contained(page)
    assert_readable_without_eyes(page, language)
    assert "first" in text_of(page)


def test_what_differs_in_how_judges_were_made_is_shown_and_what_does_not_is_not():
    other = JUDGE | {"method": "full", "thresholds": {"best": 0.4}}
    text = text_of(render_comparison(judge_side("a"), Side("b", "judge", other, sample_metrics())))
    assert "method – full" in text
    assert "best 0.4" in text
    assert "Complete, correct and useful" not in text


def test_nothing_that_was_handed_over_can_become_markup():
    evil = Side(HOSTILE, "judge", {"method": HOSTILE, "fingerprint": HOSTILE}, {"test": {HOSTILE: 0.5}})
    page = render_comparison(evil, judge_side("b"))
    assert not {"script", "img"} & {tag for tag, _ in Outline(page).tags}
    run = run_side("b", codes={HOSTILE: 3})
    assert not {"script", "img"} & {tag for tag, _ in Outline(render_comparison(run, run)).tags}


@pytest.fixture
def folders(tmp_path, make_spec, judge_files):
    """Two judges and a run, saved."""
    for name, auc in (("one", 0.8), ("two", 0.9)):
        metrics = {"test": {"n": 9, "roc_auc": auc, "roc_auc_ci": [auc - 0.01, auc + 0.01]}}
        save_judge(tmp_path / name, make_spec(), judge_files | {METRICS_FILE: json.dumps(metrics).encode()})
    (tmp_path / "run").mkdir()
    for name, content in ((MANIFEST_FILE, {"judge": "abc"}), (PROFILE_FILE, sample_profile().to_dict())):
        (tmp_path / "run" / name).write_text(json.dumps(content))
    return tmp_path


def test_the_command_prints_both_and_writes_the_page(folders):
    page = folders / "c.html"
    done = CliRunner().invoke(app, ["compare", str(folders / "one"), str(folders / "two"), "--html", str(page)])
    assert done.exit_code == 0
    assert "+0.100" in done.stdout
    assert "0.900" in text_of(page.read_text(encoding="utf-8"))
    assert CliRunner().invoke(app, ["compare", str(folders / "run"), str(folders / "run")]).exit_code == 0


def test_a_folder_that_is_neither_is_refused(folders):
    assert read_side(folders / "run").kind == "run"
    with pytest.raises(CorpusError, match="neither a judge nor"):
        read_side(folders)
