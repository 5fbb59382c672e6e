"""What the tests of the pages share: the outline of an HTML page, and what every page must be. No test stands here."""

import re
from html.parser import HTMLParser

VOID = {"meta"}
MAX_PAGE_BYTES = 300_000
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y>{{ 7 * 7 }}\u202e"


class Outline(HTMLParser):
    """Tags, heading levels and visible text of a page; fails on a tag that is not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.headings, self.text = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def text_of(page):
    return " ".join(" ".join(Outline(page).text).split())


def assert_self_contained(page):
    """Well-formed, below the size limit, no script, nothing from elsewhere, and a policy that would forbid it."""
    outline = Outline(page)
    assert len(page.encode()) < MAX_PAGE_BYTES
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not {tag for tag, _ in outline.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"https?://|@import|url\(", page)
    assert not [key for _, attributes in outline.tags for key in attributes if key.startswith("on")]


def assert_readable_without_eyes(page, language):
    """The language is stated, headings step by one, drawings have names, ids are unique, table headers a scope."""
    outline = Outline(page)
    assert outline.tags[0] == ("html", {"lang": {"en": "en", "zh": "zh-Hans"}[language]})
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    drawings = [attributes for tag, attributes in outline.tags if tag == "svg" and "aria-hidden" not in attributes]
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in drawings:
        assert attributes["role"] == "img"
        assert set(attributes["aria-labelledby"].split()) <= set(ids)
    assert all("scope" in attributes for tag, attributes in outline.tags if tag == "th")
    return outline
