"""Commands on where judges live: push, pull, tags, and promote, which compares before a tag moves."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from quality_judge.cli.app import app
from quality_judge.errors import EXIT_CHECK_FAILED, EXIT_DONE
from quality_judge.judge import load_judge
from quality_judge.programme import tell
from quality_judge.registry import open_store, parse_place, pull_judge, push_judge, resolve

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
    typer.echo(json.dumps({"ok": True, "tags": dict(sorted(open_store(parse_place(place).where).tags().items()))}))


@app.command()
def promote(
    place: PlaceArgument,
    to: Annotated[str, typer.Option(help="the tag that will name this version")],
    labels: Annotated[
        list[Path] | None, typer.Option(help="labels to measure both on; neither learnt from them")
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="move the tag even where the judge is worse")] = False,
) -> None:
    """Moves a tag, unless the judge is worse.  Example: quality-judge promote /models/mine@candidate --to production"""
    from quality_judge.labels import clean_labels, load_labels
    from quality_judge.promotion import contest

    asked, target = parse_place(place), parse_place(f"x/y@{to}").tag
    store = open_store(asked.where)
    version, current = resolve(store, asked), store.tags().get(str(target))
    said: dict[str, object] = {"place": asked.where, "tag": to, "version": version, "before": current}
    allowed = True
    if current not in (None, version):
        with tempfile.TemporaryDirectory() as scratch:
            judges = []
            for name, each in (("candidate", version), ("current", current)):
                (Path(scratch) / name).mkdir()
                store.get(str(each), Path(scratch) / name)
                judges.append(load_judge(Path(scratch) / name))
            found = contest(*judges, labels=clean_labels(load_labels(labels))[0] if labels else None)
        said |= {"metric": found.metric, "candidate": found.candidate, "current": found.current}
        allowed = found.holds or anyway
        tell(f"{found.metric}: {found.candidate:.3f}, and {found.current:.3f} of the one tagged {to}")
    if allowed:
        store.set_tag(to, version)
    else:
        tell(f"{to} stays where it is; train better, or say --anyway")
    typer.echo(json.dumps({"ok": allowed, **said}))
    raise SystemExit(EXIT_DONE if allowed else EXIT_CHECK_FAILED)
