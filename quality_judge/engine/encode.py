"""The one encoder for training, evaluation, Spark and inline use: text to ids, spliced, never templated.

    ids = prefix + [prompt + between] + completion + suffix

Only content is ever cut, by tokens, in its middle or at its end. Content is encoded by a tokenizer that has lost its
added tokens, any control id that still comes out is taken out, and a delimiter of the prompt that a text or its ids
spell is broken up: a row cannot speak as the system.
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

from quality_judge.engine.fences import reads_as_written, spells_fence, unseen_fences, without_fences
from quality_judge.engine.prompts import Prompt, specials
from quality_judge.engine.texts import portions
from quality_judge.errors import BaseModelError, JudgeError
from quality_judge.judge_spec import Encoding

TOKENS_PER_BATCH = 512  # 2% slower a token than 1,024, and a bucket's last batch wastes half as much
BUCKET_LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
BYTES_PER_TOKEN = 8
HEAD_SHARE = 2 / 3
MIN_PROMPT_SHARE = 1 / 4
MIN_CONTENT_TOKENS = 8
CUT_MARK = "[...] "  # no white space before it: with a colon at the end of a head it would be a turn of Llama Guard
ROUNDS = 4  # how often a row is mended that hides fences in fences, before nothing of it is read
UNKNOWN_TOKENS = ("<unk>", "[UNK]")  # what a text may hold; some bases name as unknown what no text of theirs yields


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

    def take(self, rows: np.ndarray) -> Ragged:
        """The rows of these indices, rising int64 (t,)."""
        return Ragged(self.ids[np.isin(self.rows(), rows)], self.lengths[rows])


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows ready for a model. truncated, control: bool (n,).

    truncated: whether content was cut. control: whether it held a control id, or a fence in disguise.
    """

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
        self._as_written = not encoding.fences or reads_as_written(self.tokenizer_json())

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
        columns = [completions] if prompts is None else [completions, prompts]
        return joined([self._encoded(*(column[some] for column in columns)) for some in portions(*columns)])

    def _encoded(self, completions: Sequence[str], prompts: Sequence[str] | None = None) -> Encoded:
        e = self.encoding
        room = e.max_tokens - len(e.prefix) - len(e.suffix)
        completion, control = self._content(completions)
        if not e.between_always and (prompts is None or not any(prompts)):
            kept, truncated = self._cut(completion, np.full(len(completions), room))
            return Encoded(spliced([e.prefix, kept, e.suffix], len(completions)), truncated, control)
        prompt, prompt_control = self._content(prompts if prompts is not None else [""] * len(completions))
        parted = (prompt.lengths > 0) | e.between_always
        between = Ragged(np.tile(np.array(e.between, np.int32), int(parted.sum())), np.where(parted, len(e.between), 0))
        left = room - between.lengths
        prompt_room = np.maximum((left * MIN_PROMPT_SHARE).astype(np.int64), left - completion.lengths)
        prompt, prompt_cut = self._cut(prompt, prompt_room)
        completion, completion_cut = self._cut(completion, left - prompt.lengths)
        tokens = spliced([e.prefix, prompt, between, completion, e.suffix], len(completions))
        return Encoded(tokens, prompt_cut | completion_cut, control | prompt_control)

    def _cut(self, content: Ragged, room: np.ndarray) -> tuple[Ragged, np.ndarray]:
        return cut(content, room, tail=self.encoding.cut == "head_tail", joint=self.encoding.joint)

    def unseen_fences(self) -> list[str]:
        """The fences that ids do not show, so that none of them could be kept out of a row."""
        return unseen_fences(self._tokenizer, self.encoding.fences)

    def decoded(self, tokens: Ragged) -> list[str]:
        """What the ids of each row spell."""
        ids, ends = tokens.ids.tolist(), np.cumsum(tokens.lengths).tolist()
        rows = [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return self._tokenizer.decode_batch(rows, skip_special_tokens=False)

    def _content(self, texts: Sequence[str], rounds: int = ROUNDS) -> tuple[Ragged, np.ndarray]:
        """The ids of texts, which spell no fence, and whether each text held a control id or a fence in disguise."""
        fences = self.encoding.fences
        if self.encoding.trimmed:
            texts = [text.strip() for text in texts]
        content, control = self._ids([without_fences(text, fences) for text in texts] if fences else texts)
        suspect = np.flatnonzero(control | (not self._as_written)) if fences else np.zeros(0, np.int64)
        said = dict(zip(suspect.tolist(), self.decoded(content.take(suspect)), strict=True))
        rows = [row for row, text in said.items() if spells_fence(text, fences)]
        if not rows:
            return content, control
        forged = np.isin(np.arange(len(texts)), rows)
        kept, control = content.where(~forged[content.rows()]), control | forged
        if not rounds:
            return kept, control
        mended, _ = self._content([said[row] for row in rows], rounds - 1)
        lengths = np.zeros(len(texts), np.int64)
        lengths[forged] = mended.lengths
        return spliced([kept, Ragged(mended.ids, lengths)], len(texts)), control

    def _ids(self, texts: Sequence[str]) -> tuple[Ragged, np.ndarray]:
        """The ids of texts without control ids, and whether each text held one."""
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


def joined(parts: Sequence[Encoded]) -> Encoded:
    """The rows of all parts behind one another."""
    ids, lengths = (np.concatenate([getattr(part.tokens, name) for part in parts]) for name in ("ids", "lengths"))
    truncated, control = (np.concatenate([getattr(part, name) for part in parts]) for name in ("truncated", "control"))
    return Encoded(Ragged(ids, lengths), truncated, control)


def cut(content: Ragged, room: np.ndarray, *, tail: bool, joint: tuple[int, ...] = ()) -> tuple[Ragged, np.ndarray]:
    """Rows of at most `room` ids, int64 (n,), and whether each was cut: its end goes, or with `tail` its middle.

    joint: ids put where a middle was, so that head and tail together spell nothing that neither does.
    """
    long = content.lengths > room
    if not long.any():
        return content, long
    if tail and joint:
        return _cut_and_joined(content, room, long, joint)
    head = np.where(long, np.ceil(room * HEAD_SHARE).astype(np.int64) if tail else room, content.lengths)
    last = np.where(long, room - head, 0)
    position, rows = content.positions(), content.rows()
    keep = (position < head[rows]) | (position >= (content.lengths - last)[rows])
    return content.where(keep), long


def _cut_and_joined(
    content: Ragged, room: np.ndarray, long: np.ndarray, joint: tuple[int, ...]
) -> tuple[Ragged, np.ndarray]:
    """As `cut` with a tail, `joint` between the two ends of each row that was `long`; without room only its head."""
    joined = long & (room > len(joint))
    left = np.where(joined, room - len(joint), np.where(long, room, content.lengths))
    head_lengths = np.where(joined, np.ceil(left * HEAD_SHARE).astype(np.int64), left)
    position, rows = content.positions(), content.rows()
    head = content.where(position < head_lengths[rows])
    tail = content.where(position >= (content.lengths - np.where(joined, left - head_lengths, 0))[rows])
    middle = Ragged(np.tile(np.array(joint, np.int32), int(joined.sum())), np.where(joined, len(joint), 0))
    return spliced([head, middle, tail], len(content.lengths)), long


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
    tokenizer: Any, architecture: str, *, max_tokens: int, cut_at: str, limit: int | None,
    prompt: Prompt | None = None, forced: tuple[int, ...] = (),
) -> tuple[Encoding, str]:  # fmt: skip
    """The encoding for a transformers tokenizer, and the content tokenizer's JSON that belongs in the judge.

    limit: the most positions the base can see. prompt: the rubric that stands around content, which `max_tokens` does
    not count; forced: ids behind it. Raises BaseModelError when special tokens cannot be spliced, or leave no room.
    """
    backend = tokenizer.backend_tokenizer
    content_json = without_added_tokens(backend.to_str())
    content = content_tokenizer(content_json)
    if prompt is None:
        prefix, between, suffix = specials(tokenizer, content, architecture)
        around = 0
    else:
        prefix, between, suffix = prompt.prefix, prompt.between, (*prompt.suffix, *forced)
        around = len(prefix) + len(between) + len(suffix)
        if limit is not None and around + MIN_CONTENT_TOKENS > limit:
            raise BaseModelError(f"the rubric takes {around} of the base's {limit} tokens; shorten the rubric")
    max_tokens = min(max_tokens + around, limit) if limit else max_tokens + around
    roles = {getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad", "cls", "sep", "mask")}
    unknown = {json.loads(content_json)["model"].get("unk_token"), *UNKNOWN_TOKENS}
    plain = {tokenizer.unk_token_id} - roles if tokenizer.unk_token in unknown else set()  # not SmolLM2's end of a text
    added = {
        int(i): token.content
        for i, token in sorted(backend.get_added_tokens_decoder().items())
        if i not in plain and (token.special or not token.content.isspace())
    }
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    lengths = [around + length for length in BUCKET_LENGTHS if around + length < max_tokens] + [max_tokens]
    read_bytes = BYTES_PER_TOKEN * (max_tokens - around)
    encoding = Encoding(
        prefix=prefix, between=between, suffix=suffix, pad=pad or 0,
        control_ids=tuple(added), control_tokens=tuple(added.values()),
        max_tokens=max_tokens, cut=cut_at, head_bytes=read_bytes, tail_bytes=read_bytes if cut_at == "head_tail" else 0,
        buckets=tuple((length, max(1, TOKENS_PER_BATCH // length)) for length in lengths),
        **({} if prompt is None else _guarded(prompt, content)),
    )  # fmt: skip
    return encoding, content_json


def _guarded(prompt: Prompt, content: Tokenizer) -> dict[str, Any]:
    """What of an encoding keeps content apart from the prompt around it. Raises BaseModelError when nothing can."""
    if unseen := unseen_fences(content, prompt.fences):
        raise BaseModelError(f"the tokenizer's ids do not tell {unseen[0]!r} from other text; take another base")
    joint = tuple(content.encode(CUT_MARK, add_special_tokens=False).ids)
    return {"fences": prompt.fences, "joint": joint, "between_always": prompt.between_always}


def without_added_tokens(tokenizer_json: str) -> str:
    """The tokenizer's JSON without added tokens, template, truncation and padding: it can encode content only.

    Added tokens that are mere runs of spaces (as in GPT-NeoX and ModernBERT) are content and stay, if their ids can.
    """
    data = json.loads(tokenizer_json) | {"post_processor": None, "truncation": None, "padding": None}
    data["model"] |= {"dropout": None} if "dropout" in data["model"] else {}  # of BPE merges, by chance, in training
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
