"""What it saves to compute a verdict judge's rubric once: the same judge, rows and threads with and without.

    python benchmarks/prefix_reuse.py [--corpus FOLDER] [--rows 120] [--max-tokens 128] [--rounds 5] [--output FILE]

SmolLM2-135M-Instruct with a rubric whose prompt is some 300 tokens, untrained: a forward pass costs the same. Rounds
are interleaved and medians of processor time are compared, so that what else runs on the machine counts little; the
first round warms up and does not count. Prints ratios, never a lone time.
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
import torch
from rows import corpus_folder, texts_of
from safetensors.torch import save

from quality_judge.bases import Base
from quality_judge.config import JudgeConfig
from quality_judge.engine.forward_pool import ForwardPool
from quality_judge.engine.gguf import ready_base
from quality_judge.engine.golden import GOLDEN_TEXTS, golden_content
from quality_judge.engine.precision import precision_here
from quality_judge.engine.scorer import load_scorer
from quality_judge.engine.verdict import row_ids
from quality_judge.engine.weights import HEAD_BIAS, HEAD_WEIGHT, VERDICT_BIAS, VERDICT_ROWS, load_model
from quality_judge.judge import CARD_FILE, GOLDEN_FILE, HEAD_FILE, METRICS_FILE, TOKENIZER_FILE, Judge, save_judge
from quality_judge.judge_spec import BaseReference, JudgeSpec, Stack
from quality_judge.rubric import Rubric
from quality_judge.train.verdict_base import verdict_base

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
CRITERIA = """Would a language model learn something from this text that it should learn?
Good: a person wrote it, or could have, to tell somebody something, and it does tell it: a fact, a step, a reason, a
number with its meaning, a story, an exchange. Plain, short, dry, informal or non-native language is fine. A changelog
entry, an option of a command, a docstring, a snippet with its explanation, a table that can be understood, a poem: all
good when they say something.
Bad: what is left once the furniture is taken away is nothing. Menus and consent notices, text written to sell or to
rank, machine output without explanation, lists of words, text that is damaged or cut off before its point, empty forms
and stubs, error pages, legal blocks that are the same everywhere, and fluent sentences that could be about anything.
Topic and length decide nothing: an article about cookies is good, a cookie banner is bad; one true
sentence is good, a thousand smooth and empty words are bad. With mixed text, the larger part decides. When in doubt
ask: if this row were the only one on its topic, would its loss be a loss?
"""


def untrained_judge(folder: Path, base: Base, *, max_tokens: int = 256) -> Judge:
    """A verdict judge on the base as it is, neither trained nor calibrated."""
    rubric = Rubric(name="worth", criteria=CRITERIA, good="good", bad="bad")
    config = JudgeConfig(name="worth", base=base.id, kind="verdict", max_tokens=max_tokens)
    ready = verdict_base(base, rubric, config, with_prompts=False)
    rows, bias = ready.layer.rows(row_ids(ready.verdict))
    head = {VERDICT_ROWS: rows, VERDICT_BIAS: bias, HEAD_WEIGHT: rows.new_zeros(0, rows.shape[1]),
            HEAD_BIAS: rows.new_zeros(0)}  # fmt: skip
    reference = BaseReference(id=base.id, revision=base.revision, architecture="decoder", sha256=base.sha256())
    spec = JudgeSpec(
        name="worth", kind="verdict", base=reference, rubric=rubric, encoding=ready.encoding, verdict=ready.verdict,
        method="frozen", pooling="last", lora=None, stack=Stack(bias=0.0, model=1.0, surface=0.0), calibration=None,
        labels={"n": 0}, created_with={"torch": torch.__version__}, files={},
    )  # fmt: skip
    files = {HEAD_FILE: save(head), TOKENIZER_FILE: ready.tokenizer_json.encode(), CARD_FILE: b"",
             METRICS_FILE: b"{}\n", GOLDEN_FILE: b"{}\n"}  # fmt: skip
    draft = save_judge(folder.with_name(f"{folder.name}-draft"), spec, files)
    scorer = load_scorer(draft, prove=False)
    golden = golden_content({scorer.precision: scorer.score(GOLDEN_TEXTS).raw})
    return save_judge(folder, spec, files | {GOLDEN_FILE: json.dumps(golden).encode()})


def main() -> None:
    """Measures, prints the ratio, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--max-tokens", type=int, default=128, help="of a row, the rubric not counted")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "prefix_reuse.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        corpus = corpus_folder(options.corpus, scratch)
        judge = untrained_judge(scratch / "judge", ready_base(BASE), max_tokens=options.max_tokens)
        texts = texts_of(corpus, options.rows)
        once, whole = load_scorer(judge, prove=False), load_scorer(judge, prove=False)
        whole._pool = ForwardPool(
            load_model(judge), device="cpu", dtype=precision_here("cpu"), threads=torch.get_num_threads()
        )
        seconds: dict[str, list[float]] = {"once": [], "every row": []}
        answers = {}
        for _ in range(options.rounds + 1):
            for name, scorer in (("once", once), ("every row", whole)):
                started = time.process_time()
                answers[name] = scorer.score(texts).raw
                seconds[name].append(time.process_time() - started)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    apart = np.nanmax(np.abs(answers["once"] - answers["every row"]))
    result = {
        "rows": len(texts), "rounds": options.rounds, "rubric_tokens": len(judge.spec.encoding.prefix),
        "median_row_tokens": float(np.median(once._encoder.encode(texts).tokens.lengths)),
        "times_as_fast_as_a_rubric_in_every_row": round(medians["every row"] / medians["once"], 2),
        "largest_difference_of_raw_scores": round(float(apart), 4),
        "standard_deviation_of_raw_scores": round(float(np.nanstd(answers["once"])), 4),
        "precision": once.precision, "threads": torch.get_num_threads(), "machine": platform.machine(),
        "torch": torch.__version__,
    }  # fmt: skip
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
