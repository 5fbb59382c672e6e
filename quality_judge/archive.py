"""A judge as one zip file, which travels to machines that share no folder with this one.

It knows nothing of Spark. Weights do not compress, so nothing is; every file is readable by any user, since executors
often run as another one. The same judge gives the same bytes. An archive is unpacked into a cache of this user, under
the sha256 of its bytes: once on each machine, however many processes ask for it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from quality_judge.errors import InputError, JudgeError
from quality_judge.judge import (
    ALLOWED_FILES,
    JUDGE_FILE,
    MAX_BYTES,
    MAX_JSON_BYTES,
    SIGNATURE_FILE,
    Judge,
    load_judge,
    sha256_of,
)

CACHE_VARIABLE = "QUALITY_JUDGE_CACHE"
SUFFIX = ".judge"  # of an unpacked archive's folder, whose stem is the archive's sha256
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold
READABLE_BY_ALL = 0o100644
UNIX = 3
NAMES = (JUDGE_FILE, SIGNATURE_FILE, *ALLOWED_FILES)


def pack_judge(judge: Judge, output: Path) -> Path:
    """`output`, a zip of the judge's files at its top; written beside, then renamed. `InputError` if it exists."""
    if os.path.lexists(output):
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


def unpack_judge(archive: Path, folder: Path) -> Judge:
    """The judge of `archive`, in `folder`, which must not exist yet. Raises JudgeError.

    Refused: a name that no file of a judge has (so every path), a link, a name twice, a file compressed or too large.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        try:
            with zipfile.ZipFile(archive) as opened:
                for entry in _entries(opened):
                    with opened.open(entry) as source, (scratch / entry.filename).open("xb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
            raise JudgeError(f"{archive.name} cannot be unpacked: {type(error).__name__}; pack it again") from error
        load_judge(scratch)
        os.rename(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return load_judge(folder)


def judge_folder(judge: str | Path) -> Path:
    """`judge` itself, or the folder it was unpacked into when it is a zip file. Raises JudgeError."""
    archive = Path(judge)
    if archive.suffix != ".zip" or archive.is_dir():
        return archive
    if not archive.is_file():
        raise JudgeError(f"{archive} is not there; quality-judge pack JUDGE --output {archive.name} makes one")
    return unpacked(archive, sha256_of(archive))


def unpacked(archive: Path, digest: str) -> Path:
    """Where the archive with that sha256 lies unpacked; the first process of a machine that asks unpacks it.

    Raises JudgeError when the bytes are others.
    """
    folder = cache_folder() / f"{digest}{SUFFIX}"
    with one_at_a_time(folder.with_suffix(".lock")):
        if not folder.exists():
            if sha256_of(archive) != digest:
                raise JudgeError(f"{archive.name} is not the archive the job was started with; its copy is damaged")
            unpack_judge(archive, folder)
    return folder


def cache_folder() -> Path:
    """This user's folder for unpacked judges: QUALITY_JUDGE_CACHE, or one in the temporary folder.

    Raises JudgeError when it is another user's: what lies there could be changed after it was verified.
    """
    named = os.environ.get(CACHE_VARIABLE)
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"quality-judge-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise JudgeError(
            f"{folder} must be a folder that this user alone can write to; chmod go-w it, or set {CACHE_VARIABLE}"
        )
    return folder


def kept_from_others(folder: Path) -> Path:
    """`folder`, made where it is not there: others may read in it and, whatever the umask, not write to it."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system, entry.external_attr = UNIX, READABLE_BY_ALL << 16
    entry.file_size = path.stat().st_size  # a size known beforehand is what lets weights over 2 GiB in
    with path.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The archive's entries. Raises JudgeError unless each is a plain, stored file of a judge."""
    entries = archive.infolist()
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        limit = MAX_BYTES.get(entry.filename, MAX_JSON_BYTES)
        if entry.filename not in NAMES or kind not in (0, stat.S_IFREG):
            raise JudgeError(f"{entry.filename[:100]!r} has no place in a judge's archive; nothing was unpacked")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > limit:
            raise JudgeError(f"{entry.filename} is compressed, or larger than {limit} bytes; nothing was unpacked")
    if len({entry.filename for entry in entries}) < len(entries):
        raise JudgeError("a name stands twice in the archive; nothing was unpacked")
    return entries


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Within it no other process of this machine holds the lock; the kernel drops it with its holder."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
