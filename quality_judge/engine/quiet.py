"""Keeps transformers quiet while it loads, and its errors short. It knows nothing of what is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MAX_SAID = 300


@contextmanager
def quiet() -> Iterator[None]:
    """Within it transformers shows neither progress bars nor load reports; afterwards as before."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def said(error: BaseException) -> str:
    """What a library said, on one line and not at length."""
    return " ".join(str(error).split())[:MAX_SAID] or type(error).__name__
