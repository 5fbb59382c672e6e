"""The layering of quality_judge, kept by reading its imports; only the tests of lightness at the end execute any."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYER = {  # first name after "quality_judge." -> layer; units of 0 and 1 may import their own layer
    "errors": 0, "config": 0, "samples": 0, "scores": 0, "programme": 0, "untrusted": 0, "redact": 0, "files": 0,
    "nursery": 0,
    "rubric": 1, "judge": 1, "policy": 1, "card": 1, "report": 1, "bases": 1, "labels": 1, "stats": 1, "demo": 1,
    "judge_spec": 1, "card_audits": 1,
    "card_labels": 1, "llama_guard": 1, "metrics_file": 1, "signing": 1, "attacks": 1, "profile": 1, "report_charts": 1,
    "shortcuts": 1, "markdown": 1, "promise": 1, "pages": 1, "judge_page": 1, "comparison": 1,
    "project": 1, "registry": 1, "hub": 1, "corpus_sample": 1, "cascade": 1, "archive": 1, "pinned": 1,
    "engine": 2, "train": 3, "evaluation": 3, "spark": 3, "expectations": 3, "airflow": 3, "tables": 3, "redteam": 3,
    "distillation": 3, "labelling": 3, "planning": 3, "spark_daemon": 3,
    "promotion": 4, "mlflow_model": 4, "mlflow_code": 5, "cli": 5, "__main__": 6,
}  # fmt: skip
HEAVY = {  # who may name a heavy library at all
    "torch": {"engine", "train"}, "transformers": {"engine", "train"}, "safetensors": {"engine", "train"},
    "tokenizers": {"engine", "train"}, "peft": {"train"}, "sklearn": {"train"}, "trl": {"train"},
    "pyspark": {"spark", "spark_daemon"},
    "pandas": {"spark", "expectations"}, "great_expectations": {"expectations"}, "airflow": {"airflow"},
    "fastapi": {"labelling"}, "starlette": {"labelling"}, "uvicorn": {"labelling"},
}  # fmt: skip
PROGRAMMES = {"jobs", "training", "benchmarks", "tests"}
FILES = sorted((ROOT / "quality_judge").rglob("*.py"))


def unit(path):
    return path.relative_to(ROOT / "quality_judge").parts[0].removesuffix(".py")


def imports(tree):
    """The full name of every module a file imports, wherever in the file it does so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write absolute imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def fault(here, name):
    """Why `here` may not import `name`, or None."""
    top, _, rest = name.partition(".")
    if top in PROGRAMMES:
        return f"{here} imports the programme {name}"
    if here not in HEAVY.get(top, {here}):
        return f"{here} may not import {top}"
    there = rest.partition(".")[0]
    if top != "quality_judge" or here == "__init__" or there in ("", here, "__version__"):
        return None
    if there not in LAYER:
        return f"{name} is in no layer; add it to LAYER"
    if LAYER[there] < LAYER[here] or LAYER[there] == LAYER[here] <= 1:
        return None
    return f"{here} (layer {LAYER[here]}) imports {name} (layer {LAYER[there]})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_and_heavy_libraries_stay_where_they_belong(path):
    assert unit(path) in LAYER or path.name == "__init__.py", f"{path.name} is in no layer; add it to LAYER"
    faults = [
        said for name in imports(ast.parse(path.read_text(encoding="utf-8"))) if (said := fault(unit(path), name))
    ]
    assert not faults, "; ".join(faults)


@pytest.mark.parametrize(
    ("here", "name"),
    [
        ("judge", "torch"), ("engine", "peft"), ("engine", "quality_judge.train.fit"), ("train",
        "quality_judge.spark.score"),
        ("config", "quality_judge.judge.Judge"), ("labels", "pandas"), ("spark", "jobs.score_corpus"), ("judge",
        "quality_judge.new"),
        ("evaluation", "torch"),
    ],
)  # fmt: skip
def test_a_planted_breach_is_seen(here, name):
    assert fault(here, name)


@pytest.mark.parametrize("folder", ["training", "jobs"])
def test_programmes_are_never_packages_and_import_no_other_programme(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert path.name != "__init__.py", f"{path.relative_to(ROOT)}: a programme is never imported"
        breaches = [
            name for name in imports(ast.parse(path.read_text(encoding="utf-8"))) if name.split(".")[0] in PROGRAMMES
        ]
        assert not breaches, f"{path.relative_to(ROOT)} imports {breaches}"


def loaded_by(statement):
    """Which heavy libraries are loaded after `statement` in a fresh interpreter."""
    looked_for = {*HEAVY, "scipy.stats"}
    code = f"{statement}; import sys; print(*sorted({looked_for!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_the_root_import_is_light():
    code = "import quality_judge, sys; print('numpy' in sys.modules, 'pydantic' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
    assert loaded_by("import quality_judge") == set()


def test_the_judge_and_what_stands_beside_it_need_neither_torch_nor_spark():
    modules = [f"quality_judge.{name}" for name, layer in LAYER.items() if layer <= 1]
    assert loaded_by(f"import {', '.join(modules)}") == set()


def test_scoring_needs_nothing_of_training():
    loaded = loaded_by("import quality_judge.engine.scorer")
    assert "torch" in loaded
    assert not loaded & {"peft", "sklearn", "trl", "pyspark", "pandas", "scipy.stats"}
