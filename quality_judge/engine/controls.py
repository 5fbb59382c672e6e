"""Whether a judge's own tokenizer can be trusted with rows: no text may become a control token or a delimiter of the
prompt, hang it, or swell in it.

Checked when a judge is loaded, before its first row. A judge's tokenizer comes with the judge, so it is as untrusted as
the judge; what the base on this machine calls a control token is the other witness. It knows nothing of models.
"""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from quality_judge.bases import Base
from quality_judge.engine.encode import UNKNOWN_TOKENS, Encoder, Ragged
from quality_judge.engine.fences import SPLITTERS, rules, spells_fence
from quality_judge.errors import InputError, JudgeError
from quality_judge.judge import MAX_TOKENIZER_BYTES, TOKENIZER_FILE
from quality_judge.judge_spec import Encoding
from quality_judge.untrusted import bounded_text

PAYLOADS = ("{0}", "a {0} b", "{0}{0}", "\n{0}\n", "a{0}b")
DISGUISES = ("\x01", "\u200b", "\u00ad")  # what some tokenizers drop from the middle of a fence
PLAIN = ("Water boils.", "水在高山上", "\U0001f600\u0301 ü\n\t0")
PROBE_SECONDS = 20
MAX_GROWTH = 16  # times a text's length, by all literal rules together; those of Llama and ChatGLM come to 4
MAX_PRECOMPILED = 64  # bytes for one character; NFKC needs 33
OFTEN = SPLITTERS - {"ByteLevel"} | {"Replace", "Prepend", "Strip"}  # rules that may stand more than once
PROBES = ("a" * 3000 + "!", "aA" * 1500 + "\x00", " " * 3000 + "!", "\n " * 1500 + "x", "1" * 3000 + "a", "'s" * 1500 +
          "\u200b", "水" * 3000 + "\x01", ".," * 1500 + "a")  # fmt: skip
# What Llama 3, Qwen 2, GLM 4 and GPT-2 split by; none of them hangs on a long text.
KNOWN_PATTERNS = frozenset({
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"[0-9][0-9][0-9]", r"\p{N}{1,3}", r"\p{N}", " {2,}", r"\s+", r"\s{2,}", r"[\r\n]", r"\d",
})  # fmt: skip
PROBE = """
import json, sys
from tokenizers import Tokenizer
said = json.load(sys.stdin)
Tokenizer.from_str(said["tokenizer"]).encode_batch_fast(said["probes"], add_special_tokens=False)
"""


def refuse_unsafe_tokenizer(encoder: Encoder, *, known_ids: int) -> None:
    """Raises JudgeError unless texts go through the judge's tokenizer in bounded time and space, and never become
    control ids or fences.

    known_ids: how many ids the base knows.
    """
    said = encoder.tokenizer_json()
    data = json.loads(said)
    added = [token for token in data["added_tokens"] if token["special"] or token["content"].strip()]
    if added or any(data[part] for part in ("post_processor", "truncation", "padding")):
        raise JudgeError(f"{TOKENIZER_FILE} still adds {len(added)} tokens of its own; it must encode content only")
    if data["model"].get("dropout"):
        raise JudgeError(f"{TOKENIZER_FILE} drops merges by chance; a text has the same ids each time, or no score")
    if encoder.highest_id >= known_ids:
        raise JudgeError(f"{TOKENIZER_FILE} gives ids up to {encoder.highest_id}, the base knows {known_ids} ids")
    refuse_growth(data)
    if set(_patterns(data)) - KNOWN_PATTERNS:
        refuse_slow(said)
    try:
        refuse_leaks(encoder)
        refuse_forged(encoder)
    except BaseException as error:
        if isinstance(error, JudgeError | KeyboardInterrupt | SystemExit):
            raise
        raise JudgeError(f"{TOKENIZER_FILE} fails on plain texts ({type(error).__name__}); it is damaged") from error


def refuse_leaks(encoder: Encoder) -> None:
    """Raises JudgeError when a control token that a text spells comes out as that token."""
    encoding = encoder.encoding
    if len(encoding.control_ids) != len(encoding.control_tokens):
        raise JudgeError("control_ids and control_tokens are not of one length; the judge was edited")
    spelled = [payload.format(token) for token in encoding.control_tokens for payload in PAYLOADS]
    if np.isin(_contents(encoder, [*PLAIN, *spelled]).ids, encoding.control_ids).any():
        raise JudgeError("the tokenizer turns a text that spells a control token into that token; it is refused")


def refuse_forged(encoder: Encoder) -> None:
    """Raises JudgeError when a text that hides one of the prompt's fences is read as that fence."""
    fences, tokens = encoder.encoding.fences, encoder.encoding.control_tokens
    if encoder.unseen_fences():
        raise JudgeError("the tokenizer's ids do not tell the prompt's delimiters from other text; it is refused")
    hidden = [(fence, inside) for fence in fences for inside in (*DISGUISES, *fences)]
    hidden += [(fence, inside) for token in tokens for fence in fences[-1:] for inside in (token, token * 2)]
    forged = [f"x{fence[: len(fence) // 2]}{inside}{fence[len(fence) // 2 :]}x" for fence, inside in hidden]
    forged += map(_wide, fences)
    if any(spells_fence(text, fences) for text in encoder.decoded(_contents(encoder, forged))):
        raise JudgeError("the tokenizer turns a text that hides a delimiter of the prompt into it; it is refused")


def _contents(encoder: Encoder, texts: list[str]) -> Ragged:
    """The ids that stand for the texts themselves."""
    encoding, tokens = encoder.encoding, encoder.encode(texts).tokens
    first = len(encoding.prefix) + (len(encoding.between) if encoding.between_always else 0)
    position, last = tokens.positions(), (tokens.lengths - len(encoding.suffix))[tokens.rows()]
    return tokens.where((position >= first) & (position < last))


def _wide(text: str) -> str:
    return "".join(chr(ord(mark) + 0xFEE0) if "!" <= mark <= "~" else mark for mark in text)


def refuse_growth(data: dict[str, Any]) -> None:
    """Raises JudgeError when rules that feed one another could make a text many times as long.

    data: a tokenizer's JSON. Rules that grow a text by their nature, such as NFKC, may stand once.
    """
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        found = list(rules(data[part]))
        once = [rule["type"] for rule in found if rule["type"] not in OFTEN]
        if len(once) > len(set(once)) or math.prod(map(_growth, found)) > MAX_GROWTH:
            raise JudgeError(f"{TOKENIZER_FILE} could make a text over {MAX_GROWTH} times as long; it is refused")


def _growth(rule: dict[str, Any]) -> float:
    """At most how many times as long a rule makes a text; 1 for rules that grow it by their nature."""
    if rule["type"] == "Prepend":
        return 1 + len(rule["prepend"])
    if rule["type"] == "Precompiled":
        table = base64.b64decode(rule["precompiled_charsmap"])
        written = table[4 + int.from_bytes(table[:4], "little") :]
        return 1 if max(map(len, written.split(b"\0"))) <= MAX_PRECOMPILED else math.inf
    if rule["type"] != "Replace":
        return 1
    content, pattern = len(rule["content"]), rule["pattern"]
    if "String" in pattern:
        return max(1, content / len(pattern["String"])) if pattern["String"] else math.inf
    return max(1, content) if pattern["Regex"] in KNOWN_PATTERNS else 1 + content  # others may match between characters


def refuse_forgotten(base: Base, encoding: Encoding) -> None:
    """Raises JudgeError when a token that the base's own tokenizer adds is no control token to the judge."""
    path = base.folder / TOKENIZER_FILE
    if not path.is_file():  # such as a base in one GGUF file: it was read when the judge was made
        return
    try:
        data = json.loads(bounded_text(path.resolve(), most_bytes=MAX_TOKENIZER_BYTES))
        unknown = {data["model"].get("unk_token"), *UNKNOWN_TOKENS}
        added = {
            int(token["id"]) for token in data["added_tokens"]
            if (token["special"] or token["content"].strip()) and token["content"] not in unknown
        }  # fmt: skip
    except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise JudgeError(f"{path} cannot be read ({type(error).__name__}); mend or fetch the base again") from error
    if forgotten := added - set(encoding.control_ids):
        raise JudgeError(
            f"{len(forgotten)} tokens that the base adds are no control tokens to the judge; it was edited, or made "
            "on another tokenizer"
        )


def refuse_slow(tokenizer_json: str) -> None:
    """Raises JudgeError when the tokenizer needs seconds for a few long dull texts: its patterns may hang on a row.

    It runs in a process of its own, because nothing else can stop a pattern that does not end.
    """
    said = json.dumps({"tokenizer": tokenizer_json, "probes": PROBES})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", PROBE], input=said.encode(), capture_output=True, timeout=PROBE_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise JudgeError(
            f"{TOKENIZER_FILE} holds a pattern that needs over {PROBE_SECONDS} s for {len(PROBES)} short texts; it is "
            "refused, a row could hang it"
        ) from None
    if done.returncode:
        raise JudgeError(f"{TOKENIZER_FILE} fails on plain texts; it is damaged or foreign")


def _patterns(data: Any) -> Iterator[str]:
    """Every regular expression anywhere in a tokenizer's JSON, its vocabulary and merges aside."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "Regex":
                yield str(value)
            elif key not in ("vocab", "merges"):
                yield from _patterns(value)
    elif isinstance(data, list):
        for value in data:
            yield from _patterns(value)
