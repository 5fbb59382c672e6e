"""Commands to begin with: the demo, a project folder to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quality_judge.cli.app import app


@app.command("demo-corpus")
def demo_corpus(output: Annotated[Path, typer.Option(help="folder to write")], rows: int = 6000) -> None:
    """Gathers a corpus of real text from this machine.  Example: quality-judge demo-corpus --output corpus"""
    from quality_judge.demo import gather_corpus

    typer.echo(json.dumps({"rows": gather_corpus(output, rows=rows), "output": str(output)}))
