"""A judge folder is whole and unchanged, or refused; the fingerprint follows what can change a score, and only that."""

import json
import os
import pickle
import random
import shutil

import pytest

from quality_judge.errors import InputError, JudgeError
from quality_judge.judge import (
    ADAPTER_FILE,
    CARD_FILE,
    HEAD_FILE,
    JUDGE_FILE,
    METRICS_FILE,
    REQUIRED_FILES,
    TOKENIZER_FILE,
    checksum_of,
    fingerprint,
    load_judge,
    save_judge,
    sha256_of,
    spelled,
)
from quality_judge.judge_spec import Encoding, Implicit, Lora, Stack, Verdict, VerdictStep
from quality_judge.rubric import Rubric


def edited(folder, change, *, honest=True):
    """Changes judge.json by `change(content)`; with `honest` its checksum is made to fit again."""
    path = folder / JUDGE_FILE
    content = json.loads(path.read_text())
    change(content)
    if honest:
        content["checksum"] = checksum_of(content)
    path.write_text(spelled(content))


def test_a_saved_judge_loads_as_it_was_saved(tmp_path, make_spec, judge_files):
    spec = make_spec(
        calibration={"kind": "platt", "slope": 0.1 + 0.2, "offset": -1e-17}, thresholds={"best": 0.5, "certified": None}
    )
    saved = save_judge(tmp_path / "deep" / "er" / "judge", spec, judge_files)
    loaded = load_judge(saved.folder)
    assert loaded == saved
    assert loaded.spec.files == {name: sha256_of(loaded.path(name)) for name in judge_files}
    assert loaded.spec.model_copy(update={"files": {}, "tensors": {}, "checksum": ""}) == spec
    assert loaded.path(CARD_FILE).read_bytes() == judge_files[CARD_FILE]
    assert loaded.spec.threshold == 0.5


def test_files_may_be_given_as_paths_and_the_adapter_is_optional(tmp_path, make_spec, judge_files):
    source = tmp_path / "adapter"
    source.write_bytes(judge_files[HEAD_FILE])
    judge = save_judge(tmp_path / "judge", make_spec(method="full"), {**judge_files, ADAPTER_FILE: source})
    assert judge.path(ADAPTER_FILE).read_bytes() == judge_files[HEAD_FILE]
    assert judge.spec.tensors == {name: {"head.weight": (4, 8)} for name in (ADAPTER_FILE, HEAD_FILE)}


def test_two_saves_of_one_judge_are_the_same_bytes(tmp_path, make_spec, judge_files):
    one, two = (save_judge(tmp_path / name, make_spec(), judge_files) for name in ("one", "two"))
    assert one.path(JUDGE_FILE).read_bytes() == two.path(JUDGE_FILE).read_bytes()


def test_every_single_bit_flip_in_any_file_is_refused(judge_folder):
    dice = random.Random(11)
    names = sorted(path.name for path in judge_folder.iterdir())
    original = {name: (judge_folder / name).read_bytes() for name in names}
    for flip in range(240):
        name = names[flip % len(names)]
        damaged = bytearray(original[name])
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        (judge_folder / name).write_bytes(damaged)
        with pytest.raises(JudgeError):
            load_judge(judge_folder)
        (judge_folder / name).write_bytes(original[name])
    load_judge(judge_folder)


@pytest.mark.parametrize("name", [*REQUIRED_FILES, JUDGE_FILE])
def test_a_missing_file_is_refused(judge_folder, name):
    (judge_folder / name).unlink()
    with pytest.raises(JudgeError, match=name):
        load_judge(judge_folder)


@pytest.mark.parametrize("name", [ADAPTER_FILE, "notes.txt", ".hidden", "head.safetensors~"])
def test_a_file_that_is_not_listed_is_refused(judge_folder, name):
    (judge_folder / name).write_bytes(b"")
    with pytest.raises(JudgeError, match="not listed"):
        load_judge(judge_folder)


def test_a_listed_file_that_has_no_place_in_a_judge_is_refused(judge_folder):
    (judge_folder / "run.py").write_bytes(b"x")
    edited(judge_folder, lambda content: content["files"].update({"run.py": sha256_of(judge_folder / "run.py")}))
    with pytest.raises(JudgeError, match=r"'run\.py' has no place"):
        load_judge(judge_folder)


def test_a_path_out_of_the_folder_is_refused(judge_folder):
    (judge_folder.parent / "outside").write_bytes(b"x")
    edited(
        judge_folder,
        lambda content: content["files"].update({"../outside": sha256_of(judge_folder.parent / "outside")}),
    )
    with pytest.raises(JudgeError, match="outside"):
        load_judge(judge_folder)


def test_a_link_is_refused_even_to_the_right_bytes(judge_folder):
    for name in (HEAD_FILE, JUDGE_FILE):
        elsewhere = judge_folder.parent / f"copy of {name}"
        shutil.move(judge_folder / name, elsewhere)
        (judge_folder / name).symlink_to(elsewhere)
        with pytest.raises(JudgeError, match="link"):
            load_judge(judge_folder)
        (judge_folder / name).unlink()
        shutil.move(elsewhere, judge_folder / name)
    load_judge(judge_folder)


def test_a_sub_folder_and_a_pipe_are_refused(judge_folder):
    (judge_folder / "extra").mkdir()
    with pytest.raises(JudgeError, match="extra"):
        load_judge(judge_folder)
    (judge_folder / "extra").rmdir()
    os.mkfifo(judge_folder / "extra")
    with pytest.raises(JudgeError, match="extra"):
        load_judge(judge_folder)


def test_files_of_absurd_size_are_refused_unread(judge_folder):
    with (judge_folder / METRICS_FILE).open("r+b") as file:
        file.truncate(16_000_001)
    with pytest.raises(JudgeError, match="larger"):
        load_judge(judge_folder)
    with (judge_folder / JUDGE_FILE).open("r+b") as file:
        file.truncate(16_000_001)
    with pytest.raises(JudgeError, match="larger"):
        load_judge(judge_folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"a":' * 100_000, "\ufeff{}", "{}", '{"format_version": 2}',
    "\xff"],
    ids=lambda text: repr(text[:8]),
)  # fmt: skip
def test_a_judge_json_that_describes_no_judge_is_refused(judge_folder, text):
    (judge_folder / JUDGE_FILE).write_bytes(text.encode("latin-1" if text == "\xff" else "utf-8"))
    with pytest.raises(JudgeError):
        load_judge(judge_folder)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ['"bias": 0.25', '"slope": 1.5'])
def test_a_number_that_is_not_finite_is_refused(judge_folder, place, value):
    path = judge_folder / JUDGE_FILE
    text = path.read_text()
    assert place in text
    path.write_text(text.replace(place, place.split(":")[0] + ": " + value))
    with pytest.raises(JudgeError):
        load_judge(judge_folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(code="import os"), "unknown key 'code'"),
        (lambda c: c["encoding"].update(template="{{ x }}"), "unknown key 'template'"),
        (lambda c: c.update(kind="scaler"), "kind"),
        (lambda c: c.update(format_version=2), "format_version"),
        (lambda c: c.pop("stack"), "stack: Field required"),
        (lambda c: c["base"].update(sha256="abc"), r"base\.sha256"),
        (lambda c: c["encoding"].update(buckets=[]), "buckets"),
        (lambda c: c["encoding"].update(buckets=[[16, 4]]), "reach max_tokens"),
        (lambda c: c["encoding"].update(buckets=[[64, 1], [16, 4]]), "buckets must rise"),
        (lambda c: c["encoding"].update(buckets=[[64, 0]]), "at least one row"),
        (lambda c: c["encoding"].update(prefix=[1] * 70), "no room"),
        (lambda c: c["encoding"].update(control_ids=[1 << 40]), "token id"),
        (lambda c: c["encoding"].update(control_ids=[-1]), "token id"),
        (lambda c: c.update(labels=json.loads('{"a":' * 100 + "1" + "}" * 100)), "nested deeper"),
    ],
)
def test_a_judge_json_of_wrong_content_is_refused_even_when_its_checksum_fits(judge_folder, change, said):
    edited(judge_folder, change)
    with pytest.raises(JudgeError, match=said):
        load_judge(judge_folder)


def test_an_edited_threshold_is_refused(judge_folder):
    edited(judge_folder, lambda content: content.update(thresholds={"best": 0.1}), honest=False)
    with pytest.raises(JudgeError, match="own checksum"):
        load_judge(judge_folder)


def test_a_file_and_an_empty_folder_are_no_judge(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file", tmp_path / "none"):
        with pytest.raises(JudgeError):
            load_judge(path)


@pytest.mark.parametrize("kind", ["judge", "file", "empty folder", "dangling link"])
def test_saving_never_overwrites(tmp_path, make_spec, judge_files, kind):
    place = tmp_path / "place"
    if kind == "judge":
        save_judge(place, make_spec(name="first"), judge_files)
    elif kind == "file":
        place.write_text("x")
    elif kind == "empty folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "nowhere")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match="never overwritten"):
        save_judge(place, make_spec(name="second"), judge_files)
    assert sorted(os.listdir(tmp_path)) == before
    assert kind != "judge" or load_judge(place).spec.name == "first"


@pytest.mark.parametrize("drop", [[HEAD_FILE], [CARD_FILE, METRICS_FILE]])
def test_an_incomplete_judge_is_not_saved_and_leaves_nothing_behind(tmp_path, make_spec, judge_files, drop):
    for name in drop:
        del judge_files[name]
    with pytest.raises(JudgeError):
        save_judge(tmp_path / "judge", make_spec(), judge_files)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["notes.txt", "../outside", "/tmp/outside", JUDGE_FILE])
def test_a_file_with_no_place_in_a_judge_is_not_written_anywhere(tmp_path, make_spec, judge_files, name):
    with pytest.raises(InputError, match="file of a judge"):
        save_judge(tmp_path / "inner" / "judge", make_spec(), {**judge_files, name: b"x"})
    assert os.listdir(tmp_path) == []


ENCODING_CHANGES = {
    "prefix": (1, 5), "between": (), "suffix": (1,), "pad": 1, "control_ids": (0, 1), "control_tokens": ("[PAD]",),
    "max_tokens": 32,
    "fences": ("</TEXT>",), "joint": (3,), "between_always": True,
    "cut": "head", "head_bytes": 99, "tail_bytes": 0, "buckets": ((64, 2),),
}  # fmt: skip
CHANGES = {
    "kind": "verdict", "rubric": Rubric(name="other", criteria="x"), "method": "full", "pooling": "last",
    "lora": Lora(rank=1, alpha=2),
    "verdict": Verdict(good=("good",), bad=("bad",), steps=(VerdictStep(good=(1,), bad=(2,), next=None),)),
    "implicit": Implicit(beta=0.1, length="sum"),
    "stack": Stack(bias=0.25, model=1.5, surface=1e-9), "categories": ("spam",), "calibration": None,
    "category_calibrations": {"spam": {"slope": 1.0}},
}  # fmt: skip
SILENT = {
    "name": "renamed", "thresholds": {"best": 0.4}, "certificate": {"target": 0.9}, "labels": {"n": 3},
    "training": {"seconds": 2.0}, "precision_band": 0.01,
    "created_with": {"torch": "9"}, "license": "mit", "language": ("zh",),
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_the_fingerprint_changes_with_what_can_change_a_score(make_spec, field):
    assert fingerprint(make_spec(**{field: CHANGES[field]})) != fingerprint(make_spec())


@pytest.mark.parametrize("field", Encoding.model_fields)
def test_the_fingerprint_changes_with_every_part_of_the_encoding(make_spec, field):
    spec = make_spec()
    other = spec.encoding.model_copy(update={field: ENCODING_CHANGES[field]})
    assert other != spec.encoding
    assert fingerprint(make_spec(encoding=other)) != fingerprint(spec)


@pytest.mark.parametrize("field", ["id", "revision", "architecture", "sha256"])
def test_the_fingerprint_changes_with_the_base(make_spec, field):
    spec = make_spec()
    changed = {"id": "b", "revision": "r", "architecture": "decoder", "sha256": "1" * 64}[field]
    assert fingerprint(make_spec(base=spec.base.model_copy(update={field: changed}))) != fingerprint(spec)


@pytest.mark.parametrize("name", [*REQUIRED_FILES, ADAPTER_FILE])
def test_the_fingerprint_changes_with_weights_and_tokenizer_and_with_no_other_file(make_spec, name):
    same = fingerprint(make_spec(files={name: "1" * 64})) == fingerprint(make_spec(files={name: "2" * 64}))
    assert same == (name not in (ADAPTER_FILE, HEAD_FILE, TOKENIZER_FILE))


@pytest.mark.parametrize("field", SILENT)
def test_the_fingerprint_does_not_change_with_what_changes_no_score(make_spec, field):
    assert fingerprint(make_spec(**{field: SILENT[field]})) == fingerprint(make_spec())


def test_every_field_of_a_judge_is_known_to_change_scores_or_not():
    from quality_judge.judge import SCORE_CHANGING
    from quality_judge.judge_spec import JudgeSpec

    assert set(JudgeSpec.model_fields) == {*SCORE_CHANGING, *SILENT, "files", "tensors", "checksum"}
    assert set(SCORE_CHANGING) == {*CHANGES, "format_version", "base", "encoding"}


def test_a_judge_travels_to_executors_in_a_few_kilobytes(judge_folder):
    judge = load_judge(judge_folder)
    mark = judge.fingerprint
    assert len(mark) == 16
    copy = pickle.loads(pickle.dumps(judge))
    assert (copy, copy.fingerprint) == (judge, mark)
    assert len(pickle.dumps(judge)) < 10_000
