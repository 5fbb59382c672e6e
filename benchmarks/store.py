"""What the store of scores saves: a corpus with 30% exact repeats, and a rerun with nothing new; same judge and cores.

    python benchmarks/store.py [--corpus FOLDER] [--rows 20000] [--rounds 3] [--output benchmarks/store.json]
    python benchmarks/store.py --rows 1500 --rounds 1 --output /tmp/store.json     # short form

Four runs in each round, interleaved, after one small run that warms up: as many rows without any repeat, without a
store; the corpus with repeats, without a store; the same with an empty store; and again with the store it has filled.
Whole runs are timed, from counting rows to the published table. The corpus is ../shared/data/corpus where it is there,
else text of this machine. Prints ratios, never a lone time. Every round checks that the scores are the same bits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from quality_judge.config import conf_folder, load_judge_config
from quality_judge.demo import demo_labels, gather_corpus
from quality_judge.labels import clean_labels, load_labels
from quality_judge.spark import read_corpus, score, spark_session
from quality_judge.spark.publish import published
from quality_judge.spark.run import ScoringRun
from quality_judge.spark.store import ScoreStore
from quality_judge.train.fit import fit_judge
from quality_judge.train.save import draft_judge

SHARED_CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "corpus"
REPEATS = 0.3
FILES = 8
WARM_ROWS = 200


def trained_judge(scratch: Path):
    """A judge on the demo's labels with a frozen base: the forward pass costs the same as for any other."""
    config = load_judge_config(conf_folder() / "judges" / "default.yaml", ["train.method=frozen"])
    labels, _ = clean_labels(load_labels(demo_labels()))
    return draft_judge(scratch, fit_judge(labels, config), config, labels)


def corpora(corpus: Path, scratch: Path, rows: int) -> int:
    """Writes `distinct`, `repeats` and `warm` into `scratch`; gives how many rows each of the first two has."""
    generator = np.random.default_rng(0)
    column = ds.dataset(corpus).to_table(columns=["text"]).column("text").to_pylist()
    texts = sorted({text for text in column if text})
    texts = [texts[index] for index in generator.permutation(len(texts))[:rows]]
    fewer = round(len(texts) * (1 - REPEATS))
    again = generator.integers(0, fewer, len(texts) - fewer)
    repeated = texts[:fewer] + [texts[index] for index in again]
    shuffled = [repeated[index] for index in generator.permutation(len(repeated))]
    for name, held in (("distinct", texts), ("repeats", shuffled), ("warm", texts[:WARM_ROWS])):
        (scratch / name).mkdir()
        for part in range(FILES):
            table = pa.table({"id": range(part, len(held), FILES), "text": held[part::FILES]})
            pq.write_table(table, scratch / name / f"{part}.parquet")
    return len(texts)


class Bench:
    """One session, one judge; `run` scores a corpus of `corpora` and gives the seconds it took."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.judge = trained_judge(scratch / "judge")
        self.spark = spark_session("store benchmark", scoring=True)

    def run(self, name: str, output: str, store: str | None = None) -> float:
        started = time.perf_counter()
        corpus = read_corpus(self.spark, str(self.scratch / name))
        kept = ScoreStore(self.spark, str(self.scratch / store), self.judge) if store else None

        def write(staging):
            run = ScoringRun(self.judge, corpus, staging, input=str(self.scratch / name), said={}, store=kept)
            return run.write(score(self.judge))

        published(self.spark, str(self.scratch / output), write)
        return time.perf_counter() - started

    def same(self, one: str, other: str) -> bool:
        """Whether both outputs hold the same scores to the last bit."""
        columns = ["id", "quality_raw", "quality_score", "quality_code"]
        tables = [ds.dataset(self.scratch / name).to_table(columns=columns).sort_by("id") for name in (one, other)]
        return tables[0].equals(tables[1])


def main() -> None:
    """Measures, prints one line of JSON, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "store.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        corpus = options.corpus or (SHARED_CORPUS if SHARED_CORPUS.is_dir() else scratch / "texts")
        if corpus == scratch / "texts":
            gather_corpus(corpus)
        rows = corpora(corpus, scratch, options.rows)
        bench = Bench(scratch)
        bench.run("warm", "out-warm", "store-warm")
        seconds: dict[str, list[float]] = {"distinct": [], "repeats": [], "filling": [], "rerun": []}
        for number in range(options.rounds):
            store = f"store-{number}"
            seconds["distinct"].append(bench.run("distinct", "out-distinct"))
            seconds["repeats"].append(bench.run("repeats", "out-plain"))
            seconds["filling"].append(bench.run("repeats", "out-store", store))
            seconds["rerun"].append(bench.run("repeats", "out-again", store))
            if not (bench.same("out-plain", "out-store") and bench.same("out-plain", "out-again")):
                raise SystemExit("the scores differ with the store and without it")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        "rows": rows, "repeats": REPEATS, "rounds": options.rounds,
        "corpus": "shared" if corpus == SHARED_CORPUS else "this machine",
        "times_as_fast_with_repeats_as_without": round(medians["distinct"] / medians["filling"], 2),
        "times_as_fast_with_store_as_without_on_repeats": round(medians["repeats"] / medians["filling"], 2),
        "rerun_share_of_first_run": round(medians["rerun"] / medians["filling"], 3),
        "scores": "equal to the last bit", "cores": os.cpu_count(), "machine": platform.machine(),
    }  # fmt: skip
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
