"""The table of `training.py`: means over seeds with the mean of their intervals, targets, and who is best where."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

TARGETS = {
    ("query_wellformed", "200"): 0.68, ("query_wellformed", "all"): 0.88, ("german_webtext", "200"): 0.79,
    ("german_webtext", "all"): 0.84, ("cold_zh", "200"): 0.78, ("cold_zh", "all"): 0.89,
    ("article_blocks", "200"): 0.84, ("article_blocks", "all"): 0.90, ("gsm8k_solutions", "all"): 0.66,
    ("openai_moderation", "200"): 0.82, ("convarg", "all"): 0.83,
}  # fmt: skip
OURS = ("ours", "ours_unlabelled")
BASELINES = ("tfidf_logistic", "frozen_base", "length_only")
ORDER = ("64", "200", "600", "all")


def write_table(known: dict, path: Path) -> None:
    """Writes the Markdown table of all cells to `path`."""
    cells = defaultdict(list)
    for cell in known["cells"]:
        cells[cell["set"], cell["size"], cell["method"]].append(cell)
    methods = list(dict.fromkeys([*OURS, *BASELINES, *(cell["method"] for cell in known["cells"])]))
    methods = [method for method in methods if any(key[2] == method for key in cells)]
    lines = [
        "# Judges against what else could be done with the same labels", "",
        "Written by `make bench-training`. Test ROC AUC (pair accuracy for convarg), mean over seeds; in brackets the"
        " mean of the 95% bootstrap intervals over test rows. **Bold**: the best. Labels: how many were learnt from."
        " gsm8k_solutions is on SmolLM2, which is not fine-tuned there. trl_kto is on SmolLM2."
        " ours_unlabelled has the texts of all training labels beside it, without what was said of them; it counts"
        " neither as a peer nor for a target."
        + (" With more than 200 labels setfit learns from five pairs a label." if "setfit" in methods else ""),
        "", f"Machine: {', '.join(f'{key} {value}' for key, value in known['machine'].items())}.", "",
        "| set | labels | seeds | " + " | ".join(methods) + " | target |",
        "|---|---|---|" + "---|" * (len(methods) + 1),
    ]  # fmt: skip
    lines += [_row(cells, *place, methods) for place in _places(cells)]
    path.write_text("\n".join([*lines, "", *_standing(cells, methods), ""]))


def _places(cells: dict) -> list[tuple[str, str]]:
    found = {(key[0], key[1]) for key in cells}
    return sorted(found, key=lambda place: (place[0], ORDER.index(place[1]) if place[1] in ORDER else -1))


def _row(cells: dict, name: str, size: str, methods: list[str]) -> str:
    means = {method: _mean(cells[name, size, method]) for method in methods if cells[name, size, method]}
    best, seeds = max(means.values()), len(cells[name, size, "ours"])
    shown = []
    for method in methods:
        if method not in means:
            shown.append("—")
            continue
        low, high = np.mean([cell["ci"] for cell in cells[name, size, method]], axis=0)
        text = f"{means[method]:.3f}"
        of = "" if len(cells[name, size, method]) == seeds else f" ({len(cells[name, size, method])} seed)"
        shown.append((f"**{text}**" if means[method] == best else text) + f" [{low:.2f}, {high:.2f}]{of}")
    target = TARGETS.get((name, size))
    reached = "" if target is None else f"{target:.2f} {'reached' if means.get('ours', 0) >= target else 'missed'}"
    return f"| {name} | {size} | {seeds} | " + " | ".join(shown) + f" | {reached} |"


def _ahead(ours: list[dict], theirs: list[dict]) -> float:
    """By how much ours is above theirs on the seeds that both have."""
    values = [{cell["seed"]: cell["value"] for cell in cells} for cells in (ours, theirs)]
    return float(np.mean([values[0][seed] - values[1][seed] for seed in values[0].keys() & values[1].keys()]))


def _mean(cells: list[dict]) -> float:
    return float(np.mean([cell["value"] for cell in cells]))


def _standing(cells: dict, methods: list[str]) -> list[str]:
    """In how many places ours is first, inside the interval of the first, or under its best baseline by over .005."""
    first, inside, under, places = 0, 0, [], 0
    for name, size in _places(cells):
        ours = cells[name, size, "ours"]
        lead = {m: _ahead(ours, cells[name, size, m]) for m in methods if m not in OURS and cells[name, size, m]}
        if not ours or not lead:
            continue
        places += 1
        room = float(np.mean([cell["ci"][1] - cell["value"] for cell in ours]))
        first += min(lead.values()) >= 0
        inside += -room <= min(lead.values()) < 0
        behind = -min((lead[m] for m in BASELINES if m in lead), default=0.0)
        if behind > 0.005:
            under.append(f"{name} at {size} by {behind:.3f}")
    said = f"Of {places} places ours is first in {first} and has the first inside its interval in {inside} more. "
    return [said + (f"Under its best baseline by more than .005: {'; '.join(under)}." if under else
                    "Nowhere under its best baseline by more than .005.")]  # fmt: skip
