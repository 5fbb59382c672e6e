"""A cascade file: which two judges, which cheap scores the large one decides, and what is promised of both together.

It holds no weights and no row. It knows nothing of how the band was found (`stats.cascade`) or of Spark.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from quality_judge.config import Strict, parse
from quality_judge.errors import InputError, JudgeError
from quality_judge.files import write_beside
from quality_judge.judge import Judge
from quality_judge.stats.certificate import Certificate
from quality_judge.untrusted import bounded_json

MAX_BYTES = 1 << 20
Share = Field(ge=0, le=1)


class Cascade(Strict):
    """`cheap` and `large` are fingerprints; a cheap score from `low` to `high`, both included, is for the large judge.

    cut: from where the two keep, the large judge's threshold; it lies in the band, so that a policy that keeps at `cut`
    decides every row by whichever score stands there.
    """

    format_version: Literal[1] = 1
    cheap: str = Field(pattern=r"^[0-9a-f]{16}$")
    large: str = Field(pattern=r"^[0-9a-f]{16}$")
    low: float = Share
    high: float = Share
    cut: float = Share
    confidence: float = Field(gt=0, lt=1)
    promises: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=2)
    saving: float = Share
    agreement: float = Share
    saving_ci: tuple[float, float]
    agreement_ci: tuple[float, float]
    n_selection: int = Field(ge=1)
    n_certification: int = Field(ge=1)
    labels_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _promises_something_about_a_band_around_its_cut(self) -> Cascade:
        if not self.low <= self.cut <= self.high:
            raise ValueError("the band must hold the cut: expected low <= cut <= high")
        try:
            promised = [Certificate.from_dict(each) for each in self.promises]
        except (InputError, TypeError) as error:
            raise ValueError(str(error)) from None
        if not all(each.granted and each.threshold == self.cut for each in promised):
            raise ValueError("every promise of a cascade must be granted, at its cut")
        return self

    def check(self, cheap: str, large: Judge) -> None:
        """Raises JudgeError unless it was made for the judges with these fingerprints, at the large one's threshold."""
        for name, asked, given in (("cheap", self.cheap, cheap), ("large", self.large, large.fingerprint)):
            if asked != given:
                raise JudgeError(f"the cascade was made for the {name} judge {asked}, this is {given}; make a new one")
        if self.cut != large.spec.threshold:
            raise JudgeError(
                f"the cascade keeps from {self.cut:g} on, and the large judge by now from {large.spec.threshold}; "
                "make a new one"
            )


def load_cascade(path: str | Path) -> Cascade:
    """The cascade in a file of `save_cascade`. Raises InputError when it is missing, damaged or contradicts itself."""
    try:
        data = bounded_json(Path(path), most_bytes=MAX_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}); give a file of make_cascade.py") from None
    return parse(Cascade, data, where=str(path))


def save_cascade(path: str | Path, cascade: Cascade) -> None:
    """Writes it beside, then renamed."""
    text = json.dumps(cascade.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    write_beside(Path(path), f"{text}\n")
