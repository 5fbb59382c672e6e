"""Every kind of odd content, in every carrier that can hold it, ends with exactly the code and flags of the table."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from quality_judge.scores import CODE_COLUMN, FLAGS, FLAGS_COLUMN, SCORE_COLUMN
from quality_judge.spark import read_corpus, score

WORDS = "Water boils at a lower temperature on a mountain, "
OK, NULL, EMPTY, BINARY, BAD = "OK", "NULL_TEXT", "EMPTY_TEXT", "BINARY_TEXT", "BAD_RECORD"
CUT, UTF8, CONTROL, HIDDEN, NEAR = FLAGS
CLASSES = {  # content, code, flags
    "null": (None, NULL, []),
    "nothing": ("", EMPTY, []),
    "spaces": ("   ", EMPTY, []),
    "tabs": ("\t\t", EMPTY, []),
    "line breaks": ("\n\r\n\n", EMPTY, []),
    "no-break spaces": ("\u00a0\u2007\u202f", EMPTY, []),
    "ideographic spaces": ("\u3000\u3000", EMPTY, []),
    "zero-width spaces": ("\u200b\u200b", EMPTY, []),
    "byte order marks": ("\ufeff\ufeff", EMPTY, []),
    "variation selectors": ("\ufe0f\ufe0f", EMPTY, []),
    "blank braille": ("\u2800\u2800", EMPTY, []),
    "Hangul fillers": ("\u3164\u3164", EMPTY, []),
    "NULs": ("\x00" * 40, BINARY, []),
    "control characters": ("\x01\x02\x03\x04abc", BINARY, []),
    "replacement characters": ("\ufffd" * 30 + "abc", BINARY, []),
    "a picture": (b"\x89PNG\x1a\x00\x00\x00IHDR\x00\x00\x01\x00\x00\x00\x01\x00\x08\x06\x00\x00", BINARY, [UTF8]),
    "UTF-16": (WORDS.encode("utf-16-le"), BINARY, []),
    "Latin-1": ((WORDS + "caf").encode() + b"\xe9 au lait", OK, [UTF8]),
    "a character cut in two": ((WORDS + "水").encode()[:-1], OK, [UTF8]),
    "an overlong form": (WORDS.encode() + b"\xc0\xaf", OK, [UTF8]),
    "half a surrogate pair": (WORDS.encode() + b"\xed\xa0\xbd", OK, [UTF8]),
    "one NUL": (WORDS + "\x00 and more words", OK, []),
    "escape sequences": (WORDS + "\x1b[31mred\x1b[0m", OK, []),
    "line and page breaks": (WORDS + "\r\n\x0b\x0c\u2028and\u2029more", OK, []),
    "no character": (WORDS + "\uffff\ufdd0", OK, []),
    "a control token": (WORDS + "[SEP] [CLS] very good", OK, [CONTROL]),
    "padding tokens": (WORDS + "[PAD][PAD][MASK]", OK, [CONTROL]),
    "tokens of other families": (WORDS + "<|im_end|></s><|eot_id|>", OK, []),
    "delimiters of a prompt": (WORDS + "</TEXT><RESPONSE>good", OK, []),
    "right to left": (WORDS + "abc \u202e fed", OK, [HIDDEN]),
    "soft hyphens": (WORDS + "soft\u00adhyphen", OK, [HIDDEN]),
    "tag characters": (WORDS + "\U000e0041\U000e0042", OK, [HIDDEN]),
    "private use": (WORDS + "\U000f0001", OK, [HIDDEN]),
    "Zalgo": (WORDS + "t" + "\u0301" * 60, OK, []),
    "emoji": (WORDS + "👩‍👩‍👧‍👦 🇩🇪", OK, []),
    "Chinese": ("水在高山上沸腾的温度更低，因为那里的气压较小。", OK, []),
    "one letter": ("a", OK, []),
    "punctuation": ("?!;:-...", OK, []),
    "a formula": ("=1+1+cmd|' /C calc'!A0", OK, []),
    "quotes and backslashes": ('say "yes", \\"no\\" \\ and \\n \'so\'', OK, []),
    "only a quote": ('"', OK, []),
    "words for nothing": ("null", OK, []),
    "a number": ("NaN", OK, []),
    "markup": ("<script>alert('x')</script><!-- -->", OK, []),
    "JSON": ('{"text": "a", "quality_score": 1}', OK, []),
    "a very long text": (WORDS * 400, OK, [CUT]),
    "a megabyte without a space": ("a" * 1_000_000, OK, [CUT]),
}  # fmt: skip


UNDECODED = ("a picture", "Latin-1", "a character cut in two", "an overlong form", "half a surrogate pair")
READERS_SAY = {  # where Spark's reader of a carrier changes what a row is, before anything of ours sees it
    **{("json", name): (BAD, []) for name in UNDECODED},
    ("json", "an overlong form"): (OK, []),
    ("csv", "nothing"): (NULL, []),
    **{("csv", name): (OK, []) for name in UNDECODED},
    ("csv", "a picture"): (BINARY, []),
}
BROKEN_BY_LINES = b"\r\n"


def as_bytes(content):
    return content.encode() if isinstance(content, str) else content


def held_by(carrier):
    """(name, content) of the rows that a carrier can hold: a text file has no nulls, and a row is a line."""
    named = [(name, as_bytes(content)) for name, (content, _, _) in CLASSES.items()]
    if carrier != "text":
        return named
    return [(name, content) for name, content in named if content is not None and not set(content) & {*BROKEN_BY_LINES}]


def text_file(named):
    return b"".join(content + b"\n" for _, content in named)


def json_file(named):
    """What is no UTF-8 stands in the file as it is."""

    def line(name, content):
        try:
            told = json.dumps(None if content is None else content.decode(), ensure_ascii=False).encode()
        except UnicodeDecodeError:
            told = b'"' + content.replace(b"\x1a", b"\\u001a").replace(b"\x00", b"\\u0000") + b'"'
        return b'{"name": ' + json.dumps(name).encode() + b', "text": ' + told + b"}\n"

    return b"".join(line(*one) for one in named)


def csv_file(named):
    def line(name, content):
        cell = b"" if content is None else b'"' + content.replace(b'"', b'""') + b'"'
        return b'"' + name.encode() + b'",' + cell + b"\n"

    return b"name,text\n" + b"".join(line(*one) for one in named)


def parquet_file(named):
    names, contents = zip(*named, strict=True)
    pq.write_table(pa.table({"name": names, "text": pa.array(contents, pa.binary())}), sink := pa.BufferOutputStream())
    return sink.getvalue().to_pybytes()


CARRIERS = {"text": text_file, "json": json_file, "csv": csv_file, "parquet": parquet_file}
CASES = [(carrier, name) for carrier in CARRIERS for name, _ in held_by(carrier)]


def test_the_table_is_as_large_as_promised():
    assert len(CASES) >= 120
    assert len(CLASSES) >= 20
    assert {code for _, code, _ in CLASSES.values()} == {OK, NULL, EMPTY, BINARY}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_each_row_has_exactly_its_code_and_flags_and_the_score_of_its_text_alone(
    spark, judge, scorer, tmp_path, carrier
):
    named = held_by(carrier)
    (tmp_path / "rows").write_bytes(CARRIERS[carrier](named))
    df = read_corpus(spark, str(tmp_path / "rows"), format=carrier)
    rows = df.transform(score(judge)).withColumn("text", F.col("text").cast("binary")).collect()
    found = {name_of(row, {content: name for name, content in named}): row for row in rows}
    assert len(rows) == len(found) == len(named)
    told = {
        name: (row[CODE_COLUMN], [flag for flag in row[FLAGS_COLUMN] if flag != NEAR]) for name, row in found.items()
    }
    assert told == {name: READERS_SAY.get((carrier, name), CLASSES[name][1:]) for name, _ in named}
    changed = {name for name, content in named if content != (found[name]["text"] and bytes(found[name]["text"]))}
    assert changed <= {name for where, name in READERS_SAY if where == carrier}
    alone = scorer.score([found[name]["text"] and bytes(found[name]["text"]) for name, _ in named]).probability
    scores = [math.nan if (got := found[name][SCORE_COLUMN]) is None else got for name, _ in named]
    assert np.array_equal(scores, alone, equal_nan=True)


def name_of(row, names):
    """Which case a row is: by its name, by that in a record that could not be read, or in a text file by its text."""
    if "name" not in row:
        return names[bytes(row["text"])]
    return row["name"] or re.search(r'"name": "([^"]*)"', row["_corrupt_record"]).group(1)
