"""`quality-judge`: every command parses, calls the library and prints; nothing else lives here.

A new command goes into the module it belongs to, or into a new one that is imported below:
`programmes` runs what is in training/ and jobs/, `judging` works on one judge, `reading` is for readers, `labels` for
experts, `operating` is for who runs Spark, `starting` has the demo and `init`, `places` is where judges live.
"""

from __future__ import annotations

from typing import NoReturn

import typer

from quality_judge.cli import judging, labels, operating, places, programmes, reading, starting  # noqa: F401  each adds to `app`
from quality_judge.cli.app import app
from quality_judge.cli.programmes import missing_extra
from quality_judge.errors import QualityJudgeError
from quality_judge.redact import redacted

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line; an error of ours is one line on stderr and its own exit code."""
    try:
        app()
    except QualityJudgeError as error:
        _end(error)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        _end(missing)


def _end(error: QualityJudgeError) -> NoReturn:
    typer.echo(redacted(f"error: {error}"), err=True)
    raise SystemExit(error.exit_code) from None
