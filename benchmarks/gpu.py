"""How near the engine comes to a GPU's limit: random weights of real shapes, so that nothing is fetched.

    python benchmarks/gpu.py [--rows 2000] [--rows-8b 64] [--rounds 5] [--output FILE]
    python benchmarks/gpu.py --tiny --device cpu --output FILE

Rows go through the engine's own ForwardPool, as ids: a decoder of Llama-3.1-8B's shape at 512 tokens a row, encoders of
the shapes of DeBERTa-v3-base and MiniLM at the lengths of the corpus, cut at 512. The limit is the fastest matrix
product of the same run; the peer of the encoders is the same model in batches of 32 in order of arrival, of the decoder
vLLM where it is installed. --tiny proves that it runs, on shapes that say nothing of speed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from contest import processor
from limits import flops, matmul_peak, shape_of
from rows import corpus_folder, texts_of
from transformers import AutoModel, BertConfig, DebertaV2Config, LlamaConfig, PretrainedConfig

from quality_judge.bases import find_base
from quality_judge.engine.attention import set_scoring_attention
from quality_judge.engine.encode import BUCKET_LENGTHS, TOKENS_PER_BATCH, Ragged
from quality_judge.engine.forward_pool import ForwardPool
from quality_judge.engine.kinds import ScalarModel
from quality_judge.engine.precision import precision_here
from quality_judge.engine.weights import load_tokenizer

MOST_TOKENS = 512
LOOP_BATCH = 32
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 512}


def llama_8b() -> LlamaConfig:
    """The shape of Llama-3.1-8B."""
    return LlamaConfig(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336,
        vocab_size=128256, max_position_embeddings=131072,
    )  # fmt: skip


def deberta_base() -> DebertaV2Config:
    """The shape of DeBERTa-v3-base."""
    return DebertaV2Config(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, vocab_size=128100,
        relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True,
        pos_att_type=["p2c", "c2p"], type_vocab_size=0, position_biased_input=False, max_position_embeddings=512,
        max_relative_positions=-1, layer_norm_eps=1e-7,
    )  # fmt: skip


def minilm() -> BertConfig:
    """The shape of all-MiniLM-L6-v2."""
    return BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)


def random_model(config: PretrainedConfig, device: str, dtype: torch.dtype) -> ScalarModel:
    """A judge's model of that shape with random weights, made on the device in `dtype`, so that 8B need no RAM."""
    decoder = hasattr(config, "num_key_value_heads")
    with torch.device(device):
        body = AutoModel.from_config(config, dtype=dtype).eval()
    if hasattr(body, "pooler"):
        body.pooler = None
    set_scoring_attention(body)
    return ScalarModel(body, config.hidden_size, 1, "layers_last") if decoder else ScalarModel(
        body, config.hidden_size, 1, "layers"
    )  # fmt: skip


def random_rows(lengths: np.ndarray, vocabulary: int) -> Ragged:
    """Rows of random ids of those lengths."""
    ids = np.random.default_rng(0).integers(5, vocabulary, int(lengths.sum()), dtype=np.int32)
    return Ragged(ids, lengths.astype(np.int64))


def corpus_lengths(rows: int) -> np.ndarray:
    """The tokens of texts of the corpus by MiniLM's tokenizer, cut at 512."""
    with tempfile.TemporaryDirectory() as scratch:
        texts = texts_of(corpus_folder(None, Path(scratch)), rows)
    tokenizer = load_tokenizer(find_base(MINILM))
    return np.array([len(ids) for ids in tokenizer(texts, truncation=True, max_length=MOST_TOKENS)["input_ids"]])


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    """The median of `rounds`, after one that warms up. What `run` gives is on the host, so the device is done."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def looped(pool: ForwardPool, tokens: Ragged) -> np.ndarray:
    """The same model over batches of 32 in order of arrival, padded to the longest."""
    rows, parts = np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1]), []
    with torch.inference_mode():
        for at in range(0, len(rows), LOOP_BATCH):
            batch, lengths = rows[at : at + LOOP_BATCH], tokens.lengths[at : at + LOOP_BATCH]
            ids = np.zeros((len(batch), int(lengths.max())), np.int64)
            for row, values in zip(ids, batch, strict=True):
                row[: len(values)] = values
            at_device = torch.from_numpy(ids).to(pool.device), torch.from_numpy(lengths).to(pool.device)
            parts.append(pool.model(*at_device).float().cpu().numpy())
    return np.concatenate(parts)


def entry(config: PretrainedConfig, lengths: np.ndarray, options: argparse.Namespace, *, loop: bool) -> dict:
    """What the engine does with rows of these lengths: rows/s, share of the peak, times as fast as the loop."""
    dtype = precision_here(options.device)
    model = random_model(config, options.device, dtype)
    pool = ForwardPool(model, device=options.device, dtype=dtype, threads=torch.get_num_threads())
    tokens = random_rows(lengths, config.vocab_size)
    buckets = [(length, max(1, TOKENS_PER_BATCH // length)) for length in BUCKET_LENGTHS if length <= MOST_TOKENS]
    seconds = median_seconds(lambda: pool.run(tokens, buckets, 0), options.rounds)
    found = {
        "rows": len(lengths), "mean_tokens": float(lengths.mean()), "precision": str(dtype).removeprefix("torch."),
        "rows_per_second": round(len(lengths) / seconds, 1),
    }  # fmt: skip
    if not isinstance(config, DebertaV2Config):  # its attention to relative places is not counted by `limits`
        peak = matmul_peak(dtype, options.device, size=256 if options.tiny else 8192)
        found["share_of_matmul_peak"] = round(flops(shape_of(config), lengths) / seconds / peak, 3)
    if loop:
        found["times_as_fast_as_loop"] = round(
            median_seconds(lambda: looped(pool, tokens), options.rounds) / seconds, 2
        )
    return found


def vllm_rows_per_second(config: LlamaConfig, lengths: np.ndarray, rounds: int) -> float:
    """vLLM on the same shape with random weights and the same ids: one token with its logprobs for every row."""
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(folder)
        model = LLM(
            folder, load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=MOST_TOKENS + 8,
            enable_prefix_caching=False,
        )  # fmt: skip
        tokens = random_rows(lengths, config.vocab_size)
        prompts = [{"prompt_token_ids": ids.tolist()} for ids in np.split(tokens.ids, np.cumsum(lengths)[:-1])]
        asked = SamplingParams(max_tokens=1, logprobs=5, detokenize=False)
        return len(lengths) / median_seconds(lambda: model.generate(prompts, asked, use_tqdm=False), rounds)


def main(options: argparse.Namespace) -> None:
    """Measures each shape, prints and writes the figures."""
    if options.tiny:
        decoder, encoders = LlamaConfig(**TINY, num_key_value_heads=1), {"tiny BERT": BertConfig(**TINY)}
        name, lengths, long = "tiny Llama", np.arange(8, 40), np.full(8, 64)
    else:
        decoder, encoders = llama_8b(), {"DeBERTa-v3-base": deberta_base(), "MiniLM": minilm()}
        name, lengths, long = "Llama-3.1-8B", corpus_lengths(options.rows), np.full(options.rows_8b, MOST_TOKENS)
    shapes = {name: entry(decoder, long, options, loop=False)}
    shapes |= {each: entry(config, lengths, options, loop=True) for each, config in encoders.items()}
    if importlib.util.find_spec("vllm") and not options.tiny:
        torch.cuda.empty_cache()  # vLLM takes what is free
        rate = vllm_rows_per_second(decoder, long, options.rounds)
        shapes[name]["times_as_fast_as_vllm"] = round(shapes[name]["rows_per_second"] / rate, 2)
    device = processor() if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    result = {"device": device, "torch": torch.__version__, "rounds": options.rounds, "shapes": shapes}
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=2000)
    arguments.add_argument("--rows-8b", type=int, default=64)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--tiny", action="store_true", help="tiny shapes, for tests")
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--output", type=Path, default=Path(__file__).parent / "gpu.json")
    chosen = arguments.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no GPU here: torch sees none. Run this where there is one, or with --tiny --device cpu to try it")
    main(chosen)
