"""Positions: a row takes as many tokens as its base has positions for, and a longer one is cut to that."""

import numpy as np
import pytest
import torch

from quality_judge.bases import find_base
from quality_judge.engine.encode import Encoder, build_encoding
from quality_judge.engine.forward_pool import ForwardPool
from quality_judge.engine.kinds import ScalarModel
from quality_judge.engine.weights import hidden_size, load_body, position_limit
from quality_judge.errors import BaseModelError

SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 512,
    "max_position_embeddings": 40,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 512, "n_positions": 40}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, **SHAPE}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, **SHAPE}
LIMITS = {  # of 40 rows in the table, RoBERTa and what came of it lose the two up to the padding's
    "bert": (SHAPE, 40), "electra": (SHAPE, 40), "ernie": (SHAPE, 40), "distilbert": (DISTILBERT, 40),
    "roberta": (SHAPE, 38), "xlm-roberta": (SHAPE, 38), "camembert": (SHAPE, 38), "mpnet": (SHAPE, 38),
    "gpt2": (GPT2, 40), "opt": (OPT, 40), "llama": (SHAPE, 40),
}  # fmt: skip


@pytest.fixture
def shaped(tmp_path):
    """A function from a model type and its settings to a random base of that shape, without a tokenizer."""
    from transformers import AutoConfig, AutoModel

    def make(model_type, **settings):
        AutoModel.from_config(AutoConfig.for_model(model_type, **settings)).save_pretrained(tmp_path / model_type)
        return find_base(str(tmp_path / model_type))

    return make


@pytest.mark.parametrize("model_type", LIMITS)
def test_a_row_of_as_many_tokens_as_the_base_has_positions_is_scored_and_a_longer_one_cut(
    shaped, tiny_tokenizer, model_type
):
    settings, limit = LIMITS[model_type]
    base = shaped(model_type, **settings)
    assert position_limit(base) == limit
    tokenizer = tiny_tokenizer("wordpiece" if base.architecture == "encoder" else "bpe")
    encoding, content = build_encoding(tokenizer, base.architecture, max_tokens=4096, cut_at="head", limit=limit)
    encoded = Encoder(content, encoding).encode(["water " * 200, "water"])
    assert (encoded.tokens.lengths[0], encoded.truncated.tolist()) == (limit, [True, False])
    pooling = "layers" if base.architecture == "encoder" else "layers_last"
    model = ScalarModel(load_body(base), hidden_size(base), 1, pooling)
    pool = ForwardPool(model, device="cpu", dtype=torch.float32, threads=1)
    assert np.isfinite(pool.run(encoded.tokens, encoding.buckets, encoding.pad)).all()


def test_what_only_pictures_have_positions_of_does_not_limit_the_text(shaped):
    vision = {**SHAPE, "image_size": 28, "patch_size": 14}
    text = {**SHAPE, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 300}
    base = shaped("gemma3", vision_config=vision, text_config=text, image_token_index=5, boi_token_index=6,
                  eoi_token_index=7, mm_tokens_per_image=4)  # fmt: skip
    assert position_limit(base) == 300


def test_a_base_whose_positions_have_no_limit_has_none(shaped):
    shape = {"hidden_size": 32, "n_layer": 1, "n_head": 2, "vocab_size": 512}
    assert position_limit(shaped("bloom", **shape)) is None


def test_a_base_of_a_kind_that_nobody_knows_is_refused(shaped):
    base = shaped("bert", **SHAPE)
    (base.folder / "config.json").write_text('{"model_type": "nobody-knows"}')
    with pytest.raises(BaseModelError, match="nobody-knows"):
        position_limit(base)
