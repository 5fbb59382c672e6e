"""Pages are safe to open whatever names and values a judge, a corpus or a label file brings along."""

import csv
import io
from pathlib import Path

import pytest
from page_outline import Outline, assert_self_contained

from quality_judge.attacks import shipped_attacks
from quality_judge.card import render_card
from quality_judge.judge_page import render_judge_page
from quality_judge.labels.questions import as_question
from quality_judge.labels.sheet import sheet
from quality_judge.profile import BINS, ScoreProfile, SliceRow
from quality_judge.report import ReportData, render_report

ROOT = Path(__file__).resolve().parents[2]
PAYLOADS = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'><svg/onload=alert(1)>",
    "</style><script>x</script>",
    "</title><iframe src=//evil.example>", "{{ 7*7 }}{% for x in [] %}", "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>", "--><script>alert(1)</script><!--",
    "&lt;script&gt;&#x3c;img src=x onerror=y&#x3e;",
    "]]><script>x</script>", "\u202e<meta http-equiv=refresh content=0;url=//evil.example>",
]  # fmt: skip
FORBIDDEN_TAGS = {"script", "img", "iframe", "object", "embed", "link", "base", "form", "input", "button", "video"}


def pages(payload):
    """Every kind of page, the payload wherever a text may stand."""
    judge = {
        "name": payload, "kind": payload, "fingerprint": payload, "base": {"id": payload, "revision": payload},
        "rubric": {"name": payload, "criteria": payload, "good": payload, "bad": payload,
                   "categories": [{"code": payload, "name": payload, "description": payload}]},
        "categories": [payload], "created_with": {payload: payload}, "thresholds": {"best": 0.5, "keep": 0.6},
    }  # fmt: skip
    metrics = {
        "test": {"n": 9, "roc_auc": 0.9, "per_category": {payload: {"n": 3, "roc_auc": 0.5}}},
        "baselines": {payload: {"roc_auc": 0.8}}, "labels": {"train": {"rows": 9}, "held_out": {"rows": 9}},
        "shortcuts": {payload: 0.7},
    }  # fmt: skip
    profile = ScoreProfile(
        rows_in=10, decisions={"keep": 10}, codes={payload: 3}, flags={payload: 2}, reasons={payload: 10},
        histogram={"keep": [1] * BINS}, slices={payload: [SliceRow(payload, 10, 5, 2, 2, 1, 0.5)]},
    )  # fmt: skip
    checks = [{"expectation": payload, "column": payload, "success": False, "observed": payload, "allowed": payload}]
    origin = {"input": payload, "output": payload, "command": payload, "versions": {payload: payload}, "date": payload}
    for language in ("en", "zh"):
        yield render_report(ReportData(payload, language, profile, judge, metrics, checks, origin))
        yield render_judge_page(judge, metrics, language=language)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_becomes_markup(payload):
    for page in pages(payload):
        outline = Outline(page)
        assert_self_contained(page)
        assert not FORBIDDEN_TAGS & {tag for tag, _ in outline.tags}
        attributes = [(name, value or "") for _, given in outline.tags for name, value in dict(given).items()]
        assert not [name for name, _ in attributes if name.startswith("on")]
        links = [value for name, value in attributes if name in ("href", "src", "action", "xlink:href")]
        assert not [value for value in links if not value.startswith("#")]
        assert sum(value.startswith("0;") for name, value in attributes if name == "content") == 0


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_becomes_markup_in_a_card(payload):
    judge = {
        "name": payload,
        "base": {"id": payload},
        "rubric": {"name": payload, "criteria": payload, "good": payload},
    }
    body = render_card(judge, {"baselines": {payload: {"roc_auc": 0.5}}, "test": {"roc_auc": 0.6}}, {}).split(
        "\n---\n", 1
    )[1]
    assert not [tag for tag in ("<script", "<img", "<svg", "<iframe", "<meta", "<a ") if tag in body.lower()]


CSV_WRITERS = ("csv.writer", "DictWriter", "write_csv", "to_csv", ".write.csv")


CELLS = ["=1+1", "+1", "-1", "@sum(a1)", "\t=1", "\r=1", "＝1", "'=1", "plain", ""]


def test_the_one_writer_of_csv_writes_no_cell_that_a_spreadsheet_would_run():
    words, sources = ("csv.writer", "DictWriter", "write_csv", "to_csv", ".write.csv"), []
    for folder in ("quality_judge", "jobs", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            if any(word in path.read_text(encoding="utf-8") for word in words):
                sources.append(path.name)
    assert sources == ["sheet.py"], "cells must be made safe first (a cell may begin with = + - @)"
    asked = [
        as_question({"completion": cell or "x", "prompt": cell, "id": cell or "1"}, "good-bad")[0] for cell in CELLS
    ]
    for row in csv.reader(io.StringIO(sheet(asked, "good-bad").removeprefix("\ufeff"), newline="")):
        assert not [cell for cell in row if cell[:1] in tuple("=+-@\t\r＝")]


def test_the_attacks_we_ship_are_no_markup_in_a_page():
    family = shipped_attacks().families["fake_completion"]
    for page in pages(family.en[2]):
        assert_self_contained(page)
