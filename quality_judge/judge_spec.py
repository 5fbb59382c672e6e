"""What judge.json says of a judge: base, rubric, encoding, how its outputs become a score, calibration, labels.

Every part is checked when it is made; what is not named here is refused. It knows nothing of files or of folders.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, model_validator

from quality_judge import llama_guard
from quality_judge.config import Strict
from quality_judge.rubric import Rubric

FORMAT_VERSION: Final = 1
MISSING_LABELS = "missing_for_probability"  # in JudgeSpec.labels
MAX_VOCABULARY = 1 << 24
MAX_TOKENS = 131_072
MAX_BATCH_TOKENS = 1 << 22
BEGIN, RESPONSE, END = "<TEXT>", "<RESPONSE>", "</TEXT>"  # what stands around content in a rubric's prompt
FENCES: Final = frozenset({BEGIN, RESPONSE, END, *llama_guard.FENCES})

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")


class BaseReference(Strict):
    """Which pretrained model stands under the judge, and the hash its files must have."""

    id: str = Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f]+$")
    revision: str | None = Field(max_length=200)
    architecture: Literal["encoder", "decoder"]
    sha256: str = Sha256

    @model_validator(mode="after")
    def _leads_nowhere_else(self) -> BaseReference:
        if ".." in self.id.split("/"):
            raise ValueError("id climbs out of a folder; name a hub id or a full path")
        return self


WITHOUT_PROMPTS = (
    "this judge was trained on texts without prompts, and its rubric asks about one message alone; leave the prompts "
    "out, or train it on labels with prompts"
)


class Encoding(Strict):
    """How text becomes ids: `prefix + [prompt + between] + completion + suffix`, cut to `max_tokens`.

    head_bytes, tail_bytes: what of a text is read at all. buckets: (length, rows) of every allowed batch shape,
    lengths rising, the last at least `max_tokens`. control_ids: ids that no text may produce; control_tokens: how
    they are spelled. fences: what stands around content in a prompt, which no text may spell, some of FENCES. joint:
    ids between the two ends of a text whose middle was cut. between_always: `between` stands even where there is no
    prompt.
    """

    prefix: tuple[int, ...]
    between: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int = Field(ge=0)
    control_ids: tuple[int, ...]
    control_tokens: tuple[str, ...]
    fences: tuple[str, ...] = Field((), max_length=100)
    joint: tuple[int, ...] = Field((), max_length=100)
    between_always: bool = False
    max_tokens: int = Field(ge=8, le=MAX_TOKENS)
    cut: Literal["head", "head_tail"]
    head_bytes: int = Field(ge=16, le=1 << 28)
    tail_bytes: int = Field(ge=0, le=1 << 28)
    buckets: tuple[tuple[int, int], ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _every_row_has_a_place(self) -> Encoding:
        lengths = [length for length, _ in self.buckets]
        if (
            lengths != sorted(set(lengths))
            or lengths[-1] < self.max_tokens
            or min(min(pair) for pair in self.buckets) < 1
        ):
            raise ValueError("buckets must rise, hold at least one row each, and reach max_tokens")
        if max(length * rows for length, rows in self.buckets) > MAX_BATCH_TOKENS:
            raise ValueError(f"a bucket holds more than {MAX_BATCH_TOKENS} tokens; no device computes that at once")
        if len(self.prefix) + len(self.between) + len(self.suffix) >= self.max_tokens:
            raise ValueError("the special tokens leave no room for content within max_tokens")
        if not all(
            0 <= i < MAX_VOCABULARY for i in (*self.prefix, *self.between, *self.suffix, *self.control_ids, self.pad)
        ):
            raise ValueError(f"a token id is not in 0 … {MAX_VOCABULARY - 1}")
        return self

    @model_validator(mode="after")
    def _known_fences(self) -> Encoding:
        if not FENCES.issuperset(self.fences) or len(set(self.fences)) != len(self.fences):
            raise ValueError("fences must differ, and be those that a prompt of quality-judge has")
        return self

    @property
    def trimmed(self) -> bool:
        """Whether white space around content goes, as Llama Guard's published template has it."""
        return self.fences == llama_guard.FENCES

    @property
    def takes_prompts(self) -> bool:
        """Whether something parts a prompt from its completion; Llama Guard's question about a user's message has
        no place for one."""
        return bool(self.between) or not self.fences


class VerdictStep(Strict):
    """A place where a verdict is read. good, bad: ids that only words of that side go on with; next: what both do."""

    good: tuple[int, ...] = Field(max_length=100)
    bad: tuple[int, ...] = Field(max_length=100)
    next: int | None

    @model_validator(mode="after")
    def _decides_or_goes_on(self) -> VerdictStep:
        ids = [*self.good, *self.bad, *([] if self.next is None else [self.next])]
        if len(ids) != len(set(ids)) or not all(0 <= i < MAX_VOCABULARY for i in ids):
            raise ValueError(f"the ids of a step must differ and lie in 0 … {MAX_VOCABULARY - 1}")
        if self.next is None and not (self.good and self.bad):
            raise ValueError("the last step must tell good from bad")
        return self


class WrittenCodes(Strict):
    """How an answer that names categories is spelled, for judges without a trained head for them; see `engine.codes`.

    bad: the ids of the bad word. first, next: the ids of each category's code behind it and behind another code.
    end: the id that ends the answer.
    """

    bad: tuple[int, ...] = Field(min_length=1, max_length=200)
    first: tuple[tuple[int, ...], ...] = Field(min_length=1, max_length=1000)
    next: tuple[tuple[int, ...], ...] = Field(min_length=1, max_length=1000)
    end: int = Field(ge=0, lt=MAX_VOCABULARY)

    @model_validator(mode="after")
    def _spelled(self) -> WrittenCodes:
        if len(self.first) != len(self.next) or not all(map(len, (*self.first, *self.next))):
            raise ValueError("each code needs both spellings")
        if len(set(self.first)) != len(self.first) or len(set(self.next)) != len(self.next):
            raise ValueError("two codes are spelled alike")
        return self


class Verdict(Strict):
    """How the two words of the rubric are read from the base's next-token probabilities; see `engine.verdict`.

    good, bad: the spellings that count. opening: ids the base writes before its verdict, which `Encoding.suffix` ends
    with, followed by every step's `next`. reference: how much of the untouched base's margin is added to the judge's.
    """

    good: tuple[str, ...] = Field(min_length=1)
    bad: tuple[str, ...] = Field(min_length=1)
    opening: tuple[int, ...] = Field((), max_length=100)
    steps: tuple[VerdictStep, ...] = Field(min_length=1, max_length=200)
    reference: float = 0.0
    written: WrittenCodes | None = None

    @model_validator(mode="after")
    def _ends_once(self) -> Verdict:
        if [step.next is None for step in self.steps] != [False] * (len(self.steps) - 1) + [True]:
            raise ValueError("every step but the last must name the token that leads to the next")
        return self


class Implicit(Strict):
    """How an implicit reward is read: beta times the completion's log-ratio of policy and base; see `engine.implicit`.

    length: the `sum` over the completion's tokens, as it was trained, or their `mean`.
    """

    beta: float = Field(gt=0, le=100)
    length: Literal["sum", "mean"]


class Lora(Strict):
    """The shape of the adapter; the effective weight is W + (alpha / rank) · B A."""

    rank: int = Field(ge=1, le=1 << 16)
    alpha: int = Field(ge=1, le=1 << 24)


class Stack(Strict):
    """How the parts add up: raw = bias + model · (head output) + surface · (surface output)."""

    bias: float
    model: float
    surface: float


class JudgeSpec(Strict):
    """Everything in judge.json.

    license: that of the base. language: codes of those the labels are in, where they can be told.
    files: the sha256 of every other file. tensors: the shape of every tensor of its tensor files, by file and name.
    checksum: of all the rest of judge.json. precision_band: how far apart probabilities lie in float32 and in
    bfloat16, where the machine that made the judge computes both.
    """

    format_version: Literal[1] = FORMAT_VERSION
    name: str
    kind: Literal["scalar", "verdict", "implicit"]
    base: BaseReference
    rubric: Rubric
    encoding: Encoding
    method: Literal["frozen", "lora", "full", "contrastive"]
    pooling: Literal["layers", "layers_last", "last"]
    lora: Lora | None
    stack: Stack
    verdict: Verdict | None = None
    implicit: Implicit | None = None
    categories: tuple[str, ...] = ()
    calibration: dict[str, Any] | None
    category_calibrations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    precision_band: float | None = None
    thresholds: dict[str, float | None] = Field(default_factory=dict)
    certificate: dict[str, Any] | None = None
    labels: dict[str, Any]
    training: dict[str, Any] = Field(default_factory=dict)
    license: str | None = None
    language: tuple[str, ...] = ()
    created_with: dict[str, str]
    files: dict[str, str]
    tensors: dict[str, dict[str, tuple[int, ...]]] = Field(default_factory=dict)
    checksum: str = ""

    @property
    def category_names(self) -> tuple[str, ...]:
        """What `quality_categories` can name: the trained categories, or the rubric's codes where they are written."""
        written = self.verdict is not None and self.verdict.written is not None
        return tuple(category.code for category in self.rubric.categories) if written else self.categories

    @property
    def threshold(self) -> float | None:
        """The judge's own cut on the probability: the certified one, else the best on its labels, else None."""
        certified = self.thresholds.get("certified")
        return certified if certified is not None else self.thresholds.get("best")

    @property
    def drop_below(self) -> float | None:
        """The cut below which the certificate allows rows to be dropped, else None."""
        return self.thresholds.get("certified_drop")
