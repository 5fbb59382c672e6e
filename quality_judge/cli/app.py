"""The command line's one `app`, and the options that several commands share. Each module beside it adds commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="A few hundred expert labels become a judge that scores and filters a corpus.",
    no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
Folder = Annotated[Path, typer.Option(help="folder of the judge")]
Language = Annotated[str, typer.Option("--language", "--lang", help="en or zh")]
