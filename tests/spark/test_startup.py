"""Spark's classes from an archive: a job loads them from it, and does without one that is damaged or not its own."""

import os
import random
import re
from pathlib import Path

import pytest

from quality_judge.archive import cache_folder
from quality_judge.errors import CheckFailed
from quality_judge.spark import startup


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUALITY_JUDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "spark").mkdir(parents=True)
    return tmp_path / "cache" / "spark"


def archive(cache, content=b"classes", *, size=None, mode=0o600):
    path = cache / f"{startup._key()}-{len(content) if size is None else size}.jsa"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_without_an_archive_java_starts_as_ever(cache):
    assert startup.startup_options() == ""


def test_a_whole_archive_of_ones_own_is_used(cache):
    path = archive(cache)
    assert f"-XX:SharedArchiveFile={path} " in startup.startup_options()
    assert startup.make_startup_archive() == {"archive": str(path), "bytes": 7}


@pytest.mark.parametrize("wrong", [{"size": 8}, {"mode": 0o620}, {"mode": 0o602}], ids=["short", "group", "others"])
def test_an_archive_that_is_cut_short_or_that_others_may_write_to_is_left_aside(cache, wrong):
    archive(cache, **wrong)
    assert startup.startup_options() == ""


def test_another_java_or_spark_has_an_archive_of_its_own(cache, monkeypatch):
    archive(cache)
    monkeypatch.setenv("SPARK_HOME", "/opt/another-spark")
    assert startup.startup_options() == ""


def test_where_a_group_may_write_to_what_one_makes_the_cache_is_still_one_for_packed_judges(cache, monkeypatch):
    def write(options):
        Path(re.search(r"ArchiveClassesAtExit=(\S+)", options)[1]).write_bytes(b"classes")

    cache.rmdir()
    cache.parent.rmdir()
    monkeypatch.setattr(startup, "_job_seconds", write)
    before = os.umask(0o002)
    try:
        startup.make_startup_archive()
    finally:
        os.umask(before)
    assert cache_folder() == cache.parent


@pytest.mark.slow
def test_a_job_loads_spark_from_the_archive_and_runs_all_the_same_when_it_is_damaged(cache, tmp_path, monkeypatch):
    try:
        made = startup.make_startup_archive()
    except CheckFailed as error:
        assert "OpenJDK" in str(error)  # noqa: PT017  any other failure is one of ours
        pytest.skip("this Java writes no archive of its classes")
    log = tmp_path / "classes"
    given = os.environ[startup.VARIABLE]
    monkeypatch.setenv(startup.VARIABLE, f"{given} -Xlog:class+load:file={log}")
    startup._job_seconds()
    written = re.findall(r"\] (org\.apache\.spark\.[\w.$]+) source: (shared objects file)?", log.read_text())
    shared = [bool(found) for name, found in written if "$$Lambda" not in name]
    assert sum(shared) > 0.9 * len(shared) > 1000
    path, dice = Path(made["archive"]), random.Random(3)
    content = bytearray(path.read_bytes())
    for _ in range(20):
        content[dice.randrange(len(content) // 10, len(content))] ^= 255
    path.write_bytes(content)
    assert startup.startup_options()
    monkeypatch.setenv(startup.VARIABLE, given)
    startup._job_seconds()  # it raises where the job fails
