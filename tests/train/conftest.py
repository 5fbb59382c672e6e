"""What the tests of training may use: synthetic labels with an easy signal, and judges fitted to them, once each.

Nothing here needs a network, and no row comes from a data set. It knows nothing of programmes.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from quality_judge.config import JudgeConfig
from quality_judge.labels import LabelSet
from quality_judge.samples import CategoryRow, Preference, Ranking, Sample

GOOD = ["water", "boils", "mountain", "air", "presses", "surface", "train", "question", "number", "temperature"]
BAD = ["click", "free", "price", "raises", "empty", "row", "function", "path", "begin", "mask"]
LETTERS = list("abcdefghij")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Every test computes with one thread, however many the machine has; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def label_set(rows):
    return LabelSet.of(rows, [f"made.jsonl:{line}" for line in range(1, len(rows) + 1)])


def text(dice, good, *, length=None):
    """Words that tell whether it is good, then letters that do not."""
    words = [*dice.choice(GOOD if good else BAD, 5), *dice.choice(LETTERS, length or dice.integers(2, 9))]
    return " ".join(words)


def samples(count, *, seed=0, prompt=""):
    dice = np.random.default_rng(seed)
    return [Sample(prompt, text(dice, line % 2 == 0), line % 2 == 0) for line in range(count)]


def preferences(count, *, seed=1):
    dice = np.random.default_rng(seed)
    return [Preference(f"question {line}", text(dice, True), text(dice, False)) for line in range(count)]


def rankings(count, *, seed=2):
    """Four texts of one prompt, each with more good words than the next."""
    dice = np.random.default_rng(seed)

    def mixed(good):
        return " ".join([*dice.choice(GOOD, good), *dice.choice(BAD, 6 - good), *dice.choice(LETTERS, 3)])

    return [Ranking(f"request {line}", tuple(mixed(good) for good in (6, 4, 2, 0))) for line in range(count)]


def category_rows(count, *, seed=3):
    """`advert` applies to half, `empty` was never looked at in a third of the rows."""
    dice = np.random.default_rng(seed)
    return [
        CategoryRow("", text(dice, line % 2 == 0), {"advert": line % 2 == 1, "empty": None if line % 3 else False})
        for line in range(count)
    ]


def mixed_rows():
    return [*samples(24), *preferences(12), *rankings(6), *category_rows(48)]


def judge_config(base, **train):
    settings = {"folds": 2, "epochs": 2, "batch_size": 8, "lora_rank": 4, "lora_alpha": 8, "surface": False}
    return JudgeConfig(name="tiny", base=str(base), max_tokens=32, train=settings | {"method": "lora"} | train)


@pytest.fixture(scope="session")
def made():
    """The makers of synthetic labels and settings, by name."""
    from types import SimpleNamespace

    return SimpleNamespace(
        label_set=label_set, text=text, samples=samples, preferences=preferences, rankings=rankings,
        category_rows=category_rows, mixed_rows=mixed_rows, judge_config=judge_config, good=GOOD, bad=BAD,
    )  # fmt: skip


@pytest.fixture(scope="session")
def encoder(tiny_base):
    """A function from a model type to the encoder of a judge on it."""
    from quality_judge.bases import find_base
    from quality_judge.engine.encode import Encoder, build_encoding
    from quality_judge.engine.weights import load_tokenizer

    def make(model_type="bert", *, max_tokens=32):
        base = find_base(str(tiny_base(model_type)))
        encoding, content = build_encoding(
            load_tokenizer(base), base.architecture, max_tokens=max_tokens, cut_at="head_tail", limit=128
        )
        return Encoder(content, encoding)

    return make


@pytest.fixture(scope="session")
def build(encoder, made):
    """A function from rows to the examples of them."""
    from quality_judge.train.examples import build_examples

    def build(rows, **options):
        return build_examples(made.label_set(rows), encoder(), **options)

    return build


@pytest.fixture(scope="session")
def fitted(tiny_base):
    """A function from a model type, rows and settings to (what was fitted, its settings, its labels); once each."""
    from quality_judge.train.fit import fit_judge

    known = {}

    def fit(model_type, rows="samples", **train):
        key = (model_type, rows, tuple(sorted(train.items())))
        if key not in known:
            found = {
                "samples": lambda: samples(60), "mixed": mixed_rows,
                "orders": lambda: [*preferences(20), *rankings(10)],
                "cut": lambda: [replace(ranking, cut=2) for ranking in rankings(10)],
            }[rows]()  # fmt: skip
            labels, config = label_set(found), judge_config(tiny_base(model_type), **train)
            known[key] = fit_judge(labels, config), config, labels
        return known[key]

    return fit


@pytest.fixture(scope="session")
def drafted(fitted, tmp_path_factory):
    """A function as `fitted`, to (the saved draft, what was fitted)."""
    from quality_judge.train.save import draft_judge

    known = {}

    def draft(model_type, rows="samples", **train):
        key = (model_type, rows, tuple(sorted(train.items())))
        if key not in known:
            found, config, labels = fitted(model_type, rows, **train)
            known[key] = draft_judge(tmp_path_factory.mktemp("judge"), found, config, labels), found
        return known[key]

    return draft
