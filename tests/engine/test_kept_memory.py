"""What an operation frees serves the next one: the system is not asked for the same pages again and again."""

import os
import subprocess
import sys

import pytest

PAGES = 2_000  # of 4 KiB, in one tensor of 8 MB
TURNS = 50
CHILD = f"""
import resource
import torch
from quality_judge.engine.devices import keep_freed_memory
from concurrent.futures import ThreadPoolExecutor
keep_freed_memory()
def work(_):
    for _ in range({TURNS}):
        torch.ones({PAGES} * 1024)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with ThreadPoolExecutor(1) as pool:
    list(pool.map(work, range(1)))
    before = faults()
    list(pool.map(work, range(1)))
print(faults() - before)
"""


def page_faults(**variables):
    found = subprocess.run(
        [sys.executable, "-c", CHILD], env={**os.environ, "OMP_NUM_THREADS": "1", **variables}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is told")
def test_memory_that_is_freed_is_used_again_unless_the_environment_says_otherwise():
    assert page_faults() < PAGES * TURNS / 10
    assert page_faults(MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="65536") > PAGES * TURNS / 2
