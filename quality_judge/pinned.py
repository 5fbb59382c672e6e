"""A judge in a place (see `registry`), pinned to one version, as a packed file that a job can carry.

A tag may name another judge tomorrow, or while a job runs; a version never does. It is fetched once into the cache of
packed judges (see `archive`), and taken from there by every later run. It knows nothing of Spark.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from quality_judge.archive import cache_folder, one_at_a_time, pack_judge
from quality_judge.errors import InputError
from quality_judge.registry import HUB, parse_place, pull_judge

HUB_VERSION = re.compile(r"[0-9a-f]{40}")
FILE_VERSION = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")


def judge_file(judge: str | Path) -> Path:
    """`judge` itself when it is a path; the packed file of a version in a place such as hf://org/name@COMMIT.

    Raises InputError for a place without a version, and what `pull_judge` raises.
    """
    text = str(judge)
    if HUB_ID.fullmatch(text) and not os.path.lexists(text):
        text = HUB + text
    if "://" not in text and (os.path.lexists(text) or "@" not in text.rpartition("/")[2]):
        return Path(judge)
    place = parse_place(text)
    in_hub = place.where.startswith(HUB)
    if place.tag is None or not (HUB_VERSION if in_hub else FILE_VERSION).fullmatch(place.tag):
        raise InputError(
            f"{text} names no version, and what a tag names can change while a job runs; write {place.where}@"
            f"{'COMMIT, the 40 digits of one' if in_hub else 'VERSION'}: quality-judge tags {place.where} lists them"
        )
    return _packed(f"{place.where}@{place.tag}")


def _packed(pinned: str) -> Path:
    """The packed judge of that version; the first process of this machine that asks for it fetches it."""
    name = hashlib.sha256(pinned.encode()).hexdigest()[:32]
    file = cache_folder() / f"pinned-{name}.zip"
    with one_at_a_time(file.with_suffix(".lock")):
        if not file.exists():
            scratch = Path(tempfile.mkdtemp(prefix=".pinned-", dir=cache_folder()))
            try:
                pack_judge(pull_judge(pinned, scratch / "judge"), file)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return file
