"""Strict YAML: files a person edits become frozen pydantic models, and every fault in them is named at once.

`read_yaml` refuses tags, aliases, duplicate keys and files over 1 MB; `parse` refuses unknown keys with
"did you mean"; `override` applies `key.sub=value`. The settings of a judge, `JudgeConfig`, stand here too.
It knows nothing of what the settings do.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quality_judge.errors import ConfigError, gathered, unknown

MAX_YAML_BYTES = 1_000_000
MAX_DEPTH = 20


class Strict(BaseModel):
    """A frozen model that refuses unknown keys: the base of everything read from a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


class TrainConfig(Strict):
    """How a judge is trained. The defaults are those of `conf/judges/default.yaml`."""

    method: Literal["auto", "frozen", "lora", "full", "contrastive"] = "auto"
    loss: Literal["warm_kto", "kto", "kto_relative", "bce", "gce"] = "warm_kto"
    ranking_loss: Literal["kwise", "plackett_luce", "dpo"] = "kwise"
    beta: float = Field(1.0, gt=0, le=100)
    warm_fraction: float = Field(0.3, ge=0, le=1)
    anchor: float = Field(0.0, ge=0, le=100)
    centering: float = Field(0.01, ge=0, le=100)
    epochs: int = Field(4, ge=1, le=200)
    patience: int = Field(2, ge=1, le=200)
    batch_size: int | None = Field(None, ge=2, le=4096)
    learning_rate: float | None = Field(None, gt=0, le=1)
    head_learning_rate: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=10)
    lora_rank: int = Field(16, ge=1, le=1024)
    lora_alpha: int = Field(32, ge=1, le=4096)
    max_steps: int = Field(4000, ge=1)
    folds: int = Field(3, ge=2, le=20)
    surface: bool = True
    gradient_checkpointing: bool = False
    quantize_bits: Literal[4, 8] | None = None
    seed: int = Field(0, ge=0, lt=2**31)
    hard_negatives: bool = False
    below_baseline: Literal["refuse", "allow"] = "refuse"

    @model_validator(mode="after")
    def _only_adapters_on_quantised_weights(self) -> TrainConfig:
        if self.quantize_bits is not None and self.method != "lora":
            raise ValueError(f"quantize_bits needs method: lora, got {self.method!r}")
        return self


class JudgeConfig(Strict):
    """What a judge is made of: base model, rubric, encoding and training."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    base: str = Field(min_length=1)
    revision: str | None = None
    other_bases: tuple[str, ...] = Field((), max_length=8)
    kind: Literal["scalar", "verdict", "implicit"] = "scalar"
    rubric: str | None = None
    prompt: Literal["auto", "chat", "llama_guard_3"] = "auto"
    length: Literal["sum", "mean"] = "sum"
    max_tokens: int = Field(256, ge=8, le=131072)
    cut: Literal["head", "head_tail"] = "head_tail"
    target_precision: float = Field(0.9, gt=0.5, lt=1)
    target_npv: float | None = Field(None, gt=0, lt=1)
    target_recall: float | None = Field(None, gt=0, lt=1)
    confidence: float = Field(0.9, ge=0.5, lt=1)
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _contrast_has_a_linear_head_to_fit(self) -> JudgeConfig:
        if self.train.method == "contrastive" and self.kind != "scalar":
            raise ValueError(f"train.method contrastive fits a linear head; it needs kind: scalar, got {self.kind!r}")
        return self

    @model_validator(mode="after")
    def _bases_can_be_compared(self) -> JudgeConfig:
        if self.other_bases and self.kind != "scalar":
            raise ValueError(f"other_bases are compared by a linear head; that needs kind: scalar, got {self.kind!r}")
        if len({self.base, *self.other_bases}) <= len(self.other_bases):
            raise ValueError("other_bases names a base twice; name each once, and not the one in base")
        return self


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that also refuses aliases, tags and duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        if getattr(self.peek_event(), "tag", None) is not None:
            raise yaml.YAMLError("tags (!name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(repr(self.construct_object(key, deep=True)) for key, _ in node.value)
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise yaml.YAMLError(f"the key {min(twice)} stands twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in the YAML file `path`. Raises ConfigError when it is not one, or is unsafe to read."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_YAML_BYTES} bytes; a configuration file is far smaller")
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader  # nosec B506
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {_one_line(error)}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{path} holds a {type(data).__name__}; expected a mapping of names to values")
    if depth(data) > MAX_DEPTH:
        raise ConfigError(f"{path} is nested deeper than {MAX_DEPTH} levels")
    return data


def parse(model: type[Model], data: Mapping[str, Any], *, where: str) -> Model:
    """`data` as an instance of `model`. Raises one ConfigError that names every fault; `where` opens it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [_fault(model, item) for item in error.errors(include_url=False, include_input=False)]
        raise ConfigError(gathered(f"{where}: {len(faults)} fault(s)", faults)) from None


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with each `key.sub=value` applied; a value is read as JSON, else taken as text."""
    result: dict[str, Any] = copy.deepcopy(dict(data))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {assignment!r} is not of the form key=value or key.sub=value")
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {key}: {parent!r} is a value, not a group of settings")
        target[last] = _value(text)
    return result


def depth(data: Any) -> int:
    """How many mappings and lists stand in one another in `data`; 0 for a plain value."""
    if isinstance(data, dict):
        return 1 + max(map(depth, data.values()), default=0)
    if isinstance(data, list):
        return 1 + max(map(depth, data), default=0)
    return 0


def load_judge_config(path: str | Path, overrides: Sequence[str] = ()) -> JudgeConfig:
    """The judge settings in `path`.

    A relative `rubric` is taken from the folder of the file, and where `overrides` set it from the working directory.
    """
    path = Path(path)
    config = parse(JudgeConfig, override(read_yaml(path), overrides), where=str(path))
    if config.rubric is None:
        return config
    folder = Path.cwd() if any(each.startswith("rubric=") for each in overrides) else path.parent
    return config.model_copy(update={"rubric": str((folder / config.rubric).resolve())})


def conf_folder() -> Path:
    """The folder of shipped configuration: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "judges").is_dir():
            return folder
    raise ConfigError(f"no conf/ folder beside {here}; the installation is incomplete")


def _fault(model: type[BaseModel], item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        return f"{'.'.join(location)}: {unknown('key', location[-1], _known_keys(model, location[:-1]))}"
    return f"{'.'.join(location) or 'the whole'}: {item['msg']}"


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    fields = model.model_fields
    for part in location:
        inner = fields[part].annotation if part in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
