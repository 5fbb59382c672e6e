"""What an expert judges by, in words: criteria, the two verdict words, and categories where there are any.

It renders nothing into tokens and knows no model; a judge carries its rubric as plain data.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import Field, model_validator

from quality_judge.config import Strict, parse, read_yaml


class Category(Strict):
    """One defect or hazard: a short code such as `S1`, a name, and what falls under it."""

    code: str = Field(min_length=1, max_length=100)
    name: str = Field(min_length=1, max_length=200)
    description: str = ""


class Rubric(Strict):
    """Criteria in words, in any language. `good` and `bad` are the verdict words of the experts."""

    name: str = Field(min_length=1, max_length=200)
    criteria: str = Field(min_length=1)
    good: str = Field("good", min_length=1, max_length=200)
    bad: str = Field("bad", min_length=1, max_length=200)
    categories: tuple[Category, ...] = ()

    @model_validator(mode="after")
    def _names_each_category_once(self) -> Rubric:
        codes = [category.code for category in self.categories]
        if twice := sorted({code for code in codes if codes.count(code) > 1}):
            raise ValueError(f"two categories have the code {twice[0]!r}; give each its own")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Rubric:
        """The rubric in the YAML file `path`."""
        return parse(cls, read_yaml(path), where=str(path))

    @property
    def sha256(self) -> str:
        """Hash of everything in the rubric, hexadecimal."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


NO_RUBRIC = Rubric(name="unstated", criteria="The experts' labels alone say what is good.")
