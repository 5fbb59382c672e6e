"""The report page: whole, honest about what is missing, safe to open, readable in both languages."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_outline import HOSTILE, Outline, assert_readable_without_eyes, assert_self_contained, text_of

from quality_judge.errors import InputError
from quality_judge.pages import LANGUAGES, brief, page_words
from quality_judge.profile import BINS, ScoreProfile, SliceRow
from quality_judge.report import ReportData, render_report, write_report
from quality_judge.report_charts import LABEL_SPAN, MAX_REASONS, histogram
from quality_judge.scores import CODES, DECISIONS, FLAGS

SOURCES = (
    "books",
    "encyclopedia",
    "code-hosting",
    "news",
    "forum",
    "论坛与问答社区",
    "web-crawl/segment-of-very-long-name-indeed",
)


def sample_profile(values=28):
    random = np.random.default_rng(7)
    centres = (np.arange(BINS) + 0.5) / BINS
    rows = (
        8000 * np.exp(-((centres - 0.14) ** 2) / 0.018) + 21000 * np.exp(-((centres - 0.9) ** 2) / 0.02) + 700
    ).astype(int)
    histogram = {
        "drop": [int(n) if c < 0.42 else 0 for n, c in zip(rows, centres, strict=True)],
        "review": [int(n) if 0.42 < c < 0.78 else 0 for n, c in zip(rows, centres, strict=True)],
        "keep": [int(n) if c > 0.78 else 0 for n, c in zip(rows, centres, strict=True)],
    }
    decisions = {name: sum(bins) for name, bins in histogram.items()} | {"unscored": 2411}
    total = sum(decisions.values())

    def row(name):
        n = int(random.integers(300, 60000))
        kept = int(n * random.beta(4, 3))
        return SliceRow(
            name, n, kept, (n - kept) // 4, n - kept - (n - kept) // 4 - 3, 3, round(float(random.beta(5, 3)), 4)
        )

    return ScoreProfile(
        rows_in=total,
        decisions=decisions,
        codes={"OK": total - 2411, "EMPTY_TEXT": 1302, "NULL_TEXT": 1001, "TOO_LONG": 96, "BAD_RECORD": 12},
        flags={"TRUNCATED": 40213, "HIDDEN_CHARS": 871, "INVALID_UTF8": 45, "NEAR_THRESHOLD": 1204},
        reasons={
            "score>=0.78": decisions["keep"],
            "score<0.42": decisions["drop"],
            "between 0.42 and 0.78": decisions["review"] - 4000,
            "flag HIDDEN_CHARS": 871,
            "score<0.5 (source=forum)": 3129,
            "EMPTY_TEXT": 1302,
            "NULL_TEXT": 1001,
        },
        histogram=histogram,
        slices={
            "source": [row(name) for name in SOURCES]
            + [row(f"site-{i:02d}.example") for i in range(values - len(SOURCES))],
            "language": [row(name) for name in ("en", "zh", "de", "fr", "ja")],
        },
        tokens_kept=198_203_114,
        characters_kept=None,
    )  # fmt: skip


def sample_metrics(certified=True):
    def scores(auc, ece, spread=0.03):
        values = {"roc_auc": auc, "average_precision": auc - 0.011, "accuracy": auc - 0.07, "f1": auc - 0.063}
        values |= {"cohen_kappa": auc - 0.21, "ece": ece, "brier": ece + 0.07}
        intervals = {
            f"{name}_ci": [round(value - spread, 4), round(min(1.0, value + spread), 4)]
            for name, value in values.items()
        }
        return {"n": 412, **values, **intervals, "pair_accuracy": None, "pair_accuracy_ci": None, "kendall_tau": None}

    grid = np.linspace(0, 1, 101)
    certificate = {
        "granted": certified, "metric": "precision", "target": 0.9, "confidence": 0.95, "n": 412,
        "threshold": 0.78 if certified else None, "n_kept": 205 if certified else 0, "n_errors": 12 if certified else 0,
        "lower_bound": 0.907 if certified else None, "recall_estimate": 0.611 if certified else None,
        "labels_missing": None if certified else 240, "message": "as the certificate says",
    }  # fmt: skip
    return {
        "test": scores(0.9312, 0.031),
        "baselines": {
            "tfidf_logistic": scores(0.8841, 0.052),
            "frozen_base": scores(0.9017, 0.047),
            "length_only": scores(0.6123, 0.081, 0.05),
            "zero_shot": scores(0.7345, 0.174, 0.05),
        },
        "certificate": certificate,
        "curves": {
            "reliability": [
                {"low": i / 10, "high": (i + 1) / 10, "n": 12 + 9 * abs(i - 4) ** 2 % 70,
                 "mean_probability": i / 10 + 0.052,
                 "fraction_good": round(min(1, max(0, i / 10 + 0.05 + 0.06 * np.sin(i))), 4),
                 "ci": [round(max(0, i / 10 - 0.05), 4), round(min(1, i / 10 + 0.16), 4)]}
                for i in range(10)
            ],
            "threshold": [
                {"threshold": float(x), "precision": float(0.52 + 0.46 * x**0.7) if x < 0.99 else None,
                 "recall": float(1 - x**3.2), "keep_rate": float(1 - 0.82 * x**0.8), "n_kept": int(412 * (1 - x))}
                for x in grid
            ],
        },
        "labels": {"train": 320, "test": 412},
        "seconds": {"train": 81.4},
    }  # fmt: skip


def check(expectation, column, success, observed, allowed):
    return {"expectation": expectation, "column": column, "success": success, "observed": observed, "allowed": allowed}


def sample_report(language="en", **changes):
    data = ReportData(
        title="维基与网页语料，2024 年 5 月" if language == "zh" else "Web corpus, May 2024",
        language=language,
        profile=sample_profile(),
        judge={
            "name": "helpful-v1", "kind": "scalar", "fingerprint": "3fd5e0a9c1b27744",
            "base": {"id": "sentence-transformers/all-MiniLM-L6-v2", "revision": None},
            "rubric": {"name": "helpful", "criteria": "Is it complete, correct and useful?"},
            "thresholds": {"keep": 0.78, "review": 0.42}, "calibration": {"method": "platt", "slope": 1.2},
            "labels": {"train": {"n": 320, "good": 171}, "test": {"n": 412, "good": 214}},
            "created_with": {"torch": "2.13.0", "transformers": "5.3.1"},
        },
        metrics=sample_metrics(),
        validation=[
            check("expect_score_in_range", "quality_score", True, {"min": 0.004, "max": 0.997}, [0, 1]),
            check("expect_rows_conserved", None, True, 391202, 391202),
            check("expect_one_fingerprint", "quality_judge", True, 1, 1),
            check("expect_unscored_share_below", "quality_code", False, 0.0061, {"max": 0.005}),
        ],
        provenance={
            "date": "2024-06-02", "input": "s3://corpus/raw/2024-05", "output": "s3://corpus/scored/2024-05",
            "command": "spark-submit jobs/score_corpus.py --judge helpful-v1 --input s3://corpus/raw/2024-05",
            "seconds": 812.4, "rows_per_second": 481.6, "versions": {"quality-judge": "0.1.0", "pyspark": "4.1.0"},
        },
    )  # fmt: skip
    return replace(data, **changes)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_well_formed_small_and_asks_for_nothing(language):
    assert_self_contained(render_report(sample_report(language)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_reader_without_eyes_is_served(language):
    outline = assert_readable_without_eyes(render_report(sample_report(language)), language)
    assert len([tag for tag, attributes in outline.tags if tag == "svg" and "aria-hidden" not in attributes]) >= 6


def test_both_languages_have_every_word():
    english, chinese = page_words("en"), page_words("zh")
    assert list(english) == list(chinese)
    assert all(text.strip() for words in (english, chinese) for text in words.values())
    for key, text in english.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", chinese[key])), key


def test_one_is_not_counted_as_many():
    words = page_words("en")
    assert (words["other_reasons"].format(n=1), words["other_reasons"].format(n="2")) == (
        "1 other reason",
        "2 other reasons",
    )
    assert words["kept_line"].format(kept="1", rows="30") == "1 of 30 rows is kept."
    assert words["kept_line"].format(kept="21", rows="30") == "21 of 30 rows are kept."
    for several in (1, 2):
        reasons = {f"reason {number}": 30 - number for number in range(MAX_REASONS + several)}
        text = text_of(render_report(sample_report(profile=replace(sample_profile(), reasons=reasons))))
        assert ("1 other reason " in text) is (several == 1)
        assert ("2 other reasons" in text) is (several == 2)


def test_every_code_and_flag_is_explained():
    words = page_words("en")
    assert {f"code_{code}" for code in CODES} | {f"flag_{flag}" for flag in FLAGS} <= set(words)
    assert {f"d_{decision}" for decision in DECISIONS} <= set(words)


def test_the_chinese_page_has_no_english_sentence():
    data = sample_report("zh")
    text = text_of(render_report(replace(data, profile=replace(data.profile, reasons={}), judge=None, provenance=None)))
    english = [phrase for phrase in page_words("en").values() if " " in phrase and "{" not in phrase and phrase in text]
    assert set(english) <= {"ROC AUC"}


def test_the_first_screen_says_what_was_kept_promised_and_checked():
    data = sample_report()
    text = text_of(render_report(data))
    kept = data.profile.decisions["keep"]
    first = text[: text.index("Histogram")]
    assert f"{kept:,} of {data.profile.rows_in:,} rows are kept" in first
    assert f"{kept / data.profile.rows_in:.1%}" in first
    assert "At least 90% of the kept rows are good" in first
    assert "95% confidence" in first
    assert "1 of 4 checks failed" in first
    assert "score<0.42" in first


def test_a_refused_certificate_says_how_many_labels_are_missing():
    text = text_of(render_report(sample_report(metrics=sample_metrics(certified=False))))
    assert "No promise can be made yet." in text
    assert "About 240 more labels are needed." in text
    assert "At least 90" not in text


def test_a_certificate_that_labels_cannot_save_says_so():
    metrics = sample_metrics(certified=False)
    metrics["certificate"]["labels_missing"] = None
    assert "More labels alone will not help." in text_of(render_report(sample_report(metrics=metrics)))


def test_a_certificate_of_recall_promises_that_good_rows_are_kept():
    metrics = sample_metrics()
    metrics["certificate"]["metric"] = "recall"
    text = text_of(render_report(sample_report(metrics=metrics)))
    assert "At least 90% of the good rows are kept." in text
    assert "of the kept rows are good" not in text


def test_a_promise_is_not_stretched_to_rows_below_its_threshold():
    judge = {"name": "j", "thresholds": {"keep": 0.6}}
    page = text_of(render_report(sample_report(judge=judge)))
    assert "does not cover them all" in page
    assert "of the kept rows are good" not in page
    assert "does not cover them all" not in text_of(render_report(sample_report()))


def test_a_promise_is_not_stretched_to_a_slice_that_is_kept_below_its_threshold():
    judge = sample_report().judge | {"lowest_keep": 0.3}
    assert "does not cover them all" in text_of(render_report(sample_report(judge=judge)))


def test_lost_rows_are_shouted():
    profile = replace(sample_profile(), rows_in=10)
    assert "The counts do not add up: 10 rows came in" in text_of(render_report(sample_report(profile=profile)))
    assert "do not add up" not in text_of(render_report(sample_report()))


def test_a_judge_below_its_baseline_is_said_to_be():
    metrics = sample_metrics()
    metrics["baselines"]["frozen_base"]["roc_auc"] = 0.95
    assert "Not ahead of its best baseline (frozen base, 0.950)" in text_of(
        render_report(sample_report(metrics=metrics))
    )
    assert "Ahead of its best baseline (frozen base, 0.902)" in text_of(render_report(sample_report()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_missing_part_is_said_to_be_missing(language):
    words = page_words(language)
    nothing = render_report(ReportData(title="empty", language=language))
    for part in ("profile", "judge", "metrics", "validation", "provenance", "histogram", "slices"):
        assert words[f"none_{part}"] in text_of(nothing), part
    bare = render_report(
        ReportData(title="bare", language=language, metrics={"test": {"n": 3}}, judge={}, validation=[])
    )
    for part in ("reliability", "tradeoff", "duel"):
        assert words[f"none_{part}"] in text_of(bare), part
    assert words["promise_none"] in text_of(bare)
    assert "None" not in text_of(nothing) + text_of(bare)


def test_nothing_that_was_handed_over_can_become_markup():
    counts = {HOSTILE: 3}
    row = SliceRow(HOSTILE, 10, 5, 2, 2, 1)
    profile = replace(sample_profile(), slices={HOSTILE: [row]}, reasons=counts, codes=counts, flags=counts)
    metrics = sample_metrics()
    metrics["baselines"] = {HOSTILE: {"roc_auc": 0.7, HOSTILE: 0.5}}
    metrics["certificate"] |= {"granted": False, "message": HOSTILE, "metric": HOSTILE, "n": HOSTILE}
    judge = dict.fromkeys(("name", "kind", "base", "fingerprint", "calibration", "labels", "versions"), HOSTILE)
    judge |= {"rubric": {"name": HOSTILE, "criteria": HOSTILE}, "thresholds": {HOSTILE: 0.5}}
    check = {"expectation": HOSTILE, "column": HOSTILE, "success": False, "observed": HOSTILE, "allowed": [HOSTILE]}
    page = render_report(
        ReportData(HOSTILE, "en", profile, judge, metrics, [check], {"input": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    )
    outline = Outline(page)
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    assert page.count("&lt;script&gt;") > 15
    assert "\u202e" not in page
    assert "{{ 7 * 7 }}" in text_of(page)


def test_many_slices_become_the_largest_fifteen_and_the_rest():
    rows = [SliceRow(f"s{i:03d}", 100 + i, 50, 20, 20, 10 + i, 0.5) for i in range(100)]
    page = render_report(sample_report(profile=replace(sample_profile(), slices={"source": rows})))
    text = text_of(page)
    assert all(f"s{i:03d}" in text for i in range(85, 100))
    assert "s084" not in text
    assert "85 other values" in text
    assert f"{sum(100 + i for i in range(85)):,} rows" in text


def test_a_page_of_a_wild_run_stays_below_the_limit():
    rows = [SliceRow("x" * 500 + str(i), 10, 5, 2, 2, 1) for i in range(3000)]
    profile = replace(
        sample_profile(),
        slices={f"column {i}": rows for i in range(40)},
        reasons={f"r{i}" * 90: i for i in range(5000)},
    )
    metrics = sample_metrics()
    metrics["curves"]["threshold"] *= 50
    metrics["baselines"] = {f"b{i}": metrics["test"] for i in range(100)}
    check = {"expectation": "e" * 5000, "column": "c", "success": True, "observed": ["long"] * 9000, "allowed": None}
    page = render_report(sample_report(profile=profile, metrics=metrics, validation=[check] * 2000))
    assert len(page.encode()) < 300_000


def test_a_profile_survives_the_journey_through_json():
    profile = sample_profile()
    again = ScoreProfile.from_dict(profile.to_dict())
    assert again.to_dict() == profile.to_dict()
    assert render_report(sample_report(profile=again)) == render_report(sample_report())


def test_a_foreign_profile_is_refused_by_name():
    good = sample_profile().to_dict()
    with pytest.raises(InputError, match=r"rows_inn.*did you mean 'rows_in'"):
        ScoreProfile.from_dict({**good, "rows_inn": 3})
    with pytest.raises(InputError, match="unknown decision 'kept'"):
        ScoreProfile.from_dict({**good, "decisions": {"kept": 3}})
    with pytest.raises(InputError, match="has 3 bins; expected 50"):
        ScoreProfile.from_dict({**good, "histogram": {"keep": [1, 2, 3]}})
    with pytest.raises(InputError, match="unknown language 'fr'"):
        ReportData(title="t", language="fr")


def test_a_corpus_without_rows_has_a_page():
    empty = ScoreProfile(rows_in=0, decisions={}, slices={"source": [SliceRow("a", 0, 0, 0, 0, 0)], "none": []})
    assert "No row came in." in text_of(render_report(sample_report(profile=empty)))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.floats(allow_nan=True), st.integers(0, 10**15))
def test_any_text_and_any_number_give_a_page_that_can_be_written(text, number, rows):
    metrics = {"test": {"n": rows, "roc_auc": number, "roc_auc_ci": [number, number], "ece": number}}
    profile = ScoreProfile(rows_in=rows, decisions={"keep": rows}, slices={text: [SliceRow(text, rows, rows, 0, 0, 0)]})
    data = ReportData(
        text, "en", profile, {"name": text, "thresholds": {text: number}}, metrics, [{"observed": number}]
    )
    page = render_report(data)
    page.encode("utf-8")
    Outline(page)
    assert "NaN" not in page.replace(text, "")


@given(st.text(max_size=80), st.integers(2, 60))
def test_brief_text_fits_its_width_on_one_line(text, width):
    shown = brief(text, width)
    assert len(shown) <= width
    assert "\n" not in shown


def test_nearly_all_never_reads_as_all():
    profile = ScoreProfile(rows_in=1_000_000, decisions={"keep": 999_999, "drop": 1})
    text = text_of(render_report(sample_report(profile=profile)))
    assert ">99.9% kept" in text
    assert "<0.1%" in text


def test_the_file_is_whole_or_absent(tmp_path):
    write_report(sample_report(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(sample_report())


def contrast(one, other):
    """WCAG 2.2 contrast ratio of two #rgb colours."""

    def luminance(colour):
        digits = colour * 1 if len(colour) == 6 else "".join(c * 2 for c in colour)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_contrast_in_light_and_dark():
    palettes = [
        dict(re.findall(r"--(\w+):#(\w+)", block))
        for block in re.findall(r":root{[^}]+}", render_report(sample_report()))
    ]
    assert len(palettes) == 2
    for palette in palettes:
        for ground in ("paper", "card"):
            for text in ("ink", "muted", "accent", "good", "bad", "warn"):
                assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
            for shape in ("keep", "drop", "second"):
                assert contrast(palette[shape], palette[ground]) >= 3, (shape, ground)


@given(st.lists(st.floats(0, 1), max_size=3) | st.just([0.4, 0.5654, 0.7, 0.8125, 0.9793]))
def test_labels_of_thresholds_stand_inside_the_histogram_and_never_on_each_other(values):
    marks = histogram(sample_profile(), [(f"mark {at}", value) for at, value in enumerate(values)])["marks"]
    assert sorted(mark["value"] for mark in marks) == sorted(values)
    spans = [(mark["level"], mark["value"] - LABEL_SPAN * mark["turned"]) for mark in marks]
    for at, (level, start) in enumerate(spans):
        assert -1e-9 <= start <= 1 - LABEL_SPAN + 1e-9
        assert all(other != level or abs(begin - start) >= LABEL_SPAN - 1e-9 for other, begin in spans[:at])
