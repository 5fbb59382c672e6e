"""What Spark costs around the engine, and whether ten times the rows take ten times the time. Prints ratios.

    python benchmarks/spark_scale.py [--rows 50000] [--corpus FOLDER] [--output FILE]
    python benchmarks/spark_scale.py --short --output FILE

The bare engine scores the rows in this process on all cores, then a whole Spark job reads them from Parquet and scores
them on the same cores (its workers are warm, its scores are not kept); each for a tenth of the rows and for all.
Where the corpus holds fewer rows than asked for, texts come again with a number behind them: equal rows would be
computed once.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from contest import processor
from rows import corpus_folder, frozen_judge, texts_of

from quality_judge.engine.scorer import load_scorer
from quality_judge.judge import Judge

WARM_ROWS = 64
FILES = 8


def distinct_texts(corpus: Path, rows: int) -> list[str]:
    """`rows` texts, no two equal."""
    texts = list(dict.fromkeys(texts_of(corpus, rows)))
    return [text if not turn else f"{text} {turn}" for turn in range(-(-rows // len(texts))) for text in texts][:rows]


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def spark_seconds(judge: Judge, texts: list[str], sizes: tuple[int, ...], scratch: Path) -> list[float]:
    """Of a whole Spark job over the first rows of each size, on warm workers."""
    from quality_judge.spark import score, spark_session

    session, found = spark_session("spark_scale", scoring=True), []
    for size in (WARM_ROWS, *sizes):
        folder = scratch / str(size)
        folder.mkdir()
        for part in range(FILES):
            pq.write_table(pa.table({"text": texts[:size][part::FILES]}), folder / f"part-{part}.parquet")
        table = session.read.parquet(str(folder)).repartition(3 * len(os.sched_getaffinity(0)))
        scored = table.transform(score(judge)).select("quality_raw")
        found.append(seconds(lambda job=scored: job.write.format("noop").mode("overwrite").save()))
    session.stop()
    return found[1:]


def main(options: argparse.Namespace) -> None:
    """Measures, prints the ratios, writes them."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        texts = distinct_texts(corpus_folder(options.corpus, scratch), options.rows)
        judge = frozen_judge(scratch / "made")
        sizes = (len(texts) // 10, len(texts))
        scorer = load_scorer(judge)
        scorer.score(texts[:WARM_ROWS])
        engine = [seconds(lambda size=size: scorer.score(texts[:size])) for size in sizes]
        spark = spark_seconds(judge, texts, sizes, scratch)
    result = {
        "rows": len(texts), "spark_rows_per_second_to_engine": round(engine[1] / spark[1], 3),
        "ten_times_the_rows_take": {"engine": round(engine[1] / engine[0], 2), "spark": round(spark[1] / spark[0], 2)},
        "precision": scorer.precision, "cores": len(os.sched_getaffinity(0)), "processor": processor(),
        "torch": torch.__version__,
    }  # fmt: skip
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--corpus", type=Path)
    arguments.add_argument("--rows", type=int, default=50_000)
    arguments.add_argument("--short", action="store_true", help="2,000 rows")
    arguments.add_argument("--output", type=Path, default=Path(__file__).parent / "spark_scale.json")
    chosen = arguments.parse_args()
    if chosen.short:
        chosen.rows = 2_000
    main(chosen)
