"""A project folder to start from: settings, rubric, policy, suites, example labels, a script, an Airflow DAG.

Everything is copied from what is shipped, so that a project begins with what the tests use. It knows nothing of judges.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from quality_judge.config import conf_folder
from quality_judge.demo import demo_labels
from quality_judge.errors import InputError
from quality_judge.programme import programme_file

PLACES = {  # file of the project -> file in conf/
    "README.md": "project/README.md",
    "run.sh": "project/run.sh",
    "conf/judge.yaml": "project/judge.yaml",
    "conf/rubric.yaml": "rubrics/worth-keeping.yaml",
    "conf/policy.yaml": "policies/demo.yaml",
    "conf/scored.yaml": "expectations/scored.yaml",
    "conf/filtered.yaml": "expectations/filtered.yaml",
}
DAG = "dags/quality_judge_dag.py"


def start_project(folder: str | Path) -> list[str]:
    """The files of a new project at `folder`, which must not exist yet, or be empty. Written beside, then renamed.

    Raises InputError where something stands there.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something already; choose a new name, or empty it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    sources = {name: conf_folder() / shipped for name, shipped in PLACES.items()}
    sources |= {f"labels/example.{path.name.split('.')[1]}.jsonl": path for path in demo_labels()}
    sources[DAG] = programme_file(f"jobs/{DAG}")
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, source in sources.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, scratch / name)
        (scratch / "run.sh").chmod(0o755)
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.rename(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return sorted(sources)
