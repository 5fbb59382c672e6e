"""Which device a task may use: the GPU address Spark gave it, never another; else the CPU. (executor)

One GPU for each executor is what `conf/spark/gpu.conf` asks for: Python workers are pooled without regard to
addresses, so with more each process would end up on every GPU.
"""

from __future__ import annotations

import os

from pyspark import TaskContext


def task_device(gpu_count: int) -> str:
    """`cuda:N` or `cpu` for the running task. gpu_count: how many GPUs this process sees."""
    if gpu_count == 0:
        return "cpu"
    task = TaskContext.get()
    resource = task.resources().get("gpu") if task is not None else None
    if resource is None:
        return f"cuda:{(task.partitionId() if task is not None else 0) % gpu_count}"
    address = resource.addresses[0]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if address in visible:
        return f"cuda:{visible.index(address)}"
    # Containers on YARN and Kubernetes renumber the GPUs they pass on.
    return f"cuda:{address}" if address.isdigit() and int(address) < gpu_count else "cuda:0"
