"""Published layouts as bases: each loads without its language-model head, pads change nothing, the numbers stay.

The weights are a formula, so the stored outputs are the same on every machine and show a change in transformers.
"""

import math

import pytest
import torch

from quality_judge.bases import find_base
from quality_judge.engine.attention import attend, set_scoring_attention
from quality_judge.engine.kinds import ScalarModel, at_end, last_hidden_state
from quality_judge.engine.packed import pack_linears, packable
from quality_judge.engine.precision import precisions_here
from quality_judge.engine.prefix import begun_with, shared_prefix
from quality_judge.engine.weights import hidden_size, load_body

PACKED = [(dtype, {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]) for dtype in precisions_here("cpu")]
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 96,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
GROUPED = SHAPE | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
GLM = GROUPED | {"head_dim": 8, "rope_parameters": {"rope_theta": 10_000.0, "partial_rotary_factor": 0.5}}
LAYOUTS = {  # name: (model with its head as it is published, its settings)
    "llama-3.1": ("LlamaForCausalLM", GROUPED | {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False}),
    "llama-3.2": ("LlamaForCausalLM", GROUPED | {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}),
    "llama-guard-3": (
        "LlamaForCausalLM",
        GROUPED | {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False, "eos_token_id": [2, 3, 4]},
    ),
    "smollm2": (
        "LlamaForCausalLM",
        GROUPED | {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
    "qwen2": ("Qwen2ForCausalLM", GROUPED | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", GROUPED | {"head_dim": 16, "tie_word_embeddings": False}),
    "glm-4": ("GlmForCausalLM", GLM | {"tie_word_embeddings": False}),
    "glm-4-0414": ("Glm4ForCausalLM", GLM | {"tie_word_embeddings": False}),
    "bert": ("BertForMaskedLM", SHAPE),
    "xlm-roberta": ("XLMRobertaForMaskedLM", SHAPE | {"pad_token_id": 1}),
    "deberta-v2": (
        "DebertaV2ForMaskedLM",
        SHAPE | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False},
    ),
    "modernbert": ("ModernBertForMaskedLM", SHAPE | {"local_attention": 6, "global_attn_every_n_layers": 2}),
}  # fmt: skip
GOLDEN = {  # outputs of the head on both rows of IDS
    "llama-3.1": [0.5428, -0.4726],
    "llama-3.2": [0.1056, -0.6362],
    "llama-guard-3": [0.5428, -0.4726],
    "smollm2": [0.4298, 0.9458],
    "qwen2": [-0.4938, 0.2944],
    "qwen3": [-0.3898, 0.5396],
    "glm-4": [-0.9284, 0.7224],
    "glm-4-0414": [-0.6266, 0.2779],
    "bert": [0.3854, -0.7197],
    "xlm-roberta": [-0.5358, -0.4302],
    "deberta-v2": [-1.0422, -0.3161],
    "modernbert": [-0.8641, -4.4974],
}
IDS = torch.tensor([[5, 17, 90, 33, 8, 61, 42, 7, 29, 75], [11, 64, 3, 88, 50, 9, 0, 0, 0, 0]])
LENGTHS = torch.tensor([10, 6])


def fill(model):
    """Puts numbers of a formula into every parameter: scales near 1, all others between -.3 and .3."""
    with torch.no_grad():
        for at, (name, parameter) in enumerate(sorted(model.named_parameters())):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 1.7 + at)
            scale = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_((wave * 0.3 + scale).reshape(parameter.shape).to(parameter.dtype))


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A function from a layout's name to a folder with a tiny model of it, saved with its head; made once each."""
    import transformers

    made = {}

    def make(name):
        if name not in made:
            of, settings = LAYOUTS[name]
            of = getattr(transformers, of)
            made[name] = tmp_path_factory.mktemp(name)
            model = of(of.config_class(**settings))
            fill(model)
            model.save_pretrained(made[name])
        return made[name]

    return make


def judge_model(folder, of_a_decoder="last"):
    base = find_base(str(folder))
    pooling = "layers" if base.architecture == "encoder" else of_a_decoder
    model = ScalarModel(load_body(base), hidden_size(base), 1, pooling).eval()
    with torch.no_grad():
        model.head.weight.copy_(torch.cos(torch.arange(model.head.in_features)))
    return model


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_outputs_are_the_stored_ones(layout, name):
    model = judge_model(layout(name))
    with torch.inference_mode():
        found = model(IDS, LENGTHS)[:, 0]
    assert found[0] != found[1]
    torch.testing.assert_close(found, torch.tensor(GOLDEN[name]), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("pooling", ["last", "layers_last"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_row_in_a_padded_batch_has_the_state_it_has_alone(layout, name, pooling):
    model = judge_model(layout(name), pooling)
    other = IDS.clone()
    other[1, 6:] = 77
    with torch.inference_mode():
        together, again = model.pooled(IDS, LENGTHS), model.pooled(other, LENGTHS)
        alone = model.pooled(IDS[1:, :6], LENGTHS[1:])
    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, together, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name, (of, _) in LAYOUTS.items() if of.endswith("ForCausalLM")])
def test_a_decoders_body_under_its_own_head_gives_the_published_models_logits(layout, name):
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(layout(name), dtype=torch.float32, attn_implementation="sdpa").eval()
    body = load_body(find_base(str(layout(name)))).eval()
    tied = LAYOUTS[name][1]["tie_word_embeddings"]
    assert (whole.lm_head.weight.data_ptr() == whole.model.embed_tokens.weight.data_ptr()) == tied
    assert not any("lm_head" in parameter for parameter, _ in body.named_parameters())
    with torch.inference_mode():
        hidden = body(input_ids=IDS[:1], use_cache=False).last_hidden_state
        torch.testing.assert_close(
            whole(input_ids=IDS[:1]).logits, hidden @ whole.lm_head.weight.T, rtol=1e-5, atol=1e-5
        )
    assert math.isfinite(hidden.abs().max())


DECODERS = [name for name, (of, _) in LAYOUTS.items() if of.endswith("ForCausalLM")]


@pytest.mark.parametrize("name", DECODERS)
def test_rows_behind_a_prefix_computed_once_have_the_states_of_whole_rows(layout, name):
    body = load_body(find_base(str(layout(name)))).eval()
    set_scoring_attention(body)
    begun = shared_prefix(body, IDS[0, :4].tolist())
    assert begun is not None
    whole = torch.cat([IDS[:1, :4].expand(2, -1), IDS], 1)
    with torch.inference_mode():
        for _ in range(2):  # a second time: nothing was written to it
            found = at_end(last_hidden_state(body, IDS, LENGTHS, begun), LENGTHS, 2)
            expected = at_end(last_hidden_state(body, whole, LENGTHS + 4), LENGTHS + 4, 2)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_gradients_through_a_prefix_shared_by_a_batch_are_those_of_whole_rows(layout, name):
    body = load_body(find_base(str(layout(name))), attention="eager").eval()
    whole = torch.cat([IDS[:1, :4].expand(2, -1), IDS], 1)
    found = []
    for begun in (False, True):
        past = begun_with(body, whole[:1, :4]) if begun else None
        ids, lengths = (IDS, LENGTHS) if begun else (whole, LENGTHS + 4)
        body.zero_grad()
        at_end(last_hidden_state(body, ids, lengths, past), lengths, 2).square().sum().backward()
        found.append({key: p.grad.clone() for key, p in body.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, expected in found[0].items():
        torch.testing.assert_close(found[1][key], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_body_that_attends_within_a_window_has_no_prefix_computed_once(tmp_path):
    from transformers import MistralConfig, MistralModel

    MistralModel(MistralConfig(**GROUPED, sliding_window=8)).save_pretrained(tmp_path)
    assert shared_prefix(load_body(find_base(str(tmp_path))).eval(), [1, 5, 9]) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_row_that_fills_its_bucket_has_the_same_bits_beside_short_and_long_rows(layout, name, dtype):
    model = judge_model(layout(name))
    set_scoring_attention(model.body)
    model.cast(dtype)
    full = torch.stack([IDS[0], IDS[0].flip(0)])
    with torch.inference_mode():
        beside_short, beside_long = model(IDS, LENGTHS), model(full, torch.tensor([10, 10]))
    assert torch.equal(beside_short[0], beside_long[0])


@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize("before", [0, 7])
@pytest.mark.parametrize("most_scores", [1, 400, 10**9])
def test_attention_as_two_products_is_that_of_torch_within_bfloat16(monkeypatch, key_heads, before, most_scores):
    monkeypatch.setattr("quality_judge.engine.attention.MOST_SCORES", most_scores)
    dice = torch.Generator().manual_seed(5)
    query, key, value = (
        torch.randn(3, heads, length, 16, generator=dice).bfloat16()
        for heads, length in ((6, 10), (key_heads, before + 10), (key_heads, before + 10))
    )
    seen = torch.ones(10, before + 10, dtype=torch.bool).tril(before).expand(3, 1, -1, -1).contiguous()
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.bfloat16).min).bfloat16()
    found, _ = attend(torch.nn.Identity(), query, key, value, added)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attn_mask=seen, enable_gqa=True
    )
    torch.testing.assert_close(found.float(), expected.transpose(1, 2), rtol=0.02, atol=0.02)


def test_how_many_scores_stand_in_the_cache_changes_no_bit(monkeypatch):
    dice = torch.Generator().manual_seed(6)
    query, key, value = torch.randn(3, 4, 6, 40, 32, generator=dice).bfloat16()
    added = torch.zeros(4, 1, 40, 40, dtype=torch.bfloat16)
    found = set()
    for most in (1, 3 * 1600, 6 * 1600, 10**9):
        monkeypatch.setattr("quality_judge.engine.attention.MOST_SCORES", most)
        found.add(attend(torch.nn.Identity(), query, key, value, added)[0].float().numpy().tobytes())
    assert len(found) == 1


@pytest.mark.parametrize(("dtype", "apart"), PACKED)
@pytest.mark.parametrize("name", LAYOUTS)
def test_packed_layers_give_what_plain_ones_give(layout, name, dtype, apart):
    """Every linear layer of every architecture, gated and not, with a bias and without."""
    plain, packed = judge_model(layout(name)), judge_model(layout(name))
    packed.load_state_dict(plain.state_dict())
    for model in (plain, packed):
        model.cast(dtype)
    assert packable(packed.body, "cpu")
    pack_linears(packed.body, tokens=64)
    assert not any(type(module) is torch.nn.Linear for module in packed.body.modules())
    with torch.inference_mode():
        torch.testing.assert_close(packed(IDS, LENGTHS), plain(IDS, LENGTHS), rtol=apart, atol=apart)


def test_weights_that_a_machines_processes_share_stay_shared_where_they_are_large(layout, monkeypatch):
    body = judge_model(layout("bert")).body
    monkeypatch.setattr("quality_judge.engine.packed.MOST_FLOAT32_BYTES", 1_000)
    assert not packable(body, "cpu")


def test_a_gelu_behind_a_layer_is_computed_with_it(layout):
    model = judge_model(layout("bert"))
    pack_linears(model.body, tokens=64)
    acts = [layer.intermediate.intermediate_act_fn for layer in model.body.encoder.layer]
    assert all(isinstance(act, torch.nn.Identity) for act in acts)
