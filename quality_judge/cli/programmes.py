"""The programmes of training/ and jobs/ as commands: the same file runs, with the same options, line and exit code.

A programme is run as a file and never imported, so that its options stand in one place. For completion they are read
from its text, which needs neither torch nor Spark. It knows nothing of what a programme does.
"""

from __future__ import annotations

import ast
import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

from quality_judge.cli.app import app
from quality_judge.errors import EXIT_BAD_INPUT, EXIT_DONE, ConfigError, MissingExtra
from quality_judge.programme import CALLED_AS, programme_file, say, tell

PROGRAMMES = {  # command -> programme, what it does, an example
    "train": (
        "training/train_judge.py", "Trains a judge from expert labels, and measures it against its baselines.",
        "--labels labels.jsonl --output judges/mine-1",
    ),
    "evaluate": (
        "training/evaluate_judge.py", "Measures a judge on labels; exit 1 below a bar.",
        "--judge judges/mine-1 --labels test.jsonl --output metrics.json --min roc_auc=0.8",
    ),
    "calibrate": (
        "training/calibrate_judge.py", "Calibrates and certifies a judge anew on fresh labels.",
        "--judge judges/mine-1 --labels uniform.jsonl --output judges/mine-1b",
    ),
    "distill": (
        "training/distill_judge.py", "Teaches a small judge what a large one says.",
        "--judge judges/large-1 --input corpus.jsonl --output judges/small-1",
    ),
    "score": (
        "jobs/score_corpus.py", "Scores a corpus in Spark; with --output NAME.parquet one file, without Spark.",
        "--judge judges/mine-1 --input corpus --output scored",
    ),
    "filter": (
        "jobs/filter_corpus.py", "Splits a scored table into kept, review, dropped and unscored.",
        "--scored scored --policy policy.yaml --output filtered",
    ),
    "validate": (
        "jobs/validate_corpus.py", "Holds a scored or filtered table against a suite; exit 1 when it does not hold.",
        "--scored scored --suite scored.yaml --output validation.json",
    ),
    "sample": (
        "jobs/sample_for_labels.py", "Chooses scored rows for experts to label.",
        "--scored scored --count 200 --strategy uncertain --output rows.jsonl",
    ),
}  # fmt: skip
EXTRA_OF = {
    "torch": "train", "transformers": "train", "safetensors": "train", "tokenizers": "train", "peft": "train",
    "accelerate": "train", "sklearn": "train", "pyspark": "spark", "pandas": "spark",
    "great_expectations": "expectations",
}  # fmt: skip
FILE_SUFFIX = ".parquet"


@dataclass(frozen=True)
class Completion:
    """What a shell is offered; click's own class for it moves from release to release."""

    value: str
    help: str
    type: str = "plain"


class ProgrammeCommand(TyperCommand):
    """A command whose words all go to its programme; its options are completed from the programme's text."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The options that go on from `incomplete`; where a value is due, the shell completes file names."""
        said = options_of(programme_file(PROGRAMMES[str(self.name)][0])) | {"--help": "what it takes"}
        chosen = {name: text for name, text in said.items() if incomplete and name.startswith(incomplete)}
        return [Completion(name, text) for name, text in chosen.items()]


def options_of(programme: Path) -> dict[str, str]:
    """Each option of a programme with its help, as its text says them; nothing is run."""
    found = {}
    for node in ast.walk(ast.parse(programme.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            said = {word.arg: word.value for word in node.keywords}
            name, text = ast.literal_eval(node.args[0]), said.get("help")
            found[name] = text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
    return found


def run_programme(command: str, arguments: Sequence[str]) -> NoReturn:
    """Runs the programme of `command` in this process; ends as it ends, by SystemExit with its code."""
    file = programme_file(PROGRAMMES[command][0])
    sys.argv = ["quality-judge", *arguments]
    called_as = CALLED_AS.set(f"quality-judge {command}")
    try:
        if file.parent.name == "jobs" and not {"-h", "--help"} & set(arguments):
            _refuse_no_java()
        runpy.run_path(str(file), run_name="__main__")
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        _refuse(missing)
    except ConfigError as error:
        _refuse(error)
    finally:
        CALLED_AS.reset(called_as)
    raise SystemExit(EXIT_DONE)


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """What to install where a package of one of our extras is not there; None for any other module."""
    package = (error.name or "").partition(".")[0]
    return MissingExtra(package, EXTRA_OF[package]) if package in EXTRA_OF else None


def _refuse(error: MissingExtra | ConfigError) -> NoReturn:
    """Ends as a programme ends on bad input: a line for people, one for programmes, exit 2."""
    tell(f"error: {error}")
    say({"ok": False, "error": type(error).__name__, "message": str(error)})
    raise SystemExit(EXIT_BAD_INPUT) from None


def _refuse_no_java() -> None:
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
        raise ConfigError("Spark needs Java 17 or newer, and there is none; install a JDK and put java on the PATH")


def _is_one_file(arguments: Sequence[str]) -> bool:
    """Whether --output names a Parquet file, and not a folder."""
    words = list(arguments)
    named = [word.partition("=")[2] for word in words if word.startswith("--output=")]
    named += [words[at + 1] for at, word in enumerate(words[:-1]) if word == "--output"]
    return any(name.endswith(FILE_SUFFIX) and not Path(name).is_dir() for name in named)


def _command(name: str, what: str, example: str) -> None:
    everything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(
        name, cls=ProgrammeCommand, help=f"{what}  Example: quality-judge {name} {example}", context_settings=everything
    )
    def command(context: typer.Context) -> None:
        if name == "score" and _is_one_file(context.args):
            app(["score-file", *context.args])
        run_programme(name, context.args)


for _name, (_, _what, _example) in PROGRAMMES.items():
    _command(_name, _what, _example)
