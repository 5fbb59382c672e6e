"""Spark's daemon of Python workers, which imports once what each that scores would import for itself. (executor)

    spark.python.daemon.module  quality_judge.spark_daemon

A worker is a fork of its daemon, and shares the pages of what the daemon holds: without this each takes seconds and
some 250 MB of its own for torch and transformers. pyarrow and pandas stay out, for they start threads, and a fork that
inherits another thread's lock waits for ever; OpenBLAS, which starts some where a task has several cores, is made to be
forked. Nothing is computed, so that no fork inherits torch's thread pool: no worker, and no process in which rows are
scored apart.
Where there is a GPU nothing is shared: CUDA cannot be used in a fork of a process that touched it, and what a library
does there as it is imported could not be tried. It stands outside `quality_judge.spark`, whose package imports pandas.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path

from pyspark.daemon import manager

from quality_judge.nursery import open_nursery

SHARED = ("quality_judge.engine.attention", "quality_judge.engine.packed")
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, of AMD, of either under WSL


def share_imports() -> bool:
    """Whether there is no GPU: then SHARED is imported, and the garbage collector kept from writing to its pages.

    A worker says what could not be imported.
    """
    if any(Path(device).exists() for device in GPU_DEVICES):
        return False
    with redirect_stdout(sys.stderr), suppress(Exception):  # on stdout Spark waits for a port
        for name in SHARED:
            import_module(name)
    gc.collect()
    gc.freeze()
    return True


if __name__ == "__main__":
    os.setpgid(0, 0)  # as `manager` does: Spark ends the group
    if share_imports():
        open_nursery()
    manager()
