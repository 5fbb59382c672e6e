"""ChatGLM3's sentencepiece model as a fast tokenizer that gives the same ids, proven on every piece of the vocabulary.

ChatGLM3 encodes each segment of a conversation by itself, so that each begins with sentencepiece's blank:

    [gMASK] sop  <|user|> ids("\\n") ids(content)  <|assistant|>

Joining the texts first would give other ids. `segment_ids` does as the model was trained. A rubric's prompt begins so
too, but within its message the row and what follows it are segments of their own. It knows nothing of weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors

from quality_judge.errors import BaseModelError, MissingExtra

SENTENCEPIECE_FILE = "tokenizer.model"
PREFIX = ("[gMASK]", "sop")
SPECIAL_TOKENS = (
    "[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
)  # fmt: skip
TEMPLATE = (
    "[gMASK]sop{% for message in messages %}<|{{ message['role'] }}|>{{ message.get('metadata', '') }}\n"
    "{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROLE_LINE = re.compile(r"(?<=<\|user\|>\n)|(?<=<\|assistant\|>\n)")  # as TEMPLATE renders it; content follows
BLANK = "▁"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # sentencepiece's kinds of piece
BPE = 2  # of sentencepiece's kinds of model; a unigram model would let a text spell <s>
PROBES = (
    "", " ", "\n", "\n\n \t x", "Water boils at 100 °C; 3.14159e-7?", "人工智能（AI）正在改变世界。",
    "他说:“Hello,世界!”  ok",
    "def f(x):\n    return x ** 2\n", "ａｂｃ①㈱ﬁ", "<s></s><unk>[gMASK]<|user|>",
    "naïve café 🙂👩‍🚀 ё ญ", "a" * 70 + "的" * 70,
)  # fmt: skip


def fast_tokenizer(model_file: Path) -> Any:
    """A transformers tokenizer for ChatGLM3 from its `tokenizer.model`.

    Raises BaseModelError when the file is no sentencepiece model, or its ids cannot be had from a fast tokenizer;
    MissingExtra without sentencepiece.
    """
    from transformers import PreTrainedTokenizerFast

    model = _read(model_file)
    backend = _backend(model, model_file)
    size = len(model.pieces)
    backend.add_tokens([AddedToken(p.piece, normalized=False) for p in model.pieces if p.type == USER_DEFINED])
    eos, unk = (_piece(model, kind, model_file) for kind in (CONTROL, UNKNOWN))
    specials = [p.piece for p in model.pieces if p.type in (CONTROL, UNKNOWN)]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    if [backend.token_to_id(token) for token in SPECIAL_TOKENS] != list(range(size, size + len(SPECIAL_TOKENS))):
        raise BaseModelError(f"{model_file} already holds special tokens of ChatGLM3; give the published file")
    backend.post_processor = processors.TemplateProcessing(
        single="[gMASK] sop $A", pair=f"[gMASK] sop $A $B {eos}",
        special_tokens=[(token, backend.token_to_id(token)) for token in (*PREFIX, eos)],
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, unk_token=unk, pad_token=unk, padding_side="left",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    prove(tokenizer, model_file, [*PROBES, *(p.piece.replace(BLANK, " ") for p in model.pieces if p.type == NORMAL)])
    return tokenizer


def segment_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, generate: bool = True) -> list[int]:
    """The ids of a conversation as ChatGLM3 was trained to read it: every segment encoded by itself.

    messages: `role`, `content` and optionally `metadata`. generate: whether <|assistant|> stands at the end.
    """
    ids = [tokenizer.convert_tokens_to_ids(token) for token in PREFIX]
    content = content_tokenizer(tokenizer)
    for message in messages:
        ids.append(tokenizer.convert_tokens_to_ids(f"<|{message['role']}|>"))
        for segment in (message.get("metadata", "") + "\n", message["content"]):
            ids += content.encode(segment, add_special_tokens=False).ids
    return [*ids, tokenizer.convert_tokens_to_ids("<|assistant|>")] if generate else ids


def segments(rendered: str) -> list[str]:
    """A conversation as TEMPLATE renders it, or a piece of one, cut where a segment begins."""
    return ROLE_LINE.split(rendered)


def content_tokenizer(tokenizer: Any) -> Tokenizer:
    """The tokenizer without its special tokens, so that a text that spells one stays a text, as in sentencepiece."""
    data = json.loads(tokenizer.backend_tokenizer.to_str()) | {"post_processor": None}
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["special"]]
    return Tokenizer.from_str(json.dumps(data, ensure_ascii=False))


def prove(tokenizer: Any, model_file: Path, texts: Iterable[str]) -> None:
    """Raises BaseModelError when for any of `texts` the ids are not those that sentencepiece gives."""
    from sentencepiece import SentencePieceProcessor

    texts = list(texts)
    ours = [encoded.ids for encoded in content_tokenizer(tokenizer).encode_batch(texts, add_special_tokens=False)]
    theirs = SentencePieceProcessor(model_file=str(model_file)).encode(texts)
    wrong = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    if wrong:
        raise BaseModelError(
            f"the fast tokenizer made of {model_file} differs from sentencepiece on {len(wrong)} of {len(texts)} pieces"
            f" and texts, such as {wrong[0][:40]!r}; it is not used"
        )


def _read(model_file: Path) -> Any:
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise MissingExtra("sentencepiece", "chatglm") from error
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    try:
        model.ParseFromString(model_file.read_bytes())
    except OSError as error:
        raise BaseModelError(f"{model_file} cannot be read; the folder of a ChatGLM3 holds it") from error
    except Exception as error:  # protobuf's own error class moves between its versions
        raise BaseModelError(f"{model_file} is no sentencepiece model; GLM-4 has a native version to use") from error
    if not model.pieces or model.trainer_spec.treat_whitespace_as_suffix:
        raise BaseModelError(f"{model_file} is no sentencepiece model of the kind that ChatGLM3 has")
    return model


def _backend(model: Any, model_file: Path) -> Tokenizer:
    unknown = next((piece.piece for piece in model.pieces if piece.type == UNKNOWN), None)
    if unknown is None or model.trainer_spec.model_type != BPE:
        raise BaseModelError(f"{model_file} is no BPE model with an unknown piece, as ChatGLM3's is")
    ids = {piece.piece: at for at, piece in enumerate(model.pieces)}
    bytes_too = model.trainer_spec.byte_fallback
    backend = Tokenizer(models.BPE(ids, _merges(model), unk_token=unknown, fuse_unk=True, byte_fallback=bytes_too))
    backend.normalizer = _normalizer(model.normalizer_spec)
    backend.decoder = decoders.Sequence([
        decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    return backend


def _merges(model: Any) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, best score first: what sentencepiece's BPE does, as a list."""
    mergeable = {p.piece: p.score for p in model.pieces if p.type in (NORMAL, USER_DEFINED)}
    order = {piece: at for at, piece in enumerate(mergeable)}
    found = [
        (-score, order[piece[:at]], piece[:at], piece[at:])
        for piece, score in mergeable.items()
        for at in range(1, len(piece))
        if piece[:at] in mergeable and piece[at:] in mergeable
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def _normalizer(spec: Any) -> normalizers.Normalizer:
    """What sentencepiece does to a text first.

    `Precompiled` goes by graphemes and takes the first rule that fits, sentencepiece by characters and takes the
    longest. They differ where a rule is for several characters (Hangul letters written apart), and where a grapheme
    begins with what a rule changes: its marks (U+0300 behind ¨) are lost.
    """
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(BLANK))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", BLANK)])


def _piece(model: Any, kind: int, model_file: Path) -> str:
    """The piece that ends a text (the last control piece: <s> precedes </s>) or stands for what is unknown."""
    names = [piece.piece for piece in model.pieces if piece.type == kind]
    if not names:
        raise BaseModelError(f"{model_file} has no piece for the end of a text or for what is unknown")
    return "</s>" if kind == CONTROL and "</s>" in names else names[-1]
