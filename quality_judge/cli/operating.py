"""Commands for who runs Spark: what is unsafe or slow in its settings, and a faster start."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from quality_judge.cli.app import app
from quality_judge.judge import load_judge


@app.command()
def doctor(
    properties_file: Annotated[
        list[Path] | None, typer.Option(help="settings as spark-submit gets them; again for more")
    ] = None,
    conf: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, as spark-submit takes it; again for more")] = None,
    master: Annotated[str, typer.Option(help="master the job will run on")] = "",
    judge: Annotated[Path | None, typer.Option(help="folder of a judge that must load")] = None,
) -> None:
    """Unsafe or slow settings of Spark.  Example: quality-judge doctor --properties-file conf/spark/cpu.conf"""
    from quality_judge.spark.doctor import examine, examine_machine, in_words, read_properties

    settings = {key: value for path in properties_file or [] for key, value in read_properties(path).items()}
    settings |= dict(item.split("=", 1) for item in conf or [] if "=" in item)
    if master:
        settings["spark.master"] = master
    findings = [*examine(settings), *examine_machine()]
    checked = load_judge(judge).fingerprint if judge else None
    errors = sum(finding.severity == "error" for finding in findings)
    typer.echo("\n".join(in_words(findings)))
    typer.echo(json.dumps({"ok": not errors, "errors": errors, "warnings": len(findings) - errors, "judge": checked,
                           "findings": [asdict(finding) for finding in findings]}))  # fmt: skip
    raise typer.Exit(1 if errors else 0)


@app.command()
def warm_spark(
    measure: Annotated[
        bool, typer.Option("--measure", help="once more, and time a small job before and after")
    ] = False,
) -> None:
    """Lays out Spark's classes once: jobs on this machine start sooner.  Example: quality-judge warm-spark --measure"""
    from quality_judge.spark.startup import make_startup_archive

    typer.echo(json.dumps({"ok": True, **make_startup_archive(measured=measure)}))
