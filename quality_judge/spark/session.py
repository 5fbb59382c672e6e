"""The Spark session of a programme: what it was submitted with, or this machine, with settings that lose nothing.

Only programmes call it; the library itself works on the session it is given. (driver)
"""

from __future__ import annotations

import os
import sys

from pyspark import SparkConf
from pyspark.sql import SparkSession

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
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -Dio.netty.tryReflectionSetAccessible=true",
}


def spark_session(name: str) -> SparkSession:
    """The running session, or a new one. What spark-submit or a properties file set always wins."""
    conf = SparkConf()
    settings = dict(SETTINGS)
    if not conf.contains("spark.master") and "SPARK_REMOTE" not in os.environ:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
        settings |= {"spark.master": LOCAL_MASTER, **LOCAL_SETTINGS}
    builder = SparkSession.builder.appName(name)
    for key, value in settings.items():
        if not conf.contains(key):
            builder = builder.config(key, value)
    return builder.getOrCreate()
