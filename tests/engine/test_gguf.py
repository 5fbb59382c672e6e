"""GGUF: a base that comes as a GGUF file is converted once, exactly, to the same bytes everywhere."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from quality_judge import bases
from quality_judge.archive import cache_folder
from quality_judge.bases import PACKAGED, Packaged, converted_folder, find_base, packaged_gguf
from quality_judge.engine.gguf import WEIGHTS_FILE, convert_gguf, ready_base
from quality_judge.engine.weights import load_body, load_tokenizer
from quality_judge.errors import BaseModelError

gguf = pytest.importorskip("gguf", reason="pip install gguf")

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_SHA256 = "e8afeee8499b5535bd01cf44dd6f21edcd5c1e48b899dffabb53511f11d3aff3"
WIDTH, HEADS, INNER = 64, 2, 96


@pytest.fixture
def tiny_gguf(tmp_path, monkeypatch):
    """A function that writes a one-layer random Llama as a quantised GGUF file; the cache is a folder of the test."""
    monkeypatch.setenv("QUALITY_JUDGE_CACHE", str(tmp_path / "cache"))

    def write(architecture="llama"):
        path = tmp_path / "tiny.gguf"
        _write_gguf(path, architecture)
        return path

    return write


def _write_gguf(path, architecture):
    from tokenizers import pre_tokenizers

    writer = gguf.GGUFWriter(path, architecture)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠĠ", "he"]
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["Ġ Ġ", "h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    dice = np.random.default_rng(0)
    matrices = {
        "token_embd": (len(tokens), WIDTH), "blk.0.attn_q": (WIDTH, WIDTH), "blk.0.attn_k": (WIDTH // HEADS, WIDTH),
        "blk.0.attn_v": (WIDTH // HEADS, WIDTH), "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER),
    }  # fmt: skip
    for name, shape in matrices.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if name == "token_embd" else gguf.GGMLQuantizationType.Q4_1
        packed = gguf.quants.quantize(dice.normal(size=shape).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", dice.normal(size=WIDTH).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_conversion_holds_the_very_numbers_of_the_file_and_is_the_same_each_time(tiny_gguf, tmp_path):
    path = tiny_gguf()
    for name in ("first", "second"):
        convert_gguf(path, tmp_path / name)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    tensors = load_file(tmp_path / "first" / WEIGHTS_FILE)
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    assert len(tensors) == len(found) == 11
    for ours, theirs in (("model.embed_tokens", "token_embd"), ("model.layers.0.mlp.down_proj", "blk.0.ffn_down")):
        assert np.array_equal(tensors[f"{ours}.weight"].numpy(), found[f"{theirs}.weight"])
    query = found["blk.0.attn_q.weight"]  # llama.cpp keeps the halves of a rotated head interleaved
    turned = query.reshape(HEADS, -1, 2, WIDTH).swapaxes(1, 2).reshape(WIDTH, WIDTH)
    assert np.array_equal(tensors["model.layers.0.self_attn.q_proj.weight"].numpy(), turned)
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    assert (config["model_type"], config["dtype"], config["tie_word_embeddings"]) == ("llama", "float32", True)
    assert not {"quantization_config", "transformers_version"} & set(config)


def test_a_converted_folder_is_a_base_with_weights_and_a_tokenizer(tiny_gguf, tmp_path):
    convert_gguf(tiny_gguf(), tmp_path / "folder")
    base = find_base(str(tmp_path / "folder"))
    assert base.architecture == "decoder"
    ids = torch.tensor([load_tokenizer(base)("he  1")["input_ids"]])
    assert torch.isfinite(load_body(base)(input_ids=ids).last_hidden_state).all()


def test_blanks_before_a_digit_stay_together_as_in_the_published_tokenizer(tiny_gguf, tmp_path):
    convert_gguf(tiny_gguf(), tmp_path / "folder")
    tokenizer = load_tokenizer(find_base(str(tmp_path / "folder")))
    assert tokenizer.tokenize("he  12") == ["he", "ĠĠ", "1", "2"]


def test_a_packaged_file_is_converted_when_it_is_first_needed_and_never_again(tiny_gguf, monkeypatch):
    path = tiny_gguf()
    monkeypatch.syspath_prepend(path.parent)
    (path.parent / "packaged_for_a_test").mkdir()
    path = path.rename(path.parent / "packaged_for_a_test" / path.name)
    monkeypatch.setitem(PACKAGED, "some/gguf", Packaged("packaged_for_a_test", path.name, "nothing"))
    assert packaged_gguf("some/gguf") == path
    with pytest.raises(BaseModelError, match="not been converted"):
        find_base("some/gguf")
    base = ready_base("some/gguf")
    made = base.weight_files[0].stat().st_mtime_ns
    assert (base.found_in, base.folder) == ("package", converted_folder(path))
    assert ready_base("some/gguf").weight_files[0].stat().st_mtime_ns == made
    assert bases.find_base("some/gguf").sha256() == base.sha256()


def test_where_a_group_may_write_to_what_one_makes_the_cache_is_still_one_for_packed_judges(tiny_gguf, tmp_path):
    path = tiny_gguf()
    before = os.umask(0o002)
    try:
        convert_gguf(path, converted_folder(path))
    finally:
        os.umask(before)
    assert cache_folder() == tmp_path / "cache"
    assert converted_folder(path).parent.stat().st_mode & 0o022 == 0


def test_processes_that_convert_at_once_leave_one_whole_folder(tiny_gguf, tmp_path):
    path, folder = tiny_gguf(), tmp_path / "cache" / "one"
    code = "import sys, pathlib, quality_judge.engine.gguf as g; g.convert_gguf(*map(pathlib.Path, sys.argv[1:]))"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), str(folder)]) for _ in range(2)]
    assert [process.wait(timeout=200) for process in running] == [0, 0]
    assert [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] == ["one"]
    convert_gguf(path, tmp_path / "alone")
    assert contents(folder) == contents(tmp_path / "alone")


@pytest.mark.parametrize("damage", ["cut", "foreign", "other"])
def test_a_file_that_is_no_llama_in_gguf_is_refused_and_leaves_nothing(tiny_gguf, tmp_path, damage):
    path = tiny_gguf("stablelm" if damage == "other" else "llama")
    if damage != "other":
        path.write_bytes(path.read_bytes()[:5000] if damage == "cut" else b"no GGUF at all")
    with pytest.raises(BaseModelError, match=r"tiny\.gguf"):
        convert_gguf(path, tmp_path / "cache" / "folder")
    assert not [entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tiny_gguf, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BaseModelError, match="QUALITY_JUDGE_CACHE"):
        convert_gguf(tiny_gguf(), tmp_path / "file" / "folder")


@pytest.mark.slow
def test_smollm2_is_the_same_base_on_every_machine_and_speaks(smollm2):
    from transformers import AutoModelForCausalLM

    assert smollm2.sha256() == SMOLLM2_SHA256
    assert (smollm2.id, smollm2.found_in, smollm2.architecture) == (SMOLLM2, "package", "decoder")
    tokenizer = load_tokenizer(smollm2)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(smollm2.folder, dtype=torch.float32)
    said = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(said)
