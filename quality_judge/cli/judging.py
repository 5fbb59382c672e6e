"""Commands on one judge and one machine: score a file, plan a run, attack, sign or pack it, convert a ChatGLM3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quality_judge.card import write_metrics
from quality_judge.cli.app import Folder, app
from quality_judge.judge import load_judge


@app.command("score-file")
def score_file(
    judge: Folder,
    input: Annotated[Path, typer.Option(help="Parquet, JSON lines or CSV file")],
    output: Annotated[Path, typer.Option(help="Parquet file to write")],
    text_column: Annotated[str, typer.Option(help="column with the text")] = "text",
    prompt_column: Annotated[str | None, typer.Option(help="column with the prompt")] = None,
    require_signature: Annotated[Path | None, typer.Option(help="PEM public key that must have signed")] = None,
) -> None:
    """Scores one file without Spark.  Example: quality-judge score-file --judge J --input a.jsonl --output b.parquet"""
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
def redteam(
    judge: Annotated[Path, typer.Argument(help="folder of the judge")],
    labels: Annotated[list[Path] | None, typer.Option(help="label files whose rows are attacked, not our own")] = None,
    threshold: Annotated[float | None, typer.Option(help="least P(good) of a kept row, if not the judge's own")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
    save: Annotated[Path | None, typer.Option(help="folder of a new judge with the result in its card")] = None,
) -> None:
    """Attacks a judge with texts written to please it.  Example: quality-judge redteam J --output r.json"""
    from quality_judge.engine.scorer import load_scorer
    from quality_judge.evaluation import save_with_metric
    from quality_judge.labels import load_labels
    from quality_judge.redteam import in_words, measured

    trusted = load_judge(judge)
    found = measured(load_scorer(trusted), load_labels(labels) if labels else None, threshold=threshold)
    typer.echo("\n".join(in_words(found)))
    if output:
        write_metrics(output, found)
    if save:
        save_with_metric(trusted, save, "redteam", found)
    typer.echo(json.dumps({key: value for key, value in found.items() if key not in ("families", "control")}))


@app.command()
def pack(
    judge: Annotated[Path, typer.Argument(help="folder of the judge")],
    output: Annotated[Path, typer.Option(help="zip file to write; it must not exist yet")],
) -> None:
    """One file that a Spark job takes along.  Example: quality-judge pack J --output judge.zip"""
    from quality_judge.archive import pack_judge

    trusted = load_judge(judge)
    packed = pack_judge(trusted, output)
    typer.echo(json.dumps({"archive": str(packed), "bytes": packed.stat().st_size, "judge": trusted.fingerprint}))


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
