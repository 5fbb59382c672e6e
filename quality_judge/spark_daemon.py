"""Spark's daemon of Python workers, which imports once what each that scores would import for itself. (executor)

    spark.python.daemon.module  quality_judge.spark_daemon

A worker is a fork of its daemon, and shares the pages of what the daemon holds: without this each takes seconds and
some 250 MB of its own for torch and transformers. pyarrow and pandas stay out, for they start threads, and a fork that
inherits another thread's lock waits for ever; OpenBLAS, which starts some where a task has several cores, is made to be
forked. Nothing is computed, so that no worker inherits torch's thread pool.
Where there is a GPU nothing is shared: CUDA cannot be used in a fork of a process that touched it, and what a library
does there as it is imported could not be tried. It stands outside `quality_judge.spark`, whose package imports pandas.
"""

from __future__ import annotations

import gc
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path

from pyspark.daemon import manager

SHARED = ("quality_judge.engine.attention", "quality_judge.engine.packed")
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, of AMD, of either under WSL


def share_imports() -> None:
    """Imports SHARED, and keeps the garbage collector from writing to its pages. A worker says what could not be."""
    if any(Path(device).exists() for device in GPU_DEVICES):
        return
    with redirect_stdout(sys.stderr), suppress(Exception):  # on stdout Spark waits for a port
        for name in SHARED:
            import_module(name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    share_imports()
    manager()
