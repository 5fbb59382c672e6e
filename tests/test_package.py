"""The package as it is shipped: the wheel, what each extra brings, the versions it was made on, Spark's settings."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from try_wheel import WANTED, refuse_contents

from quality_judge.cli.programmes import EXTRA_OF as TOLD_EXTRA_OF
from quality_judge.errors import CheckFailed

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "quality_judge"
SPARK = ROOT / "conf" / "spark"
EXTRA_OF = {  # what a part of the package may import beyond the core: that of its extra
    "engine": "engine", "evaluation": "engine", "tables": "engine", "train": "train", "spark": "spark",
    "spark_daemon": "spark", "expectations": "expectations", "airflow": "airflow", "signing": "signing",
    "labelling": "label", "mlflow_model": "mlflow", "mlflow_code": "mlflow",
}  # fmt: skip
OFFERED = {
    ("expectations", "pyspark"),
    ("bases", "huggingface-hub"),
    ("hub", "huggingface-hub"),
    ("registry", "fsspec"),
    ("engine", "gguf"),
    ("engine", "sentencepiece"),
    ("train", "trl"),
    ("train", "datasets"),
    ("spark", "py4j"),
}  # used where it is there, or comes along


@pytest.fixture(scope="module")
def setup():
    """What setup.py hands to setuptools."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", given.update)
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def distributions(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@cache
def distributions_by_import():
    """Of every name that can be imported the distributions it is of: one look at all files of the environment."""
    return packages_distributions()


def imported(path):
    """The distributions that a file imports, other than itself and the standard library."""
    tree, names = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    known = distributions_by_import()
    foreign = names - set(sys.stdlib_module_names) - {"quality_judge", "airflow"}
    return {canonicalize_name(known.get(name, [name])[0]) for name in foreign}


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment_away_from_the_checkout():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "try_wheel.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ok"] is True


@pytest.mark.parametrize(
    "names",
    [
        WANTED[1:],
        [*WANTED, "tests/test_package.py"],
        [*WANTED, "jobs/score_corpus.py"],
        [*WANTED, "quality_judge/x.parquet"],
    ],
)
def test_a_planted_fault_in_a_wheel_is_seen(names):
    refuse_contents([*WANTED, "quality_judge-0.1.0.dist-info/METADATA"])
    with pytest.raises(CheckFailed):
        refuse_contents(names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_part_of_the_package_imports_only_what_its_extra_brings(path, setup):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = distributions(setup["install_requires"])
    if part in EXTRA_OF:
        allowed |= distributions(setup["extras_require"][EXTRA_OF[part]])
    allowed |= {name for unit, name in OFFERED if unit == part}
    assert imported(path) <= allowed


def test_every_package_of_an_extra_that_a_command_may_lack_is_told_with_that_extra(setup):
    told = {canonicalize_name(distributions_by_import()[name][0]): extra for name, extra in TOLD_EXTRA_OF.items()}
    for package, extra in told.items():
        assert package in distributions(setup["extras_require"][extra])
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if EXTRA_OF.get(part) in ("engine", "train", "spark", "expectations"):
            offered = {name for unit, name in OFFERED if unit == part} | distributions(setup["install_requires"])
            assert imported(path) - offered <= set(told), path


def test_every_direct_dependency_is_pinned_within_its_range(setup):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(pin.name): pin for pin in (Requirement(line) for line in lines if line and line[0] != "#")
    }
    wanted = [Requirement(text) for text in [*setup["install_requires"], *setup["extras_require"]["dev"]]]
    assert {canonicalize_name(need.name) for need in wanted} <= set(pins)
    for need in wanted:
        (pin,) = pins[canonicalize_name(need.name)].specifier
        assert pin.operator == "=="
        assert need.specifier.contains(pin.version), f"{need} and {pin}"


def settings(path):
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")
    ]
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.mark.parametrize("path", sorted(SPARK.glob("*.conf")), ids=lambda path: path.name)
def test_spark_settings_are_whole_lines_named_once_and_lose_nothing(path):
    pairs = settings(path)
    assert len(dict(pairs)) == len(pairs)
    assert all(re.fullmatch(r"spark\.[\w.]+", name) and re.fullmatch(r"\S+", value) for name, value in pairs)
    behind = settings(SPARK / "gpu.conf") if path.name.startswith("gpu-") else []  # such a file says what differs there
    said = dict([*behind, *pairs])
    assert said["spark.sql.files.ignoreCorruptFiles"] == said["spark.sql.files.ignoreMissingFiles"] == "false"
    assert said["spark.speculation"] == "false"
    assert "spark.executor.pyspark.memory" not in said


def test_a_gpu_executor_has_one_gpu_and_one_task():
    said = dict(settings(SPARK / "gpu.conf"))
    assert said["spark.executor.resource.gpu.amount"] == said["spark.task.resource.gpu.amount"] == "1"
    assert said["spark.executor.cores"] == said["spark.task.cpus"]


@pytest.mark.parametrize(("printed", "addresses"), [("0\n", ["0"]), ("0\n1\n2\n", ["0", "1", "2"]), ("", [])])
def test_the_discovery_script_prints_what_spark_reads(tmp_path, printed, addresses):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<END\n{printed}END\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [str(SPARK / "gpu_discovery.sh")],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"name": "gpu", "addresses": addresses}


def test_the_discovery_script_fails_where_there_is_no_driver(tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([str(SPARK / "gpu_discovery.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == ""
