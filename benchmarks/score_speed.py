"""How fast the engine scores, against the loop most people put into a pandas UDF; same model, rows and threads.

    python benchmarks/score_speed.py [--corpus FOLDER] [--rows 2000] [--rounds 5] [--output benchmarks/score_speed.json]

The peer: transformers tokenizer, batches of 32 in order of arrival, padded to the longest, float32, torch's own
threads. Rounds are interleaved and medians are compared; the first round warms up and does not count. The corpus is
../shared/data/corpus where it is there, else text of this machine. Prints ratios, never a lone time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import torch

from quality_judge.bases import find_base
from quality_judge.config import conf_folder, load_judge_config
from quality_judge.demo import demo_labels, gather_corpus
from quality_judge.engine.scorer import load_scorer
from quality_judge.engine.weights import load_model, load_tokenizer
from quality_judge.judge import load_judge
from quality_judge.labels import clean_labels, load_labels
from quality_judge.train.fit import fit_judge
from quality_judge.train.save import draft_judge

SHARED_CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "corpus"
PEER_BATCH = 32


def texts_of(corpus: Path, rows: int, seed: int = 0) -> list[str]:
    """`rows` texts of the corpus, chosen at random, in the order they stand."""
    column = [text for text in ds.dataset(corpus).to_table(columns=["text"]).column("text").to_pylist() if text]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(column))[:rows])
    return [column[index] for index in chosen]


def trained_judge(scratch: Path):
    """A judge on the demo's labels with a frozen base: the forward pass costs the same as for any other."""
    config = load_judge_config(
        conf_folder() / "judges" / "default.yaml", ["train.method=frozen", "train.surface=false"]
    )
    labels, _ = clean_labels(load_labels(demo_labels()))
    return draft_judge(scratch, fit_judge(labels, config), config, labels)


class Peer:
    """Arrival order, 32 at a time, padded to the longest, float32."""

    def __init__(self, judge) -> None:
        self.model = load_model(judge)
        self.tokenizer = load_tokenizer(find_base(judge.spec.base.id))
        self.max_tokens = judge.spec.encoding.max_tokens

    @torch.inference_mode()
    def score(self, texts: list[str]) -> np.ndarray:
        parts = []
        for at in range(0, len(texts), PEER_BATCH):
            batch = self.tokenizer(
                texts[at : at + PEER_BATCH],
                truncation=True,
                max_length=self.max_tokens,
                padding=True,
                return_tensors="pt",
            )
            parts.append(self.model(batch["input_ids"], batch["attention_mask"].sum(1))[:, 0].numpy())
        return np.concatenate(parts)


def main() -> None:
    """Measures, prints the table, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "score_speed.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        corpus = options.corpus or (SHARED_CORPUS if SHARED_CORPUS.is_dir() else None)
        if corpus is None:
            corpus = scratch / "corpus"
            gather_corpus(corpus)
        judge = load_judge(trained_judge(scratch / "judge").folder)
        texts = texts_of(corpus, options.rows)
        ours = {
            name: load_scorer(judge, precision=dtype)
            for name, dtype in (("engine", None), ("engine float32", torch.float32))
        }
        runs = {name: (lambda s=scorer: s.score(texts).raw) for name, scorer in ours.items()}
        peer = Peer(judge)
        runs["batches of 32"] = lambda: peer.score(texts)
        seconds, answers = {name: [] for name in runs}, {}
        for _ in range(options.rounds + 1):
            for name, run in runs.items():
                started = time.perf_counter()
                answers[name] = run()
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    ratios = {name: medians["batches of 32"] / median for name, median in medians.items()}
    order = float(np.corrcoef(answers["engine"], answers["engine float32"])[0, 1])
    result = {
        "rows": len(texts), "corpus": "shared" if corpus == SHARED_CORPUS else "this machine", "rounds": options.rounds,
        "times_as_fast_as_batches_of_32": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "precision": ours["engine"].precision, "correlation_of_scores_with_float32": round(order, 5),
        "threads": torch.get_num_threads(), "machine": platform.machine(), "torch": torch.__version__,
    }  # fmt: skip
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
