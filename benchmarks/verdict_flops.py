"""Counts, not times, what one label costs: our verdict training against TRL's KTOTrainer, on the same rows and base.

    python benchmarks/verdict_flops.py [--layers 30]

Both train LoRA of one rank on every linear layer but the output layer. TRL needs two rows for a label, the right
verdict as desirable and the other as undesirable; ours needs one, and once, before the first epoch, the untouched
base's margin. The count is torch's FlopCounterMode over loss and gradient of one label, plain attention on both sides;
ours is a label's share of a batch, which computes the rubric's prompt once.
"""

from __future__ import annotations

import argparse
import json
import tempfile

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from quality_judge.config import JudgeConfig, TrainConfig, conf_folder
from quality_judge.engine.encode import Encoder
from quality_judge.engine.gguf import ready_base
from quality_judge.rubric import Rubric
from quality_judge.train import adapters
from quality_judge.train.loop import BATCH_SIZES
from quality_judge.train.verdict_base import verdict_base

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPT = "A train leaves at eight and needs four hours and ten minutes. When does it arrive?"
COMPLETION = "Eight o'clock and four hours is twelve, and ten minutes more is 12:10. The train arrives at 12:10."
EPOCHS = 2
BATCH = BATCH_SIZES[0][1]


def main(layers: int) -> dict:
    """The FLOPs of one label on both sides and their ratio."""
    base = ready_base(BASE)
    rubric = Rubric.load(conf_folder() / "rubrics" / "correct-answer.yaml")
    config = JudgeConfig(name="flops", base=BASE, kind="verdict", max_tokens=128)
    ready = verdict_base(base, rubric, config, with_prompts=True)
    ids = Encoder(ready.tokenizer_json, ready.encoding).encode([COMPLETION], [PROMPT]).tokens.ids
    settings = {"num_hidden_layers": layers, "dtype": torch.float32, "attn_implementation": "eager"}
    ours, once = our_flops(AutoModel.from_pretrained(base.folder, **settings), ready, ids)
    theirs = trl_flops(
        AutoModelForCausalLM.from_pretrained(base.folder, **settings), AutoTokenizer.from_pretrained(base.folder), ids,
        rubric,
    )  # fmt: skip
    return {
        "base": BASE, "layers": layers, "tokens": len(ids), "shared_tokens": len(ready.encoding.prefix), "batch": BATCH,
        "trl_gflop_per_label_and_epoch": theirs / 1e9,
        "ours_gflop_per_label_and_epoch": ours / 1e9, "ours_gflop_once_per_label": once / 1e9,
        "ours_of_trl": (ours + once / EPOCHS) / theirs, "epochs": EPOCHS,
    }  # fmt: skip


def our_flops(body, ready, ids: np.ndarray) -> tuple[float, int]:
    """Of loss and gradient of one row among BATCH, and of the untouched base's margin on it."""
    model = ready.model(body, 0)
    row, length = torch.from_numpy(ids.astype(np.int64))[None], torch.tensor([len(ids)])
    with FlopCounterMode(display=False) as once, torch.no_grad():
        model(row, length)
    model.body = adapters.prepared(model.body, "lora", TrainConfig())
    model.shared = len(ready.encoding.prefix)
    with FlopCounterMode(display=False) as step:
        torch.sigmoid(-model(row.expand(BATCH, -1), length.expand(BATCH))[:, 0]).sum().backward()
    return step.get_total_flops() / BATCH, once.get_total_flops()


def trl_flops(model, tokenizer, ids: np.ndarray, rubric: Rubric) -> int:
    """Of loss and gradient of the two rows that say the same label to KTOTrainer."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import KTOConfig, KTOTrainer

    asked = tokenizer.decode(ids)
    rows = [{"prompt": asked, "completion": word, "label": word == rubric.good} for word in (rubric.good, rubric.bad)]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = KTOConfig(
            output_dir=scratch, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
            per_device_train_batch_size=2, max_length=2048, disable_tqdm=True,
        )  # fmt: skip
        trainer = KTOTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
            peft_config=LoraConfig(r=TrainConfig().lora_rank, target_modules="all-linear"),
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
        with FlopCounterMode(display=False) as step:
            trainer.compute_loss(trainer.model, batch).backward()
    return step.get_total_flops()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30, help="how many of the base's 30 layers")
    print(json.dumps(main(parser.parse_args().layers)))
