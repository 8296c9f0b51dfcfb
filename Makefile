# `make help` says what there is. Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=
RIVALS := .venv-rivals

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-gpu check format bench docs clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## Make the virtual environment and install solar in it

# torch first and by exact version: an open range would bring gigabytes of GPU libraries.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; use make PYTHON=python3.11 setup" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about two minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

run: $(READY) ## Run an experiment: make run ARGS="+experiment=quickstart"
	@$(BIN)/python -m solar.run $(ARGS)

test: $(READY) ## Run the tests (the quick ones)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto $(ARGS)

test-slow: $(READY) ## Run the long tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n auto --dist worksteal --durations 10 $(ARGS)

test-gpu: $(READY) ## Run the tests that need a GPU
	@$(BIN)/python -m pytest -q -m gpu -rs tests/network tests/training $(ARGS)

check: $(READY) ## Format, lint and types, without changing anything
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy

format: $(READY) ## Format the code
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

bench: $(READY) $(RIVALS)/.ready ## Measure speed against rivals (in an environment of their own) and limits, quickly
	@export SOLAR_RIVALS=$(CURDIR)/$(RIVALS)/bin/python SOLAR_MERGEKIT=$(CURDIR)/$(RIVALS)/bin/mergekit-yaml; \
	for bench in benchmarks/*.py; do echo "$$bench"; $(BIN)/python $$bench --quick || exit 1; done

$(RIVALS)/.ready:
	@$(PYTHON) -m venv $(RIVALS)
	@$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 \
		trl==1.16.0 peft==0.21.2 accelerate==1.15.0 mergekit==0.1.5
	@touch $@

docs: $(READY) ## Write docs/configuration.md from the dataclasses
	@$(BIN)/python -m solar.config.document > docs/configuration.md && echo "wrote docs/configuration.md"

clean: ## Remove the virtual environment and caches; outputs stay
	@rm -rf $(VENV) $(RIVALS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
