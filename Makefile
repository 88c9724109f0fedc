PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKED := src tests benchmarks docs
# one test process a core, one thread each: twice as fast as threads that fight for the cores
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist worksteal

help:  ## Show these lines
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.runtime  ## See it happen: train on made-up tissue and align unseen pairs
	$(BIN)/modalign demo --out demo_out

test: $(VENV)/.development  ## Run the tests
	$(PYTEST)

check: $(VENV)/.development  ## Everything that must hold before a commit: format, lint, types, architecture, tests
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: $(VENV)/.development  ## CPU time of the hot paths beside their peers (the studies of docs/results.md are in benchmarks/)
	$(ONE_THREAD) PYTHONPATH=benchmarks $(BIN)/python -m pytest benchmarks -o addopts= --benchmark-only \
		--benchmark-timer=cpu_time.seconds --benchmark-columns=median,min,rounds --benchmark-sort=name

docs: $(VENV)/.development  ## Make the figures of the documentation anew and run its examples
	$(BIN)/python docs/make_figures.py
	$(BIN)/python -m pytest tests/docs -m ""

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "modalign needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	@touch $@

$(VENV)/.development: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.runtime

.PHONY: help demo test check bench docs
