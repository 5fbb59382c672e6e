"""docs/reliability.md against the tests it names: each exists, and the faults are as many as promised."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "`tests/" in line
]


def names_in(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists():
    named = TEST.findall(PAGE)
    assert len(named) == len(ROWS) > 40
    assert [(file, name) for file, name in named if name not in names_in(file)] == []


def test_at_least_thirty_kinds_of_fault_are_listed_and_none_twice():
    faults = [row[0] for row in ROWS if len(row) == 3]
    assert len(faults) == len(set(faults)) >= 30


def test_at_least_twelve_kinds_of_corrupt_file_and_they_are_those_of_the_tests():
    tree = ast.parse((ROOT / "tests/spark/test_faults.py").read_text(encoding="utf-8"))
    made = {
        node.targets[0].id: len(node.value.elts)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    }
    said = [len(row[0].split(": ")[1].split(", ")) for row in ROWS if " file: " in row[0]]
    assert said == [made["PARQUET_DAMAGE"], made["GZIP_DAMAGE"]]
    assert sum(said) >= 12
