"""A small real judge, trained once, the texts it scores, and the programmes of jobs/ run in the tests' own session."""

import importlib.util
import itertools
import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LABELS_OF_EACH = 60
COPIES = itertools.count(1)
DEFAULTS = {
    "score_corpus": {
        "format": "parquet", "text_column": "text", "prompt_column": None, "max_bytes": None, "shards": None,
        "hang_seconds": None, "quarantine": False, "require_signature": None, "store": None, "cascade": None,
        "gpus_per_task": None,
    },
    "filter_corpus": {"judge": None, "text_column": None},
    "sample_for_labels": {
        "count": 20, "strategy": "uncertain", "stratum": None, "group_column": None, "seed": 0, "keep_at": None,
        "drop_below": None, "other": None, "labelled": None, "text_column": None, "prompt_column": None,
    },
}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Whatever asks for the session is marked."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)


def demo_lines(language):
    return (ROOT / "conf" / "demo" / f"labels.{language}.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def first_layer(tmp_path_factory, packaged_base):
    """A base of the first of six layers of the packaged one: what it gives is real, for a sixth of the products."""
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("first-layer")
    model = AutoModel.from_pretrained(packaged_base.folder, num_hidden_layers=1)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(packaged_base.folder / name, folder)
    return folder


@pytest.fixture(scope="session")
def fit_quickly(tmp_path_factory):
    """A function from a base to a judge on it, which stays frozen, trained on some of the demo labels."""
    from quality_judge.config import conf_folder, load_judge_config
    from quality_judge.labels import load_labels
    from quality_judge.train.fit import fit_judge
    from quality_judge.train.save import draft_judge

    def fit(base):
        folder = tmp_path_factory.mktemp("judge")
        lines = [line for language in ("en", "zh") for line in demo_lines(language)[:LABELS_OF_EACH]]
        (folder / "labels.jsonl").write_text("\n".join(lines), encoding="utf-8")
        quick = [f"base={base}", "train.method=frozen", "train.folds=2", "max_tokens=96"]
        config = load_judge_config(conf_folder() / "judges" / "demo.yaml", quick)
        labels = load_labels([str(folder / "labels.jsonl")])
        return draft_judge(folder, fit_judge(labels, config), config, labels)

    return fit


@pytest.fixture(scope="session")
def judge(fit_quickly, first_layer):
    return fit_quickly(first_layer)


@pytest.fixture
def other_judge(judge, tmp_path):
    """A copy of the judge with a fingerprint of its own, so that no worker process has it loaded."""
    from quality_judge.judge import save_judge

    stack = judge.spec.stack.model_copy(update={"bias": judge.spec.stack.bias + 1e-9 * next(COPIES)})
    files = {name: judge.path(name) for name in judge.spec.files}
    return save_judge(tmp_path / "other", judge.spec.model_copy(update={"stack": stack}), files)


@pytest.fixture(scope="session")
def scorer(judge):
    from quality_judge.engine.scorer import load_scorer

    return load_scorer(judge, threads=1)


@pytest.fixture(scope="session")
def texts():
    """500 texts of many lengths, among them some that cannot be scored."""
    found = [json.loads(line)["completion"] for language in ("en", "zh") for line in demo_lines(language)]
    odd = [
        None,
        "",
        " \t\n",
        "\x00\x01\x02\x03",
        "a",
        "word " * 3000,
        b"caf\xe9 is not UTF-8, and a long enough text",
        "</s> [SEP]",
    ]
    return odd + found[: 500 - len(odd)]


@pytest.fixture
def run_job(spark, capsys):
    """A function from a programme's name and options to (exit code, its last line parsed, all it printed)."""
    from quality_judge.programme import run

    def call(name, **options):
        filled = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
        main = programme(name).main
        with pytest.raises(SystemExit) as stopped:
            run(lambda: main(Namespace(**DEFAULTS[name] | filled)))
        said = capsys.readouterr()
        return stopped.value.code, json.loads(said.out.splitlines()[-1]), said.out + said.err

    return call


def programme(name):
    spec = importlib.util.spec_from_file_location(f"job_{name}", ROOT / "jobs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def python_evaluations(spark):
    """A function that gives, for each query run since the test began, the rows of each of its Python evaluations."""
    store = spark._jsparkSession.sharedState().statusStore()

    def kept():
        """The last thousand or so: Spark forgets the rest, so that only ids tell old from new."""
        spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
        executions = store.executionsList()
        return [executions.apply(i) for i in range(executions.size())]

    before = max((execution.executionId() for execution in kept()), default=-1)

    def since():
        found = []
        for execution in [execution for execution in kept() if execution.executionId() > before]:
            nodes, values = (
                store.planGraph(execution.executionId()).allNodes(),
                store.executionMetrics(execution.executionId()),
            )
            rows = [_rows_of(nodes.apply(i), values) for i in range(nodes.size()) if "Python" in nodes.apply(i).name()]
            found += [rows] if rows else []
        return found

    return since


def _rows_of(node, values):
    metrics = [node.metrics().apply(i) for i in range(node.metrics().size())]
    (rows,) = [metric for metric in metrics if metric.name() == "number of output rows"]
    return int(values.get(rows.accumulatorId()).get().replace(",", ""))
