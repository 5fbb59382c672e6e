"""The Spark session of a programme: what it was submitted with, or this machine, with settings that lose nothing.

Only programmes call it; the library itself works on the session it is given. (driver)
"""

from __future__ import annotations

import os
import shlex
import sys
from itertools import pairwise
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from quality_judge.config import conf_folder
from quality_judge.spark.startup import startup_options

LOCAL_MASTER = "local[*,4]"  # four tries for each task: local[*] alone gives one
SETTINGS = {
    "spark.sql.execution.pyspark.udf.faulthandler.enabled": "true",
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "1",
    "spark.speculation": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
}
LOCAL_SETTINGS = {
    "spark.master": LOCAL_MASTER,
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
}
JAVA_OPTIONS = "-XX:+UseSerialGC -Dio.netty.tryReflectionSetAccessible=true"
DAEMON_SETTING, DAEMON = "spark.python.daemon.module", "quality_judge.spark_daemon"
PY_FILES = "spark.submit.pyFiles"  # they reach a worker after its daemon has started
OPTIONS = {"--master": "spark.master", "--driver-memory": "spark.driver.memory", "--py-files": PY_FILES}
PROPERTIES_FILE = "--properties-file"
LOGGING_FILE = "spark/log4j2.properties"


def spark_session(name: str, *, scoring: bool = False) -> SparkSession:
    """The running session, or a new one. What spark-submit or a properties file set always wins.

    scoring: its Python workers share what scoring imports, unless the package itself comes to them with --py-files.
    """
    running = SparkSession.getActiveSession()
    if running is not None:
        return running
    given = given_settings()
    settings = dict(SETTINGS)
    if "spark.master" not in given and "SPARK_REMOTE" not in os.environ:
        settings |= local_settings()
    if scoring and PY_FILES not in given and "SPARK_REMOTE" not in os.environ:
        settings[DAEMON_SETTING] = DAEMON
    builder = SparkSession.builder.appName(name)
    for key, value in settings.items():
        if key not in given:
            builder = builder.config(key, value)
    return builder.getOrCreate()


def given_settings() -> set[str]:
    """The keys that spark-submit, PYSPARK_SUBMIT_ARGS or spark-defaults.conf set.

    Under spark-submit the JVM is there already and is asked; it must not be before, or driver memory comes too late.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        SparkContext._ensure_initialized()  # SparkConf() is empty without it, and ours would win
        return {key for key, _ in SparkConf().getAll()}
    arguments = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))
    words = [word.removeprefix("--conf=") for word in arguments]
    given = {word.partition("=")[0] for word in words if word.startswith("spark.")}
    options = {word.partition("=")[0] for word in arguments}
    named = [word for before, word in pairwise(arguments) if before == PROPERTIES_FILE]
    named += [word.partition("=")[2] for word in arguments if word.startswith(f"{PROPERTIES_FILE}=")]
    files = map(Path, named) if named else [_defaults_file()]  # with a file of their own Spark leaves the defaults out
    return given.union({key for option, key in OPTIONS.items() if option in options}, *map(_keys_in, files))


def local_settings() -> dict[str, str]:
    """Settings for this machine alone. Python workers run on this interpreter, and Java listens to no other machine."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    logging = conf_folder() / LOGGING_FILE
    quiet = f" -Dlog4j2.configurationFile={logging.as_uri()}" if logging.is_file() else ""
    options = f"{JAVA_OPTIONS}{quiet} {startup_options()}".strip()
    return LOCAL_SETTINGS | {"spark.driver.extraJavaOptions": options}


def _defaults_file() -> Path:
    folder = os.environ.get("SPARK_CONF_DIR") or os.path.join(os.environ.get("SPARK_HOME", ""), "conf")
    return Path(folder) / "spark-defaults.conf"


def _keys_in(file: Path) -> set[str]:
    """The keys of a properties file; none where it is not there."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {line.replace("=", " ").split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")}
