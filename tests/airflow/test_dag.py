"""The DAG and its operators against the programmes they start. Most of it needs no Airflow: it reads the source."""

import ast
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = ROOT / "quality_judge" / "airflow" / "operators.py"
DAG_FILE = ROOT / "jobs" / "dags" / "quality_judge_dag.py"
PROGRAMMES = {
    "TrainJudge": "training/train_judge.py",
    "ScoreCorpus": "jobs/score_corpus.py",
    "ValidateCorpus": "jobs/validate_corpus.py",
    "FilterCorpus": "jobs/filter_corpus.py",
    "SampleForLabels": "jobs/sample_for_labels.py",
}
CONTRACT = {
    "TrainJudge": {"--config", "--labels", "--test-labels", "--unlabelled", "--output", "--set"},
    "ScoreCorpus": {"--judge", "--input", "--output", "--format", "--text-column", "--prompt-column"},
    "ValidateCorpus": {"--scored", "--suite", "--output"},
    "FilterCorpus": {"--scored", "--policy", "--output"},
    "SampleForLabels": {"--scored", "--count", "--strategy", "--output"},
}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def operator_classes():
    return {node.name: node for node in tree(OPERATORS).body if isinstance(node, ast.ClassDef)}


def flags_of(node):
    """The options named in an operator's `arguments`."""
    method = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "arguments")
    strings = (item.value for item in ast.walk(method) if isinstance(item, ast.Constant))
    return {value for value in strings if isinstance(value, str) and value.startswith("--")}


def parameters_of(name):
    """What an operator takes by name, with what its bases in the same file take."""
    classes, found = operator_classes(), set()
    while name in classes:
        method = next(item for item in classes[name].body if getattr(item, "name", "") == "__init__")
        found |= {argument.arg for argument in method.args.kwonlyargs}
        name = classes[name].bases[0].id
    return found


def options_of(path):
    """What a programme's parser takes: option → required or not."""
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    added = [call for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    assert added, f"{path.name} adds no argument of its own"
    return {
        name.value: any(keyword.arg == "required" and keyword.value.value is True for keyword in call.keywords)
        for call in added
        for name in call.args
    }


@pytest.mark.parametrize(
    "path", [OPERATORS, DAG_FILE, *sorted(OPERATORS.parent.glob("*.py"))], ids=lambda path: path.name
)
def test_every_airflow_file_compiles_and_opens_with_what_it_is(path):
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    assert isinstance(code.co_consts[0], str), f"{path.name} has no docstring"


@pytest.mark.parametrize("operator", CONTRACT)
def test_an_operator_names_exactly_the_options_of_the_contract(operator):
    assert flags_of(operator_classes()[operator]) == CONTRACT[operator]


@pytest.mark.parametrize("operator", CONTRACT)
def test_a_programme_takes_every_option_its_operator_gives_and_needs_no_other(operator):
    options = options_of(ROOT / PROGRAMMES[operator])
    assert CONTRACT[operator] <= set(options)
    assert {name for name, required in options.items() if required} <= CONTRACT[operator]


@pytest.mark.parametrize("operator", CONTRACT)
def test_an_operator_starts_the_programme_it_is_named_for(operator):
    names = {
        getattr(item, "target", None) or item.targets[0]: item.value
        for item in operator_classes()[operator].body
        if isinstance(item, (ast.Assign, ast.AnnAssign)) and item.value is not None
    }
    programme = next(value.value for target, value in names.items() if target.id == "programme")
    assert programme == Path(PROGRAMMES[operator]).name


def test_every_argument_in_the_dag_is_one_its_operator_takes():
    calls = [node for node in ast.walk(tree(DAG_FILE)) if isinstance(node, ast.Call)]
    tasks = [call for call in calls if getattr(call.func, "id", "") in CONTRACT]
    assert [call.func.id for call in tasks] == ["TrainJudge", "ScoreCorpus", "ValidateCorpus", "FilterCorpus"]
    for call in tasks:
        given = {keyword.arg for keyword in call.keywords if keyword.arg} - {"task_id"}
        assert given <= parameters_of(call.func.id), call.func.id


@pytest.mark.parametrize(("file", "home"), [("/dags/d.py", "/"), ("/d.py", "/"), ("/srv/qj/jobs/dags/d.py", "/srv/qj")])
def test_the_dag_is_imported_from_a_folder_of_any_depth(file, home):
    calls = [node for node in ast.walk(tree(DAG_FILE)) if isinstance(node, ast.Call)]
    (asked,) = [call for call in calls if getattr(call.func, "id", "") == "deployed" and call.args[0].value == "home"]
    default = compile(ast.Expression(asked.args[1]), str(DAG_FILE), "eval")
    assert eval(default, {"Path": Path, "__file__": file}) == home


def test_parsing_a_dag_imports_only_airflow_and_the_standard_library():
    allowed = {*sys.stdlib_module_names, "airflow", "quality_judge"}
    for path in (DAG_FILE, *OPERATORS.parent.glob("*.py"), ROOT / "quality_judge" / "errors.py"):
        for node in ast.walk(tree(path)):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= allowed, path
            ours = {name for name in names if name.startswith("quality_judge.")}
            assert all(name.startswith(("quality_judge.airflow", "quality_judge.errors")) for name in ours), path


def load_dag():
    # "airflow" itself would be found even without Airflow: this folder has that name.
    dagbag = pytest.importorskip("airflow.dag_processing.dagbag", reason="Airflow is not installed; see `make airflow`")
    bag = dagbag.DagBag(dag_folder=str(DAG_FILE))
    assert bag.import_errors == {}
    return bag.dags["quality_judge"]


def test_the_filter_waits_for_the_gate_and_for_nothing_else():
    dag = load_dag()
    upstream = {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}
    assert upstream == {"train": set(), "score": {"train"}, "validate": {"score"}, "filter": {"validate"}}
    assert {task.trigger_rule.value for task in dag.tasks} == {"all_success"}


@pytest.mark.parametrize("value", ["", "--set", " x", "labels.jsonl\n--set"])
def test_a_run_without_labels_or_with_an_option_for_a_path_is_refused(value):
    labels = load_dag().params.get_param("labels")
    with pytest.raises(ValueError, match="does not match"):
        labels.resolve(value)
    assert labels.resolve("a.jsonl\nb.jsonl\n") == "a.jsonl\nb.jsonl\n"


def test_importing_a_dag_leaves_the_heavy_packages_alone():
    load_dag()
    assert not {"torch", "pyspark", "transformers", "pandas"} & set(sys.modules)


def test_the_provider_info_fits_the_schema_of_airflow():
    pytest.importorskip("airflow.sdk", reason="Airflow is not installed; see `make airflow`")
    import airflow
    import jsonschema

    from quality_judge.airflow.provider import get_provider_info

    schema = Path(airflow.__file__).parent / "provider_info.schema.json"
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(get_provider_info())] == []
    assert list(validator.iter_errors({**get_provider_info(), "operators": "none"})), "the schema refuses nothing"
