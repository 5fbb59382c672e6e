"""A judge made ready on this machine: columns of text in, `Scores` out, in the order they came.

The path of a row: `read_texts` → `Encoder.encode` → `plan_batches` → the model → stack → calibration. Whatever the
layout, batch, thread or worker count, a row's score is the same bits: batches have fixed shapes, and each is computed
by one thread. It knows nothing of Spark, labels or policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from quality_judge.engine.controls import refuse_unsafe_tokenizer
from quality_judge.engine.devices import default_device
from quality_judge.engine.encode import Encoder, Ragged
from quality_judge.engine.forward_pool import ForwardPool
from quality_judge.engine.golden import refuse_drift
from quality_judge.engine.precision import precision_here
from quality_judge.engine.stacking import SurfaceModel, stacked
from quality_judge.engine.texts import Column, Texts, distinct, read_texts, spells
from quality_judge.engine.weights import load_model, read_tensors
from quality_judge.errors import CorpusError, InputError, JudgeError
from quality_judge.judge import HEAD_FILE, MAX_TOKENIZER_BYTES, TOKENIZER_FILE, Judge
from quality_judge.judge_spec import WITHOUT_PROMPTS
from quality_judge.scores import (
    BINARY_TEXT,
    CODES,
    CONTROL_TEXT,
    EMPTY_TEXT,
    FLAGS,
    HIDDEN_CHARS,
    INVALID_UTF8,
    NEAR_THRESHOLD,
    NON_FINITE,
    OK,
    OOM_ROW,
    TRUNCATED,
    Scores,
)  # fmt: skip
from quality_judge.stats.calibration import Calibration
from quality_judge.untrusted import bounded_text

CATEGORY_CUT = 0.5
BAD_CUT = 0.5


class Scorer:
    """Scores with one judge on one device. Made by `load_scorer`; keep it, loading costs seconds."""

    def __init__(self, judge: Judge, pool: ForwardPool, surface: SurfaceModel | None) -> None:
        spec = judge.spec
        self.judge = judge
        self._pool = pool
        self._surface = surface
        self._forbidden = (*spec.encoding.control_tokens, *spec.encoding.fences)
        try:
            self._encoder = Encoder(
                bounded_text(judge.path(TOKENIZER_FILE), most_bytes=MAX_TOKENIZER_BYTES), spec.encoding
            )
            self._calibration = Calibration.from_dict(spec.calibration) if spec.calibration else None
            self._category_calibrations = {
                name: Calibration.from_dict(content) for name, content in spec.category_calibrations.items()
            }
        except (InputError, TypeError) as error:
            raise error if isinstance(error, JudgeError) else JudgeError(f"the judge is damaged: {error}") from error
        if set(self._category_calibrations) - set(spec.categories):
            raise JudgeError("the judge calibrates categories that it does not have; it was edited")

    @property
    def precision(self) -> str:
        """`bfloat16` or `float32`: what the model computes in here."""
        return str(self._pool.dtype).removeprefix("torch.")

    @property
    def threads(self) -> int:
        """How many batches are computed at once."""
        return self._pool.threads

    def score(self, completions: Column, prompts: Column | None = None) -> Scores:
        """`Scores` of each row. completions, prompts: strings, bytes or None; a null prompt is no prompt.

        Raises CorpusError for anything else, and unless there are as many prompts as completions.
        """
        completion, prompt = self._read(completions), self._read(prompts) if prompts is not None else None
        if prompt is not None and len(prompt.code) != len(completion.code):
            raise CorpusError(f"{len(completion.code)} texts and {len(prompt.code)} prompts; give one prompt for each")
        code = completion.code.copy()
        if prompt is not None:
            if not self.judge.spec.encoding.takes_prompts and (prompt.code == CODES.index(OK)).any():
                raise CorpusError(WITHOUT_PROMPTS)
            code[(code == CODES.index(OK)) & (prompt.code == CODES.index(BINARY_TEXT))] = CODES.index(BINARY_TEXT)
        rows = np.flatnonzero(code == CODES.index(OK))
        raw = np.full(len(code), np.nan)
        outputs = np.full((len(code), len(self.judge.spec.categories)), np.nan)
        cut = np.zeros((2, len(code)), bool)
        if len(rows):
            raw[rows], outputs[rows], cut[:, rows], code[rows] = self._raw(
                completion.strings.take(pa.array(rows)), prompt.strings.take(pa.array(rows)) if prompt else None
            )
        unscored = code != CODES.index(OK)
        raw[unscored], outputs[unscored] = np.nan, np.nan
        probability = self._calibration.apply(raw) if self._calibration else np.full(len(raw), np.nan)
        flags = self._flags([text for text in (completion, prompt) if text], cut, probability)
        names = self.judge.spec.category_names
        outputs = outputs if outputs.shape[1] == len(names) else np.full((len(code), len(names)), np.nan)
        categories = self._categories(outputs)
        if self.judge.spec.kind == "verdict":
            bad = self._judged_bad(raw, probability)
            categories &= bad[:, None]
            self._write_codes(categories, np.flatnonzero(bad), completion, prompt)
        return Scores(raw, probability, code, flags, outputs, categories, names)

    def category_probabilities(self, scores: Scores) -> dict[str, np.ndarray]:
        """P(it applies) of each category, float64 (n,), NaN where the row has no score."""
        return {
            name: calibration.apply(scores.category_raw[:, self.judge.spec.categories.index(name)])
            for name, calibration in self._category_calibrations.items()
        }

    def _read(self, column: Column) -> Texts:
        encoding = self.judge.spec.encoding
        return read_texts(column, head_bytes=encoding.head_bytes, tail_bytes=encoding.tail_bytes)

    def _raw(
        self, completions: pa.Array, prompts: pa.Array | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Raw scores (n,), category outputs (n, K), whether each row was cut or held control ids (2, n), codes (n,).

        Equal rows are computed once.
        """
        first, back = distinct([completions] if prompts is None else [completions, prompts])
        texts = completions.take(first).to_pylist()
        encoded = self._encoder.encode(texts, None if prompts is None else prompts.take(first).to_pylist())
        outputs, code = self._outputs(encoded.tokens)
        surface = self._surface.raw(texts) if self._surface else None
        raw = stacked(self.judge.spec.stack, outputs[:, 0], surface)
        code[(code == CODES.index(OK)) & ~np.isfinite(raw)] = CODES.index(NON_FINITE)
        return raw[back], outputs[back, 1:], np.stack([encoded.truncated, encoded.control])[:, back], code[back]

    def _outputs(self, tokens: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """(the model's outputs, float64 (n, 1 + K), codes (n,)); a row without any token of content is EMPTY_TEXT."""
        encoding = self.judge.spec.encoding
        always = encoding.between if encoding.between_always else ()
        full = tokens.lengths > len(encoding.prefix) + len(always) + len(encoding.suffix)
        outputs = np.full((len(full), 1 + len(self.judge.spec.categories)), np.nan)
        code = np.full(len(full), CODES.index(EMPTY_TEXT), np.int8)
        if full.any():
            held = Ragged(tokens.ids[full[tokens.rows()]], tokens.lengths[full])
            outputs[full], exhausted = self._pool.outcome(held, encoding.buckets, encoding.pad)
            code[full] = np.where(exhausted, CODES.index(OOM_ROW), CODES.index(OK))
        return outputs, code

    def _flags(self, texts: Sequence[Texts], cut: np.ndarray, probability: np.ndarray) -> np.ndarray:
        flags = np.zeros((len(probability), len(FLAGS)), bool)
        flags[:, FLAGS.index(TRUNCATED)] = cut[0]
        flags[:, FLAGS.index(CONTROL_TEXT)] = cut[1]
        for text in texts:
            flags[:, FLAGS.index(TRUNCATED)] |= text.truncated
            flags[:, FLAGS.index(INVALID_UTF8)] |= text.invalid_utf8
            flags[:, FLAGS.index(HIDDEN_CHARS)] |= text.hidden
            flags[:, FLAGS.index(CONTROL_TEXT)] |= spells(text.strings, self._forbidden)
        threshold, band = self.judge.spec.threshold, self.judge.spec.precision_band
        if threshold is not None and band is not None:
            flags[:, FLAGS.index(NEAR_THRESHOLD)] = np.abs(np.nan_to_num(probability, nan=2.0) - threshold) <= band
        return flags

    def _write_codes(self, applies: np.ndarray, rows: np.ndarray, completion: Texts, prompt: Texts | None) -> None:
        """Lets a judge that writes its categories write those of `rows`, and marks them in `applies`, bool (n, K)."""
        verdict = self.judge.spec.verdict
        if verdict is None or verdict.written is None or not len(rows):
            return
        at = pa.array(rows)
        prompts = prompt.strings.take(at).to_pylist() if prompt else None
        tokens = self._encoder.encode(completion.strings.take(at).to_pylist(), prompts).tokens
        for row, codes in zip(rows, self._pool.written(tokens), strict=True):
            applies[row, list(codes)] = True

    def _judged_bad(self, raw: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Whether a verdict judge calls the row bad, by the raw score where it gives no probability.

        Not by the judge's threshold: that is a policy's business, and no part of the fingerprint.
        """
        if self._calibration is None:
            return np.nan_to_num(raw, nan=0.0) < 0
        return 1 - np.nan_to_num(probability, nan=1.0) > BAD_CUT

    def _categories(self, outputs: np.ndarray) -> np.ndarray:
        applies = np.zeros(outputs.shape, bool)
        for index, name in enumerate(self.judge.spec.categories):
            if name in self._category_calibrations:
                probability = self._category_calibrations[name].apply(outputs[:, index])
                applies[:, index] = np.nan_to_num(probability, nan=0.0) >= CATEGORY_CUT
        return applies


def load_scorer(
    judge: Judge, *, device: str | None = None, threads: int | None = None, precision: torch.dtype | None = None,
    prove: bool = True,
) -> Scorer:  # fmt: skip
    """The judge's scorer on `device` (a GPU when there is one, else the CPU), its golden rows scored as they should.

    threads: how many batches at once on the CPU; torch's own number when None. precision: the device's best when
    None. prove: False only while a judge is being made and has no golden rows yet.
    """
    device = device or default_device()
    spec = judge.spec
    dtype = precision or precision_here(device)
    pool = ForwardPool(
        load_model(judge, dtype), device=device, dtype=dtype,
        threads=threads or torch.get_num_threads(), prefix=spec.encoding.prefix if spec.kind == "verdict" else (),
    )  # fmt: skip
    tensors = read_tensors(judge.path(HEAD_FILE))
    scorer = Scorer(judge, pool, SurfaceModel.from_tensors(tensors) if spec.stack.surface else None)
    body: Any = pool.model.body
    refuse_unsafe_tokenizer(scorer._encoder, known_ids=body.get_input_embeddings().num_embeddings)
    if prove:
        refuse_drift(scorer, judge)
    return scorer
