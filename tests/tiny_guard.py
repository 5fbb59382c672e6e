"""A tiny decoder that gives verdicts: trained here, in seconds, on the prompts of `engine.prompts`, to answer as Llama
Guard 3 does: a line break first, then the word, then the codes. Nothing in it is downloaded or saved in the repository.
"""

import numpy as np
import torch

from quality_judge.rubric import Category, Rubric

GOOD = ["water", "boils", "mountain", "air", "presses", "surface", "train", "question", "number", "temperature"]
ADVERT = ["click", "free", "price", "begin"]
CODE = ["raises", "empty", "row", "function", "path"]
LETTERS = list("abcdefghij")
TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>' }}{%- endif %}"
)
SPECIALS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|pad|>"]
GUARD_RUBRIC = Rubric(
    name="guard", criteria="Adverts and code are unsafe.", good="safe", bad="unsafe",
    categories=(Category(code="S1", name="Adverts"), Category(code="S2", name="Code")),
)  # fmt: skip
STEPS, BATCH = 150, 12


def guard_text(dice, codes):
    """Words that tell which categories apply, among letters that do not."""
    words = [*dice.choice(GOOD, 3)] if not codes else []
    for code in codes:
        words += [*dice.choice({"S1": ADVERT, "S2": CODE}[code], 3)]
    words += [*dice.choice(LETTERS, dice.integers(2, 6))]
    return " ".join(dice.permutation(words))


def guard_rows(count, *, seed=0):
    """(text, codes) of `count` texts, half of them without codes."""
    dice = np.random.default_rng(seed)
    kinds = [(), ("S1",), (), ("S2",), (), ("S1", "S2")]
    return [(guard_text(dice, kinds[line % 6]), kinds[line % 6]) for line in range(count)]


def guard_tokenizer():
    """A byte-level tokenizer with Llama 3's special tokens and a chat template, trained on the prompts it will read."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from quality_judge.llama_guard import llama_guard_prompt

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    words = [text for text, _ in guard_rows(60)]
    prompts = [llama_guard_prompt(GUARD_RUBRIC, user="x", agent="y")]
    tokenizer.train_from_iterator([*words, *prompts, "safe unsafe"] * 8, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIALS[0], eos_token=SPECIALS[3], pad_token=SPECIALS[4]
    )
    made.chat_template = TEMPLATE
    return made


def save_guard(folder):
    """A base at `folder` that answers the Llama Guard prompt."""
    import transformers

    tokenizer = guard_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=96,
                vocab_size=700,
                max_position_embeddings=512,
                bos_token_id=0,
                eos_token_id=3,
                pad_token_id=4,
                tie_word_embeddings=True,
            )
        )
        _teach(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _teach(model, tokenizer):
    from quality_judge.engine.prompts import rubric_prompt

    prompt = rubric_prompt(tokenizer, GUARD_RUBRIC, style="llama_guard_3", with_prompts=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=8e-3)
    rows = guard_rows(STEPS * BATCH, seed=1)
    slower = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min((step + 1) / 10, 1 - step / STEPS))
    for step in range(STEPS):
        some = rows[step * BATCH : (step + 1) * BATCH]
        ids, targets = zip(*(_example(tokenizer, prompt, text, codes) for text, codes in some), strict=True)
        width = max(map(len, ids))
        batch = torch.tensor([row + [4] * (width - len(row)) for row in ids])
        wanted = torch.tensor([row + [-100] * (width - len(row)) for row in targets])
        loss = model(input_ids=batch, attention_mask=(batch != 4).long(), labels=wanted).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        slower.step()


def _example(tokenizer, prompt, text, codes):
    content = tokenizer(text, add_special_tokens=False)["input_ids"]
    said = "\n\nunsafe\n" + ",".join(codes) if codes else "\n\nsafe"
    answer = tokenizer(said, add_special_tokens=False)["input_ids"] + [3]
    asked = [*prompt.prefix, *content, *prompt.suffix]
    return asked + answer, [-100] * len(asked) + answer
