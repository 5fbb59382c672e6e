"""The one encoder for training, evaluation, Spark and inline use: text to ids, spliced, never templated.

    ids = prefix + [prompt + between] + completion + suffix

Only content is ever cut, by tokens, in its middle or at its end. Content is encoded by a tokenizer that has lost its
added tokens, and any control id that still comes out is taken out: a row cannot speak as the system.
All assembly is array work over ragged rows. It knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from quality_judge.errors import BaseModelError, JudgeError
from quality_judge.judge import Encoding

TOKENS_PER_BATCH = 1024
BUCKET_LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
BYTES_PER_TOKEN = 8
HEAD_SHARE = 2 / 3
MIN_PROMPT_SHARE = 1 / 4


@dataclass(frozen=True, slots=True)
class Ragged:
    """n rows of ids behind one another. ids: int32 (total,). lengths: int64 (n,)."""

    ids: np.ndarray
    lengths: np.ndarray

    def rows(self) -> np.ndarray:
        """The row of each id, int64 (total,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def offsets(self) -> np.ndarray:
        """Where each row starts, int64 (n,)."""
        return np.cumsum(self.lengths) - self.lengths

    def positions(self) -> np.ndarray:
        """The place of each id within its row, int64 (total,)."""
        return np.arange(len(self.ids)) - np.repeat(self.offsets(), self.lengths)

    def where(self, keep: np.ndarray) -> Ragged:
        """Only the ids where `keep`, bool (total,), is True."""
        lengths = np.bincount(self.rows()[keep], minlength=len(self.lengths))
        return Ragged(self.ids[keep], lengths.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows ready for a model. truncated, control: whether content was cut, or held a control id; bool (n,)."""

    tokens: Ragged
    truncated: np.ndarray
    control: np.ndarray


class Encoder:
    """Encodes rows as `encoding` says. Not for several threads at once: give each its own."""

    def __init__(self, tokenizer_json: str, encoding: Encoding) -> None:
        self.encoding = encoding
        self._tokenizer = content_tokenizer(tokenizer_json)
        self._is_control = np.zeros(max(0, *self._tokenizer.get_vocab().values(), *encoding.control_ids) + 1, bool)
        self._is_control[list(encoding.control_ids)] = True

    def tokenizer_json(self) -> str:
        """What encodes content, as tokenizer.json says it."""
        return str(self._tokenizer.to_str())

    @property
    def highest_id(self) -> int:
        """No id above it ever comes out."""
        e = self.encoding
        return max(0, *self._tokenizer.get_vocab().values(), *e.prefix, *e.between, *e.suffix, e.pad)

    def encode(self, completions: Sequence[str], prompts: Sequence[str] | None = None) -> Encoded:
        """The ids of each row; `prompts` ("" for none) stand before `completions`."""
        e = self.encoding
        room = e.max_tokens - len(e.prefix) - len(e.suffix)
        completion, control = self._content(completions)
        if prompts is None or not any(prompts):
            kept, truncated = cut(completion, np.full(len(completions), room), tail=e.cut == "head_tail")
            return Encoded(spliced([e.prefix, kept, e.suffix], len(completions)), truncated, control)
        prompt, prompt_control = self._content(prompts)
        between = Ragged(
            np.tile(np.array(e.between, np.int32), int((prompt.lengths > 0).sum())),
            np.where(prompt.lengths > 0, len(e.between), 0),
        )
        left = room - between.lengths
        prompt_room = np.maximum((left * MIN_PROMPT_SHARE).astype(np.int64), left - completion.lengths)
        prompt, prompt_cut = cut(prompt, prompt_room, tail=e.cut == "head_tail")
        completion, completion_cut = cut(completion, left - prompt.lengths, tail=e.cut == "head_tail")
        tokens = spliced([e.prefix, prompt, between, completion, e.suffix], len(completions))
        return Encoded(tokens, prompt_cut | completion_cut, control | prompt_control)

    def _content(self, texts: Sequence[str]) -> tuple[Ragged, np.ndarray]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter(chain.from_iterable(item.ids for item in encoded), np.int32, int(lengths.sum()))
        content = Ragged(ids, lengths)
        forbidden = self._is_control[ids]
        control = np.zeros(len(texts), bool)
        if forbidden.any():
            control[content.rows()[forbidden]] = True
            content = content.where(~forbidden)
        return content, control


def cut(content: Ragged, room: np.ndarray, *, tail: bool) -> tuple[Ragged, np.ndarray]:
    """Rows of at most `room` ids, int64 (n,), and whether each was cut: its end goes, or with `tail` its middle."""
    long = content.lengths > room
    if not long.any():
        return content, long
    head = np.where(long, np.ceil(room * HEAD_SHARE).astype(np.int64) if tail else room, content.lengths)
    last = np.where(long, room - head, 0)
    position, rows = content.positions(), content.rows()
    keep = (position < head[rows]) | (position >= (content.lengths - last)[rows])
    return content.where(keep), long


def spliced(parts: Sequence[tuple[int, ...] | Ragged], n: int) -> Ragged:
    """Each row's parts behind one another; a plain tuple of ids is the same for all n rows."""
    ragged = [
        part if isinstance(part, Ragged) else Ragged(np.tile(np.array(part, np.int32), n), np.full(n, len(part)))
        for part in parts
    ]
    lengths: np.ndarray = sum((part.lengths for part in ragged), np.zeros(n, np.int64))
    result = Ragged(np.empty(int(lengths.sum()), np.int32), lengths)
    start = result.offsets()
    for part in ragged:
        result.ids[start[part.rows()] + part.positions()] = part.ids
        start = start + part.lengths
    return result


def build_encoding(
    tokenizer: Any, architecture: str, *, max_tokens: int, cut_at: str, limit: int | None
) -> tuple[Encoding, str]:
    """The encoding for a transformers tokenizer, and the content tokenizer's JSON that belongs in the judge.

    limit: the most positions the base can see. Raises BaseModelError when its special tokens cannot be spliced.
    """
    backend = tokenizer.backend_tokenizer
    max_tokens = min(max_tokens, limit) if limit else max_tokens
    content_json = without_added_tokens(backend.to_str())
    content = content_tokenizer(content_json)
    prefix, between, suffix = _specials(tokenizer, content, architecture)
    roles = {getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad", "cls", "sep", "mask")}
    plain = {tokenizer.unk_token_id} - roles  # a text may hold what is unknown; GPT-2's unknown is also its end
    added = {
        int(i): token.content
        for i, token in sorted(backend.get_added_tokens_decoder().items())
        if i not in plain and (token.special or not token.content.isspace())
    }
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    lengths = [length for length in BUCKET_LENGTHS if length < max_tokens] + [max_tokens]
    tail = BYTES_PER_TOKEN * max_tokens if cut_at == "head_tail" else 0
    encoding = Encoding(
        prefix=prefix, between=between, suffix=suffix, pad=pad or 0,
        control_ids=tuple(added), control_tokens=tuple(added.values()),
        max_tokens=max_tokens, cut=cut_at, head_bytes=BYTES_PER_TOKEN * max_tokens, tail_bytes=tail,
        buckets=tuple((length, max(1, TOKENS_PER_BATCH // length)) for length in lengths),
    )  # fmt: skip
    return encoding, content_json


def without_added_tokens(tokenizer_json: str) -> str:
    """The tokenizer's JSON without added tokens, template, truncation and padding: it can encode content only.

    Added tokens that are mere runs of spaces (as in GPT-NeoX and ModernBERT) are content and stay, if their ids can.
    """
    data = json.loads(tokenizer_json) | {"post_processor": None, "truncation": None, "padding": None}
    spaces = [token for token in data["added_tokens"] if not token["special"] and token["content"].isspace()]
    content_json = json.dumps(data | {"added_tokens": spaces}, ensure_ascii=False)
    content = content_tokenizer(content_json)
    if all(content.token_to_id(token["content"]) == token["id"] for token in spaces):
        return content_json
    return json.dumps(data | {"added_tokens": []}, ensure_ascii=False)


def content_tokenizer(tokenizer_json: str) -> Tokenizer:
    """The tokenizer in a judge's file. Raises JudgeError when it is damaged."""
    try:
        return Tokenizer.from_str(tokenizer_json)
    except BaseException as error:  # a panic in the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise JudgeError(f"the tokenizer cannot be read ({type(error).__name__}); it is damaged or foreign") from error


def _specials(
    tokenizer: Any, content: Tokenizer, architecture: str
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Prefix, between and suffix ids, read off what the tokenizer puts around a letter and a pair of letters."""
    inner = content.encode("a", add_special_tokens=False).ids
    single = tokenizer("a")["input_ids"]
    at = next((i for i in range(len(single)) if single[i : i + len(inner)] == inner), None)
    if at is None:
        raise BaseModelError(
            "the tokenizer changes plain content when it adds its special tokens; it cannot be spliced"
        )
    prefix, suffix = tuple(single[:at]), tuple(single[at + len(inner) :])
    if architecture == "encoder":
        pair = tokenizer("a", "a")["input_ids"]
        between = tuple(pair[len(prefix) + len(inner) : len(pair) - len(suffix) - len(inner)])
    else:
        between = tuple(content.encode("\n", add_special_tokens=False).ids)
        suffix = suffix or ((tokenizer.eos_token_id,) if tokenizer.eos_token_id is not None else ())
    return prefix, between, suffix
