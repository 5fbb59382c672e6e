"""The manners of every programme: one JSON object as the last line on stdout, an exit code, errors in one place.

Exit 0: done. 1: everything ran and a check did not hold. 2: bad input or arguments.
It knows nothing of what a programme does.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from quality_judge.errors import EXIT_CHECK_FAILED, EXIT_DONE, QualityJudgeError
from quality_judge.redact import redacted, redacted_values


def run(main: Callable[[], Mapping[str, Any]]) -> NoReturn:
    """Runs `main`, prints its summary as one JSON line and exits; `"ok": False` in it exits 1."""
    try:
        summary = dict(main())
    except QualityJudgeError as error:
        tell(f"error: {error}")
        say({"ok": False, "error": type(error).__name__, "message": str(error).splitlines()[0]})
        raise SystemExit(error.exit_code) from None
    say({"ok": True, **summary})
    raise SystemExit(EXIT_DONE if summary.get("ok", True) else EXIT_CHECK_FAILED)


def say(summary: Mapping[str, Any]) -> None:
    """Prints `summary` as one line of JSON, without secrets, on stdout; keys keep their order, NaN is refused."""
    sys.stderr.flush()
    print(json.dumps(redacted_values(summary), ensure_ascii=False, allow_nan=False), flush=True)


def tell(message: str) -> None:
    """Prints `message` for a person, on stderr, secrets taken out."""
    print(redacted(message), file=sys.stderr, flush=True)


def as_typed() -> str:
    """The command of this process, ready for a shell; of an absolute path only its last name."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"training/{Path(sys.argv[0]).name}", *words])


@contextmanager
def progress_bars() -> Iterator[Callable[[str], Callable[[int, int, float], None]]]:
    """Gives a function from a stage's name to `advance(step, steps, loss)`: bars on a terminal, else a few lines."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def stage(name: str) -> Callable[[int, int, float], None]:
            bar = progress.add_task(name, total=None, loss=0.0)

            def advance(step: int, steps: int, loss: float) -> None:
                progress.update(bar, completed=step, total=steps, loss=loss)
                if not console.is_terminal and step * 4 // steps != (step - 1) * 4 // steps:
                    tell(f"{name}: step {step} of {steps}, loss {loss:.3f}")

            return advance

        yield stage


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser whose help keeps the programme's own line breaks."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
