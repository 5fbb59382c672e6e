"""Known answers: a few rows of our own whose raw scores are saved with a judge and scored again whenever it is loaded.

They catch what hashes cannot: another library version, device or kernel that changes what the same files score.
The rows are written here; no label or corpus row is ever saved for this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from quality_judge.errors import InputError, JudgeError
from quality_judge.judge import GOLDEN_FILE, Judge
from quality_judge.untrusted import bounded_json

if TYPE_CHECKING:
    from quality_judge.engine.scorer import Scorer

GOLDEN_TEXTS = (
    "Water boils at a lower temperature on a mountain because the air presses less on its surface.",
    "click here click here best price buy now free shipping best price click here",
    "Home | About | Contact | Privacy policy | © All rights reserved | Accept all cookies",
    "To remove a stuck bolt, warm it, let it cool, add a drop of oil and turn it slowly both ways.",
    "0x00 0xff 7f 3a 91 c2 {} [] ;; // ~~ %20%20%3D",
    "水在高山上沸腾的温度更低,因为那里的气压较小。",
    "点击领取 免费 优惠 点击领取 免费 优惠 点击领取",
    "The function returns the number of rows written. It raises ValueError when the path is empty, and it never "
    "overwrites a file that exists: choose a new name, or remove the old file first.\n\nSee also: read, append.",
    "Der Zug fährt um acht Uhr ab und kommt gegen Mittag an.",
    "a",
)  # fmt: skip
MIN_ROWS, MAX_ROWS, MAX_BYTES = 8, 200, 1_000_000
TOLERANCE = {"float32": 2e-3, "bfloat16": 0.08}


def golden_content(raw: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What golden.json holds; `raw` maps a precision's name to the golden rows' raw scores in it."""
    return {
        "texts": list(GOLDEN_TEXTS),
        "raw": {name: [float(value) for value in values] for name, values in raw.items()},
    }


def refuse_drift(scorer: Scorer, judge: Judge) -> None:
    """Raises JudgeError when the golden rows no longer score as they did when the judge was saved."""
    texts, saved = golden_rows(judge)
    here = scorer.precision
    expected = saved.get(here, saved.get("float32"))
    if len(texts) < MIN_ROWS or expected is None or expected.shape != (len(texts),):
        raise JudgeError(f"{GOLDEN_FILE} holds fewer than {MIN_ROWS} scored rows; the judge cannot prove itself")
    tolerance = TOLERANCE["float32" if here == "float32" and here in saved else "bfloat16"]
    try:
        raw = scorer.score(texts).raw
    except Exception as error:
        raise JudgeError(
            f"the judge cannot score its own golden rows ({type(error).__name__}); its parts do not fit one another"
        ) from error
    off = ~(np.abs(raw - expected) <= tolerance * np.maximum(np.abs(expected).max(), 1))
    if off.any():
        apart = np.abs(raw - expected)
        worst = np.nanmax(apart) if np.isfinite(apart).any() else np.nan
        raise JudgeError(
            f"{int(off.sum())} of {len(texts)} golden rows do not score as they did when the judge was saved (worst "
            f"difference {worst:.3g}); made with {judge.spec.created_with}"
        )


def golden_rows(judge: Judge) -> tuple[list[str], dict[str, np.ndarray]]:
    """The texts, and by precision their raw scores, float64 (n,). Raises JudgeError when golden.json holds no such."""
    try:
        content = bounded_json(judge.path(GOLDEN_FILE), most_bytes=MAX_BYTES)
        texts, saved = content["texts"], {name: np.array(row, float) for name, row in content["raw"].items()}
    except (InputError, AttributeError, TypeError, KeyError, ValueError, OverflowError) as error:
        raise JudgeError(f"{GOLDEN_FILE} does not hold texts and their raw scores") from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MAX_ROWS:
        raise JudgeError(f"{GOLDEN_FILE} does not hold up to {MAX_ROWS} texts")
    return texts, saved
