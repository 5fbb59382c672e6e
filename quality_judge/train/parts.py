"""How many parts of a training this machine holds at once, and training them side by side.

What a model keeps for the way back is counted on short rows, not guessed: training that outgrows a machine's memory
is killed by the kernel without a word. The counts depend on the machine and the model alone, so that a run that is
taken up again trains as it began. It knows nothing of folds, labels or losses.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from quality_judge.engine.encode import Ragged
from quality_judge.engine.kinds import ScalarModel
from quality_judge.train.forward import autocast

PROBED_TOKENS = (16, 32, 48)
USED_SHARE = 0.75  # of the machine's memory; the rest is for the base, its states and whoever else is there
TAKEN_OF_KEPT = 2.0  # with gradients on their way, and the holes that freed blocks leave: 1.3 to 2.0 of five batches
COPIES_OF_TRAINED = 4  # weight, gradient, and two moments of AdamW
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
Trained = TypeVar("Trained")
_PART = threading.local()


class Ended(Exception):
    """Another part has failed, or the run was interrupted."""


def parts_at_once(model: ScalarModel, tokens: Ragged, *, texts: int, shared: int = 0) -> int:
    """How many models like this one can be trained here at once on batches of the longest rows; 0: not even one.

    texts: in a batch. shared: how many ids all rows begin with, if they are computed once for a batch.
    """
    held = sum(each.nbytes * (COPIES_OF_TRAINED if each.requires_grad else 1) for each in model.parameters())
    of_model, of_token, of_pair = kept_bytes(model, tokens)
    longest = int(tokens.lengths.max())
    rows = texts * (longest - shared) * (of_token + of_pair * longest)
    taken = TAKEN_OF_KEPT * (rows + shared * (of_token + of_pair * shared))
    return int(USED_SHARE * memory_bytes() // (held + of_model + taken))


def kept_bytes(model: ScalarModel, tokens: Ragged) -> tuple[float, float, float]:
    """What is kept for the way back: once, of each token, and of each pair of tokens that attention scores.

    From three short rows, of t tokens each: c for weights in another precision, a·t for the layers, and b·t² where
    attention keeps its scores.
    """
    kept = [_kept_of_row(model, tokens, count) for count in PROBED_TOKENS]
    of_pair, of_token, once = np.maximum(np.polyfit(PROBED_TOKENS, kept, 2), 0.0).tolist()
    return once, of_token, of_pair


def _kept_of_row(model: ScalarModel, tokens: Ragged, count: int) -> int:
    own = {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.from_numpy(tokens.ids[:1].astype("int64")).expand(1, count).contiguous()
    device = next(model.parameters()).device
    model.eval()
    with autocast(device), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.pooled(ids.to(device), torch.tensor([count], device=device))
    return sum(kept.values())


def memory_bytes() -> int:
    """What this machine has, or this process is allowed."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, CGROUP_LIMITS):
        limit = path.read_text().strip() if path.is_file() else "max"
        if limit.isdigit():
            found.append(int(limit))
    return min(found)


def side_by_side(
    train: Callable[[int, ScalarModel], Trained], folds: list[int], models: list[ScalarModel]
) -> list[Trained]:
    """What `train` gives for each fold and its model, trained at the same time in an equal share of the threads.

    What ends one of them, or interrupts all, ends the others at their next step (`refuse_ended`).
    """
    workers = len(folds)
    share, ended = max(1, torch.get_num_threads() // workers), threading.Event()

    def begin() -> None:
        torch.set_num_threads(share)
        _PART.ended = ended

    with ThreadPoolExecutor(workers, initializer=begin) as pool:
        futures = [pool.submit(train, fold, model) for fold, model in zip(folds, models, strict=True)]
        try:
            ready = wait(futures, return_when=FIRST_EXCEPTION).done
            for future in ready:  # the one that failed before those that still train
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            ended.set()
            raise


def refuse_ended() -> None:
    """Raises Ended where this thread trains a part whose result nobody waits for any more; asked at each step."""
    if (ended := getattr(_PART, "ended", None)) is not None and ended.is_set():
        raise Ended
