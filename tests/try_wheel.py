"""Builds the wheel from the checkout and uses it in an environment of its own, away from the checkout.

    python tests/try_wheel.py

Nothing is downloaded: the new environment is empty but for the wheel, and borrows the dependencies of this Python
through a path file. The checkout itself is only read. The last line on stdout is one JSON object. Exit 0: the wheel
holds what it should and works. 1: it does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quality_judge.errors import CheckFailed
from quality_judge.programme import parser, run

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", "demo-output", ".*_cache", ".hypothesis"
)
WANTED = (
    "quality_judge/py.typed", "quality_judge/report.html.jinja", "quality_judge/cli/__init__.py",
    *(f"quality_judge/{path.relative_to(ROOT)}" for path in sorted(ROOT.glob("training/*.py"))),
    *(f"quality_judge/{path.relative_to(ROOT)}" for path in sorted(ROOT.glob("jobs/**/*.py"))),
    *(f"quality_judge/labelling/{name}" for name in ("label.html.jinja", "label.js", "label.css", "words.yaml")),
    *(f"quality_judge/{path.relative_to(ROOT)}" for path in sorted((ROOT / "conf").rglob("*.*")) if path.is_file()),
)  # fmt: skip
USE = """
import os, sys
from importlib.metadata import entry_points
from pathlib import Path

import quality_judge
from quality_judge.config import conf_folder, load_judge_config
from quality_judge.demo import demo_labels
from quality_judge.labels import load_labels
from quality_judge.policy import Policy
from quality_judge.report import ReportData, render_report
from quality_judge.rubric import Rubric

here = Path(sys.prefix).resolve()
assert here in Path(quality_judge.__file__).resolve().parents, quality_judge.__file__
assert here in conf_folder().resolve().parents, conf_folder()
for path in sorted((conf_folder() / "judges").glob("*.yaml")):
    rubric = load_judge_config(path).rubric
    assert rubric is None or Rubric.load(rubric).criteria
assert all(Policy.load(path) for path in (conf_folder() / "policies").glob("*.yaml"))
assert len(load_labels(demo_labels())) > 100
assert all("</html>" in render_report(ReportData("A title", language)) for language in ("en", "zh"))
providers = entry_points(group="apache_airflow_provider")
(provider,) = [entry for entry in providers if entry.value.startswith("quality_judge.")]
assert provider.load()()["package-name"] == "quality-judge"
assert os.access(conf_folder() / "spark" / "gpu_discovery.sh", os.X_OK)
"""


def main() -> dict[str, Any]:
    """Builds, looks, installs, uses; returns the summary."""
    with tempfile.TemporaryDirectory(prefix="quality-judge-wheel-") as scratch:
        wheel = build_wheel(Path(scratch))
        names = zipfile.ZipFile(wheel).namelist()
        refuse_contents(names)
        python = install(wheel, Path(scratch) / "environment")
        elsewhere = Path(scratch) / "elsewhere"
        elsewhere.mkdir()
        said = call(elsewhere, python.parent / "quality-judge", "--help")
        if "score" not in said:
            raise CheckFailed("quality-judge --help does not name its command score")
        call(elsewhere, python, "-c", USE)
        for command in ("train", "filter"):
            if f"usage: quality-judge {command}" not in call(
                elsewhere, python.parent / "quality-judge", command, "--help"
            ):
                raise CheckFailed(f"quality-judge {command} --help does not show the programme's options")
        return {"wheel": wheel.name, "files": len(names), "bytes": wheel.stat().st_size}


def build_wheel(scratch: Path) -> Path:
    """The wheel, built from a copy of the checkout so that no old build folder can leak into it."""
    source = scratch / "source"
    shutil.copytree(ROOT, source, ignore=NOT_COPIED, symlinks=True)
    call(scratch, sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", scratch / "dist", source)
    (wheel,) = (scratch / "dist").glob("*.whl")
    return wheel


def refuse_contents(names: Sequence[str]) -> None:
    """Raises CheckFailed unless the wheel holds all of WANTED, and nothing but the package and its metadata."""
    tops = {name.split("/")[0] for name in names}
    faults = [f"{name} is missing" for name in WANTED if name not in names]
    faults += [
        f"{top} does not belong" for top in sorted(tops) if top != "quality_judge" and not top.endswith(".dist-info")
    ]
    faults += [f"{name} does not belong" for name in names if name.endswith((".pyc", ".parquet", ".safetensors"))]
    if faults:
        raise CheckFailed("the wheel is wrong: " + "; ".join(faults))


def install(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment in `folder` that holds the wheel alone, and finds dependencies where we do."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    call(folder, *pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel)
    site = Path(call(folder, python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    # Path files in a folder that is named by a path file are not read, so the editable checkout does not come along.
    borrowed = dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    return python


def call(folder: Path, *command: object) -> str:
    """What the command prints when run in `folder`; raises CheckFailed with its last words when it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=kept, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CheckFailed(
            f"{Path(str(command[0])).name} exited {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}"
        )
    return done.stdout


if __name__ == "__main__":
    parser(__doc__ or "").parse_args()
    run(main)
