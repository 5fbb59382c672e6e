"""What `airflow providers list` shows of this package. It knows nothing of the operators but where they are."""

from __future__ import annotations

from typing import Any

INTEGRATION = "quality-judge"


def get_provider_info() -> dict[str, Any]:
    """The description Airflow asks the `apache_airflow_provider` entry point for, in its provider_info schema."""
    return {
        "package-name": INTEGRATION,
        "name": INTEGRATION,
        "description": "Train a quality judge from expert labels; score, validate and filter a corpus with it.",
        "integrations": [{"integration-name": INTEGRATION, "tags": ["software"]}],
        "operators": [{"integration-name": INTEGRATION, "python-modules": ["quality_judge.airflow.operators"]}],
    }
