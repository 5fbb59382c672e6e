"""The few things that differ between a CPU and a GPU. It knows nothing of Spark, models or batches."""

from __future__ import annotations

import torch


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
