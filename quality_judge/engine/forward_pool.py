"""Batches of token ids through a model, several at once, each computed by one thread so that its bits are its own.

It halves what exhausts memory and remembers that. It knows neither texts nor scores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from quality_judge.engine.batching import Batch, gpu_buckets, padded, plan_batches
from quality_judge.engine.codes import written_codes
from quality_judge.engine.devices import free_memory, keep_freed_memory
from quality_judge.engine.encode import TOKENS_PER_BATCH, Ragged
from quality_judge.engine.kinds import ScalarModel, VerdictModel
from quality_judge.engine.packed import pack_linears, packable
from quality_judge.engine.prefix import without_prefix
from quality_judge.engine.watchdog import progressed
from quality_judge.errors import JudgeError

Item = TypeVar("Item")
Result = TypeVar("Result")


class ForwardPool:
    """Runs batches of ids through a model, several at once: outputs, float32 (n, outputs), in row order.

    On the CPU each batch is computed by one thread, which keeps its bits independent of the thread count.
    prefix: ids that all rows begin with, computed once instead of for every row; for verdicts and pooled states.
    """

    def __init__(
        self, model: ScalarModel, *, device: str, dtype: torch.dtype, threads: int, prefix: Sequence[int] = ()
    ) -> None:
        if device == "cpu":
            keep_freed_memory()
        self.device = device
        self.dtype = dtype
        model.cast(dtype, map_embedding=device == "cpu")
        self.model = model.eval().to(device)
        for body in self.model.bodies:
            if packable(body, device):
                pack_linears(body, tokens=TOKENS_PER_BATCH)
        self.threads = threads if device == "cpu" else 1
        self._executor: tuple[int, ThreadPoolExecutor] | None = None
        self._most_rows: dict[int, int] = {}
        self._prefix = tuple(prefix)
        self._begun = self.model.begun(prefix) if prefix else None

    def run(self, tokens: Ragged, buckets: Sequence[tuple[int, int]], pad: int, *, pooled: bool = False) -> np.ndarray:
        """Outputs of every row; with `pooled` the pooled states instead. Rows that exhaust memory alone are NaN."""
        return self.outcome(tokens, buckets, pad, pooled=pooled)[0]

    def outcome(
        self, tokens: Ragged, buckets: Sequence[tuple[int, int]], pad: int, *, pooled: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """(outputs as `run` gives them, whether the row exhausted memory even alone, bool (n,))."""
        if self._begun is not None:
            tokens = tokens.where(tokens.positions() >= len(self._prefix))
            buckets = without_prefix(buckets, len(self._prefix))
        if self.device != "cpu":
            buckets = gpu_buckets(buckets, sum(parameter.numel() for parameter in self.model.parameters()))
        offsets, batches = tokens.offsets(), plan_batches(tokens.lengths, buckets)
        outputs = np.full((len(tokens.lengths), self._width(pooled)), np.nan, np.float32)
        exhausted = np.zeros(len(tokens.lengths), bool)

        def compute(batch: Batch) -> None:
            ids, lengths = padded(tokens, offsets, batch, pad)
            values, failed = self._forward(ids, lengths, pooled)
            outputs[batch.rows] = values[: len(batch.rows)]
            exhausted[batch.rows] = failed[: len(batch.rows)]
            progressed()

        self._side_by_side(compute, batches)
        return outputs, exhausted

    def _side_by_side(self, compute: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """What `compute` gives of each item, several at once, in threads that live as long as this pool.

        A new thread for every call may find the memory of the one before not yet given back, and takes more of its own
        (benchmarks/NOTES.md). A fork has none of the threads, and starts its own.
        """
        if self._executor is None or self._executor[0] != os.getpid():
            executor = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))
            self._executor = os.getpid(), executor
        return list(self._executor[1].map(compute, items))

    @torch.inference_mode()
    def _forward(self, ids: np.ndarray, lengths: np.ndarray, pooled: bool) -> tuple[np.ndarray, np.ndarray]:
        """(outputs, exhausted) of one batch. Out of memory: halves are tried, down to a row alone.

        Halves that were enough are how batches of that length are computed from then on. As another shape may round
        otherwise, memory that runs out is the one thing that can move a score, within the precision band.
        """
        n, length = ids.shape
        call = self.model.pooled if pooled else self.model
        if self._begun is not None:
            call = partial(call, begun=self._begun)
        if n <= self._most_rows.get(length, n):
            try:
                at = torch.from_numpy(ids).to(self.device), torch.from_numpy(lengths).to(self.device)
                return call(*at).float().cpu().numpy(), np.zeros(n, bool)
            except torch.OutOfMemoryError:
                free_memory(self.device)
        if n == 1:
            return np.full((1, self._width(pooled)), np.nan, np.float32), np.ones(1, bool)
        parts = [self._forward(ids[half], lengths[half], pooled) for half in (slice(0, n // 2), slice(n // 2, None))]
        values, exhausted = (np.concatenate(found) for found in zip(*parts, strict=True))
        if not exhausted.any():
            self._most_rows[length] = min(self._most_rows.get(length, n), n - n // 2)
        return values, exhausted

    def written(self, tokens: Ragged) -> list[tuple[int, ...]]:
        """The categories that a verdict model writes for each row, as indices into its rubric's; see `engine.codes`."""
        model = self.model
        if not isinstance(model, VerdictModel) or model.verdict.written is None:
            raise JudgeError("this judge writes no categories")
        codes, forced = model.verdict.written, len(model.verdict.steps) - 1

        def write(row: np.ndarray) -> tuple[int, ...]:
            ids = row[: len(row) - forced].tolist()
            found = written_codes(model.body, ids, codes, rows=model.rows, bias=model.row_bias, place=model.place)
            progressed()
            return found

        return self._side_by_side(write, np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1]))

    def _width(self, pooled: bool) -> int:
        return self.model.head.in_features if pooled else self.model.outputs
