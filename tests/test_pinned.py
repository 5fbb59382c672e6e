"""A judge named by a place and a version is fetched once and packed; a name that can move is refused."""

import shutil
from pathlib import Path

import pytest

from quality_judge import archive
from quality_judge.errors import InputError
from quality_judge.judge import load_judge
from quality_judge.pinned import judge_file
from quality_judge.registry import FileStore, push_judge

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUALITY_JUDGE_CACHE", str(tmp_path / "cache"))


def test_a_version_is_fetched_once_and_then_needs_no_place(judge_folder, tmp_path):
    place = f"file://{tmp_path}/评委/mine"
    version = push_judge(judge_folder, place)["version"]
    packed = judge_file(f"{place}@{version}")
    assert load_judge(archive.judge_folder(packed)).fingerprint == load_judge(judge_folder).fingerprint
    shutil.rmtree(tmp_path / "评委")
    assert judge_file(f"{place}@{version}") == packed
    assert sorted(path.suffix for path in packed.parent.glob("pinned-*")) == [".lock", ".zip"]


def test_a_version_in_a_folder_needs_no_scheme(judge_folder, tmp_path):
    version = push_judge(judge_folder, str(tmp_path / "mine"))["version"]
    packed = judge_file(f"{tmp_path}/mine@{version}")
    assert load_judge(archive.judge_folder(packed)).fingerprint == load_judge(judge_folder).fingerprint


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("hf://org/mine", "hf://org/mine@COMMIT"),
        ("hf://org/mine@production", "hf://org/mine@COMMIT"),
        (f"hf://org/mine@{COMMIT[:12]}", "hf://org/mine@COMMIT"),
        ("s3://bucket/mine@latest", "s3://bucket/mine@VERSION"),
        ("models/mine@production", "models/mine@VERSION"),
    ],
)
def test_a_name_that_can_move_is_refused_with_how_to_pin_it_before_anything_is_asked(place, wanted):
    with pytest.raises(InputError) as refused:
        judge_file(place)
    assert wanted in str(refused.value)
    assert f"quality-judge tags {wanted.partition('@')[0]}" in str(refused.value)


def test_a_tag_that_looks_like_another_version_does_not_move_it(judge_folder, tmp_path):
    place = str(tmp_path / "mine")
    version = push_judge(judge_folder, place)["version"]
    FileStore(place).set_tag(version, "0123456789abcdef-01234567")
    assert judge_file(f"{place}@{version}").is_file()


@pytest.mark.parametrize("name", ["judge.zip", "judges/mine-1", "/judges/mine", "mine"])
def test_a_path_stays_what_it_is(name):
    assert judge_file(name) == Path(name)


def test_a_folder_whose_name_holds_an_at_sign_is_a_folder(tmp_path):
    (tmp_path / "mine@home").mkdir()
    assert judge_file(tmp_path / "mine@home") == tmp_path / "mine@home"
