"""The manners of every programme: one JSON object as the last line on stdout, an exit code, errors in one place.

Exit 0: done. 1: everything ran and a check did not hold. 2: bad input or arguments, or a fault of this package.
128 + n: ended by signal n. Of an error the line says with `retry` whether the same command may end otherwise.
A fault shows where it was raised, never what it says, which may quote a row.
It knows nothing of what a programme does.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from quality_judge.errors import EXIT_BAD_INPUT, EXIT_CHECK_FAILED, EXIT_DONE, ConfigError, QualityJudgeError
from quality_judge.redact import redacted, redacted_values

CALLED_AS: ContextVar[str | None] = ContextVar("called_as", default=None)  # `quality-judge train`, for a programme


def run(main: Callable[[], Mapping[str, Any]]) -> NoReturn:
    """Runs `main`, prints its summary as one JSON line and exits; `"ok": False` in it exits 1."""
    try:
        with _ended_by_sigterm():
            summary = dict(main())
            line = as_json({"ok": True, **summary})
    except QualityJudgeError as error:
        tell(f"error: {error}")
        message, *faults = str(error).splitlines()
        _fail(error, message, error.exit_code, [fault.removeprefix("  - ") for fault in faults])
    except (KeyboardInterrupt, Interrupted) as error:
        number = signal.SIGTERM if isinstance(error, Interrupted) else signal.SIGINT
        _fail(Interrupted(), f"ended by {number.name}; nothing was published", 128 + number)
    except Exception as error:
        where = frames(error)
        at = f" at {where[-1]}" if where else ""
        message = f"unexpected {type(error).__name__}{at}; this is a fault of the programme, please report these lines"
        tell("\n".join([*(f"  {call}" for call in where), f"error: {message}"]))
        _fail(error, message, EXIT_BAD_INPUT)
    sys.stderr.flush()
    print(line, flush=True)
    raise SystemExit(EXIT_DONE if summary.get("ok", True) else EXIT_CHECK_FAILED)


def _fail(error: BaseException, message: str, code: int, faults: Sequence[str] = ()) -> NoReturn:
    retry = error.retry if isinstance(error, QualityJudgeError) else True
    said = {"ok": False, "error": type(error).__name__, "message": message, "retry": retry}
    say(said | ({"faults": list(faults)} if faults else {}))
    raise SystemExit(code) from None


class Interrupted(BaseException):
    """The process was asked to end."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within it SIGTERM raises Interrupted, so that a programme tidies up; a second one does not disturb that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def frames(error: BaseException) -> list[str]:
    """`file.py:12 in function` for each call on the way to where `error` was raised: no values, no message."""
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


def say(summary: Mapping[str, Any]) -> None:
    """Prints `summary` as one line of JSON, without secrets, on stdout; keys keep their order, NaN is refused."""
    sys.stderr.flush()
    print(as_json(summary), flush=True)


def as_json(summary: Mapping[str, Any]) -> str:
    """One line of JSON, without secrets. Raises ValueError for not-a-number, which is no JSON."""
    return json.dumps(redacted_values(summary), ensure_ascii=False, allow_nan=False)


def tell(message: str) -> None:
    """Prints `message` for a person, on stderr, secrets taken out."""
    print(redacted(message), file=sys.stderr, flush=True)


def as_typed() -> str:
    """The command of this process, ready for a shell: of an absolute path only its last name, no secret."""
    command = CALLED_AS.get() or f"python training/{Path(sys.argv[0]).name}"
    return redacted(shlex.join([*command.split(), *map(_without_folder, sys.argv[1:])]))


def _without_folder(word: str) -> str:
    """The word, and of an absolute path that it is or sets (`--labels=/a/b`) only the last name."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).is_absolute() else word


def programmes_folder() -> Path:
    """The folder with `training/` and `jobs/`: an installed package, or the checkout around it."""
    here = Path(__file__).resolve().parent
    for folder in (here, here.parent):
        if (folder / "jobs" / "score_corpus.py").is_file():
            return folder
    raise ConfigError(f"no training/ and jobs/ in {here} or beside it; the installation is incomplete, install again")


def programme_file(name: str) -> Path:
    """The file of a programme, such as `jobs/score_corpus.py`."""
    return programmes_folder() / name


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


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints, too, end in one JSON line on stdout."""

    def error(self, message: str) -> NoReturn:
        """Prints usage and complaint, says the JSON line, exits 2."""
        self.print_usage(sys.stderr)
        tell(f"error: {message}")
        say({"ok": False, "error": "ArgumentError", "message": message, "retry": False})
        raise SystemExit(EXIT_BAD_INPUT)


def parser(description: str) -> Parser:
    """An argument parser whose help keeps the programme's own line breaks, and names the command it was called by."""
    command = CALLED_AS.get()
    if command:
        description = re.sub(r"(python|spark-submit) \w+/\w+\.py", command, description)
    return Parser(
        prog=command, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
