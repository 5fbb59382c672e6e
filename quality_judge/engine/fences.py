"""What stands around content in a prompt, and which no row may spell: how it is broken up, and where it could hide.

A tokenizer may change a text before it splits it (U+FF1C becomes <) or lose parts of it, so that its ids spell what the
text did not. It works on texts and on a tokenizer's rules. It knows nothing of ids or models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

SPLITTERS = frozenset({"Split", "Digits", "Punctuation", "ByteLevel"})


def without_fences(text: str, fences: Sequence[str]) -> str:
    """The text with a space after the first character of each fence it spells, so that it spells none."""
    for fence in fences:
        text = text.replace(fence, f"{fence[0]} {fence[1:]}")
    return text


def spells_fence(text: str, fences: Sequence[str]) -> bool:
    """Whether the text spells one of them."""
    return any(fence in text for fence in fences)


def unseen_fences(tokenizer: Tokenizer, fences: Sequence[str]) -> list[str]:
    """Those fences that ids do not show: in what they spell, a broken one would look like a whole one."""
    ids = [tokenizer.encode(f"x{fence}x", add_special_tokens=False).ids for fence in fences]
    return [fence for fence, found in zip(fences, ids, strict=True) if fence not in tokenizer.decode(found)]


def reads_as_written(tokenizer_json: str) -> bool:
    """Whether the ids of any text spell that very text: bytes are split and merged, and nothing is taken away.

    NFC may come first: it makes nothing that a fence is made of. tokenizer_json: as the library itself writes it.
    """
    data = json.loads(tokenizer_json)
    model, splitters = data["model"], list(rules(data["pre_tokenizer"]))
    kinds = {rule["type"] for rule in splitters}
    return (
        data["normalizer"] in (None, {"type": "NFC"})
        and "ByteLevel" in kinds <= SPLITTERS
        and all(rule.get("behavior") != "Removed" for rule in splitters)
        and [rule["type"] for rule in rules(data["decoder"])] == ["ByteLevel"]
        and model["type"] == "BPE"
        and not (model["continuing_subword_prefix"] or model["end_of_word_suffix"])
        and set(pre_tokenizers.ByteLevel.alphabet()) <= model["vocab"].keys()
    )


def rules(part: Any) -> Iterator[dict[str, Any]]:
    """The rules of a normaliser, splitter or decoder in a tokenizer's JSON, one behind the other."""
    if part is None:
        return
    if part["type"] != "Sequence":
        yield part
        return
    for inner in next(value for value in part.values() if isinstance(value, list)):
        yield from rules(inner)
