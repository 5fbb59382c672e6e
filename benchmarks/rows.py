"""What the benchmarks of scoring share: rows of the shared corpus, or of this machine, and a judge to score them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from quality_judge.config import conf_folder, load_judge_config
from quality_judge.demo import demo_labels, gather_corpus
from quality_judge.judge import Judge, load_judge
from quality_judge.labels import LabelSet, clean_labels, load_labels
from quality_judge.train.fit import fit_judge
from quality_judge.train.save import draft_judge

SHARED_CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "corpus"
SHORT_LABELS = 100


def corpus_folder(given: Path | None, scratch: Path) -> Path:
    """The corpus asked for, else the shared one, else one gathered from this machine under `scratch`."""
    if given is not None or SHARED_CORPUS.is_dir():
        return given or SHARED_CORPUS
    gather_corpus(scratch / "corpus")
    return scratch / "corpus"


def texts_of(corpus: Path, rows: int, seed: int = 0) -> list[str]:
    """`rows` texts of the corpus, chosen at random, in the order they stand."""
    column = [text for text in ds.dataset(corpus).to_table(columns=["text"]).column("text").to_pylist() if text]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(column))[:rows])
    return [column[index] for index in chosen]


def judge_of_demo_labels(folder: Path, settings: list[str], *, most: int | None = None) -> Judge:
    """A judge fitted as any other, with `settings` over the default ones, on the demo's labels or the first `most`."""
    config = load_judge_config(conf_folder() / "judges" / "default.yaml", settings)
    labels, _ = clean_labels(load_labels(demo_labels()))
    labels = LabelSet.of(labels.rows()[:most], labels.origins()[:most])
    return load_judge(draft_judge(folder, fit_judge(labels, config), config, labels).folder)


def frozen_judge(folder: Path, *, most: int | None = None) -> Judge:
    """A judge with a frozen MiniLM: the forward pass costs the same as for any other."""
    return judge_of_demo_labels(folder, ["train.method=frozen", "train.surface=false"], most=most)
