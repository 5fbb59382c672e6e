"""Commands on where judges live: push, pull, tags, and promote, which compares before a tag moves."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quality_judge.cli.app import app
from quality_judge.errors import EXIT_CHECK_FAILED, EXIT_DONE, InputError, JudgeError
from quality_judge.judge import Judge, load_judge
from quality_judge.programme import tell
from quality_judge.registry import (
    HUB,
    LATEST,
    MEND_TAG,
    Store,
    open_store,
    parse_place,
    pull_judge,
    push_judge,
    resolve,
)

if TYPE_CHECKING:
    from quality_judge.promotion import Contest

PlaceArgument = Annotated[str, typer.Argument(help="hf://org/name@tag, s3://bucket/name@tag, /folder/name@tag …")]


@app.command()
def push(judge: Annotated[Path, typer.Argument(help="folder of the judge")], place: PlaceArgument) -> None:
    """Puts a judge where others find it, verified.  Example: quality-judge push judges/mine-1 /models/mine@candidate"""
    typer.echo(json.dumps({"ok": True, **push_judge(judge, place)}))


@app.command()
def pull(
    place: PlaceArgument, output: Annotated[Path, typer.Argument(help="folder to write; it must not exist")]
) -> None:
    """Fetches a judge and verifies it.  Example: quality-judge pull /models/mine@production judges/mine"""
    judge = pull_judge(place, output)
    typer.echo(json.dumps({"ok": True, "judge": judge.folder, "fingerprint": judge.fingerprint}))


@app.command()
def tags(place: PlaceArgument) -> None:
    """Which tag names which version.  Example: quality-judge tags /models/mine"""
    found = dict(sorted(open_store(parse_place(place).where).tags().items()))
    for name in (name for name, version in found.items() if version is None):
        tell(f"{name} cannot be read; {MEND_TAG}")
    typer.echo(json.dumps({"ok": True, "tags": found}))


@app.command()
def promote(
    place: PlaceArgument,
    to: Annotated[str, typer.Option(help="the tag that will name this version")],
    labels: Annotated[
        list[Path] | None, typer.Option(help="labels to measure both on; neither learnt from them")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="move the tag even where the judge is worse, or what it names unreadable")
    ] = False,
) -> None:
    """Moves a tag, unless the judge is worse.  Example: quality-judge promote /models/mine@candidate --to production"""
    asked = parse_place(place)
    if parse_place(f"x/y@{to}").tag != to:
        raise InputError(f"--to {to!r} is no tag; write letters, digits, . _ and -, as in production")
    store = open_store(asked.where)
    version, tags = resolve(store, asked), store.tags()
    said: dict[str, object] = {"place": asked.where, "tag": to, "version": version, "before": tags.get(to)}
    allowed = True
    if to in tags and tags[to] != version:
        if to == LATEST and asked.where.startswith(HUB):
            raise InputError(f"{asked.where}@{LATEST} is the head of the repository; push the judge again")
        found = _contest(store, version, tags[to], labels)
        said |= {"metric": found.metric, "candidate": found.candidate, "current": found.current} if found else {}
        allowed = anyway or (found is not None and found.holds)
        tell(_outcome(found, to))
    if allowed:
        store.set_tag(to, version)
    else:
        tell(f"{to} stays where it is; train better, or say --anyway")
    typer.echo(json.dumps({"ok": allowed, **said}))
    raise SystemExit(EXIT_DONE if allowed else EXIT_CHECK_FAILED)


def _contest(store: Store, version: str, current: str | None, labels: list[Path] | None) -> Contest | None:
    """Both judges on the same labels; None where the current one, or its tag, cannot be read."""
    from quality_judge.labels import clean_labels, load_labels
    from quality_judge.promotion import contest

    with tempfile.TemporaryDirectory() as scratch:
        candidate = _fetched(store, version, Path(scratch) / "candidate")
        try:
            held = _fetched(store, current, Path(scratch) / "current") if current is not None else None
        except JudgeError:
            held = None
        if held is None:
            return None
        return contest(candidate, held, labels=clean_labels(load_labels(labels), measuring=True)[0] if labels else None)


def _fetched(store: Store, version: str, folder: Path) -> Judge:
    folder.mkdir()
    store.get(version, folder)
    return load_judge(folder)


def _outcome(found: Contest | None, to: str) -> str:
    if found is None:
        return f"what is tagged {to} cannot be read, so there is nothing to compare this judge with"
    return f"{found.metric}: {found.candidate:.3f}, and {found.current:.3f} of the one tagged {to}"
