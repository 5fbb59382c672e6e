"""A packed judge is the same judge, the same bytes each time, and readable by any user."""

import zipfile

import pytest

from quality_judge.errors import InputError
from quality_judge.judge import load_judge
from quality_judge.archive import pack_judge


def test_an_unpacked_judge_loads_with_the_same_fingerprint(judge_folder, tmp_path):
    judge = load_judge(judge_folder)
    with zipfile.ZipFile(pack_judge(judge, tmp_path / "评委.zip")) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert load_judge(tmp_path / "unpacked").fingerprint == judge.fingerprint


def test_packing_is_deterministic_stored_and_readable_by_all(judge_folder, tmp_path):
    judge = load_judge(judge_folder)
    first, second = (pack_judge(judge, tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert first == second
    for entry in zipfile.ZipFile(tmp_path / "a.zip").infolist():
        assert entry.compress_type == zipfile.ZIP_STORED
        assert entry.external_attr >> 16 & 0o777 == 0o644


def test_an_existing_file_is_never_replaced(judge_folder, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists"):
        pack_judge(load_judge(judge_folder), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == b"mine"
