"""The prompt of a verdict judge: its rubric in words, in the base's own chat template, as ids around a row's content.

The template is rendered once, by transformers' sandboxed environment and without any row; a row's own ids are spliced
in by `engine.encode`. What marks content off cannot be forged: no text can produce a control token, and a text that
spells a delimiter has it broken up. It knows nothing of verdict words' ids or of models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer

from quality_judge import llama_guard
from quality_judge.engine import chatglm_tokenizer
from quality_judge.errors import BaseModelError, ConfigError
from quality_judge.judge_spec import BEGIN, END, RESPONSE
from quality_judge.llama_guard import Frame
from quality_judge.rubric import Rubric

CONTENT, ANSWER = "\ue001", "\ue002"
DATE = "26 Jul 2024"  # some templates print today's date; a judge made again must be the same judge
CLOCK = "strftime_now"  # what transformers offers templates to ask for the date with
FIXED_CLOCK = f"{{%- macro {CLOCK}(form) %}}{DATE}{{% endmacro %}}"
WORDS = {  # by language: a heading for categories, then the question about a text, or about a response to a prompt
    "en": (
        "What is {bad}:\n", "Is the text above {good} or {bad}? Answer with one of the two.",
        f"Is what follows {RESPONSE} {{good}} or {{bad}}? Answer with one of the two.",
    ),
    "zh": (
        "属于“{bad}”的有：\n", "以上文字是“{good}”还是“{bad}”？只回答其一。",
        f"{RESPONSE} 之后的内容是“{{good}}”还是“{{bad}}”？只回答其一。",
    ),
}  # fmt: skip
MIN_CHINESE_SHARE = 0.5
PromptStyle = Literal["auto", "chat", "llama_guard_3"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids around content, see `Encoding`. fences: what no content may spell. end: the id that ends a turn, if known.

    asks_for_codes: whether it asks for the codes of the categories behind the verdict, as Llama Guard's does.
    """

    prefix: tuple[int, ...]
    between: tuple[int, ...]
    suffix: tuple[int, ...]
    between_always: bool
    fences: tuple[str, ...]
    end: int | None
    asks_for_codes: bool = False


def rubric_prompt(tokenizer: Any, rubric: Rubric, *, style: PromptStyle, with_prompts: bool) -> Prompt:
    """The prompt for rows of a completion, or of prompt and completion. tokenizer: the base's own, of transformers.

    style: `auto` is Llama Guard's own prompt on a base whose template has it, else its chat template. Raises
    ConfigError when the rubric spells a control token, BaseModelError when the template cannot hold a rubric.
    """
    _refuse_control(tokenizer, rubric)
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    if style == "llama_guard_3" or (style == "auto" and llama_guard.MARK_IN_TEMPLATE in template):
        return _llama_guard_prompt(tokenizer, rubric, with_prompts=with_prompts)
    before, behind = rubric_in_words(rubric, with_prompts=with_prompts)
    if not tokenizer.chat_template:
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        prefix, suffix = _ids(tokenizer, before), _ids(tokenizer, behind + "\n\n")
        return Prompt(
            (*start, *prefix), _ids(tokenizer, f"\n{RESPONSE}\n"), suffix, False, (BEGIN, RESPONSE, END),
            tokenizer.eos_token_id,
        )  # fmt: skip
    asked = _rendered(tokenizer, [{"role": "user", "content": before + CONTENT + behind}], ask=True)
    answered = _rendered(
        tokenizer,
        [{"role": "user", "content": before + CONTENT + behind}, {"role": "assistant", "content": ANSWER}],
        ask=False,
    )
    prefix_text, suffix_text = _split(asked, CONTENT)
    rest = _ids(tokenizer, _split(answered, ANSWER)[1].strip())
    return Prompt(
        _ids(tokenizer, prefix_text), _ids(tokenizer, f"\n{RESPONSE}\n"), _ids(tokenizer, suffix_text), False,
        (BEGIN, RESPONSE, END), rest[0] if rest else tokenizer.eos_token_id,
    )  # fmt: skip


def turns_prompt(tokenizer: Any) -> Prompt:
    """A row as two turns: its prompt the user's, its completion the assistant's, with the end that the base writes.

    Without a chat template the end-of-text token stands behind each. A control token always stands between the two, so
    that no text can move the place where its completion begins. Raises BaseModelError where the base has neither.
    """
    end = tokenizer.eos_token_id
    if not tokenizer.chat_template:
        if end is None:
            raise BaseModelError("the base has neither a chat template nor an end-of-text token; nothing parts a row")
        start = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
        return Prompt(start, (end,), (end,), True, (), end)
    turns = [{"role": "user", "content": CONTENT}, {"role": "assistant", "content": ANSWER}]
    before, rest = _split(_rendered(tokenizer, turns, ask=False), CONTENT)
    between, behind = _split(rest, ANSWER)
    suffix = _ids(tokenizer, behind.strip()) or (() if end is None else (end,))
    return Prompt(_ids(tokenizer, before), _ids(tokenizer, between), suffix, True, (), suffix[0] if suffix else None)


def rubric_in_words(rubric: Rubric, *, with_prompts: bool = False) -> tuple[str, str]:
    """What is said before and behind the content, in the language of the rubric's criteria: English or Chinese.

    Kept short: every row pays for each of its tokens.
    """
    letters = re.findall(r"\w", rubric.criteria)
    chinese = sum("\u4e00" <= letter <= "\u9fff" for letter in letters)
    heading, of_text, of_response = WORDS["zh" if chinese > MIN_CHINESE_SHARE * max(len(letters), 1) else "en"]
    listed = "".join(
        f"- {category.code}: {category.name}{'. ' if category.description else ''}{category.description.strip()}\n"
        for category in rubric.categories
    )
    said = {"good": rubric.good, "bad": rubric.bad}
    categories = f"{heading.format(**said)}{listed}\n" if listed else ""
    question = (of_response if with_prompts else of_text).format(**said)
    return f"{rubric.criteria.strip()}\n\n{categories}{BEGIN}\n", f"\n{END}\n\n{question}"


def specials(
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


def _llama_guard_prompt(tokenizer: Any, rubric: Rubric, *, with_prompts: bool) -> Prompt:
    frame: Frame = llama_guard.llama_guard_frame(rubric, "Agent" if with_prompts else "User")
    return Prompt(
        _ids(tokenizer, frame.before), _ids(tokenizer, frame.between), _ids(tokenizer, frame.behind), with_prompts,
        llama_guard.FENCES, _known_id(tokenizer, "<|eot_id|>"), asks_for_codes=bool(rubric.categories),
    )  # fmt: skip


def _known_id(tokenizer: Any, token: str) -> int:
    index = tokenizer.get_vocab().get(token)
    if index is None:
        raise BaseModelError(f"the tokenizer has no {token}; prompt: llama_guard_3 needs a base of the Llama 3 family")
    return int(index)


def _rendered(tokenizer: Any, messages: list[dict[str, str]], *, ask: bool) -> str:
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=ask, date_string=DATE, chat_template=_dated(tokenizer)
        )
    except Exception as error:
        raise BaseModelError(f"the base's chat template cannot be rendered: {type(error).__name__}: {error}") from error
    return str(text)


def _dated(tokenizer: Any) -> str:
    """The base's template, to which every day is the same one."""
    template = str(tokenizer.get_chat_template())
    return FIXED_CLOCK + template if CLOCK in template else template


def _split(text: str, mark: str) -> tuple[str, str]:
    if text.count(mark) != 1:
        raise BaseModelError("the base's chat template drops or repeats the message; a rubric cannot stand in it")
    before, _, behind = text.partition(mark)
    return before, behind


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    chatglm3 = tokenizer.chat_template == chatglm_tokenizer.TEMPLATE
    segments = chatglm_tokenizer.segments(text) if chatglm3 else [text]
    return tuple(i for part in segments if part for i in tokenizer(part, add_special_tokens=False)["input_ids"])


def _refuse_control(tokenizer: Any, rubric: Rubric) -> None:
    words = [rubric.criteria, rubric.good, rubric.bad]
    words += [text for category in rubric.categories for text in (category.code, category.name, category.description)]
    control = [token for token in tokenizer.added_tokens_encoder if not token.isspace()]
    spelled = sorted({token for token in control for word in words if token in word})
    if spelled:
        raise ConfigError(f"the rubric spells a control token of the base, {spelled[0]!r}; write it in other words")
