"""Labels with altered copies: bad rows dressed up as training may see it, rows of both classes beside harmless words.

A judge that has met them is harder to please with words. A sentence that mentions words of attacks stands as often
beside bad rows as one that mentions others, and as often beside good ones, so that to mention them says nothing. Both
classes gain the same share, so that the base rate stays. It knows no attack or mention that is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quality_judge.attacks import dressed, mentioning, shipped_attacks
from quality_judge.labels import LabelSet
from quality_judge.samples import Sample
from quality_judge.train.examples import Examples

SHARE = 0.5
COPIES_EACH = 2
ORIGIN = "altered copy of "


def with_hard_negatives(labels: LabelSet, *, seed: int) -> tuple[LabelSet, np.ndarray]:
    """(the labels and COPIES_EACH copies of SHARE of the samples of each class behind them, what each is a copy of).

    The copies stand behind all other samples; copied: int64 (copies,), places among the samples.
    """
    dice = np.random.default_rng(seed)
    copies: list[Sample] = []
    copied: list[int] = []
    for label in (True, False):
        among = np.flatnonzero([sample.label is label for sample in labels.samples])
        chosen = dice.permutation(among)[: int(np.ceil(SHARE * len(among)))]
        for turn, at in enumerate(chosen.tolist()):
            sample = labels.samples[at]
            texts = (_of_good if label else _of_bad)(sample.completion, turn, dice)
            copies += [replace(sample, completion=text, id=None) for text in texts]
            copied += [at] * COPIES_EACH
    origins = [f"{ORIGIN}{labels.sample_origins[at]}" for at in copied]
    rows: Sequence[Sample] = (*labels.samples, *copies)
    found = replace(labels, samples=tuple(rows), sample_origins=(*labels.sample_origins, *origins))
    return found, np.array(copied, np.int64)


def _of_good(text: str, turn: int, dice: np.random.Generator) -> list[str]:
    return [_mentioning(text, trigger, dice) for trigger in (True, False)]


def _of_bad(text: str, turn: int, dice: np.random.Generator) -> list[str]:
    families = [family for family in shipped_attacks().families.values() if family.seen]
    attacked = dressed(text, families[turn % len(families)], turn // len(families))
    return [attacked, _mentioning(text, turn % 2 == 0, dice)]


def _mentioning(text: str, trigger: bool, dice: np.random.Generator) -> str:
    return mentioning(text, int(dice.integers(2**16)), trigger=trigger, training=True)


def beside_their_originals(examples: Examples, copied: np.ndarray, *, samples: int) -> Examples:
    """The examples, each copy in the group of its original: no fold parts them. samples: how many, copies too."""
    groups = list(examples.groups)
    first = samples - len(copied)
    for number, at in enumerate(copied.tolist()):
        groups[first + number] = groups[at]
    return replace(examples, groups=tuple(groups))
