"""How a verdict is read from a model in one forward pass: a trie over all spellings of the good and the bad word.

A branch of the trie that holds words of one side only is a leaf: who enters it has said that word. So only the nodes
that lie before a decision are read, and as long as they stand in one row, the tokens between them can be forced behind
the prompt. At each node the probability is renormalised over the node's own branches, so that a handful of rows of the
output layer suffice. It knows nothing of prompts, models or tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from quality_judge.errors import ConfigError
from quality_judge.judge_spec import Verdict, VerdictStep, WrittenCodes
from quality_judge.rubric import Rubric

Ids = tuple[int, ...]


@dataclass
class _Node:
    good: bool = False
    bad: bool = False
    children: dict[int, _Node] = field(default_factory=dict)


def compiled_verdict(rubric: Rubric, tokenizer: Tokenizer, *, end: int | None, opening: Ids = ()) -> Verdict:
    """The reading of the rubric's two words with `tokenizer`, which encodes content only.

    end: the token that ends a turn. opening: what the model writes before its verdict. As many spellings are read as
    can be told apart where the verdict begins, at least the words as they stand. Raises ConfigError when not even those
    can be told apart in one forward pass.
    """
    found = []
    for good_words, bad_words in zip(spellings(rubric.good), spellings(rubric.bad), strict=True):
        good, bad = _spelled(good_words, tokenizer), _spelled(bad_words, tokenizer)
        steps = reading(tuple(dict.fromkeys(good.values())), tuple(dict.fromkeys(bad.values())), end=end)
        if steps is not None:
            found.append(Verdict(good=tuple(good), bad=tuple(bad), opening=opening, steps=steps))
    if found:
        return min(found, key=lambda verdict: len(verdict.steps))  # the first of equals has the most spellings
    raise ConfigError(
        f"the verdict words {rubric.good!r} and {rubric.bad!r} cannot be told apart by this base's tokenizer; change "
        "good or bad in the rubric so that neither is the beginning of the other"
    )


def spellings(word: str) -> tuple[tuple[str, ...], ...]:
    """Sets of spellings of a verdict word, the fullest first, the last the word alone.

    A model may write it after a space and with a capital; both count as the same verdict wherever they can be read.
    """
    capital = word[:1].upper() + word[1:]
    plain, spaced = (word,), (word, f" {word}")
    return (tuple(dict.fromkeys((*spaced, capital, f" {capital}"))), spaced, plain)


def written_codes_of(rubric: Rubric, tokenizer: Tokenizer, *, end: int) -> WrittenCodes:
    """How an answer that names the rubric's categories is spelled: the bad word, a line break, codes after commas."""

    def behind(mark: str) -> tuple[Ids, ...]:
        return tuple(tuple(tokenizer.encode(mark + c.code, add_special_tokens=False).ids) for c in rubric.categories)

    bad = tuple(tokenizer.encode(rubric.bad, add_special_tokens=False).ids)
    return WrittenCodes(bad=bad, first=behind("\n"), next=behind(","), end=end)


def reading(good: Sequence[Ids], bad: Sequence[Ids], *, end: int | None) -> tuple[VerdictStep, ...] | None:
    """The steps that read these spellings, ids without the end of the turn; None when one pass cannot read them.

    It cannot where two branches side by side both hold good and bad words, where a word is spelled like one of the
    other side, or where a word begins another of the other side and there is no `end` to tell them apart.
    """
    root = _Node()
    for words, is_good in ((good, True), (bad, False)):
        for ids in words:
            _insert(root, ids if end is None else (*ids, end), is_good=is_good)
    steps, node = [], root
    while True:
        if not node.children or _ends_undecided(node):
            return None
        mixed = [token for token, child in node.children.items() if child.good and child.bad]
        if len(mixed) > 1:
            return None
        forced = mixed[0] if mixed else None
        steps.append(
            VerdictStep(
                good=tuple(token for token, child in node.children.items() if child.good and not child.bad),
                bad=tuple(token for token, child in node.children.items() if child.bad and not child.good),
                next=forced,
            )
        )
        if forced is None:
            return tuple(steps)
        node = node.children[forced]


def forced_ids(verdict: Verdict) -> Ids:
    """The tokens that stand behind the prompt in scoring: what the model writes first, then what both words share."""
    return (*verdict.opening, *(step.next for step in verdict.steps if step.next is not None))


def row_ids(verdict: Verdict) -> Ids:
    """The ids of the output layer's rows that are read, each once, in the order in which a judge saves them."""
    used = [token for step in verdict.steps for token in (*step.good, *step.bad, step.next) if token is not None]
    if verdict.written is not None:
        used += [token for ids in (*verdict.written.first, *verdict.written.next) for token in ids]
        used.append(verdict.written.end)
    return tuple(dict.fromkeys(used))


def first_ids(verdict: Verdict) -> Ids:
    """The ids a verdict can begin with: their probability is the coverage."""
    step = verdict.steps[0]
    return tuple(token for token in (*step.good, *step.bad, step.next) if token is not None)


def _insert(root: _Node, ids: Ids, *, is_good: bool) -> None:
    node = root
    for token in ids:
        node = node.children.setdefault(token, _Node())
        node.good, node.bad = node.good or is_good, node.bad or not is_good


def _ends_undecided(node: _Node) -> bool:
    """Whether a word ends here while words of the other side go on; only without an end of the turn to follow it."""
    below = [(child.good, child.bad) for child in node.children.values()]
    return node.good and node.bad and not (any(good for good, _ in below) and any(bad for _, bad in below))


def _spelled(words: Sequence[str], tokenizer: Tokenizer) -> dict[str, Ids]:
    """The ids of each spelling, the first of them the word itself; those the tokenizer cannot write are left out."""
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    found = {word: tuple(tokenizer.encode(word, add_special_tokens=False).ids) for word in words}
    known = {word: ids for word, ids in found.items() if ids and (unknown is None or unknown not in ids)}
    if words[0] not in known:
        raise ConfigError(f"this base's tokenizer cannot spell the verdict word {words[0]!r}; choose another word")
    return known
