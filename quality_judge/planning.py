"""What scoring a corpus will take, from a sample of it scored here and now: hours, memory and, given a price, money.

    plan = make_plan(load_scorer(judge), sample_corpus("corpus", ["text"]), workers=20)
    print("\\n".join(in_words(plan)))

Only this device is measured, and other workers are taken to be like it; of a GPU that is not here nothing is claimed.
It knows nothing of Spark: what start-up, reading and writing cost comes on top.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa

from quality_judge.corpus_sample import CorpusSample
from quality_judge.engine.batching import plan_batches
from quality_judge.engine.devices import gpu_count, peak_gpu_bytes
from quality_judge.engine.encode import Encoder
from quality_judge.engine.scorer import Scorer
from quality_judge.engine.texts import read_texts
from quality_judge.engine.unread import unknown_shares
from quality_judge.errors import ConfigError
from quality_judge.judge import MAX_TOKENIZER_BYTES, TOKENIZER_FILE, Judge
from quality_judge.scores import CODES, FLAGS, OK, TRUNCATED
from quality_judge.stats.clustered import clustered_interval
from quality_judge.untrusted import bounded_text

WARM_ROWS = 64
BAR = 40
HARDLY_READ = 0.5  # of a row's tokens; a judge scores a row beyond that by the little it sees


def make_plan(
    scorer: Scorer, sample: CorpusSample, *, workers: int = 1, gpus: int | None = None,
    price_per_hour: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Numbers ready for JSON: of the sample, of this device, and of the corpus on `workers` like it.

    sample: of the text column, or of the prompt and the text column. gpus: how many GPUs instead; `hours`
    is None where no GPU was measured. price_per_hour: of one worker or GPU.
    """
    for name, value in (("workers", workers), ("gpus", gpus), ("price-per-hour", price_per_hour)):
        if value is not None and not value > 0:
            raise ConfigError(f"--{name} {value}: expected more than 0")
    *prompts, texts = sample.columns.values()
    columns = texts, prompts[0] if prompts else None
    measured = _measured(scorer, *columns)
    device = "GPU" if gpu_count() else "CPU"
    of = {"device": device, "precision": scorer.precision, "threads": scorer.threads, **measured}
    tokens = _tokens(scorer.judge, *columns, sample.cluster)
    corpus = {"rows": sample.rows, "rows_exact": sample.exact, "bytes": sample.bytes, "files": sample.files}
    return {
        "judge": scorer.judge.fingerprint, "corpus": corpus,
        "sample": {"rows": len(sample), "drawn": sample.drawn, **tokens}, "here": of,
        "estimate": _estimate(sample, measured, tokens, device, workers, gpus, price_per_hour),
    }  # fmt: skip


def _measured(scorer: Scorer, texts: pa.Array, prompts: pa.Array | None) -> dict[str, Any]:
    """Seconds, rows per second and memory of one pass over the sample, after a few rows that warm up."""
    scorer.score(texts.slice(0, WARM_ROWS), None if prompts is None else prompts.slice(0, WARM_ROWS))
    started = time.perf_counter()
    scores = scorer.score(texts, prompts)
    seconds = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": round(seconds, 3), "rows_per_second": len(texts) / seconds,
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "gpu_memory_bytes": peak_gpu_bytes(),
        "scored": int((scores.code == CODES.index(OK)).sum()),
        "cut": int(scores.flags[:, FLAGS.index(TRUNCATED)].sum()),
    }  # fmt: skip


def _tokens(judge: Judge, texts: pa.Array, prompts: pa.Array | None, cluster: np.ndarray) -> dict[str, Any]:
    """The lengths of the rows that can be scored, as the model sees them: mean, histogram by bucket, padding; and
    how many of these rows are HARDLY_READ."""
    encoding = judge.spec.encoding
    bounds = {"head_bytes": encoding.head_bytes, "tail_bytes": encoding.tail_bytes}
    read = read_texts(texts, **bounds)
    rows = pa.array(np.flatnonzero(read.code == CODES.index(OK)))
    tokenizer_json = bounded_text(judge.path(TOKENIZER_FILE), most_bytes=MAX_TOKENIZER_BYTES)
    before = None if prompts is None else read_texts(prompts, **bounds).strings.take(rows).to_pylist()
    content = read.strings.take(rows).to_pylist()
    lengths = Encoder(tokenizer_json, encoding).encode(content, before).tokens.lengths
    edges = [length for length, _ in encoding.buckets]
    counts = np.bincount(np.searchsorted(edges, lengths), minlength=len(edges))
    computed = sum(batch.length * len(batch.rows) for batch in plan_batches(lengths, encoding.buckets))
    mean = float(lengths.mean()) if len(lengths) else 0.0
    interval = clustered_interval(lengths, cluster[rows.to_numpy()]) if len(lengths) else None
    return {
        "tokens": int(lengths.sum()), "mean_tokens": mean,
        "mean_tokens_95": None if interval is None else interval[1] - mean, "max_tokens": encoding.max_tokens,
        "histogram": {str(edge): int(count) for edge, count in zip(edges, counts, strict=True)},
        "padding": 1 - int(lengths.sum()) / computed if computed else 0.0,
        "unread_rows": int((unknown_shares(tokenizer_json, content) > HARDLY_READ).sum()),
    }  # fmt: skip


def _estimate(
    sample: CorpusSample, measured: dict[str, Any], tokens: dict[str, Any], device: str, workers: int,
    gpus: int | None, price: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Hours on all workers together, with what the spread of lengths in the sample leaves open, where it says so."""
    asked, wanted = ("GPU", gpus) if gpus is not None else (device, workers)
    if asked != device:
        return {"workers": wanted, "of": asked, "hours": None, "hours_95": None, "cost": None}
    hours = sample.rows / measured["rows_per_second"] / 3600 / wanted
    share = None if tokens["mean_tokens_95"] is None else tokens["mean_tokens_95"] / tokens["mean_tokens"]
    return {
        "workers": wanted, "of": device, "hours": hours,
        "hours_95": None if share is None else [hours * max(0.0, 1 - share), hours * (1 + share)],
        "cost": None if price is None else hours * wanted * price,
    }  # fmt: skip


def in_words(plan: dict[str, Any]) -> list[str]:
    """The plan as lines for a person."""
    sample, here, estimate, corpus = plan["sample"], plan["here"], plan["estimate"], plan["corpus"]
    n, seconds = sample["rows"], here["seconds"]
    counted = "counted" if corpus["rows_exact"] else "estimated from bytes"
    gpu = f", {_size(here['gpu_memory_bytes'])} of GPU memory" if here["gpu_memory_bytes"] else ""
    return [
        f"corpus: {corpus['rows']:,} rows ({counted}), {_size(corpus['bytes'])} in {corpus['files']:,} files",
        f"sample: {sample['drawn']}; {here['scored']:,} can be scored",
        "tokens in a row, with the rubric where there is one:",
        *_bars(sample["histogram"]),
        f"mean {sample['mean_tokens']:.0f} tokens; {here['cut'] / max(n, 1):.1%} of the rows are cut at "
        f"{sample['max_tokens']}; padding is {sample['padding']:.1%} of what is computed",
        *_unread(sample),
        f"here ({here['device']}, {here['precision']}, {here['threads']} threads): "
        f"{here['rows_per_second']:,.1f} rows/s, {sample['tokens'] / max(seconds, 1e-9):,.0f} tokens/s; "
        f"memory {_size(here['memory_bytes'])}{gpu}",
        _said(estimate),
    ]  # fmt: skip


def _unread(sample: dict[str, Any]) -> list[str]:
    """What share of the rows the judge's base hardly sees; nothing where it sees all."""
    if not sample["unread_rows"]:
        return []
    share = sample["unread_rows"] / sample["rows"]
    return [f"{share:.1%} of the rows are mostly unknown to the judge's base: keep them apart, or train on another"]


def _said(estimate: dict[str, Any]) -> str:
    who = f"{estimate['workers']} {estimate['of']} worker{'s' if estimate['workers'] != 1 else ''}"
    if estimate["hours"] is None:
        return f"on {who}: nothing is claimed, there is no GPU here; run this command on a machine that has one"
    spread = "the sample does not say how far off that may be"
    if estimate["hours_95"] is not None:
        spread = "{:,.2f} to {:,.2f} by the spread of lengths in the sample".format(*estimate["hours_95"])
    cost = "" if estimate["cost"] is None else f", cost {estimate['cost']:,.2f}"
    return (
        f"whole corpus on {who} like this one: {estimate['hours']:,.2f} hours ({spread})"
        f"{cost}; start-up, reading and writing come on top"
    )


def _bars(histogram: dict[str, int]) -> list[str]:
    most = max(1, *histogram.values())
    shown = [(edge, count) for edge, count in histogram.items() if count]
    return [f"  up to {edge:>6}  {count:>7,}  {'#' * math.ceil(BAR * count / most)}" for edge, count in shown]


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
