"""`quality-judge`: small commands over the library. Heavy work on a cluster is in jobs/, training in training/.

Each command parses, calls the library and prints; nothing else lives here.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from quality_judge.card import write_metrics
from quality_judge.errors import CorpusError, QualityJudgeError
from quality_judge.judge import CARD_FILE, METRICS_FILE, load_judge
from quality_judge.redact import redacted

app = typer.Typer(
    help="A few hundred expert labels become a judge that scores and filters a corpus.",
    no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
Folder = Annotated[Path, typer.Option(help="folder of the judge")]
Language = Annotated[str, typer.Option("--language", "--lang", help="en or zh")]
MOST_REASONS = 12


@app.command()
def score(
    judge: Folder,
    input: Annotated[Path, typer.Option(help="Parquet, JSON lines or CSV file")],
    output: Annotated[Path, typer.Option(help="Parquet file to write")],
    text_column: Annotated[str, typer.Option(help="column with the text")] = "text",
    prompt_column: Annotated[str | None, typer.Option(help="column with the prompt")] = None,
    require_signature: Annotated[Path | None, typer.Option(help="PEM public key that must have signed")] = None,
) -> None:
    """Scores one file without Spark.  Example: quality-judge score --judge J --input a.jsonl --output b.parquet"""
    from quality_judge.engine.scorer import load_scorer
    from quality_judge.signing import load_signed_judge
    from quality_judge.tables import read_table, score_table, write_table

    trusted = load_signed_judge(judge, require_signature)
    scored = score_table(load_scorer(trusted), read_table(input), text_column=text_column, prompt_column=prompt_column)
    write_table(scored, output)
    codes = scored.column("quality_code").value_counts().to_pylist()
    typer.echo(
        json.dumps(
            {"rows": len(scored), "codes": {item["values"]: item["counts"] for item in codes}, "output": str(output)}
        )
    )


@app.command()
def plan(
    judge: Folder,
    input: Annotated[Path, typer.Option(help="corpus: a file or a folder on this machine")],
    text_column: Annotated[str, typer.Option(help="column with the text")] = "text",
    prompt_column: Annotated[str | None, typer.Option(help="column with the prompt")] = None,
    format: Annotated[str | None, typer.Option(help="parquet, json or csv; by the names when left out")] = None,
    rows: Annotated[int, typer.Option(help="rows of the sample")] = 1000,
    workers: Annotated[int, typer.Option(help="machines like this one")] = 1,
    gpus: Annotated[int | None, typer.Option(help="GPUs like the one here, instead of workers")] = None,
    price_per_hour: Annotated[float | None, typer.Option(help="of one worker or GPU")] = None,
) -> None:
    """Hours, memory and cost of scoring, before the run.  Example: quality-judge plan --judge J --input corpus"""
    from quality_judge.corpus_sample import sample_corpus
    from quality_judge.engine.scorer import load_scorer
    from quality_judge.planning import in_words, make_plan

    wanted = [text_column] if prompt_column is None else [prompt_column, text_column]
    sample = sample_corpus(input, wanted, rows=rows, format=format)
    found = make_plan(load_scorer(load_judge(judge)), sample, workers=workers, gpus=gpus, price_per_hour=price_per_hour)
    typer.echo("\n".join([*in_words(found), json.dumps(found)]))


@app.command()
def card(
    judge: Annotated[Path, typer.Argument(help="folder of the judge")],
    html: Annotated[Path | None, typer.Option(help="HTML file to write instead")] = None,
    language: Language = "en",
) -> None:
    """Prints a judge's card, or writes it as a page.  Example: quality-judge card judges/mine-1 --html card.html"""
    from quality_judge.card import write_beside
    from quality_judge.judge_page import render_judge_page

    loaded = load_judge(judge)
    if html is None:
        typer.echo(loaded.path(CARD_FILE).read_text(encoding="utf-8"))
        return
    says = {**loaded.spec.model_dump(mode="json"), "fingerprint": loaded.fingerprint}
    metrics = json.loads(loaded.path(METRICS_FILE).read_text(encoding="utf-8"))
    write_beside(html, render_judge_page(says, metrics, language=language))
    typer.echo(f"card: {html}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="folder of a judge, or one that filter_corpus.py wrote")],
    b: Annotated[Path, typer.Argument(help="another of the same kind")],
    html: Annotated[Path | None, typer.Option(help="HTML file to write as well")] = None,
    language: Language = "en",
) -> None:
    """Two judges, or two runs, side by side.  Example: quality-judge compare judges/a judges/b --html c.html"""
    from quality_judge.card import write_beside
    from quality_judge.comparison import compare, read_side, render_comparison

    first, second = read_side(a), read_side(b)
    for part, lines in compare(first, second).items():
        _print_lines(part, (first.name, second.name), lines)
    if html is not None:
        write_beside(html, render_comparison(first, second, language=language))
        typer.echo(f"comparison: {html}")


@app.command()
def report(
    filtered: Annotated[Path, typer.Option(help="folder that filter_corpus.py wrote")],
    output: Annotated[Path, typer.Option(help="HTML file to write")],
    judge: Annotated[Path | None, typer.Option(help="folder of the judge")] = None,
    validation: Annotated[list[Path] | None, typer.Option(help="JSON files that validate_corpus.py wrote")] = None,
    title: Annotated[str, typer.Option(help="title of the page")] = "What was kept, and why",
    language: Language = "en",
) -> None:
    """Writes a page on a filtered corpus.  Example: quality-judge report --filtered F --output r.html"""
    from quality_judge.profile import ScoreProfile
    from quality_judge.report import ReportData, write_report

    manifest, counts = _read(filtered, "_quality_manifest.json"), _read(filtered, "_quality_profile.json")
    said, metrics = _judge_says(judge, manifest) if judge else (None, None)
    checks = [item for path in validation or [] for item in json.loads(path.read_text(encoding="utf-8"))["results"]]
    provenance = {"input": manifest["scored"], "output": str(filtered), "seconds": manifest["seconds"], "date": _now()}
    data = ReportData(title, language, ScoreProfile.from_dict(counts), said, metrics, checks or None, provenance)  # type: ignore[arg-type]
    write_report(data, output)
    _print_decisions(counts)
    typer.echo(f"report: {output}")


@app.command()
def redteam(
    judge: Annotated[Path, typer.Argument(help="folder of the judge")],
    labels: Annotated[list[Path] | None, typer.Option(help="label files whose rows are attacked, not our own")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
    save: Annotated[Path | None, typer.Option(help="folder of a new judge with the result in its card")] = None,
) -> None:
    """Attacks a judge with texts written to please it.  Example: quality-judge redteam J --output r.json"""
    from quality_judge.engine.scorer import load_scorer
    from quality_judge.evaluation import save_with_metric
    from quality_judge.labels import load_labels
    from quality_judge.redteam import in_words, measured

    trusted = load_judge(judge)
    found = measured(load_scorer(trusted), load_labels(labels) if labels else None)
    typer.echo("\n".join(in_words(found)))
    if output:
        write_metrics(output, found)
    if save:
        save_with_metric(trusted, save, "redteam", found)
    typer.echo(json.dumps({key: value for key, value in found.items() if key not in ("families", "control")}))


@app.command()
def sign(
    judge: Annotated[Path, typer.Argument(help="folder of the judge")],
    key: Annotated[Path, typer.Option(help="Ed25519 private key, PEM")],
) -> None:
    """Signs a judge, so that others can require it.  Example: quality-judge sign J --key key.pem"""
    from quality_judge.signing import sign_judge

    typer.echo(json.dumps({"judge": str(judge), "public_key": sign_judge(judge, key)}))


@app.command("convert-base")
def convert_base(
    folder: Annotated[Path, typer.Argument(help="folder of a published ChatGLM3")],
    output: Annotated[Path, typer.Option(help="folder to write; it must not exist yet")],
) -> None:
    """Makes a ChatGLM3 a native base, no number changed.  Example: quality-judge convert-base chatglm3-6b --output B"""
    from quality_judge.engine.chatglm import convert_chatglm

    typer.echo(json.dumps(convert_chatglm(folder, output)))


@app.command("demo-corpus")
def demo_corpus(output: Annotated[Path, typer.Option(help="folder to write")], rows: int = 6000) -> None:
    """Gathers a corpus of real text from this machine.  Example: quality-judge demo-corpus --output corpus"""
    from quality_judge.demo import gather_corpus

    typer.echo(json.dumps({"rows": gather_corpus(output, rows=rows), "output": str(output)}))


def main() -> None:
    """Runs the command line; an error of ours is one line on stderr and its own exit code."""
    try:
        app()
    except QualityJudgeError as error:
        typer.echo(redacted(f"error: {error}"), err=True)
        raise SystemExit(error.exit_code) from None


def _judge_says(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    judge = load_judge(folder)
    said = {**judge.spec.model_dump(mode="json"), "fingerprint": judge.fingerprint}
    said["thresholds"] |= {"keep": manifest["keep_at"], "review": manifest["drop_below"]}
    return said, json.loads(judge.path(METRICS_FILE).read_text(encoding="utf-8"))


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"{folder / name} cannot be read ({type(error).__name__}); was it written by filter_corpus.py?"
        ) from None
    return content


def _print_decisions(counts: dict[str, Any]) -> None:
    table, total = Table(title="rows"), max(counts["rows_in"], 1)
    for name in ("decision", "rows", "share"):
        table.add_column(name, justify="left" if name == "decision" else "right")
    for decision in ("keep", "review", "drop", "unscored"):
        n = counts["decisions"].get(decision, 0)
        table.add_row(decision, f"{n:,}", f"{n / total:.1%}")
    reasons = Table(title="why")
    reasons.add_column("reason")
    reasons.add_column("rows", justify="right")
    for reason, n in sorted(counts["reasons"].items(), key=lambda item: -item[1])[:MOST_REASONS]:
        reasons.add_row(reason, f"{n:,}")
    console = Console()
    console.print(table)
    console.print(reasons)


def _print_lines(title: str, names: tuple[str, str], lines: list[Any]) -> None:
    from quality_judge.comparison import shown

    table = Table(title=title)
    for column in ("", *names, "difference", "better"):
        table.add_column(column, justify="left" if column in ("", "better") else "right")
    for line in lines:
        share = title != "metrics"
        better = {"a": names[0], "b": names[1]}.get(line.better, line.better)
        difference = "" if line.difference is None else f"{line.difference:+.3f}"
        table.add_row(line.name, shown(line.a, share=share), shown(line.b, share=share), difference, better)
    Console().print(table)


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
