"""Commands to begin with: the demo, a project folder to start from, where the programmes are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quality_judge.cli.app import Language, app
from quality_judge.cli.programmes import run_programme
from quality_judge.cli.reading import report
from quality_judge.config import conf_folder
from quality_judge.demo import demo_labels, gather_corpus
from quality_judge.errors import InputError
from quality_judge.programme import programmes_folder, tell
from quality_judge.project import start_project


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="folder to write; it must not exist yet")] = Path("demo-output"),
    rows: Annotated[int, typer.Option(help="rows of the corpus, which is text found on this machine")] = 6000,
    language: Language = "en",
) -> None:
    """Labels, judge, scores, checks, kept rows, report: all of it, offline.  Example: quality-judge demo --output d"""
    if output.exists():
        raise InputError(f"{output} exists; remove it, or choose another folder with --output")
    conf, judge, scored, filtered = conf_folder(), output / "judge", output / "scored", output / "filtered"
    tell(f"demo: a corpus of real text from this machine, {gather_corpus(output / 'corpus', rows=rows)} rows")
    checked = {name: output / f"validation-{name}.json" for name in ("scored", "filtered")}
    _step("train", "--config", conf / "judges/demo.yaml", "--labels", *demo_labels(), "--output", judge)
    _step("score", "--judge", judge, "--input", output / "corpus", "--output", scored)
    _step("validate", "--scored", scored, "--suite", conf / "expectations/scored.yaml", "--output", checked["scored"])
    _step("filter", "--scored", scored, "--policy", conf / "policies/demo.yaml", "--output", filtered)
    suite = conf / "expectations/filtered.yaml"
    _step("validate", "--scored", filtered, "--suite", suite, "--output", checked["filtered"])
    report(filtered, output / "report.html", judge=judge, validation=list(checked.values()), language=language)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="folder of the new project")]) -> None:
    """Writes a working project to start from.  Example: quality-judge init my-judge"""
    files = start_project(folder)
    tell("\n".join(f"  {folder / name}" for name in files))
    tell(f"next: cd {folder} && quality-judge demo-corpus --output corpus && ./run.sh corpus")
    typer.echo(json.dumps({"ok": True, "project": str(folder), "files": len(files)}))


@app.command()
def home() -> None:
    """Where training/ and jobs/ are, for spark-submit and Airflow.  Example: ls "$(quality-judge home)/jobs" """
    typer.echo(str(programmes_folder()))


@app.command("demo-corpus")
def demo_corpus(output: Annotated[Path, typer.Option(help="folder to write")], rows: int = 6000) -> None:
    """Gathers a corpus of real text from this machine.  Example: quality-judge demo-corpus --output corpus"""
    typer.echo(json.dumps({"rows": gather_corpus(output, rows=rows), "output": str(output)}))


def _step(command: str, *arguments: object) -> None:
    """Runs one programme as a command; a step that fails ends the demo with its exit code."""
    words = [str(word) for word in arguments]
    tell(f"demo: quality-judge {command}")
    try:
        run_programme(command, words)
    except SystemExit as ended:
        if ended.code:
            raise
