"""A base model is found by the same name everywhere, and one that could run code or holds pickles is refused."""

import json
import sys

import pytest

from quality_judge.bases import find_base
from quality_judge.errors import BaseModelError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def model(tmp_path):
    """A function that writes a folder that looks like a model, with these settings, and gives its path."""

    def write(**config):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
        (tmp_path / "model.safetensors").write_bytes(b"weights")
        return tmp_path

    return write


def test_a_folder_is_a_base_and_its_type_tells_the_architecture(model):
    base = find_base(str(model()))
    assert (base.found_in, base.architecture, base.revision) == ("folder", "encoder", None)
    assert find_base(str(model(model_type="llama"))).architecture == "decoder"


def test_the_packaged_base_is_found_by_its_hub_id_without_a_hub(packaged_base):
    assert (packaged_base.found_in, packaged_base.id, packaged_base.architecture) == ("package", MINILM, "encoder")
    assert len(packaged_base.sha256()) == 64


def test_the_hash_covers_the_index_where_the_index_chooses_among_the_weight_files(model):
    folder, seen = model(), set()
    (folder / "other.safetensors").write_bytes(b"other weights")
    for named in ("model.safetensors", "other.safetensors"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": named}}))
        seen.add(find_base(str(folder)).sha256())
    assert len(seen) == 2


def test_the_hash_covers_the_configuration_and_every_weight_file_but_no_other(model):
    folder = model()
    seen = {find_base(str(folder)).sha256()}
    (folder / "README.md").write_text("x")
    assert find_base(str(folder)).sha256() in seen
    for change in (
        lambda: (folder / "model.safetensors").write_bytes(b"Weights"),
        lambda: (folder / "more.safetensors").write_bytes(b""),
        lambda: (folder / "more.safetensors").rename(folder / "none.safetensors"),
        lambda: model(hidden_size=8),
    ):
        change()
        digest = find_base(str(folder)).sha256()
        assert digest not in seen
        seen.add(digest)


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoModel": "evil.Model"}}, {"trust_remote_code": True}, {"custom_pipelines": {}},
        {"use_kernels": True},
        {"attn_implementation": "someone/kernels"}, {"_attn_implementation": "someone/kernels"},
        {"kernel_config": {}},
    ],
    ids=lambda config: next(iter(config)),
)  # fmt: skip
def test_settings_that_run_or_fetch_code_are_refused(model, config):
    with pytest.raises(BaseModelError, match=next(iter(config))):
        find_base(str(model(**config)))


@pytest.mark.parametrize(
    "config",
    [
        {"transformers_weights": "v2/model.safetensors"}, {"text_config": {"transformers_weights": "v2/m.safetensors"}},
        {"configuration_files": ["config.4.0.0.json"]}, {"vision_config": {"backbone": "some/model"}},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_lead_to_files_which_the_hash_does_not_cover_are_refused(model, config):
    with pytest.raises(BaseModelError, match="does not cover"):
        find_base(str(model(**config)))


@pytest.mark.parametrize(
    "config",
    [{"backbone": None}, {"_attn_implementation_autoset": True}, {"conv_kernel_size": 3}],
    ids=lambda config: next(iter(config)),
)
def test_harmless_settings_of_published_models_are_taken(model, config):
    assert find_base(str(model(**config))).config.items() >= config.items()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"model_type": 3}', "[" * 100_000, "x" * 1_000_001, "\xff\xfe"],
    ids=lambda text: repr(text[:8]),
)
def test_a_folder_whose_configuration_is_not_one_is_refused(model, text):
    folder = model()
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BaseModelError):
        find_base(str(folder))


def test_pickled_weights_are_never_a_base(model):
    folder = model()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="pickled"):
        find_base(str(folder))


@pytest.mark.parametrize("name", ["", "no-such-model", "no/such-model-at-all", "../..", "a/b/c", "/no/such/folder"])
def test_a_name_that_leads_nowhere_is_refused_with_a_next_step(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseModelError, match=r"config\.json"):
        find_base(name)


def test_a_hub_cache_that_holds_no_weights_does_not_end_the_search(monkeypatch, tmp_path, model):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(name, *, local_files_only, **_):
        asked.append(local_files_only)
        partial = tmp_path / "partial"
        partial.mkdir(exist_ok=True)
        (partial / "config.json").write_text('{"model_type": "bert"}')
        return str(partial if local_files_only else model())

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert find_base("some/model", "main").found_in == "hub"
    assert asked == [True, False]


def test_offline_nothing_is_asked_of_the_hub(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def snapshot(name, *, local_files_only, **_):
        assert local_files_only
        raise FileNotFoundError

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BaseModelError):
        find_base("some/model")


def test_finding_a_base_loads_no_model_library(packaged_base):
    import subprocess

    code = (
        f"from quality_judge.bases import find_base; find_base({MINILM!r}); import sys; print('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
