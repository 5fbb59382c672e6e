"""Text to ids: specials are never cut, no text speaks as the system, and what fits gets the model's own tokens."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from quality_judge.engine.encode import Encoder, Ragged, build_encoding, cut, spliced
from quality_judge.errors import JudgeError

FAMILIES = [
    ("wordpiece", "encoder"), ("wordpiece_spaces", "encoder"), ("unigram", "encoder"), ("unigram", "decoder"),
    ("bpe", "decoder"),
    ("bpe_added", "decoder"), ("bpe_one_special", "decoder"),
]  # fmt: skip
SPELLED = [
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "[UNK]",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<think>",
    "</think>",
    "<S>",
    "[cls]",
]
WORDS = ["water", "boils", "on", "a mountain", "  ", "    ", "\n", "the path", "ü", "水", "😀", "1602", "x" * 30, "."]
TEXTS = st.one_of(
    st.lists(st.sampled_from(WORDS + SPELLED), max_size=25).map(" ".join),
    st.lists(st.sampled_from(WORDS + SPELLED), max_size=25).map("".join),
    st.text(max_size=40).filter(lambda text: text.isprintable()),
)
ROWS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


@pytest.fixture(scope="module", params=FAMILIES, ids=" ".join)
def family(request, tiny_tokenizer):
    """The family's tokenizer, and a function that makes an Encoder for it."""
    name, architecture = request.param
    tokenizer = tiny_tokenizer(name)

    def make(*, max_tokens=24, cut_at="head_tail"):
        encoding, content_json = build_encoding(
            tokenizer, architecture, max_tokens=max_tokens, cut_at=cut_at, limit=None
        )
        return Encoder(content_json, encoding)

    return tokenizer, make


def rows_of(tokens):
    return [row.tolist() for row in np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1])]


@given(ROWS, st.sampled_from(["head", "head_tail"]))
def test_specials_are_never_cut_and_the_budget_is_never_exceeded(family, rows, cut_at):
    encoder = family[1](cut_at=cut_at)
    e = encoder.encoding
    encoded = encoder.encode([completion for _, completion in rows], [prompt for prompt, _ in rows])
    for ids in rows_of(encoded.tokens):
        assert len(ids) <= e.max_tokens
        assert tuple(ids[: len(e.prefix)]) == e.prefix
        assert tuple(ids[len(ids) - len(e.suffix) :]) == e.suffix


@given(ROWS)
def test_no_text_becomes_a_control_id(family, rows):
    encoder = family[1](max_tokens=512)
    e = encoder.encoding
    encoded = encoder.encode([completion for _, completion in rows], [prompt for prompt, _ in rows])
    for ids, (prompt, _) in zip(rows_of(encoded.tokens), rows, strict=True):
        inner = ids[len(e.prefix) : len(ids) - len(e.suffix)]
        of_between = [i for i in e.between if i in e.control_ids] if prompt else []
        assert sum(i in e.control_ids for i in inner) <= len(of_between)


def test_every_special_of_the_tokenizer_is_a_control_id(family):
    tokenizer, make = family
    roles = {
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.mask_token_id,
    }
    encoding = make().encoding
    assert roles - {None} <= set(encoding.control_ids)
    assert len(encoding.control_ids) == len(encoding.control_tokens)
    assert not any(token.isspace() for token in encoding.control_tokens)


@pytest.mark.parametrize(("name", "text"), [("wordpiece_spaces", "a [SEP] b"), ("unigram", "a <s> b")])
def test_a_control_id_that_a_text_produces_is_taken_out_and_the_row_is_marked(tiny_tokenizer, name, text):
    encoding, content_json = build_encoding(tiny_tokenizer(name), "encoder", max_tokens=64, cut_at="head", limit=None)
    token = text.split()[1]
    assert Tokenizer.from_str(content_json).token_to_id(token) in encoding.control_ids
    encoded = Encoder(content_json, encoding).encode([text, "a b"])
    assert encoded.control.tolist() == [True, False]
    assert not encoded.truncated.any()
    prompts = Encoder(content_json, encoding).encode(["a", "a"], ["b", text])
    assert prompts.control.tolist() == [False, True]


@given(TEXTS)
def test_a_plain_text_that_fits_gets_the_ids_of_the_models_own_tokenizer(family, text):
    assume(not any(token in text for token in SPELLED))
    tokenizer, make = family
    encoder = make(max_tokens=1024)
    theirs = tokenizer(text)["input_ids"]
    (ours,) = rows_of(encoder.encode([text]).tokens)
    end = [] if theirs[-1:] == list(encoder.encoding.suffix) and len(theirs) > 1 else list(encoder.encoding.suffix)
    assert ours == theirs + end


@given(TEXTS, st.integers(12, 40), st.sampled_from(["head", "head_tail"]))
def test_a_long_text_keeps_its_head_and_with_head_tail_its_end(family, text, max_tokens, cut_at):
    _, make = family
    whole, short = make(max_tokens=4096), make(max_tokens=max_tokens, cut_at=cut_at)
    e = short.encoding
    room = max_tokens - len(e.prefix) - len(e.suffix)
    (full,) = rows_of(whole.encode([text]).tokens)
    content = full[len(e.prefix) : len(full) - len(e.suffix)]
    encoded = short.encode([text])
    (ids,) = rows_of(encoded.tokens)
    kept = ids[len(e.prefix) : len(ids) - len(e.suffix)]
    assert encoded.truncated[0] == (len(content) > room)
    if len(content) <= room:
        assert kept == content
    elif cut_at == "head":
        assert kept == content[:room]
    else:
        head = math.ceil(room * 2 / 3)
        assert kept == content[:head] + content[len(content) - (room - head) :]


@given(ROWS, st.integers(0, 5))
def test_a_row_is_encoded_the_same_alone_and_among_others(family, rows, at):
    encoder = family[1]()
    prompts, completions = zip(*rows, strict=True)
    at = at % len(rows)
    together, alone = encoder.encode(completions, prompts), encoder.encode([completions[at]], [prompts[at]])
    assert rows_of(together.tokens)[at] == rows_of(alone.tokens)[0]
    assert (together.truncated[at], together.control[at]) == (alone.truncated[0], alone.control[0])


@pytest.mark.parametrize(("name", "token"), [("wordpiece", "[sep]"), ("bpe", "</s>"), ("bpe_added", "<think>")])
def test_a_control_token_spelled_in_a_text_is_read_as_the_signs_it_is_made_of(tiny_tokenizer, name, token):
    encoding, content_json = build_encoding(tiny_tokenizer(name), "decoder", max_tokens=64, cut_at="head", limit=None)
    content = Tokenizer.from_str(content_json)
    spelled = token.upper() if name == "wordpiece" else token
    ids = content.encode(f"a{spelled}b", add_special_tokens=False).ids
    assert "".join(map(content.id_to_token, ids)).replace("##", "") == f"a{token}b"
    encoded = Encoder(content_json, encoding).encode([f"a{spelled}b"])
    assert rows_of(encoded.tokens) == [[*encoding.prefix, *ids, *encoding.suffix]]
    assert not encoded.control[0]


def test_an_empty_prompt_is_no_prompt(family):
    encoder = family[1]()
    plain = rows_of(encoder.encode(["water boils", "x"]).tokens)
    assert rows_of(encoder.encode(["water boils", "x"], ["", ""]).tokens) == plain
    assert rows_of(encoder.encode(["water boils", "x"], ["", "on"]).tokens)[0] == plain[0]


def test_prompt_and_completion_share_the_budget(family):
    _, make = family
    encoder, whole = make(max_tokens=40), make(max_tokens=4096)
    e = encoder.encoding
    room = 40 - len(e.prefix) - len(e.suffix) - len(e.between)
    long, short = "water boils on the mountain " * 30, "water"
    (tail,) = rows_of(whole.encode([short]).tokens)
    length = len(tail) - len(e.prefix) - len(e.suffix)
    both, first, second = rows_of(encoder.encode([long, short, long], [long, long, short]).tokens)
    assert [len(both), len(first), len(second)] == [40, 40, 40]
    assert first[len(first) - len(tail) + len(e.prefix) :] == tail[len(e.prefix) :], "a short completion is whole"
    assert second[len(e.prefix) : len(e.prefix) + length] == tail[len(e.prefix) : len(e.prefix) + length], (
        "a short prompt is whole"
    )
    if e.between:
        at = len(e.prefix) + math.floor((room) / 4)
        assert tuple(both[at : at + len(e.between)]) == e.between, "of two long texts the prompt gets a quarter"


def test_no_rows_are_encoded_to_no_rows(family):
    encoded = family[1]().encode([])
    assert (len(encoded.tokens.ids), len(encoded.tokens.lengths), len(encoded.control)) == (0, 0, 0)


@pytest.mark.parametrize("at_once", [1, 30, 10**9])
@pytest.mark.parametrize("with_prompts", [False, True])
def test_how_many_rows_are_encoded_at_once_changes_nothing(family, monkeypatch, at_once, with_prompts):
    encoder, spelled = family[1](), family[0].eos_token or "x"
    texts = ["", "water boils", f"a mountain {spelled}", "the path " * 40, "水", "on", ""]
    prompts = ["", "on", "", "water " * 30, "", spelled, "x"] if with_prompts else None
    alone = [encoder.encode([text], prompts and [prompts[at]]) for at, text in enumerate(texts)]
    monkeypatch.setattr("quality_judge.engine.texts.CHARACTERS_AT_ONCE", at_once)
    encoded = encoder.encode(texts, prompts)
    assert rows_of(encoded.tokens) == [rows_of(one.tokens)[0] for one in alone]
    assert encoded.truncated.tolist() == [bool(one.truncated[0]) for one in alone]
    assert encoded.control.tolist() == [bool(one.control[0]) for one in alone]


def test_texts_of_no_tokens_are_only_specials(family):
    encoder = family[1]()
    assert rows_of(encoder.encode([""]).tokens) == [list(encoder.encoding.prefix + encoder.encoding.suffix)]


def test_ids_beyond_the_size_of_the_vocabulary_are_encoded(tiny_tokenizer):
    encoding, _ = build_encoding(tiny_tokenizer("bpe"), "decoder", max_tokens=64, cut_at="head", limit=None)
    tokenizer = Tokenizer(models.WordLevel({"a": 7, "b": 5000, "[UNK]": 9}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (ids,) = rows_of(Encoder(tokenizer.to_str(), encoding).encode(["a b c"]).tokens)
    assert ids[len(encoding.prefix) : -len(encoding.suffix)] == [7, 5000, 9]


@pytest.mark.parametrize(("limit", "expected"), [(None, 300), (512, 300), (128, 128)])
def test_the_table_of_batch_shapes_reaches_the_most_tokens_a_row_may_have(tiny_tokenizer, limit, expected):
    encoding, _ = build_encoding(tiny_tokenizer("wordpiece"), "encoder", max_tokens=300, cut_at="head", limit=limit)
    lengths = [length for length, _ in encoding.buckets]
    assert encoding.max_tokens == lengths[-1] == expected
    assert lengths == sorted(set(lengths))
    assert all(rows >= 1 for _, rows in encoding.buckets)
    assert encoding.tail_bytes == 0


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"model": null}'])
def test_a_damaged_tokenizer_is_refused(make_spec, text):
    with pytest.raises(JudgeError, match="tokenizer"):
        Encoder(text, make_spec().encoding)


def test_a_real_tokenizer_gives_the_same_ids_for_texts_and_pairs(packaged_base):
    from quality_judge.engine.weights import load_tokenizer

    tokenizer = load_tokenizer(packaged_base)
    encoding, content_json = build_encoding(tokenizer, "encoder", max_tokens=256, cut_at="head_tail", limit=512)
    encoder = Encoder(content_json, encoding)
    texts = ["Water boils.", "Ça va? 水 😀 naïve", "a\n\n  b\tc", "[ CLS ] x", "x" * 300, "click here " * 20, ""]
    assert rows_of(encoder.encode(texts).tokens) == tokenizer(texts, truncation=True, max_length=256)["input_ids"]
    pairs = tokenizer(texts[:-1], texts[:-1])["input_ids"]
    assert rows_of(encoder.encode(texts[:-1], texts[:-1]).tokens) == pairs
    hostile = encoder.encode([f"a {token} b" for token in encoding.control_tokens])
    assert all(not set(ids[1:-1]) & set(encoding.control_ids) for ids in rows_of(hostile.tokens))


LENGTHS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=8)


@given(LENGTHS, st.booleans())
def test_cutting_is_what_a_plain_restatement_says(pairs, tail):
    lengths, room = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    content = Ragged(np.arange(lengths.sum(), dtype=np.int32), lengths)
    kept, was_cut = cut(content, room, tail=tail)
    for before, after, most, mark in zip(rows_of(content), rows_of(kept), room.tolist(), was_cut.tolist(), strict=True):
        head = math.ceil(most * 2 / 3) if tail else most
        expected = before if len(before) <= most else before[:head] + before[len(before) - (most - head) :]
        assert (after, mark) == (expected, len(before) > most)


@given(LENGTHS)
def test_splicing_puts_the_parts_of_each_row_behind_one_another(pairs):
    lengths, others = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    one = Ragged(np.arange(lengths.sum(), dtype=np.int32), lengths)
    two = Ragged(1000 + np.arange(others.sum(), dtype=np.int32), others)
    expected = [[7, 8, *a, *b, 9] for a, b in zip(rows_of(one), rows_of(two), strict=True)]
    assert rows_of(spliced([(7, 8), one, two, (9,), ()], len(lengths))) == expected
