"""A judge as one zip file that `spark-submit --archives` brings to every node.

It knows nothing of Spark. Weights do not compress, so nothing is; every file is readable by any user, since executors
often run as another one. The same judge gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from uuid import uuid4

from quality_judge.errors import InputError
from quality_judge.judge import JUDGE_FILE, SIGNATURE_FILE, Judge

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold
READABLE_BY_ALL = 0o100644
UNIX = 3


def pack_judge(judge: Judge, output: Path) -> Path:
    """`output`, a zip of the judge's files at its top; written beside, then renamed. `InputError` if it exists."""
    if output.exists():
        raise InputError(f"{output} exists; give another name or remove it")
    names = [JUDGE_FILE, *judge.spec.files]
    if judge.path(SIGNATURE_FILE).exists():
        names.append(SIGNATURE_FILE)
    scratch = output.with_name(f".{output.name}.{uuid4().hex}")
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(names):
                _add(archive, name, judge.path(name))
        os.replace(scratch, output)
    finally:
        scratch.unlink(missing_ok=True)
    return output


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system, entry.external_attr = UNIX, READABLE_BY_ALL << 16
    entry.file_size = path.stat().st_size  # a size known beforehand is what lets weights over 2 GiB in
    with path.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)
