"""The manners of every programme: one JSON object as the last line on stdout, an exit code, errors in one place.

Exit 0: done. 1: everything ran and a check did not hold. 2: bad input or arguments.
It knows nothing of what a programme does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from quality_judge.errors import EXIT_CHECK_FAILED, EXIT_DONE, QualityJudgeError


def run(main: Callable[[], Mapping[str, Any]]) -> NoReturn:
    """Runs `main`, prints its summary as one JSON line and exits; `"ok": False` in it exits 1."""
    try:
        summary = dict(main())
    except QualityJudgeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        say({"ok": False, "error": type(error).__name__, "message": str(error).splitlines()[0]})
        raise SystemExit(error.exit_code) from None
    say({"ok": True, **summary})
    raise SystemExit(EXIT_DONE if summary.get("ok", True) else EXIT_CHECK_FAILED)


def say(summary: Mapping[str, Any]) -> None:
    """Prints `summary` as one line of JSON on stdout; not-a-number is refused, keys keep their order."""
    sys.stderr.flush()
    print(json.dumps(summary, ensure_ascii=False, allow_nan=False), flush=True)


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser whose help keeps the programme's own line breaks."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
