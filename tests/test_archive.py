"""A packed judge is the same judge, the same bytes each time, readable by any user; a forged archive leaves nothing."""

import json
import os
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from quality_judge import archive
from quality_judge.archive import judge_folder, pack_judge, unpack_judge, unpacked
from quality_judge.cli import app
from quality_judge.errors import InputError, JudgeError
from quality_judge.judge import load_judge, sha256_of


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUALITY_JUDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def packed(judge_folder, tmp_path):
    return pack_judge(load_judge(judge_folder), tmp_path / "评委.zip")


def test_an_unpacked_judge_has_the_same_fingerprint_and_lies_there_once(packed, judge_folder, cache):
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(archive.judge_folder, [packed] * 8))
    (folder,) = folders
    assert load_judge(folder).fingerprint == load_judge(judge_folder).fingerprint
    assert sorted(path.name for path in cache.iterdir()) == [folder.name, folder.with_suffix(".lock").name]


def test_a_folder_is_itself(tmp_path, cache):
    assert judge_folder(tmp_path) == tmp_path
    assert not cache.exists()


def test_the_command_packs_the_same_stored_bytes_each_time_readable_by_all(judge_folder, tmp_path):
    outputs = [tmp_path / "a.zip", tmp_path / "b.zip"]
    for output in outputs:
        done = CliRunner().invoke(app, ["pack", str(judge_folder), "--output", str(output)])
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["judge"] == load_judge(judge_folder).fingerprint
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    for entry in zipfile.ZipFile(outputs[0]).infolist():
        assert entry.compress_type == zipfile.ZIP_STORED
        assert entry.external_attr >> 16 & 0o777 == 0o644


def test_an_existing_file_is_never_replaced(judge_folder, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists"):
        pack_judge(load_judge(judge_folder), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == b"mine"


def forged(packed, change):
    """A copy of the archive whose entries and their content went through `change`; None leaves one out."""
    copy = packed.with_name("forged.zip")
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.infolist():
            for new, content in change(entry, source.read(entry)):
                target.writestr(new, content)
    return copy


def named(name):
    return lambda entry, content: [(name if entry.filename == "card.md" else entry, content)]


def linked(entry, content):
    if entry.filename == "card.md":
        entry.external_attr, content = (stat.S_IFLNK | 0o777) << 16, b"/etc/passwd"
    return [(entry, content)]


def squeezed(entry, content):
    entry.compress_type = zipfile.ZIP_DEFLATED
    return [(entry, content)]


FORGERIES = {
    "a path upwards": (named("../card.md"), "no place"),
    "a full path": (named("/tmp/card.md"), "no place"),
    "a folder": (named("sub/card.md"), "no place"),
    "a file no judge has": (named("card.py"), "no place"),
    "a link": (linked, "no place"),
    "compressed": (squeezed, "compressed"),
    "twice": (lambda entry, content: [(entry, content)] * (1 + (entry.filename == "card.md")), "twice"),
    "a file missing": (lambda entry, content: [(entry, content)][entry.filename == "card.md" :], "missing"),
    "another card": (lambda e, c: [(e, c + b" " * (e.filename == "card.md"))], "sha256"),
    "too large": (lambda e, c: [(e, b" " * 16_000_001 if e.filename == "card.md" else c)], "larger"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_archive_is_refused_and_leaves_nothing(packed, tmp_path, name):
    change, said = FORGERIES[name]
    (tmp_path / "in").mkdir()
    with pytest.raises(JudgeError, match=said):
        unpack_judge(forged(packed, change), tmp_path / "in" / "judge")
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x00" * 1000])
def test_what_is_no_archive_is_refused(tmp_path, cache, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(JudgeError, match="cannot be unpacked"):
        judge_folder(tmp_path / "a.zip")


def test_an_archive_cut_on_its_way_is_refused(packed, cache):
    digest = sha256_of(packed)
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(JudgeError, match="damaged"):
        unpacked(packed, digest)


def test_a_cache_that_others_can_write_to_is_refused(packed, cache):
    cache.mkdir()
    os.chmod(cache, 0o777)
    with pytest.raises(JudgeError, match="alone"):
        judge_folder(packed)
