"""Labels with attacked copies: bad rows dressed up as training may see it, good rows that mention such things.

A judge that has met them is harder to please with words; good rows mention them too, so that the words alone say less.
Both classes gain the same share, so that the base rate stays. It knows no attack or mention that is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quality_judge.attacks import dressed, mentioning, shipped_attacks
from quality_judge.labels import LabelSet
from quality_judge.samples import Sample
from quality_judge.train.examples import Examples

SHARE = 0.25
ANY_TURN = 2**16  # far more than there are sentences, so that each is drawn about as often
ORIGIN = "attacked copy of "


def with_hard_negatives(labels: LabelSet, *, seed: int) -> tuple[LabelSet, np.ndarray]:
    """(the labels and copies of SHARE of the samples of each class behind them, the sample each is a copy of).

    The copies stand behind all other samples; copied: int64 (copies,), places among the samples.
    """
    families = [family for family in shipped_attacks().families.values() if family.seen]
    dice = np.random.default_rng(seed)
    copies, copied = [], []
    for label in (True, False):
        among = np.flatnonzero([sample.label is label for sample in labels.samples])
        chosen = dice.permutation(among)[: int(np.ceil(SHARE * len(among)))]
        for turn, at in enumerate(chosen.tolist()):
            sample = labels.samples[at]
            family = families[turn % len(families)]
            text = (
                mentioning(sample.completion, int(dice.integers(ANY_TURN)), trigger=True, training=True)
                if label
                else dressed(sample.completion, family, turn // len(families))
            )
            copies.append(replace(sample, completion=text, id=None))
            copied.append(at)
    origins = [f"{ORIGIN}{labels.sample_origins[at]}" for at in copied]
    rows: Sequence[Sample] = (*labels.samples, *copies)
    found = replace(labels, samples=tuple(rows), sample_origins=(*labels.sample_origins, *origins))
    return found, np.array(copied, np.int64)


def beside_their_originals(examples: Examples, copied: np.ndarray, *, samples: int) -> Examples:
    """The examples, each copy in the group of its original: no fold parts them. samples: how many, copies too."""
    groups = list(examples.groups)
    first = samples - len(copied)
    for number, at in enumerate(copied.tolist()):
        groups[first + number] = groups[at]
    return replace(examples, groups=tuple(groups))
