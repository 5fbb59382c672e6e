"""Mutated files against every parser: each is taken for what it says, or refused by an error of ours, in time.

    python tests/hostile/fuzz.py --executions 1000000 --seed 7

The test beside it runs 20,000. A crash (any other exception), a hang (over SECONDS), or a file that is taken though it
says something it must not, ends the run with the seed and number that make it again. It knows nothing of Spark.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 10.0
TOKENS = [
    b"null", b"true", b"NaN", b"-1", b"1e999", b"9" * 400, b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\n",
    b"\r", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"!!python/object/apply:os.system ",
    b"&a ", b"*a", b"<<: ", b"- ", b"  ", b"\t", b"=cmd()", b"../", b"label", b"judge", b"0", b"[" * 300,
    b'{"a":' * 300,
]  # fmt: skip


def mutated(content: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """`content` after one to six small accidents: something flipped, cut, doubled, put in or spliced."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        at = dice.randrange(len(data) + 1)
        end = min(len(data), at + dice.choice((1, 1, 2, 4, 16, 200)))
        kind = dice.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end] * dice.choice((1, 2, 20))
        elif kind == 3:
            data[at:at] = dice.choice(TOKENS)
        elif kind == 4:
            data[at:end] = dice.choice(TOKENS)
        elif kind == 5:
            del data[at:]
        else:
            other = dice.choice(others)
            begin = dice.randrange(len(other) + 1)
            data[at:end] = other[begin : begin + dice.choice((1, 8, 64))]
    return bytes(data)


def label_rows() -> list[dict]:
    return [
        {"prompt": "Why?", "completion": "Water boils.", "label": True, "id": "1", "weight": 0.5},
        {"text": "click here", "label": "bad", "annotator": "a", "source": "web"},
        {"prompt": "", "chosen": "good words", "rejected": "bad"},
        {"prompt": "p", "completions": ["best", "middle", "worst"]},
        {"text": "an advert", "labels": {"advert": 1, "empty": None}},
    ]


def labels_parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["Water boils.", "click"], "label": [True, False]}), sink)
    return sink.getvalue()


def labels_csv() -> bytes:
    return b'text,label,weight\n"Water, boils",1,0.5\nclick here,bad,1\n"two\nlines",0,2\n'


def read_labels(path: Path, content: bytes) -> None:
    from quality_judge.labels import clean_labels, load_labels
    from quality_judge.labels.parse import is_blank

    labels = load_labels([path])
    assert len(labels) > 0
    assert all(
        row.weight > 0 and isinstance(row.label, bool) and not is_blank(row.completion) for row in labels.samples
    )
    assert all(row.chosen != row.rejected for row in labels.preferences)
    clean_labels(labels)


def read_judge_json(path: Path, content: bytes) -> None:
    """Only the very bytes that were saved are taken."""
    from quality_judge.judge import _read_spec

    (path.parent / "judge.json").write_bytes(content)
    _read_spec(path.parent)
    assert content == SEEDS["judge.json"][1][0], "a judge.json that nobody saved was taken"


def read_spec_content(path: Path, content: bytes) -> None:
    """As of an attacker who mends checksum and spelling: the content must be refused or describe a judge."""
    from quality_judge.config import parse
    from quality_judge.judge import fingerprint
    from quality_judge.judge_spec import MAX_BATCH_TOKENS, JudgeSpec
    from quality_judge.untrusted import json_object

    spec = parse(JudgeSpec, json_object(content.decode("utf-8", "replace"), what="judge.json"), where="judge.json")
    assert max(length * rows for length, rows in spec.encoding.buckets) <= MAX_BATCH_TOKENS
    assert all(isinstance(name, str) for name in spec.files)
    fingerprint(spec)


def read_config(path: Path, content: bytes) -> None:
    from quality_judge.config import JudgeConfig, load_judge_config

    assert isinstance(load_judge_config(path), JudgeConfig)


def read_rubric(path: Path, content: bytes) -> None:
    from quality_judge.rubric import Rubric

    rubric = Rubric.load(path)
    assert rubric.name
    assert rubric.criteria
    assert len(rubric.sha256) == 64


def read_policy(path: Path, content: bytes) -> None:
    from quality_judge.policy import Policy

    resolved = Policy.load(path).resolve(0.5)
    assert all(0 <= low <= high <= 1 for _, high, low in resolved.bands())


def read_suite(path: Path, content: bytes) -> None:
    from quality_judge.expectations import load_suite

    load_suite(path)


def read_golden(path: Path, content: bytes) -> None:
    from types import SimpleNamespace

    from quality_judge.engine.golden import MAX_ROWS, golden_rows

    path.write_bytes(content)
    texts, saved = golden_rows(SimpleNamespace(path=lambda _: path))  # type: ignore[arg-type]
    assert len(texts) <= MAX_ROWS
    assert all(isinstance(text, str) for text in texts)
    assert isinstance(saved, dict)


def read_tensors(path: Path, content: bytes) -> None:
    """What is taken is what the safetensors library reads, shape for shape."""
    import safetensors

    from quality_judge.untrusted import tensor_shapes

    shapes = tensor_shapes(path)
    with safetensors.safe_open(str(path), "np") as file:
        assert {name: tuple(file.get_slice(name).get_shape()) for name in shapes} == shapes
        assert len(list(file.keys())) == len(shapes)


def read_calibration(path: Path, content: bytes) -> None:
    from quality_judge.stats.calibration import Calibration
    from quality_judge.untrusted import bounded_json

    found = Calibration.from_dict(bounded_json(path)).apply([-5.0, 0.0, 5.0])
    assert 0 < found[0] <= found[1] <= found[2] < 1


def read_tokenizer(path: Path, content: bytes) -> None:
    """What is taken encodes plain texts, and no text as a control token."""
    from quality_judge.engine.controls import refuse_unsafe_tokenizer
    from quality_judge.engine.encode import Encoder
    from quality_judge.judge_spec import Encoding

    encoding = Encoding(
        prefix=(0,), between=(), suffix=(), pad=0, control_ids=(2,), control_tokens=("b",), max_tokens=16, cut="head",
        head_bytes=64, tail_bytes=0, buckets=((16, 4),),
    )  # fmt: skip
    encoder = Encoder(content.decode("utf-8", "replace"), encoding)
    refuse_unsafe_tokenizer(encoder, known_ids=10)
    assert 2 not in encoder.encode(["b", "a b", "bb"]).tokens.ids


def read_base_config(path: Path, content: bytes) -> None:
    from quality_judge.bases import _runs_code, _settings, find_base

    (path.parent / "model.safetensors").write_bytes(b"")
    (path.parent / "config.json").write_bytes(content)
    base = find_base(str(path.parent))
    assert not [key for key, value in _settings(base.config) if _runs_code(key, value)]


def seeds() -> dict[str, tuple]:
    """For each parser: how it is called, files that it takes, and the file's name."""
    import numpy as np
    from safetensors.numpy import save

    from quality_judge.config import conf_folder
    from quality_judge.engine.golden import GOLDEN_TEXTS, golden_content
    from quality_judge.judge import checksum_of, spelled

    conf = conf_folder()
    lines = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in label_rows())
    spec = small_judge_json()
    golden = json.dumps(golden_content({"float32": np.linspace(-1, 1, len(GOLDEN_TEXTS))})).encode()
    tensors = save({"head.weight": np.ones((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)})
    isotonic = {"method": "isotonic", "knots_raw": [-1.0, 0.0, 1.0], "knots_probability": [0.1, 0.5, 0.9]}
    platt = {"method": "platt", "slope": 1.0, "bias": 0.0, "center": 0.0, "scale": 1.0}
    config = {"model_type": "bert", "hidden_size": 32, "text_config": {"hidden_size": 3}, "auto": [1, {"b": None}]}

    def files(folder: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((conf / folder).glob("*.yaml"))]

    return {
        "judge.json": (read_judge_json, [spelled(spec | {"checksum": checksum_of(spec)}).encode()], "judge.json"),
        "judge.json, mended": (read_spec_content, [json.dumps(spec).encode()], "spec.json"),
        "judge config": (read_config, files("judges"), "config.yaml"),
        "rubric": (read_rubric, files("rubrics"), "rubric.yaml"),
        "policy": (read_policy, files("policies"), "policy.yaml"),
        "suite": (read_suite, files("expectations"), "suite.yaml"),
        "labels jsonl": (read_labels, [lines], "labels.jsonl"),
        "labels gzip": (read_labels, [gzip.compress(lines)], "labels.jsonl.gz"),
        "labels json": (read_labels, [json.dumps(label_rows()).encode()], "labels.json"),
        "labels csv": (read_labels, [labels_csv()], "labels.csv"),
        "labels parquet": (read_labels, [labels_parquet()], "labels.parquet"),
        "golden rows": (read_golden, [golden], "golden.json"),
        "tensors": (read_tensors, [tensors], "head.safetensors"),
        "calibration": (read_calibration, [json.dumps(each).encode() for each in (isotonic, platt)], "c.json"),
        "tokenizer": (read_tokenizer, [small_tokenizer()], "tokenizer.json"),
        "base config": (read_base_config, [json.dumps(config).encode()], "config.json"),
    }


def small_judge_json() -> dict:
    from quality_judge.judge_spec import BaseReference, Encoding, JudgeSpec, Lora, Stack
    from quality_judge.rubric import NO_RUBRIC

    encoding = Encoding(
        prefix=(1,), between=(2,), suffix=(2,), pad=0, control_ids=(0, 1), control_tokens=("[PAD]", "[CLS]"),
        max_tokens=64, cut="head", head_bytes=512, tail_bytes=0, buckets=((16, 4), (64, 2)),
    )  # fmt: skip
    base = BaseReference(id="some/base", revision=None, architecture="encoder", sha256="0" * 64)
    spec = JudgeSpec(
        name="small", kind="scalar", rubric=NO_RUBRIC, encoding=encoding, method="lora", pooling="layers", base=base,
        lora=Lora(rank=2, alpha=4), stack=Stack(bias=0.25, model=1.5, surface=0.0), calibration={"method": "platt"},
        labels={"n": 200}, created_with={"torch": "2"}, files={"head.safetensors": "0" * 64},
        tensors={"head.safetensors": {"head.weight": (2, 3)}},
    )  # fmt: skip
    return spec.model_dump(mode="json", exclude={"checksum"})


def small_tokenizer() -> bytes:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "b": 2, "##c": 3}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return tokenizer.to_str().encode()


SEEDS: dict[str, tuple] = {}


def fuzz(executions: int, *, seed: int = 0, folder: Path) -> dict[str, tuple[int, int, float]]:
    """For each parser (files tried, files taken, the slowest in seconds). An AssertionError says how to repeat."""
    from quality_judge.errors import QualityJudgeError

    SEEDS.update(SEEDS or seeds())
    pool = [content for _, contents, _ in SEEDS.values() for content in contents]
    result = {}
    for name, (read, contents, file) in SEEDS.items():
        place = folder / name.replace(" ", "-").replace(",", "")
        place.mkdir(exist_ok=True)
        taken, slowest = 0, 0.0
        each = -(-executions // len(SEEDS))
        for number in range(each):
            dice = random.Random(f"{seed} {name} {number}")
            content = dice.choice(contents) if number == 0 else mutated(dice.choice(contents), dice, pool)
            (place / file).write_bytes(content)
            started = time.perf_counter()
            try:
                read(place / file, content)
                taken += 1
            except QualityJudgeError:
                pass
            except BaseException as error:
                fault = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{name}, seed {seed}, number {number}: {fault}") from error
            if number:  # the first also imports
                slowest = max(slowest, time.perf_counter() - started)
            assert slowest < SECONDS, f"{name}, seed {seed}, number {number}: {slowest:.1f} s"
        assert taken > 0, f"{name}: not even an unchanged file was taken"
        result[name] = each, taken, round(slowest, 3)
    return result


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--executions", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        for parser, (tried, taken, slowest) in fuzz(given.executions, seed=given.seed, folder=Path(scratch)).items():
            print(f"{parser:<20} {tried:>8} tried {taken:>7} taken, slowest {slowest:.3f} s")
        print(f"{given.executions} in {time.perf_counter() - started:.0f} s")
