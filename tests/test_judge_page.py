"""The judge card as a page: what it shows is what judge.json and metrics.json say, in both languages, safe to open."""

import json

import pytest
from page_outline import HOSTILE, Outline, assert_readable_without_eyes, assert_self_contained, text_of
from test_card import JUDGE, LABELS, SHORTCUTS, sample_metrics
from typer.testing import CliRunner

from quality_judge.cli import app
from quality_judge.judge import CARD_FILE, METRICS_FILE, save_judge
from quality_judge.judge_page import render_judge_page
from quality_judge.pages import LANGUAGES, aim, page_words

UNREAD = {"unknown_tokens": 0.606, "cut_texts": 0.384}
UNLIKE = {"labelled_texts": 250, "corpus_texts": 2000, "roc_auc": 0.97, "roc_auc_ci": [0.95, 0.99], "length_only": 0.7}


def full(**changes):
    """(judge, metrics) with everything that a page can show."""
    certificate = sample_metrics()["certificate"]
    drop = certificate | {"metric": "npv", "threshold": 0.2, "target": 0.8, "confidence": 1 - 0.1 / 3}
    recall = {"granted": False, "metric": "recall", "target": 0.95, "confidence": 0.95, "n": 412, "labels_missing": 88}
    metrics = sample_metrics(
        certificate=certificate | {"drop": drop, "recall": recall, "joint_confidence": 0.9},
        shortcuts=SHORTCUTS,
        labels={name: {"rows": 9, **counts} for name, counts in LABELS.items()} | {"likeness": UNLIKE},
    )  # fmt: skip
    metrics["curves"]["threshold"] = [
        {"threshold": i / 10, "precision": 0.6, "recall": 1 - i / 10, "keep_rate": 1 - i / 10} for i in range(11)
    ]
    judge = JUDGE | {
        "thresholds": {"certified": 0.78, "certified_drop": 0.2, "best": 0.5, "proposed": 0.9},
        "training": {"command": "python training/train_judge.py --labels mine.jsonl", **UNREAD},
        "license": "apache-2.0", "language": ["en", "zh"], "method": "full",
    }  # fmt: skip
    return judge | changes, metrics


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_self_contained_and_served_to_readers_without_eyes(language):
    page = render_judge_page(*full(), language=language)
    assert_self_contained(page)
    assert_readable_without_eyes(page, language)


def test_the_first_screen_says_how_good_what_is_promised_and_what_to_be_wary_of():
    text = text_of(render_judge_page(*full()))
    first = text[: text.index("Does 80% mean 80%?")]
    assert "81.2%" in first
    assert "95% interval 79.1% to 82.9%, 412 held-out labels. It keeps from 0.78 on." in first
    assert "At least 90% of the kept rows are good" in first
    assert "Of the rows scored below 0.2, at least 80% are bad" in first
    assert "About 88 more labels are needed." in first
    assert "holds all at once with 90% confidence" in first
    assert "Source alone reaches 0.712; the judge 0.72." in first
    assert "Among rows of one source the judge reaches 0.55" in first


def test_thresholds_stand_with_what_they_promise():
    text = text_of(render_judge_page(*full()))
    for cut, words in (
        ("0.7800", "rows may be kept from here on, by the certificate"), ("0.2000", "may be dropped below it"),
        ("0.5000", "promises nothing"), ("0.9000", "proposed"),
    ):  # fmt: skip
        at = text.index(cut)
        assert words in text[at : at + 80]


def test_a_cut_that_holds_a_promise_is_shown_with_every_digit_and_one_that_holds_none_is_short():
    judge, *rest = full()
    cuts = {"certified": 0.780013, "best": 0.5650734347781702}
    text = text_of(render_judge_page({**judge, "thresholds": cuts}, *rest))
    assert text.count("0.780013") == 2
    assert "0.5651" in text
    assert "0.56507" not in text


def test_metrics_slices_categories_labels_and_command_are_shown():
    text = text_of(render_judge_page(*full()))
    for words in ("0.812", "0.789", "forum", "not stated", "171", "apache-2.0", "en, zh", "--labels mine.jsonl"):
        assert words in text, words


def test_what_is_not_read_of_the_labels_and_labels_unlike_the_corpus_are_warned_of_where_they_matter():
    def warned(page):
        said = ("tokens 60.6% are unknown", "38.4% of the labelled", "(ROC AUC 0.97;")
        return [words in text_of(page) for words in said]

    judge, metrics = full()
    assert all(warned(render_judge_page(judge, metrics)))
    calm = metrics["labels"] | {"likeness": UNLIKE | {"roc_auc_ci": [0.55, 0.99]}}
    read = judge | {"training": {"unknown_tokens": 0.09, "cut_texts": 0.2}}
    assert not any(warned(render_judge_page(read, metrics | {"labels": calm})))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_missing_is_said_to_be_missing(language):
    words = page_words(language)
    text = text_of(render_judge_page({}, {}, language=language))
    for key in ("card_nothing", "none_metrics", "promise_none", "shortcut_none", "rubric_none"):
        assert words[key] in text, key
    assert "None" not in text


def test_a_judge_of_orders_alone_is_shown_by_its_pairs():
    text = text_of(
        render_judge_page(JUDGE, {"test": {"n": 0, "pair_accuracy": 0.815, "pair_accuracy_ci": [0.8, 0.83]}})
    )
    assert "81.5%" in text
    assert "the better of two higher" in text
    assert "It has no threshold of its own." in text


def test_the_chinese_page_has_no_english_sentence():
    judge, metrics = full(rubric=None, training={})
    text = text_of(render_judge_page(judge, metrics, language="zh"))
    english = [phrase for phrase in page_words("en").values() if " " in phrase and "{" not in phrase and phrase in text]
    assert set(english) <= {"ROC AUC"}


def test_nothing_that_was_handed_over_can_become_markup():
    judge = dict.fromkeys(("name", "kind", "method", "base", "fingerprint", "license", "calibration"), HOSTILE)
    judge |= {"rubric": dict.fromkeys(("name", "criteria", "good", "bad"), HOSTILE), "thresholds": {HOSTILE: 0.5}}
    judge |= {"training": {"command": HOSTILE}, "language": [HOSTILE], "created_with": {HOSTILE: HOSTILE}}
    group = {"name": HOSTILE, "n": 9, "good_rate": 0.5, "keep_rate": 0.5, "keep_rate_ci": [0.2, 0.8]}
    shortcuts = {"alone": {"source": {"roc_auc": 0.5}, HOSTILE: None}, "by_source": [group, group],
                 "warnings": [{"kind": HOSTILE, "shortcut": HOSTILE, "value": 0.5, "judge": 0.5}]}  # fmt: skip
    metrics = {"test": {"roc_auc": 0.8, "per_category": {HOSTILE: {"roc_auc": 0.7}}}, "shortcuts": shortcuts,
               "labels": {HOSTILE: {"rows": 3, HOSTILE: 2}},
               "certificate": {"granted": False, "metric": HOSTILE, "target": HOSTILE, "n": HOSTILE}}  # fmt: skip
    page = render_judge_page(judge, metrics)
    assert not {"script", "img"} & {tag for tag, _ in Outline(page).tags}
    assert page.count("&lt;script&gt;") > 10
    assert "\u202e" not in page


def test_a_base_in_a_local_folder_does_not_name_the_folder():
    assert "/home/someone" not in render_judge_page(JUDGE | {"base": {"id": "/home/someone/models/tiny"}}, {})


def test_a_confidence_is_never_rounded_up():
    assert [aim(value) for value in (0.9, 0.95, 0.999, 1 - 0.1 / 3)] == ["90%", "95%", "99.9%", "96.6%"]


@pytest.fixture
def saved(tmp_path, make_spec, judge_files):
    files = judge_files | {METRICS_FILE: json.dumps(full()[1]).encode(), CARD_FILE: b"# the card\n"}
    return save_judge(tmp_path / "mine-1", make_spec(), files).folder


def test_the_command_prints_the_card_or_writes_the_page(saved, tmp_path):
    assert CliRunner().invoke(app, ["card", saved]).stdout.startswith("# the card")
    page = tmp_path / "card.html"
    done = CliRunner().invoke(app, ["card", saved, "--html", str(page), "--lang", "zh"])
    assert (done.exit_code, done.stdout.strip()) == (0, f"card: {page}")
    assert_readable_without_eyes(page.read_text(encoding="utf-8"), "zh")
