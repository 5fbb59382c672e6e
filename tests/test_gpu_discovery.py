"""The GPU discovery script prints what Spark parses, whatever number of GPUs nvidia-smi names."""

import json
import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "conf" / "spark" / "gpu_discovery.sh"


@pytest.mark.parametrize("addresses", [[], ["0"], ["0", "1", "2", "11"]])
def test_addresses_are_those_of_nvidia_smi(addresses, tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\n" + "".join(f"echo '{address}'\n" for address in addresses), encoding="utf-8")
    fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    out = subprocess.run(["bash", SCRIPT], env={"PATH": path}, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == {"name": "gpu", "addresses": addresses}


def test_a_machine_without_a_driver_fails_and_says_nothing(tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    out = subprocess.run(["bash", SCRIPT], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert out.returncode != 0
    assert out.stdout == ""
