"""A task computes on the GPU that Spark gave it and on no other, and of a shared one it takes its share only."""

from types import SimpleNamespace

import pytest

from quality_judge.errors import CheckFailed, ConfigError
from quality_judge.spark.device import memory_share, task_device, task_gpus
from quality_judge.spark.stage import stage_gpus

ON = {"local": "local[4]", "cluster": "spark://host:7077", "processes": "local-cluster[2,1,1024]"}


@pytest.fixture
def task(monkeypatch):
    """A function that puts this process into a task: the addresses it was given, the names it sees GPUs under."""

    def put(given=None, visible="", *, partition=0, where="cluster", said=None):
        resources = {} if given is None else {"gpu": SimpleNamespace(addresses=given)}
        properties = {"spark.master": ON[where], "spark.task.resource.gpu.amount": said}
        running = SimpleNamespace(
            resources=lambda: resources, partitionId=lambda: partition, getLocalProperty=properties.get
        )
        monkeypatch.setattr("quality_judge.spark.device.TaskContext", SimpleNamespace(get=lambda: running))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return put


@pytest.mark.parametrize(
    ("gpus", "given", "visible", "expected"),
    [
        (4, ["3"], "", "cuda:3"),
        (4, ["2", "3"], "", "cuda:2"),
        (2, ["3"], "2,3", "cuda:1"),
        (2, ["3"], " 2, 3 ", "cuda:1"),
        (2, ["GPU-8932f937-d72c"], "GPU-11111111,GPU-8932f937", "cuda:1"),
        (2, ["MIG-0"], "MIG-1,MIG-0", "cuda:1"),
        (1, ["3"], "", "cuda:0"),  # a container that numbers its only GPU anew
        (1, ["MIG-0"], "", "cuda:0"),
        (1, ["MIG-0"], "0", "cuda:0"),
        (1, ["0"], "GPU-8932f937", "cuda:0"),
        (1, ["MIG-0"], "MIG-0", "cuda:0"),
    ],
)
def test_a_task_gets_the_gpu_that_spark_gave_it(task, gpus, given, visible, expected):
    task(given, visible)
    assert task_device(gpus) == expected


@pytest.mark.parametrize(
    ("gpus", "given", "visible"),
    [
        (0, ["3"], ""),
        (2, ["3"], ""),
        (2, ["0"], "2,3"),
        (1, ["0"], "3"),
        (2, ["GPU-8932f937"], ""),
        (1, ["GPU-8932f937"], "GPU-11111111"),
        (1, ["3"], "2,3"),  # the second name is not there
    ],
)
def test_an_address_that_none_of_its_gpus_goes_by_ends_the_task_and_says_what_to_do(task, gpus, given, visible):
    task(given, visible)
    with pytest.raises(CheckFailed) as refused:
        task_device(gpus)
    for said in (given[0], f"sees {gpus}", visible.replace(",", ", "), "discovery script", "QUALITY_JUDGE_DEVICE cpu"):
        assert said in str(refused.value)


@pytest.mark.parametrize(
    ("where", "gpus", "partition", "expected"),
    [
        ("local", 2, 5, "cuda:1"),
        ("local", 0, 5, "cpu"),
        ("cluster", 2, 5, "cpu"),
        ("cluster", 0, 5, "cpu"),
        ("processes", 2, 5, "cpu"),
    ],
)
def test_without_an_address_gpus_are_taken_in_turn_on_a_local_master_and_never_on_a_cluster(
    task, where, gpus, partition, expected
):
    task(where=where, partition=partition)
    assert task_device(gpus) == expected


def test_the_cpu_is_used_in_place_of_a_gpu_only_when_the_environment_says_so(task, monkeypatch):
    task(["3"])
    monkeypatch.setenv("QUALITY_JUDGE_DEVICE", "cpu")
    assert task_device(4) == task_device(0) == "cpu"
    monkeypatch.setenv("QUALITY_JUDGE_DEVICE", "cuda:1")
    with pytest.raises(CheckFailed, match="cuda:1"):
        task_device(4)


def test_outside_of_a_task_the_first_gpu_is_used():
    assert (task_device(2), task_device(0)) == ("cuda:0", "cpu")


@pytest.mark.parametrize(
    ("amount", "processes"), [(None, None), (1.0, None), (0.75, None), (0.5, 2), (0.4, 2), (0.25, 4), (0.1, 10)]
)
def test_processes_on_one_gpu_take_equal_shares_of_its_memory_and_leave_some(amount, processes):
    share = memory_share(amount)
    assert (share is None) is (processes is None)
    if processes is not None:
        assert share * processes == pytest.approx(0.9)


def test_how_much_of_a_gpu_a_task_has_is_what_its_stage_asked_for_else_what_the_job_says(task):
    task(["0"], said="0.25")
    assert (task_gpus(None), task_gpus(0.5)) == (0.25, 0.5)
    task(None, said="0.25")
    assert task_gpus(None) is None


def session(master="spark://host:7077", **amounts):
    said = {f"spark.{who}.resource.gpu.amount": amount for who, amount in amounts.items()}
    return SimpleNamespace(conf=SimpleNamespace(get={"spark.master": master, **said}.get))


@pytest.mark.parametrize(
    ("amounts", "asked", "expected"),
    [
        ({}, None, None),
        ({"executor": "1"}, None, 1.0),
        ({"executor": "1", "task": "1"}, None, None),
        ({"executor": "1"}, 0, None),
        ({"executor": "1"}, 0.5, 0.5),
        ({"executor": "1", "task": "1"}, 0.25, 0.25),
    ],
)
def test_a_scoring_stage_asks_for_gpus_when_told_to_or_when_the_tasks_of_gpu_executors_do_not(amounts, asked, expected):
    assert stage_gpus(session(**amounts), asked) == expected


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        (session(executor="1"), 2.0, "expected 0"),
        (session(executor="1"), -0.5, "expected 0"),
        (session(), 0.5, "spark.executor.resource.gpu.amount 1"),
        (session("local[4]", executor="1"), 0.5, "--master"),
    ],
)
def test_what_no_stage_can_ask_for_is_refused_with_what_to_write(given, asked, said):
    with pytest.raises(ConfigError, match=said):
        stage_gpus(given, asked)
