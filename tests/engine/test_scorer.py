"""The scorer: which code a row gets when the model fails on it, and that a row's bits are its own."""

import gc
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from quality_judge.bases import find_base
from quality_judge.engine.encode import Ragged, build_encoding
from quality_judge.engine.forward_pool import ForwardPool
from quality_judge.engine.kinds import POOLED_LAYERS, ScalarModel
from quality_judge.engine.scorer import Scorer, load_scorer
from quality_judge.engine.weights import HEAD_BIAS, HEAD_WEIGHT, hidden_size, load_tokenizer
from quality_judge.errors import CorpusError
from quality_judge.judge import HEAD_FILE, TOKENIZER_FILE, save_judge
from quality_judge.judge_spec import BaseReference
from quality_judge.stats.calibration import fit_platt

TEXTS = [f"Water boils at a lower temperature on mountain {i}" + " and so on" * (i % 5) for i in range(40)]


@pytest.fixture
def judge(tiny_base, make_spec, judge_files, tmp_path):
    """A judge on a tiny random base; nobody trained it."""
    base = find_base(str(tiny_base("bert")))
    encoding, tokenizer_json = build_encoding(load_tokenizer(base), "encoder", max_tokens=32, cut_at="head", limit=None)
    reference = BaseReference(id=base.id, revision=base.revision, architecture="encoder", sha256=base.sha256())
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(1, POOLED_LAYERS * hidden_size(base), generator=generator)
    head = {HEAD_WEIGHT: weight, HEAD_BIAS: torch.zeros(1)}
    fitted = fit_platt(np.linspace(-1, 1, 40), np.arange(40) > 20).to_dict()
    files = {**judge_files, TOKENIZER_FILE: tokenizer_json.encode(), HEAD_FILE: to_safetensors(head)}
    return save_judge(tmp_path / "scored-with", make_spec(base=reference, encoding=encoding, calibration=fitted), files)


@pytest.fixture
def scorer(judge):
    return load_scorer(judge, threads=1, prove=False)


class Strange(nn.Module):
    """A body whose hidden state is the id itself; 5 is no number, 6 is infinite, 7 needs too much memory."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def get_input_embeddings(self):
        return None

    def forward(self, input_ids, attention_mask, use_cache, output_hidden_states=False):
        self.calls += 1
        if (input_ids == 7).any():
            raise torch.OutOfMemoryError("out of memory")
        hidden = input_ids[:, :, None].float()
        hidden = hidden.masked_fill(input_ids[:, :, None] == 5, float("nan"))
        hidden = hidden.masked_fill(input_ids[:, :, None] == 6, float("inf"))
        return type("Output", (), {"last_hidden_state": hidden, "hidden_states": (hidden, hidden, hidden, hidden)})()


def strange_pool():
    model = ScalarModel(Strange(), 1, 1, "last")
    nn.init.ones_(model.head.weight)
    return ForwardPool(model, device="cpu", dtype=torch.float32, threads=1)


def test_only_a_row_that_exhausts_memory_alone_is_marked_so_and_its_batch_is_scored():
    rows = np.array([1, 7, 2, 5, 3, 6, 4, 1], np.int32)
    outputs, exhausted = strange_pool().outcome(Ragged(rows, np.ones(8, np.int64)), [(16, 8)], 0)
    assert exhausted.tolist() == [row == 7 for row in rows]
    assert outputs[[0, 2, 4, 6, 7], 0].tolist() == [1, 2, 3, 4, 1]
    assert np.isnan(outputs[[1, 3], 0]).all()
    assert np.isinf(outputs[5, 0])


def test_a_batch_that_was_too_large_for_memory_is_not_tried_again():
    class Small(Strange):
        def forward(self, input_ids, **settings):
            self.rows = [*getattr(self, "rows", []), len(input_ids)]
            if len(input_ids) > 3:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(input_ids, **settings)

    model = ScalarModel(Small(), 1, 1, "last")
    nn.init.ones_(model.head.weight)
    pool = ForwardPool(model, device="cpu", dtype=torch.float32, threads=1)
    rows = Ragged(np.array([1, 2, 3, 4, 1, 2, 3, 4], np.int32), np.ones(8, np.int64))
    for tried in ([8, 4, 2, 2, 2, 2], [2, 2, 2, 2]):
        outputs, exhausted = pool.outcome(rows, [(16, 8)], 0)
        assert outputs[:, 0].tolist() == rows.ids.tolist()
        assert not exhausted.any()
        assert model.body.rows == tried
        model.body.rows = []


def test_equal_rows_are_computed_once_and_a_prompt_tells_rows_apart(judge, scorer):
    seen = []
    pool = scorer._pool

    class Counting:
        def outcome(self, tokens, *shape):
            seen.append(len(tokens.lengths))
            return pool.outcome(tokens, *shape)

    texts, prompts = ["water", "train", "water", "water", "train"], ["Why?", "Why?", "How?", "Why?", "Why?"]
    counted = Scorer(judge, Counting(), None)
    raw, alone = counted.score(texts, prompts).raw, counted.score(texts).raw
    assert seen == [3, 2]
    assert [raw[3], raw[4], alone[2], alone[4]] == [raw[0], raw[1], alone[0], alone[1]]
    assert len({*raw, *alone}) == 5
    assert [scorer.score([text], [prompt]).raw[0] for text, prompt in zip(texts, prompts, strict=True)] == list(raw)


def test_out_of_memory_a_number_that_is_none_and_text_without_a_token_have_codes_of_their_own(judge, scorer):
    class Faulty:
        def outcome(self, tokens, buckets, pad):
            self.rows = len(tokens.lengths)
            outputs = np.array([[np.nan], [np.nan], [np.inf], [2.0]], np.float32)
            return outputs, np.array([True, False, False, False])

    faulty = Faulty()
    scores = Scorer(judge, faulty, None).score(["too much", "not a number", "infinite", "fine", "\u0301\u0301", None])
    assert scores.codes() == ["OOM_ROW", "NON_FINITE", "NON_FINITE", "OK", "EMPTY_TEXT", "NULL_TEXT"]
    assert (
        np.isfinite(scores.raw).tolist()
        == np.isfinite(scores.probability).tolist()
        == [False] * 3 + [True, False, False]
    )
    assert faulty.rows == 4


def test_only_texts_without_a_token_reach_no_model(scorer):
    assert scorer.score(["\u0301", "\u0301\u0302"]).codes() == ["EMPTY_TEXT"] * 2
    assert scorer.score([]).codes() == []


def test_a_prompt_makes_up_for_a_completion_without_a_token(scorer):
    assert scorer.score(["\u0301"], ["Why?"]).codes() == ["OK"]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_neighbours_order_and_threads_change_no_bit(judge, precision):
    one, two = (load_scorer(judge, threads=threads, precision=precision, prove=False) for threads in (1, 2))
    together = one.score(TEXTS).raw
    assert len(set(together)) > 20
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(TEXTS))
        assert (two.score([TEXTS[i] for i in order]).raw == together[order]).all()
    assert all(one.score([text]).raw[0] == raw for text, raw in zip(TEXTS, together, strict=True))


def test_a_matrix_vector_head_would_make_a_row_depend_on_its_place(judge):
    """Why ScalarModel does not call its head: in a batch of 10 the same row differs by its place in some kernels."""
    states = torch.randn(10, 384, generator=torch.Generator().manual_seed(1))
    model = ScalarModel(nn.Identity(), 384, 2, "last")
    nn.init.normal_(model.head.weight)
    model.pooled = lambda ids, lengths: ids
    with torch.no_grad():
        alone = torch.cat([model(states[i : i + 1], None) for i in range(10)])
        assert torch.equal(model(states, None), alone)
        assert torch.equal(model(states.flip(0), None).flip(0), alone)


def test_one_text_and_prompts_that_do_not_fit_are_refused(scorer):
    with pytest.raises(CorpusError, match="put the text into a list"):
        scorer.score("water rises")
    with pytest.raises(CorpusError, match="2 texts and 1 prompts"):
        scorer.score(["water", "rises"], ["why"])


def test_a_prompt_that_cannot_be_read_leaves_its_row_unscored(scorer):
    binary = bytes(range(1, 8))
    scores = scorer.score(["water", "water", "water"], [binary, None, "why"])
    assert scores.codes() == ["BINARY_TEXT", "OK", "OK"]
    assert np.isnan(scores.raw[0])


def test_the_threads_that_compute_live_as_long_as_the_scorer_and_no_longer(judge):
    """A new thread for every call takes memory of its own beside that of the one before."""
    before = set(threading.enumerate())
    scorer = load_scorer(judge, threads=1, prove=False)
    started = []
    for _ in range(3):
        scorer.score(TEXTS[:3])
        started.append(set(threading.enumerate()) - before)
    assert started[0] == started[1] == started[2]
    assert len(started[0]) == 1
    del scorer
    gc.collect()
    (thread,) = started[0]
    thread.join(10)
    assert not thread.is_alive()
