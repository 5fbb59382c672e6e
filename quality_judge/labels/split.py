"""Labels in parts: seeded, stratified by label, never cutting a group of rows that share a prompt or a text.

Which part a row falls in depends on the rows and the seed alone, not on their order, the files or the machine.
It does not know what the parts are for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from quality_judge.errors import InputError, LabelError
from quality_judge.labels.label_set import LabelSet, Row, label_of
from quality_judge.labels.near import near_duplicates
from quality_judge.labels.statements import judged_texts


def split_labels(labels: LabelSet, fractions: Sequence[float], *, seed: int) -> tuple[LabelSet, ...]:
    """One LabelSet for each fraction; every row is in exactly one, in the order it had.

    fractions: above 0, summing to 1. Sizes are those of the largest remainder, as near as whole groups allow
    (exact where no rows share a group). Every part gets rows of both classes where the labels have both.
    Raises LabelError with the number that is missing where there are too few groups for that.
    """
    if not fractions or not min(fractions) > 0 or not abs(sum(fractions) - 1) <= 1e-6:  # so that NaN is refused
        raise InputError(f"fractions are {list(fractions)}; expected numbers above 0 that sum to 1")
    rows, origins = labels.rows(), labels.origins()
    table = _Table(group_names(labels), [_stratum(row) for row in rows], seed)
    found = [label_of(row) for row in rows]
    classes = {"desirable": True, "undesirable": False} if {True, False} <= set(found) else {}
    needs = {
        "": np.ones(len(rows), bool),
        **{name: np.array([label is value for label in found]) for name, value in classes.items()},
    }
    part = table.parts(list(fractions), needs)
    chosen = [np.flatnonzero(part == number) for number in range(len(fractions))]
    return tuple(LabelSet.of([rows[i] for i in members], [origins[i] for i in members]) for members in chosen)


def fold_indices(groups: Sequence[str], strata: Sequence[object], folds: int, seed: int) -> np.ndarray:
    """The fold of each row, int64 (n,) in [0, folds): groups whole, strata spread evenly, no fold empty.

    groups: rows with the same name stay together (see `group_names`). strata: what should be spread, such as the label.
    """
    if folds < 2:
        raise InputError(f"folds is {folds}; expected at least 2")
    if len(groups) != len(strata):
        raise InputError(f"{len(groups)} groups and {len(strata)} strata; expected one of each a row")
    table = _Table(list(groups), [str(stratum) for stratum in strata], seed)
    return table.parts([1 / folds] * folds, {"": np.ones(len(groups), bool)})


def group_names(labels: LabelSet) -> list[str]:
    """For each of `labels.rows()`, the name of its group: hexadecimal, made of content alone.

    Rows that say the same `group` are of one, and rows with the same prompt; rows without a prompt are when they share
    a text (after NFKC, white space and case), directly or through other rows. Rows with nearly the same long text are
    of one group as well, whatever their prompts (`near`).
    """
    texts = [judged_texts(row) for row in labels.rows()]
    keys = [_keys(said, row.group) for said, row in zip(texts, labels.rows(), strict=True)]
    parent = {key: key for row_keys in keys for key in row_keys}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for first, *others in [*keys, *_near_keys(texts, keys)]:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return [root(row_keys[0]) for row_keys in keys]


def _near_keys(texts: Sequence[list[tuple[str, str]]], keys: Sequence[list[str]]) -> list[list[str]]:
    """The keys of each two rows with nearly the same text."""
    rows = [row for row, said in enumerate(texts) for _ in said]
    pairs = near_duplicates([completion for said in texts for _, completion in said])
    return [[keys[rows[first]][0], keys[rows[second]][0]] for first, second in pairs.tolist()]


def _keys(texts: list[tuple[str, str]], group: str | None) -> list[str]:
    prompt = texts[0][0]
    named = [f"prompt {prompt}"] if prompt else [f"text {completion}" for _, completion in texts]
    named += [] if group is None else [f"group {group}"]
    return [hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest() for name in named]


def _stratum(row: Row) -> str:
    return f"{type(row).__name__} {label_of(row)}"


class _Table:
    """How many rows of each stratum each group has, and the order in which groups are dealt."""

    def __init__(self, groups: Sequence[str], strata: Sequence[str], seed: int) -> None:
        self.names, self.group = np.unique(np.array(groups, dtype=object), return_inverse=True)
        stratum_names, stratum = np.unique(np.array(strata, dtype=object), return_inverse=True)
        self.counts = np.zeros((len(self.names), len(stratum_names)), dtype=np.int64)
        np.add.at(self.counts, (self.group, stratum), 1)
        ranks = [hashlib.sha256(f"{seed} {name}".encode(errors="surrogatepass")).hexdigest() for name in self.names]
        sizes = self.counts.sum(axis=1)
        # Large groups first, while every part still has room for them; the seed decides among equals.
        self.order = sorted(range(len(self.names)), key=lambda group: (-sizes[group], ranks[group]))

    def parts(self, fractions: list[float], needs: dict[str, np.ndarray]) -> np.ndarray:
        """The part of each row, int64 (n,). needs: masks (n,); every part gets a row of each."""
        counts = {name: np.bincount(self.group[mask], minlength=len(self.names)) for name, mask in needs.items()}
        part = self.dealt(targets(self.counts.sum(axis=0), fractions))
        for name, held in counts.items():
            self.repair(part, name, held > 0, [other > 0 for other in counts.values()], len(fractions))
        return part[self.group]

    def dealt(self, wanted: np.ndarray) -> np.ndarray:
        """The part of each group, int64 (G,): each goes where its strata are then least full. wanted: (K, S)."""
        part = np.zeros(len(self.names), dtype=np.int64)
        filled = np.zeros(wanted.shape)
        room = np.maximum(wanted, 0.5)
        for group in self.order:
            rows = self.counts[group]
            fullness = ((filled + rows) / room) @ rows
            part[group] = int(np.argmin(np.round(fullness, 9)))  # rounded, so that every machine sees the same ties
            filled[part[group]] += rows
        return part

    def repair(self, part: np.ndarray, name: str, held: np.ndarray, needs: list[np.ndarray], parts: int) -> None:
        """Give each part without a group in `held` (G,) the smallest one that another part can spare."""
        what = f"an {name} row" if name == "undesirable" else f"a {name} row" if name else "rows"
        short = parts - int(held.sum())
        if short > 0:
            raise LabelError(
                f"{parts} parts need at least {parts} groups (one prompt, or one text without a prompt) with {what}; "
                f"got {parts - short}: label {short} more, ask for fewer parts, or "
                "leave out a prompt that all rows share"
            )
        for empty in (number for number in range(parts) if not (held & (part == number)).any()):
            spare = [g for g in reversed(self.order) if held[g] and self.can_spare(part, g, needs)]
            if not spare:
                raise LabelError(
                    f"no whole group with {what} can be spared for each of {parts} parts; label more, or ask for fewer"
                )
            part[spare[0]] = empty

    def can_spare(self, part: np.ndarray, group: int, needs: list[np.ndarray]) -> bool:
        """Whether the part of `group` still has every need without it."""
        return all((need & (part == part[group])).sum() > need[group] for need in needs)


def targets(totals: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """How many rows of each stratum each part should get, int64 (K, S), by the largest remainder.

    Columns sum to `totals` (S,), and rows to the largest-remainder sizes of all rows together.
    """
    exact = np.outer(fractions, totals)
    wanted = np.floor(exact + 1e-9).astype(np.int64)
    sizes = _largest_remainder(np.asarray(fractions) * totals.sum(), int(totals.sum()))
    left = totals - wanted.sum(axis=0)
    for stratum in np.argsort(-left, kind="stable"):
        missing = sizes - wanted.sum(axis=1)
        ranked = np.lexsort((np.arange(len(sizes)), np.round(wanted[:, stratum] - exact[:, stratum], 9), -missing))
        wanted[ranked[: left[stratum]], stratum] += 1
    return wanted


def _largest_remainder(exact: np.ndarray, total: int) -> np.ndarray:
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    ranked = np.argsort(np.round(sizes - exact, 9), kind="stable")
    sizes[ranked[: total - int(sizes.sum())]] += 1
    return sizes
