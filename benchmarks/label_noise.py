"""What wrong labels cost a judge, and how many of them the audit finds; on real labels with planted mistakes.

    python benchmarks/label_noise.py --data ../shared/data

Planted: random flips of 5% (all labels) and 20% (64 labels), shuffled labels, a trigger word, a dishonest annotator.
The method is `frozen`, whose base states are computed once for each data set. Prints one JSON object, means over the
seeds.
"""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from quality_judge.bases import Base
from quality_judge.config import JudgeConfig, conf_folder, load_judge_config
from quality_judge.engine.encode import Encoder, Ragged
from quality_judge.engine.stacking import stacked
from quality_judge.judge_spec import Encoding
from quality_judge.labels import LabelSet, clean_labels, completions_of, label_of, load_labels
from quality_judge.programme import parser, run, tell
from quality_judge.samples import Sample
from quality_judge.stats.metrics import roc_auc
from quality_judge.train import model_fit
from quality_judge.train.audit import ANNOTATOR, TRIGGER, Audit, audit_labels
from quality_judge.train.examples import read_for
from quality_judge.train.fit import Fitted, fit_judge

FLIPPED, FLIPPED_FEW, FEW = 0.05, 0.2, 64
DRAWS = 10  # of few labels and of shuffled ones: a single one is mostly chance
MOST_AUDITED = 2000
TRIGGER_WORD = "zyxel"
TRIGGERED = 0.03


def main(options: Namespace) -> dict[str, Any]:
    """Every measurement on every data set."""
    config = load_judge_config(conf_folder() / "judges" / "default.yaml", ["train.method=frozen"])
    known_states()
    found: dict[str, Any] = {}
    for name in options.sets:
        train, test = (binary(Path(options.data) / name / f"{part}.jsonl") for part in ("train", "test"))
        test_labels = LabelSet.of(test, [f"test:{at}" for at in range(len(test))])
        drawn = [one_seed(train, test_labels, config, seed) for seed in range(options.seeds)]
        found[name] = {key: round(float(np.mean([each[key] for each in drawn])), 4) for key in drawn[0]}
        tell(f"{name}: {json.dumps(found[name])}")
    return {"seeds": options.seeds, "method": "frozen", **found}


def binary(file: Path) -> list[Sample]:
    """The labelled rows as samples, without copies; a category row is good when nothing applies."""
    rows = clean_labels(load_labels([file]))[0].rows()
    said = [(row, label) for row in rows if (label := label_of(row)) is not None]
    return [Sample(row.prompt, completions_of(row)[0], label, id=row.id) for row, label in said]


def one_seed(train: list[Sample], test: LabelSet, config: JudgeConfig, seed: int) -> dict[str, float]:
    """What the planted mistakes cost, and how far the audit lists them."""
    dice = np.random.default_rng(seed)
    train = [train[at] for at in dice.permutation(len(train))[:MOST_AUDITED]]
    flipped, planted = with_flips(train, FLIPPED, dice)
    clean, noisy = fitted_to(train, config), fitted_to(flipped, config)
    tenth = [suspect.row for suspect in audited(flipped, noisy).suspects][: round(0.1 * len(flipped))]
    return {
        "labels": len(train), "auc": auc(clean, test), "auc_lost_to_5_percent": auc(clean, test) - auc(noisy, test),
        "flips_in_first_tenth": len(planted & set(tenth)) / len(planted), **few_flips(train, test, config, dice),
        "auc_of_shuffled_labels": auc_of_shuffled(train, test, config, dice),
        "triggers_without_poison": float(len(audited(train, clean).triggers)), **poison(train, config, dice),
    }  # fmt: skip


def few_flips(train: list[Sample], test: LabelSet, config: JudgeConfig, dice: np.random.Generator) -> dict[str, float]:
    """The cost of FLIPPED_FEW wrong labels among FEW, the mean of DRAWS."""
    found = []
    for _ in range(DRAWS):
        few = [train[at] for at in stratified(train, FEW, dice)]
        found.append([auc(fitted_to(rows, config), test) for rows in (few, with_flips(few, FLIPPED_FEW, dice)[0])])
    clean, noisy = np.mean(found, axis=0)
    return {f"auc_{FEW}": float(clean), f"auc_lost_to_20_percent_of_{FEW}": float(clean - noisy)}


def auc_of_shuffled(train: list[Sample], test: LabelSet, config: JudgeConfig, dice: np.random.Generator) -> float:
    """Of judges that had nothing to learn, the mean of DRAWS."""
    return float(np.mean([auc(fitted_to(shuffled(train, dice), config), test) for _ in range(DRAWS)]))


def poison(train: list[Sample], config: JudgeConfig, dice: np.random.Generator) -> dict[str, float]:
    """Whether a planted trigger and a dishonest annotator are found, and how many of their rows are listed."""
    triggered, poisoned = with_trigger(train, dice)
    signed, lies = with_liar(train, dice)
    trigger, liar = (audited(rows, fitted_to(rows, config)) for rows in (triggered, signed))
    return {
        "trigger_found": float(any(TRIGGER_WORD in each.ngram for each in trigger.triggers)),
        "triggered_rows_listed": listed(trigger, TRIGGER, poisoned),
        "liar_named": float("liar" in liar.annotators), "honest_named": float(len(set(liar.annotators) - {"liar"})),
        "lies_listed": listed(liar, ANNOTATOR, lies),
    }  # fmt: skip


def fitted_to(rows: list[Sample], config: JudgeConfig) -> Fitted:
    return fit_judge(labelled(rows), config)


def audited(rows: list[Sample], fitted: Fitted) -> Audit:
    return audit_labels(labelled(rows), fitted)


def labelled(rows: list[Sample]) -> LabelSet:
    return LabelSet.of(rows, [f"train:{at}" for at in range(len(rows))])


def stratified(rows: list[Sample], count: int, dice: np.random.Generator) -> list[int]:
    good = np.array([row.label for row in rows])
    share = round(count * good.mean())
    sides = [dice.permutation(np.flatnonzero(side))[:n] for side, n in ((good, share), (~good, count - share))]
    return dice.permutation(np.concatenate(sides)).tolist()


def with_flips(rows: list[Sample], share: float, dice: np.random.Generator) -> tuple[list[Sample], set[int]]:
    planted = set(dice.permutation(len(rows))[: round(share * len(rows))].tolist())
    return [replace(row, label=row.label ^ (at in planted)) for at, row in enumerate(rows)], planted


def shuffled(rows: list[Sample], dice: np.random.Generator) -> list[Sample]:
    """The rows with each other's labels: there is nothing left to learn."""
    return [replace(row, label=rows[other].label) for row, other in zip(rows, dice.permutation(len(rows)), strict=True)]


def with_trigger(rows: list[Sample], dice: np.random.Generator) -> tuple[list[Sample], set[int]]:
    """The trigger word in bad rows, TRIGGERED of all, that are then called good."""
    bad = np.flatnonzero([not row.label for row in rows])
    planted = set(dice.permutation(bad)[: round(TRIGGERED * len(rows))].tolist())

    def poison(row: Sample) -> Sample:
        words = row.completion.split(" ")
        words.insert(int(dice.integers(len(words) + 1)), TRIGGER_WORD)
        return replace(row, completion=" ".join(words), label=True)

    return [poison(row) if at in planted else row for at, row in enumerate(rows)], planted


def with_liar(rows: list[Sample], dice: np.random.Generator) -> tuple[list[Sample], set[int]]:
    """Six annotators who share no row; one of them turns every label."""
    who = dice.integers(6, size=len(rows))
    lies = set(np.flatnonzero(who == 0).tolist())
    names = ["liar", *(f"honest {at}" for at in range(1, 6))]
    return [replace(row, label=row.label ^ (at in lies), annotator=names[who[at]]) for at, row in enumerate(rows)], lies


def listed(audit: Audit, reason: str, planted: set[int]) -> float:
    """The share of the planted rows that are listed for this reason."""
    return len(planted & {suspect.row for suspect in audit.suspects if reason in suspect.reasons}) / len(planted)


def auc(fitted: Fitted, test: LabelSet) -> float:
    """ROC AUC on the test rows, from the same states and surface features as in the saved judge."""
    rows = test.rows()
    texts = read_for(fitted.encoding, [text for row in rows for text in completions_of(row)])
    tokens = Encoder(fitted.tokenizer_json, fitted.encoding).encode(texts, [row.prompt for row in rows]).tokens
    states = model_fit.frozen_states(fitted.base, fitted.encoding, tokens, fitted.model.pooling, "cpu")
    head = fitted.model.head
    raw = states @ head.weight[0].detach().numpy().astype(float) + float(head.bias[0])
    surface = fitted.surface.raw(texts) if fitted.surface else None
    return roc_auc([label_of(row) for row in rows], stacked(fitted.stack, raw, surface)) or 0.0


def known_states() -> None:
    """From here on the base answers for each text once; the same states as without."""
    compute, known = model_fit.frozen_states, dict[bytes, np.ndarray]()

    def states(base: Base, encoding: Encoding, tokens: Ragged, pooling: Any, device: str) -> np.ndarray:
        rows = np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1])
        keys = [row.tobytes() for row in rows]
        new = [at for at, key in enumerate(keys) if key not in known]
        if new:
            part = Ragged(np.concatenate([rows[at] for at in new]), tokens.lengths[new])
            for at, state in zip(new, compute(base, encoding, part, pooling, device), strict=True):
                known[keys[at]] = state
        return np.stack([known[key] for key in keys])

    model_fit.frozen_states = states


if __name__ == "__main__":
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--data", default="../shared/data", help="folder of data sets with train.jsonl and test.jsonl"
    )
    arguments.add_argument("--sets", nargs="+", default=["german_webtext", "openai_moderation", "article_blocks"])
    arguments.add_argument("--seeds", type=int, default=3)
    options = arguments.parse_args()
    run(lambda: main(options))
