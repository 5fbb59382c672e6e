"""Folders made to break in: each is refused before its first row, and nothing in it runs, connects or writes.

Where it matters the hashes and checksums are made to fit again (`resealed`), as an attacker would: then it is not the
hash that refuses.
"""

import json
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from quality_judge.engine import controls
from quality_judge.engine.scorer import load_scorer
from quality_judge.errors import BaseModelError, JudgeError
from quality_judge.judge import (
    ADAPTER_FILE,
    CARD_FILE,
    GOLDEN_FILE,
    HEAD_FILE,
    JUDGE_FILE,
    METRICS_FILE,
    SIGNATURE_FILE,
    TOKENIZER_FILE,
    checksum_of,
    load_judge,
    sha256_of,
    spelled,
)  # fmt: skip
from quality_judge.untrusted import tensor_shapes

ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
HANG = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
PATTERN = r"(?:(?:a|aa)+)+$|(?:\s|\s\s)+$"


class Case:
    """A copy of a sound judge and of its base, to be broken; `made` is where the canary would land."""

    def __init__(self, judge, base, place):
        self.base = Path(shutil.copytree(base, place / "base"))
        self.folder = Path(shutil.copytree(judge, place / "judge"))
        self.canary = place / "canary"
        self.say(lambda said: said["base"].update(id=str(self.base)))

    def say(self, change):
        """Changes judge.json; its checksum fits again."""
        content = json.loads((self.folder / JUDGE_FILE).read_text())
        change(content)
        self.write(JUDGE_FILE, spelled(content | {"checksum": checksum_of(content)}))

    def write(self, name, content):
        content = content.encode() if isinstance(content, str) else content
        (self.folder / name).write_bytes(content)

    def resealed(self, name, content, *, tensors=True):
        """A file replaced, and its hash, and with `tensors` what judge.json says of its tensors."""
        self.write(name, content)
        self.say(lambda said: said["files"].update({name: sha256_of(self.folder / name)}))
        if tensors and name in (HEAD_FILE, ADAPTER_FILE):
            shapes = {key: list(shape) for key, shape in tensor_shapes(self.folder / name).items()}
            self.say(lambda said: said["tensors"].update({name: shapes}))

    def tensors(self, name, change, **options):
        held = load_file(self.folder / name)
        change(held)
        self.resealed(name, to_safetensors(held), **options)

    def json(self, name, change):
        content = json.loads((self.folder / name).read_text())
        change(content)
        self.resealed(name, json.dumps(content))

    def config(self, change, *, name="config.json"):
        """Changes a file of the base; judge.json names the changed base."""
        path = self.base / name
        content = json.loads(path.read_text()) if path.exists() else {}
        change(content)
        path.write_text(json.dumps(content))
        self.new_base()

    def new_base(self):
        from quality_judge.bases import Base

        digest = Base(str(self.base), None, self.base, "folder", {}).sha256()
        self.say(lambda said: said["base"].update(sha256=digest))

    def pickled(self):
        canary = str(self.canary)

        class Evil:
            def __reduce__(self):
                return (os.system, (f"touch {canary}",))

        return pickle.dumps(Evil())


def linked(case, name, target):
    (case.folder / name).unlink()
    (case.folder / name).symlink_to(target)


def zipped(case):
    path = case.folder.parent / "archive"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", case.pickled())
    return path.read_bytes()


def drop_pair(held):
    first = sorted(name for name in held if name.startswith("lora_a."))[0]
    del held[first], held[first.replace("lora_a.", "lora_b.")]


def header(**said):
    text = json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text


def tokenizer(change):
    return lambda case: case.json(TOKENIZER_FILE, change)


def evil_module(case):
    (case.base / "evil.py").write_text(f"open({str(case.canary)!r}, 'w')")
    case.config(lambda said: said.update(auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}))


def other_weights(case):
    (case.base / "v2").mkdir()
    shutil.copy(case.base / "model.safetensors", case.base / "v2")
    case.config(lambda said: said.update(transformers_weights="v2/model.safetensors"))


def other_configuration(case):
    shutil.copy(case.base / "config.json", case.base / "config.4.0.0.json")
    case.config(lambda said: said.update(configuration_files=["config.4.0.0.json"]))


def no_safetensors(case):
    path = case.base / "model.safetensors"
    torch.save(load_file(path), case.base / "pytorch_model.bin")
    path.unlink()


def _reversed(vocabulary):
    return dict(zip(vocabulary, reversed(vocabulary.values()), strict=True))


def first(part, *rules):
    """The judge's tokenizer with these rules before its own ones of that part."""
    inner = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[part]
    return tokenizer(
        lambda t: t.update({part: {"type": "Sequence", inner: [*rules, *([t[part]] if t[part] else [])]}})
    )  # fmt: skip


def replaced(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def bits(**changes):
    return lambda case: case.say(lambda said: said["encoding"].update(changes))


F32 = {"dtype": "F32", "shape": [2, 2]}
CASES = {
    # which files are there
    "no judge.json": lambda c: (c.folder / JUDGE_FILE).unlink(),
    "no head": lambda c: (c.folder / HEAD_FILE).unlink(),
    "no adapter": lambda c: (c.folder / ADAPTER_FILE).unlink(),
    "no tokenizer": lambda c: (c.folder / TOKENIZER_FILE).unlink(),
    "no golden rows": lambda c: (c.folder / GOLDEN_FILE).unlink(),
    "no golden rows, and none declared": lambda c: (
        (c.folder / GOLDEN_FILE).unlink(), c.say(lambda s: s["files"].pop(GOLDEN_FILE))
    ),
    "an extra program": lambda c: c.write("evil.py", f"open({str(c.canary)!r}, 'w')"),
    "a declared program": lambda c: c.resealed("evil.py", f"open({str(c.canary)!r}, 'w')"),
    "a declared pickle": lambda c: c.resealed("pytorch_model.bin", c.pickled()),
    "a hidden file": lambda c: c.write(".pth", "import evil"),
    "a sub-folder": lambda c: (c.folder / "more").mkdir(),
    "a pipe": lambda c: os.mkfifo(c.folder / "pipe"),
    "a pipe for judge.json": lambda c: ((c.folder / JUDGE_FILE).unlink(), os.mkfifo(c.folder / JUDGE_FILE)),
    "a link to the password file": lambda c: linked(c, CARD_FILE, "/etc/passwd"),
    "a link to the right bytes": lambda c: (
        shutil.copy(c.folder / HEAD_FILE, c.folder.parent / "head"), linked(c, HEAD_FILE, c.folder.parent / "head")
    ),
    "judge.json a link": lambda c: (
        shutil.copy(c.folder / JUDGE_FILE, c.folder.parent / "said"), linked(c, JUDGE_FILE, c.folder.parent / "said")
    ),
    "a path out of the folder": lambda c: c.say(lambda s: s["files"].update({"../base/config.json": "0" * 64})),
    "a full path": lambda c: c.say(lambda s: s["files"].update({"/etc/passwd": "0" * 64})),
    "a name with a line break": lambda c: c.write("a\nb", "x"),
    # what judge.json says
    "judge.json too large": lambda c: c.write(JUDGE_FILE, " " * 16_000_001),
    "judge.json too deep": lambda c: c.write(JUDGE_FILE, '{"a":' * 100_000 + "1" + "}" * 100_000),
    "judge.json not UTF-8": lambda c: c.write(JUDGE_FILE, b"\xff\xfe{}"),
    "judge.json a pickle": lambda c: c.write(JUDGE_FILE, c.pickled()),
    "a number of 10,000 digits": lambda c: c.write(JUDGE_FILE, '{"a": ' + "9" * 10_000 + "}"),
    "a key twice": lambda c: c.write(
        JUDGE_FILE, (c.folder / JUDGE_FILE).read_text().replace('"kind"', '"kind": "scalar",\n "kind"', 1)
    ),
    "another spelling": lambda c: c.write(
        JUDGE_FILE, json.dumps(json.loads((c.folder / JUDGE_FILE).read_text()), indent=2)
    ),
    "an unknown setting": lambda c: c.say(lambda s: s.update(auto_map={"AutoModel": "evil.Model"})),
    "a template that escapes": lambda c: c.say(lambda s: s["encoding"].update(chat_template=ESCAPE)),
    "a template that hangs": lambda c: c.say(lambda s: s["rubric"].update(template=HANG)),
    "code to trust": lambda c: c.say(lambda s: s["base"].update(trust_remote_code=True)),
    "an edited stack": lambda c: c.say(lambda s: s["stack"].update(model=1.5)),
    "an edited rank": lambda c: c.say(lambda s: s["lora"].update(rank=1)),
    "an edited alpha": lambda c: c.say(lambda s: s["lora"].update(alpha=40)),
    "an adapter for a frozen base": lambda c: c.say(lambda s: s.update(method="frozen")),
    "a batch of 10^12 tokens": bits(buckets=[[64, 10**12]]),
    "rows of 10^12 bytes": bits(head_bytes=10**12),
    "10^9 ids of prefix": bits(prefix=[1] * 200_000),
    "an id the base does not know": bits(prefix=[300_000]),
    "control tokens forgotten": bits(control_ids=[], control_tokens=[]),
    "control tokens cut": lambda c: c.say(lambda s: s["encoding"].update(control_tokens=["[CLS]"])),
    "a calibration of no known kind": lambda c: c.say(lambda s: s.update(calibration={"method": "exec"})),
    "a falling calibration": lambda c: c.say(lambda s: s["calibration"].update(slope=-1.0)),
    "a calibration of words": lambda c: c.say(lambda s: s["calibration"].update(slope="1.0")),
    "a category nobody knows": lambda c: c.say(
        lambda s: s.update(category_calibrations={"x": s["calibration"]})
    ),
    "a surface that is not there": lambda c: c.say(lambda s: s["stack"].update(surface=1.0)),
    # weights
    "a flipped bit in the head": lambda c: c.write(HEAD_FILE, (c.folder / HEAD_FILE).read_bytes()[:-1] + b"\x7f"),
    "a pickle for a head": lambda c: c.resealed(HEAD_FILE, c.pickled(), tensors=False),
    "a zip for an adapter": lambda c: c.resealed(ADAPTER_FILE, zipped(c), tensors=False),
    "a header of 2^60 bytes": lambda c: c.resealed(HEAD_FILE, b"\xff" * 7 + b"\x0f{}", tensors=False),
    "a deep header": lambda c: c.resealed(
        HEAD_FILE, header(a=json.loads("[" * 60 + "]" * 60)), tensors=False
    ),
    "tensors that overlap": lambda c: c.resealed(
        HEAD_FILE, header(a={**F32, "data_offsets": [0, 16]}, b={**F32, "data_offsets": [8, 24]}) + b"\0" * 24,
        tensors=False,
    ),
    "a gap between tensors": lambda c: c.resealed(
        HEAD_FILE, header(a={**F32, "data_offsets": [8, 24]}) + b"\0" * 24, tensors=False
    ),
    "bytes behind the tensors": lambda c: c.resealed(
        HEAD_FILE, (c.folder / HEAD_FILE).read_bytes() + c.pickled(), tensors=False
    ),
    "a shape of 2^80 numbers": lambda c: c.resealed(
        HEAD_FILE, header(a={"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}) + b"\0" * 16,
        tensors=False,
    ),
    "a head of another shape": lambda c: c.tensors(HEAD_FILE, lambda t: t.update({"head.weight": torch.ones(2, 31)})),
    "a head without bias": lambda c: c.tensors(HEAD_FILE, lambda t: t.pop("head.bias")),
    "a head of no number": lambda c: c.tensors(HEAD_FILE, lambda t: t["head.bias"].fill_(float("nan"))),
    "a head of eight bits": lambda c: c.tensors(
        HEAD_FILE, lambda t: t.update({"head.bias": t["head.bias"].to(torch.float8_e4m3fn)})
    ),
    "an adapter of whole numbers": lambda c: c.tensors(
        ADAPTER_FILE, lambda t: t.update({name: value.int() for name, value in t.items() if "lora_a" in name})
    ),
    "an adapter of no number": lambda c: c.tensors(
        ADAPTER_FILE, lambda t: next(iter(t.values())).fill_(float("inf"))
    ),
    "an adapter that lacks a pair": lambda c: c.tensors(ADAPTER_FILE, drop_pair, tensors=False),
    "an adapter that lacks a pair and says so": lambda c: c.tensors(ADAPTER_FILE, drop_pair),
    "an adapter that lacks a half": lambda c: c.tensors(ADAPTER_FILE, lambda t: t.pop(sorted(t)[0])),
    "an adapter of nothing": lambda c: c.tensors(ADAPTER_FILE, lambda t: t.clear()),
    "an adapter for other layers": lambda c: c.tensors(
        ADAPTER_FILE, lambda t: [t.update({name.replace("layer.0", "layer.7"): t.pop(name)}) for name in list(t)]
    ),
    "other weights of the same shape": lambda c: c.tensors(
        ADAPTER_FILE, lambda t: [value.mul_(-3) for value in t.values()]
    ),
    # the base
    "another base": lambda c: c.say(lambda s: s["base"].update(sha256="1" * 64)),
    "a base only the hub has": lambda c: c.say(lambda s: s["base"].update(id="evil/base")),
    "a base by its address": lambda c: c.say(lambda s: s["base"].update(id="https://evil.example/base")),
    "a base up the tree": lambda c: c.say(lambda s: s["base"].update(id=f"{c.folder}/../base")),
    "a base with code": evil_module,
    "a base with code for a part of it": lambda c: c.config(lambda s: s.update(text_config={"auto_map": {"A": "b.C"}})),
    "a base with a kernel": lambda c: c.config(lambda s: s.update(_attn_implementation="evil/kernel")),
    "a base with a kernel inside": lambda c: c.config(
        lambda s: s.update(_attn_implementation_internal="evil/kernel")
    ),
    "a base that leads to another": lambda c: c.config(
        lambda s: s.update(base_model_name_or_path="evil/base", peft_type="LORA"), name="adapter_config.json"
    ),
    "a base whose index leads out": lambda c: c.config(
        lambda s: s.update(weight_map={"a": "../judge/head.safetensors"}), name="model.safetensors.index.json"
    ),
    "a base whose configuration leads to other weights": other_weights,
    "a base whose configuration leads to another": other_configuration,
    "a base of pickles": no_safetensors,
    "a base of fewer layers": lambda c: c.config(lambda s: s.update(num_hidden_layers=1)),
    "a base of more layers": lambda c: c.config(lambda s: s.update(num_hidden_layers=3)),
    "a base of a kind nobody knows": lambda c: c.config(lambda s: s.update(model_type="evil")),
    # golden rows and tokenizer
    "golden rows that score otherwise": lambda c: c.json(
        GOLDEN_FILE, lambda g: g["raw"].update(float32=[value + 1 for value in g["raw"]["float32"]])
    ),
    "golden rows of no number": lambda c: c.resealed(GOLDEN_FILE, '{"texts": ["a"], "raw": {"float32": [NaN]}}'),
    "golden rows of nulls": lambda c: c.json(GOLDEN_FILE, lambda g: g["raw"].update(float32=[None] * 10)),
    "too few golden rows": lambda c: c.json(GOLDEN_FILE, lambda g: g.update(texts=g["texts"][:2])),
    "golden rows of lists": lambda c: c.json(GOLDEN_FILE, lambda g: g.update(texts=[["a"]] * 10)),
    "a million golden rows": lambda c: c.json(
        GOLDEN_FILE, lambda g: g.update(texts=["a"] * 10**5, raw={"float32": [0] * 10**5})
    ),
    "metrics too deep": lambda c: c.resealed(METRICS_FILE, '{"a":' * 900 + "1" + "}" * 900),
    "a tokenizer that is none": lambda c: c.resealed(TOKENIZER_FILE, c.pickled()),
    "a tokenizer too deep": lambda c: c.resealed(TOKENIZER_FILE, '{"a":' * 100_000),
    "a tokenizer with control tokens": tokenizer(
        lambda t: t["added_tokens"].append({
            "id": 2, "content": "[CLS]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True,
        })
    ),
    "a tokenizer that pads": tokenizer(
        lambda t: t.update(truncation={"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0})
    ),
    "a tokenizer of other words": tokenizer(
        lambda t: t["model"].update(vocab=_reversed(t["model"]["vocab"]))
    ),
    "a tokenizer of ids too high": tokenizer(lambda t: t["model"]["vocab"].update(water=100_000)),
    "a pattern that hangs": tokenizer(
        lambda t: t.update(pre_tokenizer={
            "type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False,
        })
    ),
    "a sign that is doubled 45 times": first("normalizer", *[replaced({"String": "☃"}, "☃☃")] * 45),
    "a sign that a pattern doubles 45 times": first("normalizer", *[replaced({"Regex": "☃"}, "☃☃")] * 45),
    "a sign that grows on its way round": first(
        "normalizer", *[replaced({"String": "☃"}, "⛄⛄"), replaced({"String": "⛄"}, "☃☃")] * 20
    ),
    "a pattern that fills every gap": first("normalizer", *[replaced({"Regex": ""}, "☃")] * 45),
    "10^6 signs before each text": first("normalizer", {"type": "Prepend", "prepend": "☃" * 10**6}),
    "bytes of bytes in the normaliser": first("normalizer", *[{"type": "ByteLevel"}] * 45),
    "bytes of bytes": first(
        "pre_tokenizer", *[{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}] * 45
    ),
    "NFKD of what was put together": first("normalizer", *[{"type": "NFKD"}, replaced({"String": " "}, "\ufdfa")] * 20),
    "ids that grow when they are spelled": tokenizer(
        lambda t: t.update(decoder={"type": "Sequence", "decoders": [replaced({"String": "a"}, "aa")] * 45})
    ),
    "fences of white space": bits(fences=["  "] * 100),
    "a fence twice": bits(fences=["</TEXT>"] * 2),
    "a fence of its own": bits(fences=["the"]),
    # signatures
    "a signature of another judge": lambda c: c.write(
        SIGNATURE_FILE,
        spelled((said := {"judge_sha256": "0" * 64, "public_key": "0" * 64, "signature": "0" * 128})
                | {"checksum": checksum_of(said)}),
    ),
    "a signature of words": lambda c: c.write(SIGNATURE_FILE, "signed, somebody"),
}  # fmt: skip


@pytest.fixture
def case(sound_judge, tmp_path):
    return Case(*sound_judge("bert"), tmp_path)


def used(folder):
    return load_scorer(load_judge(folder), device="cpu", threads=1, precision=torch.float32)


def snapshot(place):
    return sorted((str(path), path.lstat().st_mtime_ns) for path in place.rglob("*"))


def test_the_sound_judge_scores(case, watched):
    scorer, seen = watched(lambda: used(case.folder))
    assert scorer.score(["Water boils."]).codes() == ["OK"]
    assert [event for event, _ in seen] == []


@pytest.mark.parametrize("name", CASES)
def test_a_broken_or_malicious_judge_is_refused_and_nothing_in_it_runs(case, watched, monkeypatch, name):
    monkeypatch.setattr(controls, "PROBE_SECONDS", 2)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # the refusal must not lean on it
    CASES[name](case)
    before = snapshot(case.folder.parent)
    result, seen = watched(lambda: used(case.folder))
    assert isinstance(result, JudgeError | BaseModelError), f"{name}: {result!r}"
    assert 20 < len(str(result)) < 2000
    assert "\n" not in str(result).split("\n  - ")[0]
    own_probe = [args for event, args in seen if event == "subprocess.Popen" and controls.PROBE in args[1]]
    assert len(own_probe) == (1 if name == "a pattern that hangs" else 0)
    assert [event for event, args in seen if not (event == "subprocess.Popen" and args in own_probe)] == []
    assert snapshot(case.folder.parent) == before
    assert not case.canary.exists()


def test_there_are_at_least_forty_of_them():
    assert len(CASES) >= 40


def test_a_chat_template_beside_the_base_is_never_rendered(case, watched):
    for text in (ESCAPE, HANG):
        (case.base / "chat_template.jinja").write_text(text)
        scorer, seen = watched(lambda: used(case.folder))
        assert scorer.score(["Water boils."]).codes() == ["OK"]
        assert seen == []


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_every_one_of_200_flipped_bits_in_any_file_is_refused(sound_judge, tmp_path, model_type):
    folder = Path(shutil.copytree(sound_judge(model_type)[0], tmp_path / "judge"))
    dice, refused = random.Random(model_type), 0
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(200):
        name = dice.choice(sorted(files))
        damaged = bytearray(files[name])
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        (folder / name).write_bytes(damaged)
        try:
            load_judge(folder)
        except JudgeError:
            refused += 1
        (folder / name).write_bytes(files[name])
    assert refused == 200
    load_judge(folder)
