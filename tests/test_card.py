"""The card says what a judge is, how good it is and what it does not promise; metrics.json holds only real numbers."""

import json
import math
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.card import render_card, write_card, write_metrics
from quality_judge.errors import InputError
from quality_judge.markdown import PLOT_COLUMNS, calibration_plot
from quality_judge.metrics_file import METRICS, best_baseline, contenders, metric_names
from quality_judge.promise import promise_in_words

HOSTILE = "<script>alert(1)</script> | `x` \n# heading"
JUDGE = {
    "name": "helpful-v1",
    "kind": "scalar",
    "fingerprint": "3fd5e0a9c1b27744",
    "base": {"id": "sentence-transformers/all-MiniLM-L6-v2", "revision": None},
    "rubric": {"name": "helpful", "criteria": "Complete, correct and useful.", "good": "helpful", "bad": "poor"},
    "calibration": {"method": "platt", "slope": 1.1},
    "created_with": {"torch": "2.13.0"},
}
LABELS = {"train": {"n": 320, "good": 171, "bad": 149}, "test": {"n": 412, "good": 214, "bad": 198}}


def sample_metrics(**changes):
    def scores(start):
        values = {name: round(start + 0.0117 * i, 4) for i, name in enumerate(METRICS)}
        return {"n": 412, **values, **{f"{name}_ci": [value - 0.021, value + 0.017] for name, value in values.items()}}

    certificate = {
        "granted": True, "metric": "precision", "target": 0.9, "confidence": 0.95, "n": 412, "threshold": 0.78,
        "n_kept": 205, "n_errors": 12, "lower_bound": 0.907, "recall_estimate": 0.611, "labels_missing": None,
        "message": "",
    }  # fmt: skip
    bins = [{"low": 0.0, "high": 0.1, "n": 51, "mean_probability": 0.043, "fraction_good": 0.058, "ci": [0.019, 0.161]}]
    return {
        "test": {**scores(0.8123), "per_category": {"spam": {"roc_auc": 0.7891, "roc_auc_ci": [0.701, 0.866]}}},
        "baselines": {"tfidf_logistic": scores(0.6345), "frozen_base": scores(0.7012), "zero_shot": None},
        "certificate": certificate,
        "curves": {"reliability": [*bins, {"low": 0.1, "high": 0.2, "n": 0, "mean_probability": None}]},
        "seconds": {"train": 81.4},
        **changes,
    }


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def numbers(value):
    """Every number in a JSON value as the card prints it."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in numbers(each)]
    if isinstance(value, list):
        return [text for each in value for text in numbers(each)]
    return [f"{value:.3f}"] if isinstance(value, float) else [f"{value:,}"] if isinstance(value, int) else []


def test_the_bases_that_were_compared_stand_in_the_card_with_what_they_cost():
    tried = {
        "big": {"frozen": 0.829, "gigaflops_per_text": 7.94},
        "small": {"frozen": 0.718, "gigaflops_per_text": 0.6},
    }
    text = render_card({**JUDGE, "training": {"bases": tried}}, sample_metrics(), LABELS)
    assert "| big | 0.829 | 7.9 |" in text
    assert "| small | 0.718 | 0.6 |" in text
    assert "base tried" not in render_card(JUDGE, sample_metrics(), LABELS)


def test_the_card_says_how_many_labelled_texts_are_longer_than_what_is_read():
    text = render_card({**JUDGE, "training": {"cut_texts": 0.384}}, sample_metrics(), LABELS)
    assert "38.4% of the labelled texts are longer than what it reads of one." in text


@pytest.mark.parametrize(("low", "warned"), [(0.93, True), (0.47, False)])
def test_the_card_says_how_far_labels_can_be_told_from_the_corpus_and_warns_where_they_can(low, warned):
    found = {"labelled_texts": 250, "corpus_texts": 2000, "roc_auc": low + 0.02, "roc_auc_ci": [low, low + 0.04],
             "length_only": 0.612}  # fmt: skip
    text = render_card(JUDGE, sample_metrics(), {**LABELS, "likeness": found})
    assert f"with a ROC AUC of {low + 0.02:.3f} ({low:.3f} to {low + 0.04:.3f}); length alone 0.612" in text
    assert ("The labels are unlike the corpus" in text) == warned
    assert "likeness" not in text


@pytest.mark.parametrize(("share", "said"), [(0.606, True), (0.004, False), (None, False)])
def test_the_card_says_how_much_of_its_labels_the_base_cannot_read(share, said):
    text = render_card({**JUDGE, "training": {"unknown_tokens": share}}, sample_metrics(), LABELS)
    assert ("60.6% are unknown to its base" in text) == said
    assert ("unknown to its base" in text) == said


def test_every_number_of_the_metrics_stands_on_the_card():
    metrics = sample_metrics()
    card = render_card(JUDGE, metrics, LABELS)
    wanted = numbers(metrics["test"]) + numbers(metrics["baselines"]) + numbers(LABELS)
    assert len(wanted) > 60
    assert [number for number in wanted if number not in card] == []
    for name in METRICS.values():
        assert f"| {name} |" in card


def test_the_front_matter_is_what_the_hub_reads():
    head = front_matter(render_card(JUDGE, sample_metrics(), LABELS))
    assert head["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "quality-judge" in head["tags"]
    assert head["metrics"][:2] == ["roc_auc", "average_precision"]
    assert "license" not in head
    assert "language" not in head
    (result,) = head["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]}["roc_auc"] == 0.8123
    assert {"task", "dataset", "metrics"} <= set(result)


def test_the_hub_library_accepts_the_card():
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(render_card({**JUDGE, "license": "apache-2.0", "language": "zh"}, sample_metrics(), LABELS))
    assert {each.metric_type for each in card.data.eval_results} >= {"roc_auc", "ece"}
    assert (card.data.license, card.data.language) == ("apache-2.0", "zh")


def test_a_base_in_a_local_folder_does_not_name_the_folder():
    card = render_card({**JUDGE, "base": {"id": "/home/someone/models/tiny"}}, sample_metrics(), LABELS)
    assert "/home/someone" not in card
    assert "`tiny`" in card
    assert "base_model" not in front_matter(card)


def test_a_promise_states_target_confidence_and_labels():
    words = promise_in_words(sample_metrics())
    assert "0.78 or more has a precision of at least 90%, with confidence 95%, on 412 held-out labels" in words
    assert "Observed 94.15%, proven lower bound 90.7%" in words
    assert "Refused" not in words


@pytest.mark.parametrize(("missing", "words"), [(240, "About 240 more labels"), (None, "More labels alone will not")])
def test_a_refusal_is_plain_and_says_what_would_help(missing, words):
    refused = {"granted": False, "metric": "precision", "target": 0.9, "confidence": 0.95, "n": 80}
    text = promise_in_words({"certificate": {**refused, "labels_missing": missing}})
    assert "**Refused.**" in text
    assert words in text
    assert "at least" not in text


def test_what_is_missing_is_said():
    card = render_card({}, {}, {})
    for words in (
        "No rubric is stated",
        "No label counts",
        "was not tested",
        "No reliability curve",
        "Nothing is promised",
    ):
        assert words in card
    assert "None" not in card
    assert "## Shortcuts" not in card
    assert "model-index" not in front_matter(card)


def test_a_judge_below_a_baseline_is_said_to_be():
    metrics = sample_metrics()
    assert "is ahead of its best baseline, frozen base (0.701)" in render_card(JUDGE, metrics, LABELS)
    metrics["baselines"]["frozen_base"]["roc_auc"] = 0.99
    assert "is **not ahead of** its best baseline, frozen base (0.990)" in render_card(JUDGE, metrics, LABELS)


def test_the_best_baseline_by_error_is_the_smallest():
    metrics = {"baselines": {"a": {"ece": 0.1}, "b": {"ece": 0.3}, "c": {"ece": None}}}
    assert best_baseline(metrics, "ece") == ("a", 0.1)
    assert best_baseline(metrics) is None


SHORTCUTS = {
    "alone": {"length": {"roc_auc": 0.643, "roc_auc_ci": [0.59, 0.69]}, "source": {"roc_auc": 0.712}, "language": None},
    "within": {"source": 0.55},
    "by_source": [
        {"name": "forum", "n": 40, "good_rate": 0.5, "keep_rate": 0.25, "keep_rate_ci": [0.142, 0.402]},
        {"name": "", "n": 10, "good_rate": 0.1, "keep_rate": 0.0, "keep_rate_ci": [0.0, 0.278], "roc_auc": None},
    ],
    "by_language": [{"name": "Latin", "n": 50, "good_rate": 0.4, "keep_rate": 0.2}],
    "warnings": [{"kind": "near", "shortcut": "source", "value": 0.712, "judge": 0.72},
                 {"kind": "within", "shortcut": "source", "value": 0.55, "judge": 0.72}],
}  # fmt: skip


def test_the_shortcut_audit_is_shown_when_it_was_made():
    card = render_card(JUDGE, sample_metrics(shortcuts=SHORTCUTS), LABELS)
    assert "| length | 0.643 (0.590 to 0.690) | – |" in card
    assert "| source | 0.712 | 0.550 |" in card
    assert "| forum | 40 | 50% | 0.250 (0.142 to 0.402) | – |" in card
    assert "| not stated | 10 |" in card
    assert "Latin" not in card  # one language alone is no slice
    assert "**Warning: source alone reaches a ROC AUC of 0.712, and the judge 0.720.**" in card
    assert "**Warning: among rows of one source the judge's ROC AUC is 0.550, and 0.720 over all.**" in card


def test_the_calibration_plot_draws_each_bin_where_it_belongs():
    bins = [{"low": 0.0, "high": 0.1, "n": 9, "mean_probability": 0.0, "fraction_good": 1.0, "ci": [0.5, 1.0]},
            {"low": 0.1, "high": 0.2, "n": 0, "mean_probability": None, "fraction_good": None, "ci": None}]  # fmt: skip
    fence, _, line, end = calibration_plot(bins).splitlines()
    assert (fence, end) == ("```text", "```")
    inside = line[line.index("[") + 1 : line.index("]")]
    assert len(inside) == PLOT_COLUMNS
    assert (inside[0], inside[-1], inside.count("=")) == ("|", "o", 25)
    assert line.endswith(" 9")
    assert calibration_plot([]) == ""


def test_promises_of_both_sides_are_said_with_the_confidence_of_all():
    metrics = sample_metrics()
    drop = metrics["certificate"] | {
        "metric": "npv",
        "threshold": 0.2,
        "target": 0.8,
        "n_kept": 90,
        "lower_bound": 0.81,
    }
    recall = {"granted": False, "metric": "recall", "target": 0.95, "confidence": 0.95, "n": 412, "labels_missing": 88}
    metrics["certificate"] |= {"drop": drop, "recall": recall, "joint_confidence": 0.85}
    words = promise_in_words(metrics)
    assert "Of the rows scored below 0.2, which may be dropped, the share that is bad is at least 80%" in words
    assert "no threshold shows a recall of 95%" in words
    assert "holds all at once with confidence 85%" in words


def test_a_promise_on_labels_in_groups_says_what_its_bound_leaves_out():
    metrics = sample_metrics()
    assert "groups" not in promise_in_words(metrics)
    metrics["labels"] = {"held_out": {"rows": 100, "groups": 12}}
    assert "12 groups of rows that are alike" in promise_in_words(metrics)
    metrics["certificate"] |= {"granted": False}
    assert "groups" not in promise_in_words(metrics)


def test_a_certificate_from_fresh_labels_says_that_its_cut_was_fixed_before():
    metrics = sample_metrics()
    metrics["certificate"] |= {"sampling": "fresh"}
    assert "at a cut that was fixed before they were labelled" in promise_in_words(metrics)
    metrics["certificate"] |= {"granted": False, "labels_missing": 150, "message": "settle those 3 first"}
    assert "drawn rows: settle those 3 first." in promise_in_words(metrics)


def test_the_card_says_the_command_that_made_the_judge():
    judge = JUDGE | {"training": {"command": "python training/train_judge.py --labels mine.jsonl"}}
    assert "```bash\npython training/train_judge.py --labels mine.jsonl\n```" in render_card(judge, {}, {})
    assert "--labels LABELS.jsonl" in render_card(JUDGE, {}, {})


def test_an_unknown_metric_comes_after_the_known_ones():
    metrics = {"test": {"n": 9, "zeta": 0.5, "ece": 0.1, "roc_auc": 0.9, "f1": None, "roc_auc_ci": [0.8, 1.0]}}
    assert metric_names(metrics) == ["roc_auc", "ece", "zeta"]
    assert list(contenders(metrics)) == ["judge"]


def test_words_from_outside_stay_words():
    judge = {**JUDGE, "name": HOSTILE, "rubric": {"name": HOSTILE, "criteria": HOSTILE}, "base": HOSTILE}
    metrics = sample_metrics(
        baselines={HOSTILE: {"roc_auc": 0.5}}, shortcuts=SHORTCUTS | {"alone": {HOSTILE: {"roc_auc": 0.5}}}
    )
    card = render_card(judge, metrics, {HOSTILE: 3})
    body = card.split("---\n", 2)[2]
    assert "<script>" not in body
    assert not re.search(r"^# heading", body, re.MULTILINE)
    assert front_matter(card)["model-index"][0]["name"] == HOSTILE
    for line in body.splitlines():
        if line.startswith("| ROC AUC |"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 4


def test_tables_have_as_many_cells_as_their_header():
    table = []
    for line in [*render_card(JUDGE, sample_metrics(), LABELS).splitlines(), ""]:
        if line.startswith("|"):
            table.append(line.count("|"))
        else:
            assert len(set(table)) <= 1
            table = []


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_metrics_that_are_no_numbers_are_refused_by_name(tmp_path, wrong):
    with pytest.raises(InputError, match=r"metrics\.test\.roc_auc_ci\.1 is not a finite number"):
        write_metrics(tmp_path / "metrics.json", {"test": {"roc_auc_ci": [0.1, wrong]}})
    assert list(tmp_path.iterdir()) == []


def test_metrics_and_card_are_written_whole(tmp_path):
    write_metrics(tmp_path / "metrics.json", sample_metrics())
    write_card(tmp_path / "card.md", "质量\n")
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == sample_metrics()
    assert (tmp_path / "card.md").read_bytes() == "质量\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.md", "metrics.json"]


@given(
    st.dictionaries(st.text(max_size=20), st.floats() | st.none() | st.integers() | st.text(max_size=20), max_size=6)
)
def test_any_test_scores_give_a_card_without_nan(scores):
    card = render_card({"name": "j"}, {"test": scores}, {})
    front_matter(card)
    table = "\n".join(line for line in card.splitlines() if line.startswith("|"))
    assert not re.search(r"\| (nan|inf|-inf) ", table)


def test_the_card_says_how_far_annotators_agree_and_names_whom_it_distrusts():
    agreement = {
        "shared_rows": 60, "alpha": 0.412, "category_alpha": {"spam": None}, "distrusted": [HOSTILE],
        "annotators": {HOSTILE: {"verdicts": 80, "shared": 60, "sensitivity": 0.1, "specificity": None}},
        "kappa": [{"annotators": [HOSTILE, "anna"], "rows": 60, "kappa": -0.25}],
    }  # fmt: skip
    text = render_card(JUDGE, sample_metrics(), LABELS | {"agreement": agreement})
    assert "judged 60 rows; Krippendorff's alpha 0.412" in text
    assert re.search(r"\| spam \| – \|", text)
    assert "| 80 | 60 | 0.100 | – |" in text
    assert "-0.250" in text
    assert "Hardly better than a coin" in text
    assert "<script>" not in text
    assert "alpha" not in render_card(JUDGE, sample_metrics(), LABELS | {"agreement": {"annotators": {}}})


def test_one_is_not_counted_as_many():
    refused = {"granted": False, "metric": "precision", "target": 0.9, "confidence": 0.9, "n": 1, "labels_missing": 1}
    text = promise_in_words({"certificate": refused})
    assert "On 1 held-out label no" in text
    assert "About 1 more label is needed." in text
    assert "About 2 more labels are needed." in promise_in_words({"certificate": refused | {"labels_missing": 2}})


def test_what_is_promised_is_printed_with_the_cut_it_holds_for_and_never_rounded_up():
    granted = {
        "metric": "precision", "target": 0.99996, "confidence": 0.9, "granted": True, "threshold": 0.876548,
        "n": 100000, "n_kept": 90000, "n_errors": 0, "lower_bound": 0.99997, "recall_estimate": 0.9,
    }  # fmt: skip
    said = promise_in_words({"certificate": granted})
    assert "scored 0.876548 or more" in said
    assert "at least 99.996%" in said
    assert "proven lower bound 99.99%" in said
    assert "scored 0.999962081816 or" in promise_in_words({"certificate": {**granted, "threshold": 0.999962081816}})
