"""Each unsafe setting is found, by its name and with the line to write; what we ship has none."""

import json

import pytest
from typer.testing import CliRunner

from quality_judge.cli import app
from quality_judge.config import conf_folder
from quality_judge.errors import ConfigError
from quality_judge.spark.doctor import RULES, examine, examine_machine, read_properties

SAFE_CLUSTER = {
    "spark.master": "yarn", "spark.authenticate": "true", "spark.network.crypto.enabled": "true",
    "spark.io.encryption.enabled": "true", "spark.acls.enable": "true",
    "spark.sql.redaction.string.regex": "(?i)hf_[a-z0-9]+", "spark.python.worker.faulthandler.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}  # fmt: skip
UNSAFE = {
    "spark.sql.files.ignoreCorruptFiles": "true", "spark.sql.files.ignoreMissingFiles": "TRUE",
    "spark.speculation": "true", "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "2",
    "spark.executor.pyspark.memory": "2g", "spark.sql.execution.pyspark.udf.killOnIdleTimeout": "true",
    "spark.task.maxFailures": "1", "spark.executor.resource.gpu.amount": "4", "spark.authenticate": "false",
    "spark.network.crypto.enabled": "false", "spark.io.encryption.enabled": "false", "spark.acls.enable": "false",
    "spark.redaction.regex": "nothing", "spark.sql.redaction.string.regex": "",
    "spark.sql.execution.arrow.pyspark.enabled": "false", "spark.python.worker.reuse": "false",
    "spark.python.worker.faulthandler.enabled": "false",
}  # fmt: skip


def names(settings):
    return {finding.name for finding in examine(settings)}


def test_a_safe_cluster_has_no_finding():
    assert examine(SAFE_CLUSTER) == ()


@pytest.mark.parametrize("key", UNSAFE)
def test_an_unsafe_setting_is_found_alone_with_the_line_to_write(key):
    gpu = {"spark.python.factory.idleWorkerMaxPoolSize": "1"} if ".gpu." in key else {}
    (finding,) = examine(SAFE_CLUSTER | gpu | {key: UNSAFE[key]})
    assert (finding.name, finding.got) == (key, UNSAFE[key])
    assert key in finding.line
    assert examine(SAFE_CLUSTER | gpu | dict([finding.line.split(" ", 1)])) == () or finding.line.startswith("remove")


def test_a_cluster_without_any_protection_is_told_of_each():
    bare = names({"spark.master": "spark://host:7077"})
    assert {
        "spark.authenticate",
        "spark.network.crypto.enabled",
        "spark.io.encryption.enabled",
        "spark.acls.enable",
    } < bare
    assert "spark.authenticate" not in names({"spark.master": "local[2]"})


def test_gpus_on_a_local_master_and_a_pool_of_idle_workers_are_found():
    settings = {"spark.master": "local[4]", "spark.task.resource.gpu.amount": "1"}
    assert {"spark.task.resource.gpu.amount", "spark.python.factory.idleWorkerMaxPoolSize"} <= names(settings)


def test_every_rule_can_fire():
    assert {rule.key for rule in RULES} <= {*UNSAFE, "spark.task.resource.gpu.amount",
                                            "spark.python.factory.idleWorkerMaxPoolSize"}  # fmt: skip


@pytest.mark.parametrize("file", sorted((conf_folder() / "spark").glob("*.conf")), ids=lambda file: file.name)
def test_the_settings_we_ship_have_no_error(file):
    assert [finding.name for finding in examine(read_properties(file)) if finding.severity == "error"] == []


def test_the_command_ends_with_its_findings_and_1_for_an_error(tmp_path):
    (tmp_path / "bad.conf").write_text("spark.speculation true\n# a comment\nspark.task.maxFailures=1\n")
    done = CliRunner().invoke(app, ["doctor", "--properties-file", str(tmp_path / "bad.conf")])
    said = json.loads(done.output.splitlines()[-1])
    assert (done.exit_code, said["ok"], said["errors"]) == (1, False, 2)
    assert "spark.speculation false" in done.output
    safe = [f"--conf={key}={value}" for key, value in SAFE_CLUSTER.items()]
    assert CliRunner().invoke(app, ["doctor", *safe]).exit_code == 0


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="name a properties file"):
        read_properties(tmp_path / "none.conf")


def test_this_machine_is_fit():
    assert [finding.name for finding in examine_machine() if finding.severity == "error"] == []
