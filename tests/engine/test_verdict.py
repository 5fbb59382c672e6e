"""Reading a verdict: the trie says which side a word is on, and one pass reads what brute force reads."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import nn

from quality_judge.engine.encode import content_tokenizer, without_added_tokens
from quality_judge.engine.kinds import VerdictModel
from quality_judge.engine.verdict import compiled_verdict, first_ids, forced_ids, reading, row_ids, spellings
from quality_judge.errors import ConfigError
from quality_judge.judge_spec import Verdict
from quality_judge.rubric import Rubric

END, VOCABULARY = 9, 10
words = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=3, unique=True)


class Chain(nn.Module):
    """A body whose hidden state is a fixed random function of all ids so far, as any causal model's is."""

    def __init__(self, width=6):
        super().__init__()
        self.width = width

    def state(self, ids):
        generator = torch.Generator().manual_seed(abs(hash(tuple(ids))) % 2**31)
        return torch.randn(self.width, generator=generator)

    def forward(self, input_ids, attention_mask, use_cache):
        rows = input_ids.tolist()
        hidden = torch.stack([torch.stack([self.state(row[: end + 1]) for end in range(len(row))]) for row in rows])
        return type("Output", (), {"last_hidden_state": hidden})()


def brute_force(good, bad, prompt, body, weight):
    """log P(good) − log P(bad), every spelling teacher-forced by itself over the full vocabulary.

    A prefix that only one side has counts as a word of that side; at each place the probabilities of all that may
    follow there are renormalised to one.
    """
    closed = {(*ids, END): True for ids in good} | {(*ids, END): False for ids in bad}
    prefixes = {ids[:length] for ids in closed for length in range(len(ids) + 1)}
    sides = {prefix: {side for ids, side in closed.items() if ids[: len(prefix)] == prefix} for prefix in prefixes}
    total = {True: 0.0, False: 0.0}
    for prefix in prefixes:
        if len(sides[prefix]) > 1 or any(len(sides[prefix[:k]]) == 1 for k in range(len(prefix))):
            continue
        logprob = 0.0
        for at in range(len(prefix)):
            full = torch.log_softmax(body.state([*prompt, *prefix[:at]]) @ weight.T, 0)
            following = sorted({other[at] for other in prefixes if len(other) > at and other[:at] == prefix[:at]})
            logprob += float(full[prefix[at]] - torch.logsumexp(full[following], 0))
        total[next(iter(sides[prefix]))] += math.exp(logprob)
    return math.log(total[True]) - math.log(total[False]), total


@given(good=words, bad=words, seed=st.integers(0, 99))
def test_the_margin_is_what_brute_force_over_the_full_vocabulary_finds(good, bad, seed):
    assume(not set(good) & set(bad))
    steps = reading(good, bad, end=END)
    assume(steps is not None)
    verdict = Verdict(good=("g",), bad=("b",), steps=steps)
    body, prompt = Chain(), [7, 8]
    weight = torch.randn(VOCABULARY, body.width, generator=torch.Generator().manual_seed(seed))
    used = list(row_ids(verdict))
    model = VerdictModel(body, verdict, weight[used], torch.zeros(len(used)), 0)
    ids = torch.tensor([[*prompt, *forced_ids(verdict), 0, 0]])
    with torch.no_grad():
        margin = float(model(ids, torch.tensor([ids.shape[1] - 2]))[0, 0])
    expected, total = brute_force(good, bad, prompt, body, weight)
    assert margin == pytest.approx(expected, abs=1e-4)
    assert sum(total.values()) == pytest.approx(1, abs=1e-5)


@given(good=words, bad=words)
def test_every_pair_of_words_that_differ_can_be_read_alone(good, bad):
    assume(good[0] != bad[0])
    assert reading(good[:1], bad[:1], end=END) is not None


@given(good=words, bad=words)
def test_a_reading_is_refused_exactly_when_two_branches_side_by_side_are_mixed(good, bad):
    closed = {(*ids, END): True for ids in good} | {(*ids, END): False for ids in bad}
    mixed = {
        ids[:length] for ids in closed for length in range(len(ids) + 1)
        if {side for other, side in closed.items() if other[:length] == ids[:length]} == {True, False}
    }  # fmt: skip
    beside = len({prefix for prefix in mixed if len(prefix) == 1}) > 1 or any(
        len([prefix for prefix in mixed if prefix[:-1] == parent and prefix]) > 1 for parent in mixed
    )
    clash = bool(set(good) & set(bad))
    assert (reading(good, bad, end=END) is None) == (beside or clash)


def test_with_disjoint_first_tokens_the_margin_is_the_log_ratio_of_full_probabilities():
    steps = reading([(0,), (1,)], [(2, 3), (4,)], end=END)
    verdict = Verdict(good=("g",), bad=("b",), steps=steps)
    assert len(steps) == 1
    assert forced_ids(verdict) == ()
    body = Chain()
    weight = torch.randn(VOCABULARY, body.width, generator=torch.Generator().manual_seed(3))
    used = list(row_ids(verdict))
    model = VerdictModel(body, verdict, weight[used], torch.zeros(len(used)), 0)
    with torch.no_grad():
        margin = model(torch.tensor([[7, 8]]), torch.tensor([2]))[0, 0]
    full = torch.softmax(body.state([7, 8]) @ weight.T, 0)
    assert float(margin) == pytest.approx(float(torch.log(full[[0, 1]].sum() / full[[2, 4]].sum())), abs=1e-5)
    assert set(first_ids(verdict)) == {0, 1, 2, 4}


def test_a_word_that_begins_another_is_closed_by_the_end_of_the_turn():
    steps = reading([(1, 2)], [(1, 2, 3)], end=END)
    assert [step.next for step in steps] == [1, 2, None]
    assert (steps[-1].good, steps[-1].bad) == ((END,), (3,))
    assert reading([(1, 2)], [(1, 2, 3)], end=None) is None
    assert reading([(1, 2)], [(1, 2)], end=END) is None


@pytest.fixture(scope="module")
def content(tiny_tokenizer):
    return content_tokenizer(without_added_tokens(tiny_tokenizer("bpe").backend_tokenizer.to_str()))


@pytest.mark.parametrize(
    ("good", "bad"), [("safe", "unsafe"), ("符合预期", "不符合预期"), ("good", "bad"), ("keep it", "keep it not")]
)
def test_words_of_any_number_of_tokens_and_any_script_are_read(content, good, bad):
    verdict = compiled_verdict(Rubric(name="r", criteria="c", good=good, bad=bad), content, end=1)
    assert good in verdict.good
    assert bad in verdict.bad
    assert all(0 <= i < content.get_vocab_size() for i in row_ids(verdict))


def test_as_many_spellings_count_as_can_be_told_apart_where_the_verdict_begins(content):
    from tokenizers import models

    whole = ["safe", " safe", "Safe", " Safe", "unsafe", " unsafe", "Unsafe", " Unsafe"]
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(whole)}, unk_token="[UNK]"))
    rubric = Rubric(name="r", criteria="c", good="safe", bad="unsafe")
    assert compiled_verdict(rubric, words, end=1).good == ("safe", " safe", "Safe", " Safe")
    apart = compiled_verdict(rubric, content, end=1)  # to which some of the spellings begin alike
    assert set(apart.good) < {"safe", " safe", "Safe", " Safe"}
    assert forced_ids(apart) == ()
    shared = compiled_verdict(Rubric(name="r", criteria="c", good="keep it", bad="keep it not"), content, end=1)
    assert shared.good == ("keep it",)
    assert len(forced_ids(shared)) > 1
    assert spellings("好")[0] == ("好", " 好")


def test_words_that_cannot_be_told_apart_are_refused(content):
    with pytest.raises(ConfigError, match="change good or bad in the rubric"):
        compiled_verdict(Rubric(name="r", criteria="c", good="same", bad="same"), content, end=1)


def test_a_word_the_tokenizer_cannot_spell_is_refused():
    from tokenizers import models

    tokenizer = Tokenizer(models.WordLevel({"good": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(ConfigError, match="cannot spell the verdict word 'bad'"):
        compiled_verdict(Rubric(name="r", criteria="c"), tokenizer, end=None)


def test_place_in_the_batch_changes_no_bit_of_a_margin():
    steps = reading([(0, 1)], [(0, 2)], end=END)
    verdict = Verdict(good=("g",), bad=("b",), steps=steps)
    rows = torch.randn(len(row_ids(verdict)), 384, generator=torch.Generator().manual_seed(1))
    model = VerdictModel(nn.Identity(), verdict, rows, torch.zeros(len(rows)), 0)
    states = torch.randn(10, len(steps), 384, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([model.margin(states[i : i + 1]) for i in range(10)])
    assert torch.equal(model.margin(states), alone)
    assert torch.equal(model.margin(states.flip(0)).flip(0), alone)
    assert np.isfinite(alone.numpy()).all()
