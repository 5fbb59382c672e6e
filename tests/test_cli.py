"""The command line: each command says an example, programmes run as they are, errors say what to do, init works.

The project that `init` writes is used as its own run.sh says, in this process and the tests' one Spark session.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from quality_judge.cli import app, main
from quality_judge.cli.programmes import PROGRAMMES, options_of
from quality_judge.errors import InputError
from quality_judge.programme import as_typed, programme_file, programmes_folder
from quality_judge.project import start_project

ROOT = Path(__file__).resolve().parents[1]
ASKED = {  # the commands of issue and README that this test knows; others add their own
    "demo", "init", "train", "evaluate", "calibrate", "distill", "score", "score-file", "filter", "validate", "sample",
    "redteam", "card", "compare", "report", "push", "pull", "promote",
}  # fmt: skip


WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
sys.argv[0] = "quality-judge"
from quality_judge.cli import main
main()
"""


@pytest.fixture
def quality_judge(monkeypatch, capsys):
    """A function from words to (exit code, stdout, stderr) of the command line, in this process."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["quality-judge", *map(str, words)])  # a programme sets its own
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def completed(words, at):
    """What bash offers after `words`; in a process of its own, as the shell asks."""
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(at), "_QUALITY_JUDGE_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv = ['quality-judge']; from quality_judge.cli import app; app(prog_name='quality-judge')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **asked}, capture_output=True, text=True
    )
    return done.stdout.split()


def test_every_command_that_was_asked_for_is_there_and_shows_an_example():
    commands = get_command(app).commands
    assert set(commands) >= ASKED
    for name, command in commands.items():
        assert f"quality-judge {name}" in command.help or "quality-judge home" in command.help, name


def test_every_command_stands_in_the_reference():
    listed = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in listed.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(.+?)`", row)} == set(get_command(app).commands)


@pytest.mark.parametrize("name", PROGRAMMES)
def test_the_options_read_from_a_programmes_text_have_help_and_stand_in_its_example(name):
    file, _, example = PROGRAMMES[name]
    said = options_of(programme_file(file))
    assert all(said.values()), said
    assert {word for word in shlex.split(example) if word.startswith("--")} <= set(said)


@pytest.mark.slow
def test_a_programme_as_a_command_names_itself_so_and_takes_the_programmes_options(quality_judge):
    code, out, _ = quality_judge("train", "--help")
    assert code == 0
    assert out.startswith("usage: quality-judge train ")
    assert "python training/" not in out
    assert all(option in out for option in options_of(programme_file("training/train_judge.py")))


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ("quality-judge train --test", 2, ["--test-labels"]),
        ("quality-judge filter --pol", 2, ["--policy"]),
        ("quality-judge eval", 1, ["evaluate"]),
        ("quality-judge train --labels lab", 3, []),
    ],
)
def test_a_shell_completes_commands_and_the_options_of_programmes_and_leaves_files_to_itself(words, at, expected):
    assert completed(words, at) == expected


def test_bad_arguments_of_a_programme_end_in_one_json_line_and_exit_2(quality_judge):
    code, out, complaint = quality_judge("calibrate", "--judge", "x")
    assert (code, json.loads(out)["error"]) == (2, "ArgumentError")
    assert "usage: quality-judge calibrate" in complaint


def test_a_missing_package_is_named_with_its_extra(quality_judge, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "quality_judge.engine.scorer", None)
    monkeypatch.setattr("quality_judge.cli.programmes.EXTRA_OF", {"quality_judge": "train"})
    code, out, complaint = quality_judge("evaluate", "--judge", "x", "--labels", "y", "--output", "z")
    assert (code, json.loads(out)["error"]) == (2, "MissingExtra")
    assert "pip install 'quality-judge[train]'" in complaint


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [("plan --judge J --input C", "torch", "train"), ("score-file --judge J --input C --output O", "torch", "train"),
     ("doctor --master yarn", "pyspark", "spark"), ("warm-spark", "pyspark", "spark")],
)  # fmt: skip
def test_a_command_that_runs_no_programme_names_a_missing_package_with_its_extra(tmp_path, words, package, extra):
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT, package, *words.split()], cwd=ROOT, capture_output=True, text=True
    )  # another process: what this one has imported cannot be missing
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.splitlines() == [
        f"error: {package} is needed here and is not installed; run: pip install 'quality-judge[{extra}]'"
    ]


def test_without_java_a_spark_command_says_what_to_install(quality_judge, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    code, out, complaint = quality_judge("filter", "--scored", "x", "--policy", "y", "--output", "z")
    assert (code, json.loads(out)["error"]) == (2, "ConfigError")
    assert "install a JDK" in complaint


def test_a_judge_trained_by_the_command_says_so_in_its_card(monkeypatch):
    from quality_judge.programme import CALLED_AS

    monkeypatch.setattr(sys, "argv", ["train_judge.py", "--labels", "/a/b/labels.jsonl"])
    assert as_typed() == "python training/train_judge.py --labels labels.jsonl"
    token = CALLED_AS.set("quality-judge train")
    assert as_typed() == "quality-judge train --labels labels.jsonl"
    CALLED_AS.reset(token)


def test_what_was_typed_is_told_without_folders_or_secrets(monkeypatch):
    typed = ["train_judge.py", "--labels=/home/a/labels.jsonl", "--set", "rubric=/home/a/r.yaml", "--set", "x.y=1"]
    monkeypatch.setattr(sys, "argv", [*typed, "token=hf_abcdefghijklmnop1234"])
    told = as_typed()
    assert told.startswith("python training/train_judge.py --labels=labels.jsonl --set rubric=r.yaml --set x.y=1")
    assert "hf_abc" not in told


def test_the_demo_never_writes_into_a_folder_that_is_there(quality_judge, tmp_path):
    code, _, complaint = quality_judge("demo", "--output", tmp_path)
    assert code == 2
    assert "choose another folder" in complaint


def test_home_is_where_the_programmes_are(quality_judge):
    code, out, _ = quality_judge("home")
    assert code == 0
    assert Path(out.strip()) == programmes_folder() == ROOT


def test_a_project_is_never_written_over_anything(tmp_path):
    (tmp_path / "mine").mkdir()
    start_project(tmp_path / "mine")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="holds something already"):
        start_project(tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_new_project_goes_from_labels_to_a_filtered_and_validated_table_as_its_script_says(
    spark, packaged_base, quality_judge, monkeypatch, tmp_path
):
    code, _, _ = quality_judge("init", tmp_path / "mine")
    assert code == 0
    monkeypatch.chdir(tmp_path / "mine")
    settings = Path("conf/judge.yaml").read_text(encoding="utf-8")
    Path("conf/judge.yaml").write_text(settings.replace("method: auto", "method: frozen"), encoding="utf-8")
    assert quality_judge("demo-corpus", "--output", "corpus", "--rows", "300")[0] == 0
    done = []
    for words in steps(Path("run.sh").read_text(encoding="utf-8"), Path.cwd()):
        code, _, complaint = quality_judge(*words)
        assert code == 0, f"{words}: {complaint[-2000:]}"
        done.append(words[0])
    training = json.loads(Path("judges/mine-1/judge.json").read_text(encoding="utf-8"))["training"]
    assert training["surface"]["unlabelled_texts"] > 200
    assert done == ["train", "score", "validate", "filter", "validate", "report", "sample"]
    assert {path.name for path in Path("output/filtered").iterdir() if path.is_dir()} >= {"kept", "dropped", "unscored"}
    assert "</html>" in Path("output/report.html").read_text(encoding="utf-8")
    assert len(Path("output/next-round.jsonl").read_text(encoding="utf-8").splitlines()) == 200


STAND_IN = """#!/usr/bin/env bash
echo "$1" >> called
if [ "$1" = train ]; then
  while [ "$1" != --output ]; do shift; done
  mkdir -p "$2"
  exit "${TRAINING_ENDS:-0}"
fi
"""


@pytest.fixture
def script(quality_judge, tmp_path):
    """A function that runs a new project's run.sh with words, every command a stand-in; `called` says which ran."""
    assert quality_judge("init", tmp_path / "mine")[0] == 0
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "quality-judge").write_text(STAND_IN)
    (tmp_path / "bin" / "quality-judge").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def run(*words, training_ends=0):
        (tmp_path / "mine" / "called").unlink(missing_ok=True)
        settings = {**os.environ, "PATH": path, "TRAINING_ENDS": str(training_ends)}
        done = subprocess.run(["./run.sh", *words], cwd=tmp_path / "mine", env=settings, capture_output=True, text=True)
        return done.returncode, (tmp_path / "mine" / "called").read_text().split(), done.stderr

    return run


@pytest.mark.parametrize(("version", "then"), [("2", "3"), ("09", "10"), ("v2", "NEXT-VERSION")])
def test_the_script_of_a_new_project_ends_with_a_next_step_that_exists(quality_judge, script, tmp_path, version, then):
    code, called, said = script("corpus", version)
    assert (code, called[0], called[-1]) == (0, "train", "sample"), said
    assert said.rstrip().endswith(f"then ./run.sh corpus {then}")
    command = said.split("next: ")[1].split(", then")[0].split()
    assert command[-1] == f"labels/round-{version}.jsonl"
    assert (tmp_path / "mine" / command[command.index("--rubric") + 1]).is_file()
    _, shown, _ = quality_judge(command[1], "--help")
    assert all(word in shown for word in command if word.startswith("--"))


def test_a_judge_that_training_refused_is_never_scored_with_however_often_the_script_runs(script, tmp_path):
    for _ in range(2):
        code, called, said = script("corpus", training_ends=1)
        assert (code, called) == (1, ["train"])
        assert "mine-1.refused" in said
    assert [path.name for path in (tmp_path / "mine" / "judges").iterdir()] == ["mine-1.refused"]
    assert list((tmp_path / "mine" / "judges" / "mine-1.refused").iterdir()) == []
    assert script("corpus")[1][:2] == ["train", "score"]
    assert script("corpus")[1][0] == "score"  # a judge that is there is used


def steps(script, here):
    """The words of each quality-judge command of run.sh, its variables filled in: the tests' JVM works elsewhere."""
    filled = script.replace('${UNLABELLED:+--unlabelled "$UNLABELLED"}', '--unlabelled "$CORPUS"')
    filled = filled.replace("$CORPUS", f"{here}/corpus").replace("$JUDGE", f"{here}/judges/mine-1")
    filled = filled.replace("$OUT", f"{here}/output")
    for line in filled.splitlines():
        if "quality-judge " in line and not line.startswith(("#", "echo")):
            words = shlex.split(line[line.find("quality-judge ") :].partition(" || ")[0])[1:]
            yield [
                found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
            ]


def test_tasks_are_not_written_over_their_own_set_up(quality_judge, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n')
    code, _, complaint = quality_judge("labels", "export", rows, "--output", tmp_path / "tasks.xml")
    assert (code, "name a file of tasks, such as tasks.json" in complaint) == (2, True)
    assert not (tmp_path / "tasks.xml").exists()
