"""Which device a task may use, and how much of its memory: the GPU address Spark gave it, never another. (executor)

| what Spark gave the task | what the process sees | it uses |
|---|---|---|
| an address | a GPU that goes by it | that GPU |
| an address | none, or only others | nothing: CheckFailed |
| nothing, on a cluster | whatever | the CPU |
| nothing, on a local master | GPUs | one of them, by the number of its partition |

The CPU gives other last digits than a GPU and is far slower, so no task falls back to it without a word: who wants it
says QUALITY_JUDGE_DEVICE=cpu. It knows nothing of torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from pyspark import TaskContext

from quality_judge.errors import CheckFailed

DEVICE_VARIABLE = "QUALITY_JUDGE_DEVICE"
CPU = "cpu"
TASK_GPUS = "spark.task.resource.gpu.amount"
LOCAL_MASTER = re.compile(r"local(\[.*)?")  # local-cluster[…] is a cluster
USABLE_MEMORY = 0.9  # of a shared GPU: the CUDA context of each process lies outside of what torch counts


def task_device(gpu_count: int) -> str:
    """`cuda:N` or `cpu` for the running task. gpu_count: how many GPUs this process sees. Raises CheckFailed."""
    forced = os.environ.get(DEVICE_VARIABLE)
    if forced not in (None, "", CPU):
        raise CheckFailed(f"{DEVICE_VARIABLE} is {forced!r}; expected {CPU}, or nothing: Spark says which GPU it is")
    task = TaskContext.get()
    if forced == CPU:
        return CPU
    if task is None:
        return "cuda:0" if gpu_count else CPU
    given = task.resources().get("gpu")
    if given is None:  # a query's settings reach its tasks as local properties
        local = LOCAL_MASTER.fullmatch(task.getLocalProperty("spark.master") or "") is not None
        return f"cuda:{task.partitionId() % gpu_count}" if local and gpu_count else CPU
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return f"cuda:{visible_index(given.addresses[0], visible, gpu_count)}"


def visible_index(address: str, visible: Sequence[str], gpu_count: int) -> int:
    """The number that the process knows the GPU at `address` by. Raises CheckFailed where none of its GPUs is that one.

    visible: the names in CUDA_VISIBLE_DEVICES, none when it is unset. A container on YARN or Kubernetes may number the
    GPUs it passes on anew: a single one that nothing names otherwise is the one that was given.
    """
    index = None
    if visible:
        index = next((i for i, name in enumerate(visible) if _same(name, address)), None)
        contradicted = all(name.isdigit() == address.isdigit() for name in visible)
    else:
        index = int(address) if address.isdigit() and int(address) < gpu_count else None
        contradicted = False
    if index is None and gpu_count == 1 and not contradicted:
        index = 0
    if index is None or index >= gpu_count:
        names = f" under the names {', '.join(visible)}" if visible else ""
        raise CheckFailed(
            f"Spark gave the task GPU {address!r}, and its process sees {gpu_count}{names}; expected one that goes "
            "by that address. Let the discovery script print what CUDA_VISIBLE_DEVICES holds on the executor (numbers "
            "where it is unset), and check that torch finds the driver there; to score on the CPU set "
            f"spark.executorEnv.{DEVICE_VARIABLE} {CPU}"
        )
    return index


def memory_share(gpus_per_task: float | None) -> float | None:
    """Which share of a GPU's memory one process may use; None where a task has the GPU alone.

    gpus_per_task: as in spark.task.resource.gpu.amount. 0.5 lets two tasks share a GPU, 0.4 does too.
    """
    if gpus_per_task is None or gpus_per_task > 0.5:
        return None
    return USABLE_MEMORY / int(1 / gpus_per_task)


def task_gpus(asked: float | None) -> float | None:
    """How much of a GPU the running task has: what its stage asked for, else what the settings of the job say."""
    task = TaskContext.get()
    if asked is not None or task is None or "gpu" not in task.resources():
        return asked
    said = task.getLocalProperty(TASK_GPUS)
    return float(said) if said else None


def _same(visible: str, address: str) -> bool:
    """Whether both name one GPU. CUDA takes the beginning of an identifier such as GPU-8932f937 for the whole."""
    return visible == address or (not visible.isdigit() and address.startswith(visible))
