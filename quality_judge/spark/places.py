"""A path on whatever file system it names: local, hdfs, s3a, abfs … (driver)

Everything goes through Hadoop's file system but for small local files, which Python writes without checksum files
beside them. It knows nothing of tables or runs.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from quality_judge.errors import CorpusError

PASSWORD = re.compile(r"://[^\s/@:]*:[^\s/@]+@")
SAME_STORE = {"s3": "s3a", "s3n": "s3a", "abfss": "abfs", "wasbs": "wasb"}
PATTERN_SIGN = re.compile(r"[*?\[\]{}\\]")  # Spark and Hadoop read a path with one as a pattern
PORT = re.compile(r":\d+$")
FULL_PATH = re.compile(r"(?:([a-z][\w+.-]*):)?(?://([^/]*))?(.*)", re.IGNORECASE | re.DOTALL)
OBJECT_STORES = ("s3a", "s3", "s3n", "gs", "wasb", "wasbs", "oss", "cosn", "obs")


@dataclass(frozen=True)
class Place:
    """One path. `files` is its Hadoop file system, `path` its full Hadoop path."""

    spark: SparkSession
    files: Any
    path: Any

    @classmethod
    def at(cls, spark: SparkSession, path: str) -> Place:
        """The place that `path` names; a path without a scheme is on Spark's default file system."""
        files, full = located(spark, path)
        return cls(spark, files, full)

    @property
    def text(self) -> str:
        """The full path with its scheme, as Spark takes it."""
        return str(self.path.toString())

    @property
    def name(self) -> str:
        """The last part of the path."""
        return str(self.path.getName())

    @property
    def scheme(self) -> str:
        """`file`, `hdfs`, `s3a` …"""
        return str(self.path.toUri().getScheme() or "file")

    @property
    def local(self) -> Path | None:
        """The path on this machine; None when it is elsewhere."""
        return Path(self.path.toUri().getPath()) if self.scheme == "file" else None

    @property
    def parent(self) -> Place | None:
        """The folder it is in; None for a root."""
        parent = self.path.getParent()
        return None if parent is None else Place(self.spark, self.files, parent)

    def child(self, name: str) -> Place:
        """The path `name` within it."""
        return Place(self.spark, self.files, _java(self.spark).org.apache.hadoop.fs.Path(self.path, name))

    def exists(self) -> bool:
        """Whether something is there."""
        return bool(self.files.exists(self.path))

    def is_folder(self) -> bool:
        """Whether a folder is there."""
        return self.exists() and bool(self.files.getFileStatus(self.path).isDirectory())

    def size(self) -> int:
        """Bytes of the file."""
        return int(self.files.getFileStatus(self.path).getLen())

    def modified(self) -> int:
        """When it was last changed, in milliseconds since 1970 by the clock of its file system."""
        return int(self.files.getFileStatus(self.path).getModificationTime())

    def listed(self) -> list[Place]:
        """What is directly in the folder, by name; nothing when there is no folder."""
        if not self.exists():
            return []
        found = [Place(self.spark, self.files, status.getPath()) for status in self.files.listStatus(self.path)]
        return sorted(found, key=lambda place: place.name)

    def make_folder(self) -> None:
        """Makes the folder and those it lies in."""
        self.files.mkdirs(self.path)

    def delete(self) -> None:
        """Removes the file or the whole folder; nothing happens when there is none."""
        self.files.delete(self.path, True)

    def moved(self, to: Place) -> bool:
        """Whether it could be renamed to `to`; some file systems say no by an exception."""
        try:
            return bool(self.files.rename(self.path, to.path))
        except Py4JJavaError:
            return False

    def read(self) -> bytes:
        """What is in the file."""
        if self.local is not None:
            return self.local.read_bytes()
        stream = self.files.open(self.path)
        try:
            return bytes(_java(self.spark).org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()

    def write(self, content: bytes, *, replace: bool = True) -> None:
        """The file written so that a reader sees all of it or none; an older one is replaced in one step.

        An object store shows a file when it is closed; elsewhere it is written beside and renamed. Raises
        FileExistsError when it is there already and `replace` is False.
        """
        if self.local is not None:
            return _write_local(self.local, content, replace=replace)
        if self.scheme in OBJECT_STORES:
            return self._create(content, replace=replace)
        beside = self.parent.child(f".{self.name}.{uuid.uuid4().hex[:8]}")  # type: ignore[union-attr]
        beside._create(content, replace=False)
        try:
            beside._rename_to_file(self, replace=replace)
        except Py4JJavaError as error:
            beside.delete()
            raise _exists(error, self) from None
        return None

    def write_json(self, content: Mapping[str, Any]) -> None:
        """`content` as a JSON file."""
        self.write(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode())

    def read_json(self) -> dict[str, Any] | None:
        """The JSON object in the file; None when there is no file, or no such object in it."""
        try:
            found = json.loads(self.read()) if self.exists() else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _create(self, content: bytes, *, replace: bool) -> None:
        try:
            stream = self.files.create(self.path, replace)
        except Py4JJavaError as error:
            raise _exists(error, self) from None
        try:
            stream.write(bytearray(content))
        finally:
            stream.close()

    def _rename_to_file(self, to: Place, *, replace: bool) -> None:
        """One step on file systems that can; Hadoop's plain rename never replaces."""
        java = _java(self.spark)
        context = java.org.apache.hadoop.fs.FileContext.getFileContext(
            to.path.toUri(), self.spark._jsc.hadoopConfiguration()
        )
        rename = java.org.apache.hadoop.fs.Options.Rename
        gateway: Any = self.spark.sparkContext._gateway
        options = gateway.new_array(rename, 1)
        options[0] = rename.OVERWRITE if replace else rename.NONE
        context.rename(self.path, to.path, options)


def overlapping(places: Sequence[str], other: str) -> bool:
    """Whether one of the full paths `places` is `other`, or lies within it or around it. Local links are followed."""
    there, path = _address(other)
    return any(
        here == there and os.path.commonpath([path, other_path]) in (path, other_path)
        for here, other_path in map(_address, places)
    )


def _address(text: str) -> tuple[tuple[str, str], str]:
    """(file system, path), the same for all names of a place: a store goes by several schemes, a port may stand."""
    found = FULL_PATH.match(text)
    scheme, authority, path = found.groups() if found else (None, None, text)
    scheme = (scheme or "file").lower()
    files = SAME_STORE.get(scheme, scheme), PORT.sub("", authority or "").lower()
    return files, os.path.realpath(path) if scheme == "file" else os.path.normpath(path or "/")


def refuse_password(path: str) -> None:
    """Raises CorpusError for an address with a password in it: Spark writes paths into its log."""
    if PASSWORD.search(path):
        raise CorpusError(
            "the path holds a password, and Spark logs paths; give it in the settings, such as "
            "spark.hadoop.fs.s3a.access.key and .secret.key, or by the environment"
        )


def located(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """The file system that `path` is on, and the full path. Raises CorpusError when a password stands in it."""
    refuse_password(path)
    given = _java(spark).org.apache.hadoop.fs.Path(path)
    files = given.getFileSystem(spark._jsc.hadoopConfiguration())
    return files, files.makeQualified(given)


def _write_local(path: Path, content: bytes, *, replace: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.write_bytes(content)
        if replace:
            os.replace(beside, path)
        else:
            os.link(beside, path)  # unlike a rename, it fails when the name is taken
    finally:
        beside.unlink(missing_ok=True)


def _exists(error: Py4JJavaError, place: Place) -> Exception:
    taken = "AlreadyExists" in error.java_exception.getClass().getSimpleName()
    return FileExistsError(f"{place.text} is there already") if taken else error


def _java(spark: SparkSession) -> Any:
    return spark._jvm
