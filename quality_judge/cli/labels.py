"""`quality-judge label` and `quality-judge labels …`: rows to experts, and their labels back.

Each command parses, calls the library and prints; nothing else lives here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quality_judge.cli.app import app
from quality_judge.errors import InputError, MissingExtra, unknown
from quality_judge.labels.questions import read_questions
from quality_judge.rubric import NO_RUBRIC, Rubric

labels = typer.Typer(
    help="Rows out to other tools, labels back in.  Example: quality-judge labels import sheet.csv --output l.jsonl",
    no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,
)  # fmt: skip
app.add_typer(labels, name="labels")
Rows = Annotated[list[Path], typer.Argument(help="rows to label, as sample_for_labels.py wrote them")]
RubricFile = Annotated[Path | None, typer.Option("--rubric", help="YAML file with what the experts judge by")]
Mode = Annotated[str | None, typer.Option(help="good-bad, pair, rank or categories; else what the first row asks")]


@app.command()
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
    from quality_judge.pages import LANGUAGES

    if language not in (None, *LANGUAGES):
        raise InputError(unknown("language", language, LANGUAGES))
    by = Rubric.load(rubric) if rubric else NO_RUBRIC
    asked, questions = read_questions(rows, mode)
    invitations, listening = Invitations.to(annotator or []), listen(port)
    store = Store(output)
    session = Session(questions, asked, by, store, per_row=per_row)
    typer.echo(f"{len(questions)} rows, mode {asked}; answers go to {output}. Ctrl-C ends; open:", err=True)
    for token, name in invitations.names.items():
        typer.echo(f"{name or 'everybody'}: http://{HOST}:{listening.getsockname()[1]}/{token}/", err=True)
    serve(session, invitations, listening, language=language)
    store.close()
    typer.echo(json.dumps({"labels": session.labels, "output": str(output)}))


@labels.command("export")
def export_rows(
    rows: Rows,
    output: Annotated[Path, typer.Option(help="file to write: tasks in JSON, or a spreadsheet in CSV")],
    format: Annotated[str, typer.Option(help="label-studio or csv")] = "label-studio",
    rubric: RubricFile = None,
    mode: Mode = None,
    predict: Annotated[bool, typer.Option(help="show the judge's verdict to the experts; it sways them")] = False,
) -> None:
    """Rows as tasks or a sheet.  Example: quality-judge labels export rows.jsonl --format csv --output rows.csv"""
    from quality_judge.files import write_beside
    from quality_judge.labels.label_studio_tasks import setup, tasks
    from quality_judge.labels.sheet import sheet

    if format not in ("label-studio", "csv"):
        raise InputError(unknown("format", format, ("label-studio", "csv")))
    if format == "label-studio" and output.suffix == ".xml":
        raise InputError(f"{output}: the set-up is written there; name a file of tasks, such as {output.stem}.json")
    asked, questions = read_questions(rows, mode)
    by = Rubric.load(rubric) if rubric else NO_RUBRIC
    said: dict[str, object] = {"rows": len(questions), "mode": asked, "output": str(output)}
    if format == "csv":
        write_beside(output, sheet(questions, asked))
    else:
        write_beside(output.with_suffix(".xml"), setup(asked, by))
        said["setup"] = str(output.with_suffix(".xml"))
        write_beside(output, json.dumps(tasks(questions, asked, by, predict=predict), ensure_ascii=False, indent=1))
    typer.echo(json.dumps(said))


@labels.command("import")
def import_files(
    files: Annotated[list[Path], typer.Argument(help="exports of Label Studio, spreadsheets, label files")],
    output: Annotated[Path, typer.Option(help="label file to write")],
    rubric: RubricFile = None,
    rows: Annotated[list[Path] | None, typer.Option(help="the rows as they were drawn; their columns are kept")] = None,
    rating_cut: Annotated[float | None, typer.Option(help="the least rating that is good")] = None,
    annotator: Annotated[str | None, typer.Option(help="who labelled, where a file does not say")] = None,
    encoding: Annotated[str, typer.Option(help="of spreadsheets, such as gb18030")] = "utf-8",
) -> None:
    """Labels of other tools as one file.  Example: quality-judge labels import export.json --output labels.jsonl"""
    from quality_judge.files import write_beside
    from quality_judge.labels.imported import Reading, import_labels

    known = {question.key: question for question in read_questions(rows)[1]} if rows else {}
    by = Rubric.load(rubric) if rubric else NO_RUBRIC
    found = import_labels(files, Reading(by, rating_cut, known, annotator, encoding))
    write_beside(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows))
    typer.echo(json.dumps({**found.counts, "output": str(output)}))


@labels.command()
def agreement(files: Annotated[list[Path], typer.Argument(help="label files of several experts")]) -> None:
    """How far experts agree on the rows they share.  Example: quality-judge labels agreement ann.jsonl bo.jsonl"""
    from quality_judge.labels import check_labels, load_labels

    report = check_labels(load_labels(files))
    for warning in report.warnings:
        typer.echo(warning, err=True)
    typer.echo(json.dumps(report.found(), ensure_ascii=False))
