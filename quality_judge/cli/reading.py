"""Commands for a reader: a judge's card, two judges or runs side by side, a page on a filtered corpus."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quality_judge.cli.app import Language, app
from quality_judge.errors import CorpusError, JudgeError
from quality_judge.judge import CARD_FILE, METRICS_FILE, load_judge

MOST_REASONS = 12


@app.command()
def card(
    judge: Annotated[Path, typer.Argument(help="folder of the judge")],
    html: Annotated[Path | None, typer.Option(help="HTML file to write instead")] = None,
    language: Language = "en",
) -> None:
    """Prints a judge's card, or writes it as a page.  Example: quality-judge card judges/mine-1 --html card.html"""
    from quality_judge.files import write_beside
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
    from quality_judge.comparison import compare, read_side, render_comparison
    from quality_judge.files import write_beside

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
    checks = [item for path in validation or [] for item in _checks(path)]
    provenance = {"input": manifest["scored"], "output": str(filtered), "seconds": manifest["seconds"], "date": _now()}
    data = ReportData(title, language, ScoreProfile.from_dict(counts), said, metrics, checks or None, provenance)  # type: ignore[arg-type]
    write_report(data, output)
    _print_decisions(counts)
    typer.echo(f"report: {output}")


def _judge_says(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    judge = load_judge(folder)
    if judge.fingerprint != manifest["judge"]:
        raise JudgeError(f"{folder} is {judge.fingerprint}, and {manifest['judge']} scored these rows; name that one")
    said = {**judge.spec.model_dump(mode="json"), "fingerprint": judge.fingerprint}
    said["thresholds"] |= {"keep": manifest["keep_at"], "review": manifest["drop_below"]}
    said["lowest_keep"] = min([manifest["keep_at"], *(keep for keep, _ in manifest["slices"].values())])
    metrics = json.loads(judge.path(METRICS_FILE).read_text(encoding="utf-8"))
    if cascade := manifest.get("cascade"):  # two judges decided, of whom this one's own promise says nothing
        first, *others = cascade["promises"]
        metrics["certificate"] = first | {promise["metric"]: promise for promise in others}
    return said, metrics


def _read(folder: Path, name: str) -> dict[str, Any]:
    return _json(folder / name, "filter_corpus.py")


def _checks(path: Path) -> list[Any]:
    found = _json(path, "validate_corpus.py").get("results")
    if not isinstance(found, list):
        raise CorpusError(f"{path} holds no results; was it written by validate_corpus.py?")
    return found


def _json(path: Path, writer: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read ({type(error).__name__}); was it written by {writer}?") from None
    if not isinstance(content, dict):
        raise CorpusError(f"{path} holds no object; was it written by {writer}?")
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
        reasons.add_row(escape(reason), f"{n:,}")
    console = Console()
    console.print(table)
    console.print(reasons)


def _print_lines(title: str, names: tuple[str, str], lines: list[Any]) -> None:
    from quality_judge.comparison import shown

    table = Table(title=title)
    for column in ("", *map(escape, names), "difference", "better"):
        table.add_column(column, justify="left" if column in ("", "better") else "right")
    for line in lines:
        share = title != "metrics"
        better = escape({"a": names[0], "b": names[1]}.get(line.better, line.better))
        difference = "" if line.difference is None else f"{line.difference:+.3f}"
        table.add_row(escape(line.name), shown(line.a, share=share), shown(line.b, share=share), difference, better)
    Console().print(table)


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
