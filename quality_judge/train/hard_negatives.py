"""Labels with attacked copies: bad rows dressed up as training may see it, and all rows beside words of attacks.

A judge that has met the first is harder to please with words. The second come as twins, which mention words of attacks
and words of none in the same sentence, and are tied: training holds their scores together, so that the words alone say
nothing. It knows no attack or mention that is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quality_judge.attacks import dressed, mentioning, shipped_attacks
from quality_judge.engine.encode import Encoder
from quality_judge.labels import LabelSet
from quality_judge.samples import Sample
from quality_judge.train.examples import Examples, build_examples

DRESSED_SHARE = 0.25
ANY_TURN = 2**16  # far more than there are sentences, so that each is drawn about as often


@dataclass(frozen=True)
class Copies:
    """Attacked copies of samples. copied: the place of the sample that each is made of, int64 (copies,).

    twins: how many at the end are twins, two and two beside each other, that with words of attacks first.
    """

    samples: tuple[Sample, ...]
    copied: np.ndarray
    twins: int


def attacked_copies(samples: Sequence[Sample], *, seed: int) -> Copies:
    """Copies of DRESSED_SHARE of the bad samples, dressed up, and twins of every sample; the seed alone decides which.

    Shares and ties: benchmarks/NOTES.md.
    """
    dice = np.random.default_rng(seed)
    bad = dice.permutation([at for at, sample in enumerate(samples) if not sample.label]).astype(np.int64)
    bad = bad[: int(np.ceil(DRESSED_SHARE * len(bad)))]
    families = [family for family in shipped_attacks().families.values() if family.seen]
    copies = [
        _copy(samples[at], dressed(samples[at].completion, families[turn % len(families)], turn // len(families)))
        for turn, at in enumerate(bad)
    ]
    for sample in samples:
        turn = int(dice.integers(ANY_TURN))
        for trigger in (True, False):
            text = mentioning(sample.completion, turn, trigger=trigger, training=True)
            copies.append(_copy(sample, text))
    copied = np.concatenate([bad, np.repeat(np.arange(len(samples)), 2)])
    return Copies(tuple(copies), copied, 2 * len(samples))


def _copy(sample: Sample, text: str) -> Sample:
    return replace(sample, completion=text, id=None)


def with_attacked_copies(examples: Examples, labels: LabelSet, encoder: Encoder, *, seed: int) -> Examples:
    """The examples of `labels`, and behind them copies of its samples, each in the group of its original.

    So no fold parts them. Twins are one unit of two texts of one rank, which is a tie, and together weigh as much as
    their original. Without samples: `examples`.
    """
    copies = attacked_copies(labels.samples, seed=seed)
    if not copies.samples:
        return examples
    alone = LabelSet(samples=copies.samples, sample_origins=tuple(labels.sample_origins[at] for at in copies.copied))
    made = build_examples(alone, encoder, category_names=examples.category_names)
    groups = [examples.groups[at] for at in copies.copied]  # samples stand first, each a unit of one text
    first = len(groups) - copies.twins
    unit = np.concatenate([np.arange(first), first + np.arange(copies.twins) // 2])
    weight = examples.weight[copies.copied] / np.where(np.arange(len(groups)) < first, 1, 2)
    groups = groups[:first] + groups[first::2]
    return examples.with_behind(replace(made, weight=weight, unit=unit, groups=tuple(groups)))
