"""TRL's KTO and DPO trainers over rows of ids that our own encoder made. The only module that imports trl.

TRL tokenises for itself, drops rows whose prompt is long, unpairs preferences into batches of one label, and never
shuffles what it trains by KTO. Here rows arrive encoded, cut, shuffled and interleaved, and go through as they are.
It knows nothing of judges, folds or files. Written for trl 1.16.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from quality_judge.config import TrainConfig
from quality_judge.engine.precision import precision_here
from quality_judge.errors import MissingExtra

Ids = list[int]
WARMUP_SHARE = 0.1
MIN_KTO_BATCH = 2  # its reference point is estimated from other rows of the batch


def kto_trainer(
    model: nn.Module, rows: Sequence[tuple[Ids, Ids, bool]], config: TrainConfig, folder: str | Path, *, beta: float,
    batch: int, learning_rate: float, weights: tuple[float, float], pad: int, limit: int | None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Any:  # fmt: skip
    """TRL's KTOTrainer, ready to train `model` with LoRA, once, over `rows` in their order.

    rows: (prompt ids, completion ids, desirable). weights: of desirable and undesirable rows. limit: the most positions
    the model has. folder: scratch. Rows that do not fill the last batch are left out, for a single one has no KL.
    """
    trl = trl_library()
    batch = max(MIN_KTO_BATCH, batch)
    rows = rows[: len(rows) - len(rows) % batch] if len(rows) >= batch else rows
    said = []
    for at in range(0, len(rows), batch):
        here = rows[at : at + batch]
        for (prompt, completion, label), (_, other, _) in zip(here, [here[-1], *here[:-1]], strict=True):
            said.append(
                {"prompt_ids": prompt, "completion_ids": completion, "KL_completion_ids": other, "label": label}
            )
    settings = trl.KTOConfig(
        **_shared(config, folder, beta, batch, learning_rate), desirable_weight=weights[0],
        undesirable_weight=weights[1], loss_type="kto",
    )  # fmt: skip

    class Encoded(trl.KTOTrainer):  # type: ignore[name-defined,misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    collator = trl.trainer.kto_trainer.DataCollatorForUnpairedPreference(pad_token_id=pad, max_length=limit)
    return _made(Encoded, model, settings, said, collator, config, pad, progress)


def dpo_trainer(
    model: nn.Module, rows: Sequence[tuple[Ids, Ids, Ids]], config: TrainConfig, folder: str | Path, *, beta: float,
    batch: int, learning_rate: float, pad: int, limit: int | None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Any:  # fmt: skip
    """TRL's DPOTrainer, ready to train `model` with LoRA, once, over `rows` (prompt, chosen, rejected ids) in order."""
    trl = trl_library()
    said = [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in rows]
    settings = trl.DPOConfig(**_shared(config, folder, beta, batch, learning_rate), loss_type=["sigmoid"])

    class Encoded(trl.DPOTrainer):  # type: ignore[name-defined,misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    collator = trl.trainer.dpo_trainer.DataCollatorForPreference(pad_token_id=pad, max_length=limit)
    return _made(Encoded, model, settings, said, collator, config, pad, progress)


def trl_library() -> Any:
    """The module trl with both trainers loaded. Raises MissingExtra."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import trl
            import trl.trainer.dpo_trainer
            import trl.trainer.kto_trainer
    except ImportError as error:
        raise MissingExtra("trl", "implicit") from error
    return trl


def _shared(config: TrainConfig, folder: str | Path, beta: float, batch: int, learning_rate: float) -> dict[str, Any]:
    """What both trainers are told. On a CPU TRL by itself keeps bfloat16 and gradient checkpointing on."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder), "use_cpu": not on_gpu, "bf16": on_gpu and precision_here("cuda") == torch.bfloat16,
        "gradient_checkpointing": False,
        "beta": beta, "per_device_train_batch_size": batch, "num_train_epochs": 1, "max_steps": -1,
        "learning_rate": learning_rate, "weight_decay": config.weight_decay, "max_grad_norm": 1.0,
        "warmup_steps": WARMUP_SHARE, "lr_scheduler_type": "linear", "seed": config.seed, "data_seed": config.seed,
        "train_sampling_strategy": "sequential", "remove_unused_columns": False, "dataloader_pin_memory": on_gpu,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "max_length": None,
    }  # fmt: skip


def _made(
    trainer: Any, model: nn.Module, settings: Any, rows: list[dict[str, Any]], collator: Any, config: TrainConfig,
    pad: int, progress: Callable[[int, int, float], None] | None,
) -> Any:  # fmt: skip
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    class Told(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if progress and logs and "loss" in logs:
                progress(state.global_step, state.max_steps, float(logs["loss"]))

    settings._n_gpu = min(settings.n_gpu, 1)  # transformers would spread the model over all that it sees, TRL refuses
    made = trainer(
        model=model, args=settings, train_dataset=Dataset.from_list(rows), data_collator=collator,
        processing_class=_tokenizer_for(pad, PreTrainedTokenizerFast), callbacks=[Told()],
        peft_config=LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear"),
    )  # fmt: skip
    made.remove_callback(PrinterCallback)
    return made


def _tokenizer_for(pad: int, made: Any) -> Any:
    """TRL asks every model for a tokenizer and reads of it the id of padding only."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    vocabulary = {f"<{number}>": number for number in range(pad + 1)}
    name = f"<{pad}>"
    return made(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token=name)), pad_token=name, eos_token=name)
