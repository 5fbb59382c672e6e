"""The documents against the code: every Python block of README.md and docs/ runs, every command and name is real.

The blocks run in one interpreter and one Spark session, each page with names of its own, in a folder that holds what a
reader would have: label files, a corpus, and a tiny judge trained here. So does the notebook in examples/. The Chinese
README has the same code and headings, so it is not run again.
"""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
from typer.main import get_command

from quality_judge.cli import app
from quality_judge.cli.programmes import PROGRAMMES, options_of
from quality_judge.config import JudgeConfig, TrainConfig, conf_folder, load_judge_config
from quality_judge.judge import ALLOWED_FILES, JUDGE_FILE, SIGNATURE_FILE
from quality_judge.labels import load_labels
from quality_judge.policy import Policy
from quality_judge.programme import programme_file
from quality_judge.project import PLACES
from quality_judge.rubric import Rubric
from quality_judge.scores import CODES, FLAGS
from quality_judge.stats.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh-CN.md")
SITE = tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))
PROJECT = "conf/project/README.md"
DOCUMENTS = (*READMES, "training/README.md", "jobs/README.md", "CONTRIBUTING.md", "SECURITY.md", *SITE)
NOTEBOOK = "examples/tutorial.ipynb"
SHELL = {"cd", "export", "source", "pip", "./run.sh"}  # what a page may use beside our own commands
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
IN_CHECKOUT = re.compile(r"(?:conf|jobs|training|tests|quality_judge)/[\w./-]*")
READERS_OWN = {"labels.jsonl", "test.jsonl", "corpus", "corpus.jsonl", "answers", "scored", "judges/mine-1", "filtered"}
OF_A_PROJECT = {*PLACES, *(f"labels/example.{language}.jsonl" for language in ("en", "zh"))}
INPUTS = {
    "--judge",
    "--input",
    "--labels",
    "--test-labels",
    "--scored",
    "--policy",
    "--suite",
    "--config",
    "--files",
    "--properties-file",
}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text, language):
    return [body for kind, body in BLOCK.findall(text) if kind == language]


def headings(text):
    return [line.split(" ")[0] for line in BLOCK.sub("", text).splitlines() if re.match(r"#{1,6} ", line)]


def first_cells(text):
    """What stands in backticks in the first cell of each table row."""
    return [
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]


def commands(text):
    """The words of every command in the bash blocks, in order."""
    lines = "".join(blocks(text, "bash")).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@cache
def help_of(programme):
    """What `--help` prints; `spark-submit` is that of the installed pyspark."""
    if programme != "spark-submit":
        said = StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
            patch.setattr(sys, "argv", [programme, "--help"])
            with pytest.raises(SystemExit):
                runpy.run_path(str(ROOT / programme), run_name="__main__")
        return said.getvalue()
    home = Path(find_spec("pyspark").origin).parent
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPARK_HOME": str(home)}
    command = [home / "bin" / "spark-submit", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    return done.stdout + done.stderr


def command_of(words):
    """The command that the words name, of a group too, or the command line itself where an option stands first."""
    found = get_command(app)
    for word in words:
        found = getattr(found, "commands", {}).get(word, found)
    return found


def faults(text, *, made=()):
    """What in the commands of a document is not real. made: what its reader has already."""
    known, found = {*READERS_OWN, *OF_A_PROJECT, *made, *re.findall(r"^# ([\w-]+\.yaml)$", text, re.M)}, []
    for words in commands(text):
        if words[0] == "make":
            found += [f"make {target}" for target in words[1:] if not re.search(rf"^{target}:", read("Makefile"), re.M)]
        elif words[0] == "spark-submit" or (words[0] == "python" and words[1] != "-m"):
            found += programme_faults(words, known)
            known |= {value for name, value in pairs(words) if name == "--output"}
        elif words[:2] == ["accelerate", "launch"]:
            start = next(at for at, word in enumerate(words) if word.endswith(".py"))
            found += programme_faults(words[start:], known)
        elif words[0] == "quality-judge" and words[1] in PROGRAMMES:
            said = options_of(programme_file(PROGRAMMES[words[1]][0]))
            found += [f"{words[1]} has no {word}" for word in words[2:] if word[:2] == "--" and word not in said]
            found += missing(words[2:], known)
            known |= {value for name, value in pairs(words) if name == "--output"}
        elif words[0] == "quality-judge":
            said = {option for parameter in command_of(words[1:3]).params for option in parameter.opts}
            found += [f"{words[1]} has no {word}" for word in words[1:] if word.startswith("--") and word not in said]
            known |= {word for word in words[2:] if words[1] == "pull"}
            known |= {value for name, value in pairs(words) if name == "--output"}
        elif words[0] == "pip":
            wanted = re.findall(r"quality-judge\[(\w+)\]", " ".join(words))
            found += [f"there is no extra {extra}" for extra in wanted if f'"{extra}":' not in read("setup.py")]
        elif words[:3] != ["python", "-m", "pytest"] and words[0] not in SHELL:
            found.append(f"unknown programme {words[0]}")
    return found


def pairs(words):
    """(option, value) for each value, of several values too."""
    option, result = "", []
    for word in words:
        if word.startswith("--"):
            option = word
        elif option:
            result.append((option, word))
    return result


def programme_faults(words, known):
    at = next(i for i, word in enumerate(words) if word.endswith(".py") and words[i - 1] != "--py-files")
    programme, found = words[at], []
    if not (ROOT / programme).is_file():
        return [f"no programme {programme}"]
    for part, said in ((words[:at], help_of("spark-submit") if at > 1 else ""), (words[at:], help_of(programme))):
        found += [
            f"{programme} has no {word}" for word in part if word.startswith("--") and word not in OPTION.findall(said)
        ]
        for option, value in pairs(part):
            choices = re.search(rf"{option} \{{([\w,]+)\}}", said)
            if choices and value not in choices.group(1).split(","):
                found.append(f"{option} {value} is no choice")
        found += missing(part, known)
    return found


def missing(words, known):
    """Inputs that are neither in the checkout, nor absolute, nor known to have been made."""
    return [
        f"{option} {value} is neither there nor made before"
        for option, value in pairs(words)
        if option in INPUTS and value not in known and not value.startswith("/") and not (ROOT / value).exists()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DOCUMENTS, PROJECT])
def test_every_command_names_programmes_options_and_files_that_exist(name):
    assert faults(read(name)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "make nonsense", "python training/train.py --labels labels.jsonl", "curl example.org",
        "python training/evaluate_judge.py --judges judges/mine-1", "spark-submit --gpu jobs/score_corpus.py",
        "quality-judge convert-base x --into y", "accelerate launch training/train_judge.py --label labels.jsonl",
        "quality-judge filter --police x", "quality-judge score --judge judges/none",
        "pip install 'quality-judge[all]'", "quality-judge labels import x --into y",
        "python jobs/score_corpus.py --format avro", "python jobs/filter_corpus.py --policy conf/policies/none.yaml",
    ],
)  # fmt: skip
def test_a_planted_wrong_command_is_seen(line):
    assert len(faults(f"```bash\n{line}\n```")) == 1


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_and_every_path_in_backticks_leads_somewhere(name):
    text = read(name)
    linked = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    quoted = [path for path in re.findall(r"`([^`\s]+)`", text) if IN_CHECKOUT.fullmatch(path)]
    gone = [path for path in linked if not ((ROOT / name).parent / path).exists()]
    assert [*gone, *(path for path in quoted if not (ROOT / path).exists())] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings_and_metrics_that_commands_name_exist(name):
    for words in commands(read(name)):
        settings = [value for option, value in pairs(words) if option == "--set"]
        load_judge_config(conf_folder() / "judges" / "default.yaml", settings)
        assert {value.split("=")[0] for option, value in pairs(words) if option == "--min"} <= set(METRICS)


def test_both_readmes_have_the_same_code_and_the_same_headings():
    english, chinese = map(read, READMES)
    assert BLOCK.findall(english) == BLOCK.findall(chinese)
    assert headings(english) == headings(chinese)


@pytest.mark.parametrize("name", READMES)
def test_the_tables_name_every_code_every_flag_and_every_file_of_a_judge_once(name):
    cells = first_cells(read(name))
    assert [cell for cell in cells if cell.isupper()] == [*sorted_as_said(CODES, cells), *sorted_as_said(FLAGS, cells)]
    assert sorted(cell for cell in cells if cell.endswith((".json", ".safetensors", ".md"))) == sorted(
        [JUDGE_FILE, SIGNATURE_FILE, *ALLOWED_FILES]
    )


def sorted_as_said(names, cells):
    """`names` in the order of the table; one that is missing there comes first."""
    return sorted(names, key=lambda name: cells.index(name) if name in cells else -1)


def test_the_table_of_settings_names_every_setting_once():
    keys = [name for name in JudgeConfig.model_fields if name != "train"] + [
        f"train.{name}" for name in TrainConfig.model_fields
    ]
    cells = first_cells(read("training/README.md"))
    assert sorted(cell for cell in cells if not cell.endswith(".py")) == sorted(keys)


def test_the_label_rows_are_one_of_each_kind(tmp_path):
    (rows,) = blocks(read("README.md"), "jsonl")
    (tmp_path / "labels.jsonl").write_text(rows, encoding="utf-8")
    counts = load_labels([tmp_path / "labels.jsonl"]).counts()
    assert [counts[kind] for kind in ("samples", "preferences", "rankings", "categories")] == [1, 1, 1, 1]


def test_the_policy_is_one(tmp_path):
    (policy,) = blocks(read("README.md"), "yaml")
    (tmp_path / "policy.yaml").write_text(policy, encoding="utf-8")
    assert Policy.load(tmp_path / "policy.yaml").asks_judge


@pytest.mark.parametrize("name", SITE)
def test_every_yaml_block_of_a_page_is_what_its_first_line_says_and_every_jsonl_block_is_labels(name, tmp_path):
    from quality_judge.expectations import load_suite

    readers = {
        "policy.yaml": Policy.load, "judge.yaml": load_judge_config, "suite.yaml": load_suite,
        "rubric.yaml": Rubric.load,
    }  # fmt: skip
    for body in blocks(read(name), "yaml"):
        file = body.splitlines()[0].removeprefix("# ")
        (tmp_path / file).write_text(body, encoding="utf-8")
        readers[file](tmp_path / file)
    for body in blocks(read(name), "jsonl"):
        (tmp_path / "labels.jsonl").write_text(body, encoding="utf-8")
        assert len(load_labels([tmp_path / "labels.jsonl"])) == len(body.splitlines())


def test_every_page_of_the_site_stands_in_its_navigation():
    pages = re.findall(r"[\w/-]+\.md", read("mkdocs.yml"))
    assert sorted(f"docs/{page}" for page in pages) == sorted(SITE)


def test_the_notebook_is_stripped_of_outputs_and_of_what_a_machine_writes():
    notebook = json.loads(read(NOTEBOOK))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(cell["metadata"] == {} for cell in notebook["cells"])


def in_folder(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True, timeout=560, env=environment
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory, tiny_base):
    """A folder with the label file, the YAML files, the corpus and the judge that the code of README.md names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, text = tmp_path_factory.mktemp("reader"), read("README.md")
    (folder / "conf").symlink_to(ROOT / "conf")
    for body in blocks(text, "yaml"):
        (folder / body.splitlines()[0].removeprefix("# ")).write_text(body, encoding="utf-8")
    rows = [json.loads(line) for line in (ROOT / "conf/demo/labels.en.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = [row for label in (True, False) for row in [row for row in rows if row["label"] is label][:30]]
    lines = [*blocks(text, "jsonl")[0].splitlines(), *(json.dumps(row) for row in chosen)]
    (folder / "labels.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [*(row["completion"] for row in rows[-60:]), None, "", "\u200b"]
    table = {"id": list(range(len(texts))), "text": texts, "source": ["forum", "web", "docs"] * (len(texts) // 3)}
    (folder / "corpus").mkdir()
    pq.write_table(pa.table(table), folder / "corpus" / "part-0.parquet", row_group_size=20)
    settings = {"base": tiny_base("bert"), "max_tokens": 64, "train.method": "frozen", "train.below_baseline": "allow"}
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    in_folder(
        folder, ROOT / "training/train_judge.py", "--labels", "labels.jsonl", "--output", "judges/mine-1", *options
    )
    return folder


def pages():
    """(name, its Python blocks in order): README.md first, whose written scores later pages read."""
    notebook = [cell for cell in json.loads(read(NOTEBOOK))["cells"] if cell["cell_type"] == "code"]
    found = [(name, blocks(read(name), "python")) for name in ("README.md", *SITE)]
    return [(name, code) for name, code in [*found, (NOTEBOOK, ["".join(cell["source"]) for cell in notebook])] if code]


RUNNER = """
import json
for name, bodies in json.load(open("pages.json", encoding="utf-8")):
    names = {"__name__": "__main__"}
    for number, body in enumerate(bodies):
        exec(compile(body, f"{name} block {number}", "exec"), names)
        print(f"ran {name} {number}", flush=True)
"""


@pytest.mark.spark
@pytest.mark.slow
def test_the_python_of_every_page_and_of_the_notebook_runs_from_top_to_bottom(readers_folder):
    (readers_folder / "pages.json").write_text(json.dumps(pages()), encoding="utf-8")
    (readers_folder / "pages.py").write_text(RUNNER, encoding="utf-8")
    printed = in_folder(readers_folder, readers_folder / "pages.py")
    ran = [f"{name} {number}" for name, code in pages() for number in range(len(code))]
    assert re.findall(r"^ran (.*)$", printed, re.M) == ran
    assert "['OK', 'EMPTY_TEXT', 'NULL_TEXT']" in printed
