"""How much of a text a tokenizer does not know."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from quality_judge.engine.encode import without_added_tokens
from quality_judge.engine.unread import unknown_shares
from quality_judge.engine.weights import load_tokenizer

TEXTS = ["a b", "a 水", "水 高 a b", ""]
KNOWN = {"[UNK]": 0, "a": 1, "b": 2}


def in_words(model):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.mark.parametrize("model", [
    models.WordLevel(KNOWN, unk_token="[UNK]"),
    models.WordPiece(KNOWN, unk_token="[UNK]"),
    models.BPE(KNOWN, [], unk_token="[UNK]"),
    models.Unigram([("[UNK]", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=0),
], ids=lambda model: type(model).__name__)  # fmt: skip
def test_the_share_of_a_text_that_a_vocabulary_lacks(model):
    np.testing.assert_allclose(unknown_shares(in_words(model).to_str(), TEXTS), [0, 0.5, 0.5, 0])


@pytest.mark.parametrize("model", [models.BPE({"a": 0, "b": 1}, []), models.Unigram([("a", -1.0), ("b", -1.0)])])
def test_a_tokenizer_that_names_nothing_unknown_knows_all(model):
    assert not unknown_shares(in_words(model).to_str(), TEXTS[:1]).any()


def test_the_small_encoder_does_not_read_chinese_and_the_small_decoder_does(packaged_base, smollm2):
    texts = ["水在高山上沸腾的温度更低,因为那里的气压较小。", "Water boils at a lower temperature on a mountain."]
    encoder, decoder = (
        unknown_shares(without_added_tokens(load_tokenizer(base).backend_tokenizer.to_str()), texts)
        for base in (packaged_base, smollm2)
    )
    assert encoder[0] > 0.5
    assert encoder[1] == 0
    assert not decoder.any()
