"""Whether a worker's memory grows with the corpus: its peak with 10,000 rows against its peak with a million.

    python benchmarks/memory.py [--rows 1000000] [--output FILE]
    python benchmarks/memory.py --short --output FILE

The judge is a stub: a whole judge, fitted as any other, on an encoder of two narrow random layers, so that a million
rows take minutes. Each size is scored by a Spark job of its own in a process of its own; the peak is the largest
resident set of any of its Python workers, read from /proc, and the private part of it. Prints the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from contest import processor
from rows import SHORT_LABELS, corpus_folder, judge_of_demo_labels, texts_of
from transformers import AutoTokenizer, BertConfig, BertModel

from quality_judge.bases import find_base
from quality_judge.judge import Judge, load_judge
from quality_judge.scores import CODE_COLUMN, OK, RAW_COLUMN

FEWER_ROWS = 10_000
TEXTS = 2_000
CHARACTERS = 400
FILES = 8
ROWS_A_GROUP = 10_000
EVERY_SECONDS = 0.05
FIELDS = {"VmHWM": "resident", "RssAnon": "private"}
TOKENIZER = "sentence-transformers/all-MiniLM-L6-v2"


def stub_judge(scratch: Path, *, most: int | None = None) -> Judge:
    """A judge on the demo's labels, or the first `most`, whose base is tiny and random."""
    folder = scratch / "base"
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    tokenizer = AutoTokenizer.from_pretrained(find_base(TOKENIZER).folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = [f"base={folder}", "train.method=frozen", "train.below_baseline=allow"]
    return judge_of_demo_labels(scratch / "judge", settings, most=most)


def write_corpus(folder: Path, texts: list[str], rows: int) -> None:
    """`rows` different texts in FILES files, written group by group."""
    folder.mkdir()
    schema = pa.schema([("text", pa.string())])
    for part in range(FILES):
        with pq.ParquetWriter(folder / f"{part}.parquet", schema) as file:
            places = range(part, rows, FILES)
            for first in range(0, len(places), ROWS_A_GROUP):
                group = [f"{at} {texts[at % len(texts)]}" for at in places[first : first + ROWS_A_GROUP]]
                file.write_table(pa.table({"text": group}, schema=schema))


class Watch(threading.Thread):
    """Reads how large the Python workers under `process` are, until told to stop. peaks: bytes, by field."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.peaks = dict.fromkeys(FIELDS.values(), 0)
        self.ended = threading.Event()

    def run(self) -> None:
        """Looks every EVERY_SECONDS."""
        while not self.ended.wait(EVERY_SECONDS):
            for status in Path("/proc").glob("[0-9]*/status"):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    self._look(status)

    def _look(self, status: Path) -> None:
        if b"pyspark.worker" not in (status.parent / "cmdline").read_bytes():
            return
        lines = above = _lines(status)
        while (parent := int(above["PPid"])) != self.process:
            if not parent:  # a worker of another job
                return
            above = _lines(Path(f"/proc/{parent}/status"))
        for field, name in FIELDS.items():
            self.peaks[name] = max(self.peaks[name], int(lines[field].split()[0]) << 10 if field in lines else 0)


def _lines(status: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)


def measured(judge: Path, corpus: Path) -> dict[str, int]:
    """Peaks in bytes of one job over the corpus in this process."""
    from pyspark.sql import functions as F

    from quality_judge.spark import score, spark_session

    session, watch = spark_session("memory", scoring=True), Watch(os.getpid())
    watch.start()
    scored = session.read.parquet(str(corpus)).transform(score(load_judge(judge)))
    failed = scored.select(RAW_COLUMN, CODE_COLUMN).where(F.col(CODE_COLUMN) != OK).count()
    watch.ended.set()
    watch.join()
    session.stop()
    if failed or not all(watch.peaks.values()):
        sys.exit(f"{failed} rows were not scored, or no worker was seen: {watch.peaks}")
    return watch.peaks


def in_its_own_process(judge: Path, corpus: Path) -> dict[str, int]:
    """What `measured` gives in a new process, whose workers are new too."""
    command = [sys.executable, __file__, "--judge", str(judge), "--corpus", str(corpus)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, int] = json.loads(said.splitlines()[-1])
    return found


def main(options: argparse.Namespace) -> None:
    """Measures, prints the ratios, writes them."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        texts = [text[:CHARACTERS] for text in texts_of(corpus_folder(None, scratch), TEXTS)]
        judge, peaks = stub_judge(scratch, most=SHORT_LABELS if options.short else None), []
        for rows in (options.fewer, options.rows):
            write_corpus(scratch / str(rows), texts, rows)
            peaks.append(in_its_own_process(judge.folder, scratch / str(rows)))
    few, many = peaks
    result = {
        "rows": [options.fewer, options.rows],
        **{f"{name}_memory_grew": round(many[name] / few[name], 3) for name in FIELDS.values()},
        "cores": len(os.sched_getaffinity(0)), "processor": processor(), "torch": torch.__version__,
    }  # fmt: skip
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--fewer", type=int, default=FEWER_ROWS)
    arguments.add_argument("--short", action="store_true", help=f"200 and 2,000 rows, {SHORT_LABELS} labels")
    arguments.add_argument("--output", type=Path, default=Path(__file__).parent / "memory.json")
    arguments.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.judge:
        print(json.dumps(measured(chosen.judge, chosen.corpus)))
    else:
        if chosen.short:
            chosen.fewer, chosen.rows = 200, 2_000
        main(chosen)
