"""Bytes to text: every bad row gets exactly its code, no row disturbs another, and a row of any size costs the same."""

import gzip
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality_judge.engine.texts import read_texts, spells
from quality_judge.errors import CorpusError
from quality_judge.labels.parse import is_blank
from quality_judge.scores import BINARY_TEXT, CODES, EMPTY_TEXT, NULL_TEXT, OK

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00\x00\x00\x01\x00\x08\x06\x00\x00\x00\\r\xa8f"
ZIP = b"PK\x03\x04\x14\x00\x00\x00\x08\x00\x00\x00!\x00\xb7\xac\xce\x34\x22\x00\x00\x00 \x00\x00\x00\x08\x00\x00\x00"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x01\x00H\x00H\x00\x00"
ELF = b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00>\x00"
BAD = [
    (None, NULL_TEXT), ("", EMPTY_TEXT), (b"", EMPTY_TEXT), (" \t\r\n\u00a0\u3000", EMPTY_TEXT),
    ("\u200b\u200d\ufeff", EMPTY_TEXT),
    ("\ufeff", EMPTY_TEXT), ("\u2800\u3164\ufe0f", EMPTY_TEXT), ("\ue000", EMPTY_TEXT), (PNG, BINARY_TEXT), (ZIP,
    BINARY_TEXT),
    (JPEG, BINARY_TEXT), (ELF, BINARY_TEXT), (gzip.compress(b"some text" * 9, mtime=0), BINARY_TEXT),
    ("\0\0\0", BINARY_TEXT), (b"\xff\xfeh\x00i\x00 \x00y\x00o\x00u\x00", BINARY_TEXT), ("\ufffd" * 4, BINARY_TEXT),
]  # fmt: skip
GOOD = [
    "hello",
    "a\0 text with one zero in it",
    "水",
    "é",
    "\ufeffwith a mark of byte order",
    "x" * 5000,
    ".",
    "0",
    "𝕏 😀",
]
INVALID = [
    ("caf\xe9 ist gut".encode("latin-1")),
    b"good text, then \xe2\x82",
    "half an emoji at the end \ud83d",
    "Hi \ud83d",
]
ROWS = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.sampled_from([value for value, _ in BAD] + GOOD + INVALID),
)


def read(column, head_bytes=200, tail_bytes=100):
    return read_texts(column, head_bytes=head_bytes, tail_bytes=tail_bytes)


def codes(column):
    return [CODES[index] for index in read(column).code]


def row(texts, index):
    """Everything known of one row."""
    marks = (texts.code, texts.truncated, texts.invalid_utf8, texts.hidden)
    return texts.strings[index].as_py(), *(mark[index].item() for mark in marks)


@pytest.mark.parametrize(("value", "code"), BAD, ids=lambda value: repr(value)[:16])
def test_every_bad_input_gets_exactly_its_code_and_no_text(value, code):
    texts = read([value])
    assert CODES[texts.code[0]] == code
    assert texts.strings.to_pylist() == [""]
    assert not texts.truncated[0]


@pytest.mark.parametrize("value", GOOD, ids=lambda value: repr(value)[:16])
def test_every_usable_text_is_usable(value):
    assert codes([value]) == [OK]


@pytest.mark.parametrize("value", INVALID, ids=lambda value: repr(value)[-16:])
def test_a_text_that_is_not_utf8_is_scored_and_flagged(value):
    texts = read([value, "fine"])
    assert [CODES[index] for index in texts.code] == [OK, OK]
    assert texts.invalid_utf8.tolist() == [True, False]
    assert texts.strings[0].as_py().count("\ufffd") == 1
    assert texts.strings[1].as_py() == "fine"


@given(st.lists(ROWS, min_size=1, max_size=12), st.integers(16, 60), st.sampled_from([0, 16, 40]))
def test_a_row_reads_the_same_alone_and_among_others(rows, head_bytes, tail_bytes):
    together = read(rows, head_bytes, tail_bytes)
    for index, value in enumerate(rows):
        assert row(together, index) == row(read([value], head_bytes, tail_bytes), 0)


@given(st.lists(ROWS, max_size=12))
def test_every_row_has_one_code_and_text_exactly_when_it_is_ok(rows):
    texts = read(rows)
    assert len(texts.strings) == len(rows)
    for value, text, code in zip(rows, texts.strings.to_pylist(), codes(rows), strict=True):
        assert (text != "") == (code == OK)
        assert (value is None) == (code == NULL_TEXT)


@given(st.text(min_size=1, max_size=200), st.integers(16, 64), st.integers(0, 64))
def test_a_long_text_is_cut_between_characters_and_nothing_is_made_up(text, head_bytes, tail_bytes):
    text = "a" + text + "z"
    data = text.encode("utf-8", "surrogatepass")
    texts = read([data], head_bytes, tail_bytes)
    read_text = texts.strings[0].as_py()
    if CODES[texts.code[0]] != OK or texts.invalid_utf8[0]:
        return
    assert texts.truncated[0] == (len(data) > head_bytes + tail_bytes)
    if not texts.truncated[0]:
        assert read_text == text
        return
    assert len(read_text.encode()) <= head_bytes + tail_bytes + 1
    if not tail_bytes:
        assert text.startswith(read_text)
        assert head_bytes - len(read_text.encode()) < 4
        return
    ways = [at for at, character in enumerate(read_text) if character == "\n"]
    assert any(text.startswith(read_text[:at]) and text.endswith(read_text[at + 1 :]) for at in ways)


@pytest.mark.parametrize("character", ["a", "é", "水", "😀"])
def test_a_cut_at_any_byte_leaves_no_broken_character(character):
    for shift in range(8):
        texts = read(["x" * shift + character * 200], 64, 33)
        assert texts.truncated[0]
        assert not texts.invalid_utf8[0]
        assert "\ufffd" not in texts.strings[0].as_py()


@pytest.mark.parametrize("as_arrow", [False, True])
def test_a_row_of_ten_megabytes_costs_next_to_nothing(as_arrow):
    rows = ["水" * 3_500_000, "short", b"\xff" * 10_000_000, "\u200b" * 3_500_000]
    column = (
        pa.array([value.encode() if isinstance(value, str) else value for value in rows], pa.binary())
        if as_arrow
        else rows
    )
    read(column)
    started = time.perf_counter()
    texts = read(column)
    assert time.perf_counter() - started < 0.2
    assert [CODES[index] for index in texts.code] == [OK, OK, BINARY_TEXT, EMPTY_TEXT]
    assert texts.truncated.tolist() == [True, False, False, False]
    assert len(texts.strings[0].as_py().encode()) <= 301


@pytest.mark.parametrize("mark", ["\u200b", "\u00ad", "\u202e", "\u2066", "\u2060", "\U000e0041", "\U000f0001"])
def test_hidden_characters_are_flagged(mark):
    assert read([f"buy{mark}now", "buy now"]).hidden.tolist() == [True, False]


def test_joined_emoji_and_plain_scripts_are_not_called_hidden():
    assert not read(["👩\u200d👩\u200d👧 hello", "क्षत्रिय", "می\u200cخواهم", "❤️"]).hidden.any()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_every_arrow_type_of_text_reads_the_same(kind):
    column = pa.array(["one", None, "drei", ""], pa.string()).cast(kind)
    expected = ["one", "", "drei", ""]
    assert read(column).strings.to_pylist() == expected
    assert read(pa.chunked_array([column.slice(0, 1), column.slice(1, 3)])).strings.to_pylist() == expected
    assert read(column.slice(2, 1)).strings.to_pylist() == ["drei"]
    assert codes(column.slice(1, 3)) == [NULL_TEXT, OK, EMPTY_TEXT]


@pytest.mark.parametrize(
    "column", [[], pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.array([], pa.null())]
)
def test_an_empty_column_gives_no_rows(column):
    texts = read(column)
    assert (len(texts.strings), texts.code.shape, texts.hidden.dtype) == (0, (0,), np.bool_)


def test_a_column_of_nulls_alone_is_read():
    assert codes(pa.nulls(2)) == [NULL_TEXT, NULL_TEXT]


@pytest.mark.parametrize(
    "column",
    [pa.array([1, 2]), pa.array([["a"]]), pa.array([1.5]), [1], ["a", 2.5], [["a"]], [float("nan")]],
    ids=["integers", "lists", "floats", "list_of_integers", "mixed_list", "list_of_lists", "list_of_nan"],
)
def test_a_column_of_another_type_is_refused(column):
    with pytest.raises(CorpusError, match="type"):
        read(column)


def test_spelled_tokens_are_found_whatever_signs_they_are_made_of():
    tokens = ["<|end|>", "[CLS]", "a.b", "^", "\\", "</s>", "$", "#& ~-", "｜"]
    strings = pa.array([f"x{token}y" for token in tokens] + ["plain", "axb", ""], pa.large_string())
    assert spells(strings, tokens).tolist() == [True] * len(tokens) + [False] * 3
    assert not spells(strings, []).any()
    assert spells(strings, [f"<unused{index}>" for index in range(7000)] + ["plain"]).tolist().count(True) == 1


def test_what_experts_cannot_be_shown_is_what_no_judge_scores():
    marks = [*map(chr, range(0x3000)), *"\u3164\uffa0\ufe00\ufe0e\U000e0100水"]
    texts = read_texts([mark * 2 for mark in marks], head_bytes=64, tail_bytes=0)
    scored = [CODES[code] for code in texts.code]
    assert [m for m, code in zip(marks, scored, strict=True) if is_blank(m * 2) and code == OK] == []
    assert [m for m, code in zip(marks, scored, strict=True) if not is_blank(m * 2) and code != OK] == []
