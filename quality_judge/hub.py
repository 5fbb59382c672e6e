"""Judges in a Hugging Face repository: a version is a commit, a tag is a tag of the repository.

A judge is downloaded by commit, never by a name that can move meanwhile, and only the files a judge may have. Needs
huggingface_hub (extra `engine`), and for writing a token as `hf auth login` leaves it. It reads no token itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quality_judge.errors import InputError, JudgeError, MissingExtra
from quality_judge.judge import ALLOWED_FILES, JUDGE_FILE, SIGNATURE_FILE, Judge

LATEST = "latest"
FILES = [JUDGE_FILE, SIGNATURE_FILE, *ALLOWED_FILES]
COMMIT = re.compile(r"[0-9a-f]{40}")
NAME = re.compile(r"[\w.-]+/[\w.-]+")


class HubStore:
    """Versions and tags in the model repository `org/name`; a new one is private."""

    def __init__(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise InputError(f"hf://{name}: a repository has an owner and a name, as in hf://org/name@tag")
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise MissingExtra("huggingface_hub", "engine") from error
        self.name = name
        self.api: Any = HfApi(library_name="quality-judge")

    def tags(self) -> Mapping[str, str]:
        """Every tag and its commit, and under `latest` the last commit; empty where there is no repository yet."""
        with self._said("read"):
            if not self.api.repo_exists(self.name):
                return {}
            refs = self.api.list_repo_refs(self.name)
        heads = [(LATEST, ref.target_commit) for ref in refs.branches if ref.name == "main"]
        return dict([(ref.name, ref.target_commit) for ref in refs.tags if ref.name != LATEST] + heads)

    def tag(self, name: str) -> str | None:
        """The commit of one tag, None where there is no such tag."""
        return self.tags().get(name)

    def holds(self, version: str) -> bool:
        """Whether it is a commit with a judge.json."""
        if not COMMIT.fullmatch(version):
            return False
        with self._said("read"):
            return bool(self.api.file_exists(self.name, JUDGE_FILE, revision=version))

    def put(self, judge: Judge) -> str:
        """The commit with exactly this judge's files."""
        with self._said("written"):
            self.api.create_repo(self.name, private=True, exist_ok=True)
            done = self.api.upload_folder(
                repo_id=self.name, folder_path=judge.folder, allow_patterns=FILES, delete_patterns=FILES,
                commit_message=f"quality-judge {judge.spec.name} {judge.fingerprint}",
            )  # fmt: skip
        return str(done.oid)

    def get(self, version: str, folder: Path) -> None:
        """Downloads the files of a commit, and nothing else of the repository."""
        if not COMMIT.fullmatch(version):
            raise JudgeError(f"hf://{self.name}: {version!r} is no commit")
        with self._said("read"):
            self.api.snapshot_download(self.name, revision=version, local_dir=folder, allow_patterns=FILES)
        shutil.rmtree(folder / ".cache", ignore_errors=True)

    def set_tag(self, tag: str, version: str) -> None:
        """Moves a tag, which is created again as it was where that fails; `latest` is the head and moves by itself."""
        if tag == LATEST:
            return
        before = self.tag(tag)
        with self._said("written"):
            try:
                if before is not None:
                    self.api.delete_tag(self.name, tag=tag)
                self.api.create_tag(self.name, tag=tag, revision=version)
            except Exception as error:
                if before is None:
                    raise
                what = f"hf://{self.name}@{tag} could not be moved to {version} ({type(error).__name__})"
                raise InputError(f"{what}; {self._put_back(tag, before)}") from None

    def _put_back(self, tag: str, before: str) -> str:
        """What a tag names after it could not be moved, and what to do; it is created again where it is gone."""
        try:
            self.api.create_tag(self.name, tag=tag, revision=before, exist_ok=True)
            return f"it names {self.tag(tag)} now ({before} before); promote again"
        except Exception:
            return f"it named {before} and may be gone: quality-judge promote hf://{self.name}@{before} --to {tag}"

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """Whatever the hub's client raises, as one line that says what to do."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"hf://{self.name} cannot be {what} ({type(error).__name__}); is the name right, is there a network "
                "(HF_HUB_OFFLINE unset), and does `hf auth whoami` know you? A folder works without: /folder/name@tag"
            ) from None
