"""How far annotators agree, and what the truth behind their verdicts probably is; arithmetic on arrays of votes.

Krippendorff's alpha and Cohen's kappa say how far people agree beyond chance. Dawid and Skene's model learns how often
each annotator is right from how they contradict one another, and so how much each verdict is worth.
It knows nothing of rows, texts or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from quality_judge.errors import InputError

# Two right verdicts and one wrong one, as if seen before: nobody is perfect, and better than a coin until shown not to
# be. The steps below then climb the posterior under Beta(3, 2), and the labels cannot swap their meaning.
PRIOR_RIGHT, PRIOR_WRONG = 2.0, 1.0
MAX_STEPS = 500
TOLERANCE = 1e-8


@dataclass(frozen=True)
class Annotators:
    """What the votes say. probability: P(true) of each item, float64 (I,). base_rate: P(true) of an item nobody saw.

    sensitivity, specificity: P(says true | true) and P(says false | false) of each annotator, float64 (A,), in (0, 1).
    informedness_sd: standard deviation of sensitivity + specificity - 1, float64 (A,).
    """

    probability: np.ndarray
    sensitivity: np.ndarray
    specificity: np.ndarray
    informedness_sd: np.ndarray
    base_rate: float

    @property
    def informedness(self) -> np.ndarray:
        """Sensitivity + specificity - 1 (Youden's J), float64 (A,): 1 is always right, 0 a coin, -1 always wrong."""
        return self.sensitivity + self.specificity - 1

    def weigh(self, item: np.ndarray, annotator: np.ndarray, says: np.ndarray, *, items: int) -> np.ndarray:
        """P(true) of each of other items, float64 (items,), from votes of these annotators."""
        return _weighed(item, annotator, says, items, (self.sensitivity, self.specificity, self.base_rate))


def dawid_skene(
    item: np.ndarray, annotator: np.ndarray, says: np.ndarray, *, items: int | None = None,
    annotators: int | None = None,
) -> Annotators:  # fmt: skip
    """The annotators and items behind V votes, by expectation maximisation (Dawid & Skene 1979, binary).

    item, annotator: index of each vote, int (V,). says: the verdict, bool (V,). Raises InputError without votes.
    """
    item, annotator, says = np.asarray(item), np.asarray(annotator), np.asarray(says, bool)
    if not len(item) == len(annotator) == len(says) > 0:
        raise InputError(f"{len(item)} items, {len(annotator)} annotators, {len(says)} verdicts; expected one of each")
    n_items = int(item.max()) + 1 if items is None else items
    n_annotators = int(annotator.max()) + 1 if annotators is None else annotators
    said_true = np.bincount(item, says, n_items)
    probability = (said_true + 0.5) / (np.bincount(item, minlength=n_items) + 1)
    for _ in range(MAX_STEPS):
        known = _parameters(probability, item, annotator, says, n_annotators)
        before, probability = probability, _weighed(item, annotator, says, n_items, known)
        if np.abs(probability - before).max() < TOLERANCE:
            break
    sensitivity, specificity, base_rate = _parameters(probability, item, annotator, says, n_annotators)
    true_votes = np.bincount(annotator, probability[item], n_annotators)
    false_votes = np.bincount(annotator, 1 - probability[item], n_annotators)
    variance = _variance(sensitivity, true_votes) + _variance(specificity, false_votes)
    return Annotators(probability, sensitivity, specificity, np.sqrt(variance), base_rate)


def krippendorff_alpha(ratings: np.ndarray) -> float | None:
    """Agreement beyond chance of any number of annotators, nominal (Krippendorff 2011); None where it is undefined.

    ratings: float (annotators, items), NaN where an annotator said nothing. 1 is full agreement, 0 is chance. It is
    undefined where no item has two verdicts, or where all verdicts are the same.
    """
    values, code = np.unique(ratings[~np.isnan(ratings)], return_inverse=True)
    counts = np.zeros((ratings.shape[1], len(values)))
    np.add.at(counts, (np.nonzero(~np.isnan(ratings))[1], code), 1)
    said = counts.sum(axis=1)
    counts, said = counts[said >= 2], said[said >= 2]
    total, margin = said.sum(), counts.sum(axis=0)
    expected = (total**2 - (margin**2).sum()) / (total - 1) if total > 1 else 0.0
    if not expected > 0:
        return None
    observed = ((said**2 - (counts**2).sum(axis=1)) / (said - 1)).sum()
    return float(1 - observed / expected)


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Agreement beyond chance of two annotators, nominal (Cohen 1960), on the items that both judged.

    first, second: float (items,), NaN where one said nothing. None without such items, or where both say one thing.
    """
    both = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[both], second[both]
    if not len(first):
        return None
    values = np.unique(np.concatenate([first, second]))
    expected = sum(float((first == value).mean() * (second == value).mean()) for value in values)
    return None if expected >= 1 else float(((first == second).mean() - expected) / (1 - expected))


def _parameters(
    probability: np.ndarray, item: np.ndarray, annotator: np.ndarray, says: np.ndarray, annotators: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Sensitivity, specificity, base rate, given P(true) of each item."""
    true, false = probability[item], 1 - probability[item]
    prior = PRIOR_RIGHT + PRIOR_WRONG
    sensitivity = (np.bincount(annotator, true * says, annotators) + PRIOR_RIGHT) / (
        np.bincount(annotator, true, annotators) + prior
    )
    specificity = (np.bincount(annotator, false * ~says, annotators) + PRIOR_RIGHT) / (
        np.bincount(annotator, false, annotators) + prior
    )
    return sensitivity, specificity, float((probability.sum() + 1) / (len(probability) + 2))


def _weighed(
    item: np.ndarray, annotator: np.ndarray, says: np.ndarray, items: int, known: tuple[np.ndarray, np.ndarray, float]
) -> np.ndarray:
    """P(true) of each item, given what is known of the annotators."""
    sensitivity, specificity, base_rate = known
    if_true = np.log(sensitivity) - np.log1p(-specificity)
    if_false = np.log1p(-sensitivity) - np.log(specificity)
    evidence = np.bincount(item, np.where(says, if_true[annotator], if_false[annotator]), items)
    return np.asarray(expit(logit(base_rate) + evidence))


def _variance(rate: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Of a rate that is the mean of a Beta distribution over so many votes and the prior."""
    return rate * (1 - rate) / (votes + PRIOR_RIGHT + PRIOR_WRONG + 1)
