"""The doctor names each unsafe setting, that one only, and finds no error in the settings we ship."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quality_judge.cli import app
from quality_judge.doctor import both_installed, check_settings, read_properties
from quality_judge.errors import ConfigError

SPARK = Path(__file__).resolve().parents[1] / "conf" / "spark"
SAFE = read_properties(SPARK / "secure.conf")
COMMITTER = "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version"
INSECURE = {
    "spark.authenticate": {"spark.authenticate": "false"},
    "spark.network.crypto.enabled": {"spark.network.crypto.enabled": "false"},
    "spark.network.crypto.cipher": {"spark.network.crypto.cipher": "AES/CTR/NoPadding"},
    "spark.io.encryption.enabled": {"spark.io.encryption.enabled": "false"},
    "spark.acls.enable": {"spark.acls.enable": "false"},
    "spark.eventLog.dir": {"spark.eventLog.enabled": "true"},
    "spark.redaction.regex": {"spark.redaction.regex": "nothing"},
    "spark.authenticate.secret": {"spark.authenticate.secret": "canary-5521"},
}
WRONG = {
    "spark.sql.files.ignoreCorruptFiles": {"spark.sql.files.ignoreCorruptFiles": "true"},
    "spark.sql.files.ignoreMissingFiles": {"spark.sql.files.ignoreMissingFiles": "true"},
    "spark.speculation": {"spark.speculation": "true"},
    COMMITTER: {COMMITTER: "2"},
    "spark.task.maxFailures": {"spark.task.maxFailures": "1"},
    "spark.executor.pyspark.memory": {"spark.executor.pyspark.memory": "2g"},
    "spark.master": {"spark.master": "local[4]", "spark.task.resource.gpu.amount": "1"},
    "spark.executor.resource.gpu.amount": {"spark.executor.resource.gpu.amount": "2"},
    "spark.python.worker.reuse": {"spark.python.worker.reuse": "false"},
    "spark.sql.execution.arrow.pyspark.enabled": {"spark.sql.execution.arrow.pyspark.enabled": "false"},
}


def test_safe_settings_have_no_finding():
    assert check_settings(SAFE) == []


@pytest.mark.parametrize("rule", [*INSECURE, *WRONG])
def test_one_wrong_setting_is_one_finding(rule):
    found = check_settings(SAFE | (INSECURE | WRONG)[rule])
    assert [item.rule for item in found] == [rule]
    assert rule in WRONG or found[0].severity == "error"
    assert "canary-5521" not in repr(found)


@pytest.mark.parametrize("path", sorted(SPARK.glob("*.conf")), ids=lambda path: path.name)
def test_shipped_settings_have_no_error(path):
    assert not [item for item in check_settings(read_properties(path)) if item.severity == "error"]


def test_the_command_fails_on_an_error_and_ends_with_json(tmp_path):
    file = tmp_path / "设置.conf"
    file.write_text("spark.speculation=true\n# spark.authenticate false\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["doctor", "--properties-file", str(file)])
    assert result.exit_code == 1
    assert "spark.speculation" in json.loads(result.output.splitlines()[-1])["rules"]


def test_both_packages_of_spark_are_seen():
    assert both_installed({"pyspark", "pyspark_client"})
    assert not both_installed({"pyspark", "numpy"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.conf"):
        read_properties(tmp_path / "none.conf")
