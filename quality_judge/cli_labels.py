"""`quality-judge label` and `quality-judge labels …`: rows to experts, and their labels back.

Each command parses, calls the library and prints; nothing else lives here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quality_judge.errors import MissingExtra
from quality_judge.labels.questions import read_questions
from quality_judge.rubric import NO_RUBRIC, Rubric

app = typer.Typer(
    help="Rows out to other tools, and labels back in.", no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,
)  # fmt: skip
Rows = Annotated[list[Path], typer.Argument(help="rows to label, as sample_for_labels.py wrote them")]
RubricFile = Annotated[Path | None, typer.Option("--rubric", help="YAML file with what the experts judge by")]
Mode = Annotated[str | None, typer.Option(help="good-bad, pair, rank or categories; else what the first row asks")]


def label(
    rows: Rows,
    output: Annotated[Path, typer.Option(help="label file to write, or to go on with")],
    rubric: RubricFile = None,
    mode: Mode = None,
    annotator: Annotated[list[str] | None, typer.Option(help="expert with a link of their own, again for more")] = None,
    per_row: Annotated[int | None, typer.Option(help="how many experts judge each row; else all", min=1)] = None,
    port: Annotated[int, typer.Option(help="port on 127.0.0.1; 0 takes a free one")] = 8765,
    language: Annotated[str | None, typer.Option("--language", "--lang", help="en or zh; else the browser's")] = None,
) -> None:  # fmt: skip
    """Opens a page to label on.  Example: quality-judge label rows.jsonl --rubric R.yaml --output labels.jsonl"""
    try:
        from quality_judge.labelling.app import HOST, Invitations, listen, serve
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "label") from None
    from quality_judge.labelling.session import Session
    from quality_judge.labelling.store import Store

    asked, questions = read_questions(rows, mode)
    invitations, listening = Invitations.to(annotator or []), listen(port)
    store = Store(output)
    session = Session(questions, asked, Rubric.load(rubric) if rubric else NO_RUBRIC, store, per_row=per_row)
    typer.echo(f"{len(questions)} rows, mode {asked}; answers go to {output}. Ctrl-C ends; open:", err=True)
    for token, name in invitations.names.items():
        typer.echo(f"{name or 'everybody'}: http://{HOST}:{listening.getsockname()[1]}/{token}/", err=True)
    serve(session, invitations, listening, language=language)
    store.close()
    typer.echo(json.dumps({"labels": session.labels, "output": str(output)}))
