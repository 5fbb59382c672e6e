"""Which device a task may use: the GPU address Spark gave it, never another; else the CPU. (executor)

One GPU for each executor is what `conf/spark/gpu.conf` asks for: Python workers are pooled without regard to
addresses, so with more each process would end up on every GPU.
"""

from __future__ import annotations

import os


def task_device() -> str:
    """`cuda:N` or `cpu` for the running task. Does not touch CUDA when Spark gave no GPU and the task is not local."""
    from pyspark import TaskContext

    task = TaskContext.get()
    resource = task.resources().get("gpu") if task is not None else None
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    count = torch.cuda.device_count()
    if resource is None:
        return f"cuda:{(task.partitionId() if task is not None else 0) % count}"
    address = resource.addresses[0]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if address in visible:
        return f"cuda:{visible.index(address)}"
    # Containers on YARN and Kubernetes renumber the GPUs they pass on.
    return f"cuda:{address}" if address.isdigit() and int(address) < count else "cuda:0"
