"""Where judges live: versions and tags of one judge, on any file system or in a Hugging Face repository.

    /models/quality@production        file:///models/quality        s3://bucket/quality@latest        hf://org/name@v2

A folder holds `versions/<version>/` (a judge folder, of which only the signature is ever overwritten; judge.json is
written last, and what lacks it is no version) and `tags/<tag>.json` (which version). A version is the judge's
fingerprint and the beginning of the checksum of its judge.json, because judges with the same scores may promise
different things. In a Hugging Face repository a version is a commit. Whatever is copied is loaded and compared before
it counts. Scores it never sees.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pyarrow import ArrowInvalid, ArrowNotImplementedError
from pyarrow import fs as pafs

from quality_judge.errors import CheckFailed, InputError, JudgeError, MissingExtra, listed
from quality_judge.judge import ALLOWED_FILES, JUDGE_FILE, SIGNATURE_FILE, Judge, load_judge, refuse_existing

LATEST = "latest"
HUB = "hf://"
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FILES = {JUDGE_FILE, SIGNATURE_FILE, *ALLOWED_FILES}
MAX_TAG_BYTES = 10_000
MEND_TAG = "remove it, or promote a version to it: quality-judge promote PLACE@VERSION --to TAG --anyway"


@dataclass(frozen=True)
class Place:
    """A place without its tag, and the tag or version asked for, None where none was."""

    where: str
    tag: str | None


class Store(Protocol):
    """What push, pull and promote need of a place."""

    def tags(self) -> Mapping[str, str | None]:
        """Every tag and its version, None where the tag cannot be read."""

    def tag(self, name: str) -> str | None:
        """The version of one tag, None where there is no such tag; no other tag is read."""

    def holds(self, version: str) -> bool:
        """Whether that version is there, whole."""

    def put(self, judge: Judge) -> str:
        """The version under which the judge's files now lie there, its signature too."""

    def get(self, version: str, folder: Path) -> None:
        """Copies the files of a version into the empty `folder`."""

    def set_tag(self, tag: str, version: str) -> None:
        """Makes `tag` name that version from now on, in one step."""


def parse_place(text: str) -> Place:
    """The place and the tag of `…/name@tag`. Raises InputError for a tag that is none."""
    head, slash, last = text.rstrip("/").rpartition("/")
    name, at, tag = last.partition("@")
    if not name or (at and not TAG.fullmatch(tag)):
        raise InputError(f"{text!r} names no place; write hf://org/name@tag, s3://bucket/name@tag or /folder/name@tag")
    return Place(head + slash + name, tag or None)


def open_store(where: str) -> Store:
    """The store at `where`: a repository of the hub, or a folder of a file system."""
    if where.startswith(HUB):
        from quality_judge.hub import HubStore

        return HubStore(where.removeprefix(HUB))
    return FileStore(where)


def version_of(judge: Judge) -> str:
    """`<fingerprint>-<first 8 of the checksum>`: another for every judge.json."""
    return f"{judge.fingerprint}-{judge.spec.checksum[:8]}"


def push_judge(folder: str | Path, place: str) -> dict[str, str]:
    """Where it was put: `version`, `place`, `tag`. The tag `latest` moves; any other must be new, or name this version.

    Raises CheckFailed where the copy is not the judge, InputError where the tag names another version.
    """
    judge, asked = load_judge(folder), parse_place(place)
    store, tag = open_store(asked.where), asked.tag or LATEST
    before = None if tag == LATEST else store.tag(tag)
    version = store.put(judge)
    with tempfile.TemporaryDirectory() as scratch:
        store.get(version, Path(scratch))
        copy = load_judge(scratch)
        if version_of(copy) != version_of(judge) or _signature(judge) not in (None, _signature(copy)):
            raise CheckFailed(f"{asked.where}: what lies there is not the judge in {folder}; push again")
    if before not in (None, version):
        raise InputError(
            f"{asked.where}@{tag} is {before}; a tag is moved by comparison: quality-judge promote "
            f"{asked.where}@{version} --to {tag}"
        )
    for name in {LATEST, tag}:
        store.set_tag(name, version)
    return {"version": version, "place": asked.where, "tag": tag}


def _signature(judge: Judge) -> bytes | None:
    """The bytes of its signature, None when nobody signed it."""
    path = judge.path(SIGNATURE_FILE)
    return path.read_bytes() if path.exists() else None


def pull_judge(place: str, folder: str | Path) -> Judge:
    """The judge of that tag or version, copied to `folder` (which must not exist yet) and verified. Default: latest."""
    refuse_existing(folder)
    folder, asked = Path(folder).absolute(), parse_place(place)
    store = open_store(asked.where)
    version = resolve(store, asked)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        store.get(version, scratch)
        judge = load_judge(scratch)
        if isinstance(store, FileStore) and version_of(judge) != version:
            raise JudgeError(f"{asked.where} holds {version_of(judge)} under the name {version}; take another version")
        scratch.chmod(0o755)
        os.rename(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return load_judge(folder)


def resolve(store: Store, place: Place) -> str:
    """The version that a tag names, or that is one itself: then no tag of that name counts. Raises InputError."""
    asked = place.tag or LATEST
    if store.holds(asked):
        return asked
    found = store.tag(asked)
    if found is not None:
        return found
    known = ", ".join(sorted(store.tags())) or "none; push a judge first"
    raise InputError(f"{place.where} has no tag or version {asked!r}; its tags: {known}")


class FileStore:
    """Versions and tags in a folder of a file system that pyarrow or fsspec knows."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.files, self.root = _file_system(where)

    def tags(self) -> Mapping[str, str | None]:
        """Every tag and its version, None where its file is damaged."""
        found: dict[str, str | None] = {}
        for name in self._names(f"{self.root}/tags"):
            tag = name.removesuffix(".json")
            if tag != name and TAG.fullmatch(tag):
                try:
                    found[tag] = self._tag(f"{self.root}/tags/{name}")
                except InputError:
                    found[tag] = None
        return found

    def tag(self, name: str) -> str | None:
        """The version of one tag, None where it has no file. Raises InputError for a file that is none of a tag."""
        file = f"{name}.json"
        return self._tag(f"{self.root}/tags/{file}") if file in self._names(f"{self.root}/tags") else None

    def holds(self, version: str) -> bool:
        """Whether its judge.json is there, which is written last."""
        return bool(TAG.fullmatch(version)) and JUDGE_FILE in self._names(self._folder(version))

    def put(self, judge: Judge) -> str:
        """The version; what lies there as it is here is left, and what is damaged is written anew."""
        version = version_of(judge)
        names = sorted({path.name for path in Path(judge.folder).iterdir()} & FILES - {JUDGE_FILE})
        there = self._names(self._folder(version))
        with self._said(f"{self.where} cannot be written"):
            self.files.create_dir(self._folder(version), recursive=True)
            for name in [*names, JUDGE_FILE]:
                path, content = f"{self._folder(version)}/{name}", judge.path(name).read_bytes()
                if name not in there or self._read(path) != content:
                    self._write(path, content)
        return version

    def get(self, version: str, folder: Path) -> None:
        """Copies the files of a version; what does not belong into a judge is refused unread."""
        names = set(self._names(self._folder(version)))
        if JUDGE_FILE not in names or names - FILES:
            strange = listed(names - FILES)
            raise JudgeError(f"{self._folder(version)} is not a whole judge and no more (strange: {strange})")
        for name in names:
            with self._said(f"{self.where} cannot be read"):
                pafs.copy_files(
                    f"{self._folder(version)}/{name}", str(folder / name),
                    source_filesystem=self.files, destination_filesystem=pafs.LocalFileSystem(),
                )  # fmt: skip

    def set_tag(self, tag: str, version: str) -> None:
        """Writes the tag's file beside and renames it."""
        with self._said(f"{self.where} cannot be written"):
            self.files.create_dir(f"{self.root}/tags", recursive=True)
            self._write(f"{self.root}/tags/{tag}.json", json.dumps({"version": version}).encode() + b"\n")

    def _folder(self, version: str) -> str:
        return f"{self.root}/versions/{version}"

    def _tag(self, path: str) -> str:
        try:
            with self.files.open_input_stream(path) as stream:
                said: Any = json.loads(stream.read(MAX_TAG_BYTES))["version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no tag ({type(error).__name__}); {MEND_TAG}") from None
        if not isinstance(said, str) or not TAG.fullmatch(said):
            raise InputError(f"{path} names no version; {MEND_TAG}")
        return said

    def _names(self, folder: str) -> list[str]:
        with self._said(f"{self.where} cannot be listed"):
            found = self.files.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return [info.base_name for info in found if not info.base_name.startswith(".")]

    def _read(self, path: str) -> bytes:
        with self.files.open_input_stream(path) as stream:
            return stream.read()

    def _write(self, path: str, content: bytes) -> None:
        head, _, name = path.rpartition("/")
        beside = f"{head}/.{name}.{os.getpid()}"
        with self.files.open_output_stream(beside) as stream:
            stream.write(content)
        self.files.move(beside, path)

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise InputError(f"{what} ({why}); is the path right, and are there credentials for it?") from error


def _file_system(where: str) -> tuple[pafs.FileSystem, str]:
    """pyarrow's own file system where it has one (local, s3, gs, abfs, hdfs), else fsspec's."""
    scheme, colon, _ = where.partition("://")
    if not colon:
        return pafs.LocalFileSystem(), str(Path(where).absolute())
    try:
        files, root = pafs.FileSystem.from_uri(where)
    except (ArrowInvalid, ArrowNotImplementedError):
        return _fsspec(where, scheme)
    except OSError as error:
        raise InputError(f"{where} cannot be reached ({type(error).__name__}); are there credentials for it?") from None
    return files, root.rstrip("/")


def _fsspec(where: str, scheme: str) -> tuple[pafs.FileSystem, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtra("fsspec", "engine") from error
    try:
        files, root = url_to_fs(where)
    except (ValueError, ImportError) as error:
        raise InputError(
            f"{where}: no file system {scheme}:// ({type(error).__name__}); use a path, file://, s3://, gs://, "
            "abfs://, hdfs:// or hf://, or install the fsspec package for it"
        ) from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(files)), str(root).rstrip("/")
