"""The few things that differ between a CPU and a GPU. It knows nothing of Spark, models or batches."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_BLOCK = 32 << 20  # the most that glibc takes
KEPT_BYTES = 256 << 20
MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def default_device() -> str:
    """`cuda` when there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpu_count() -> int:
    """How many GPUs this process sees, 0 without CUDA."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def free_memory(device: str) -> None:
    """Gives cached GPU memory back; nothing on the CPU."""
    if device != "cpu":
        torch.cuda.empty_cache()


def peak_gpu_bytes() -> int | None:
    """The most GPU memory this process has held for tensors; None without a GPU."""
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None


def limit_memory(device: str, share: float | None) -> None:
    """Lets this process allocate at most `share` of a GPU's memory, 0 to 1; beyond it torch is out of memory.

    None is no limit; nothing on the CPU.
    """
    if share is not None and device != "cpu":
        torch.cuda.set_per_process_memory_fraction(share, torch.device(device))


def keep_freed_memory() -> None:
    """Lets the C library keep what an operation frees for the next one, up to KEPT_BYTES of it.

    glibc gives large blocks back to the system and gets them again zeroed, page by page: for 200 rows MiniLM took
    500,000 page faults in a process some way on, and 1.2 times as long. Nothing without glibc, or where the environment
    says otherwise.
    """
    process: Any = ctypes.pythonapi if sys.platform == "linux" else None  # what is loaded already, and nothing else
    if hasattr(process, "mallopt") and not any(name in os.environ for name in MALLOC_VARIABLES):
        process.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        process.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
