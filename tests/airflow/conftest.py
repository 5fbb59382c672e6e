"""An Airflow home of its own, before Airflow is first imported; nothing where Airflow is not installed."""

import atexit
import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version


def airflow_is_installed() -> bool:
    """By its distribution: this folder is called airflow too, and can pass for a package of that name."""
    try:
        return bool(version("apache-airflow"))
    except PackageNotFoundError:
        return False


if airflow_is_installed():
    home = tempfile.mkdtemp(prefix="quality-judge-airflow-tests-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(
        AIRFLOW_HOME=home,
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW_CONN_SPARK_DEFAULT='{"conn_type": "spark", "host": "local[1]", "extra": {"deploy-mode": "client"}}',
    )
