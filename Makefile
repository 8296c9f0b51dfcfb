# `make help` says what there is. Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=
RIVALS := .venv-rivals

.DEFAULT_GOAL := help
.PHONY: help setup extras lock run test test-slow test-gpu mutants soak check audit format bench wheels docs clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## Make the virtual environment and install solar in it

# Every package by version and hash; `make lock` writes the files. setuptools comes first, so that no build fetches a tool.
# Of torch, pip downloads the build that this machine prefers, which may be one for CPUs; then its hash is checked, too.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation
HASHED := $(PIP) --require-hashes --requirement
locked  = sed -n '/^$(1)==/,/[^\\]$$/p' constraints.txt > $(VENV)/$(1).txt
$(READY): pyproject.toml constraints.txt constraints-cuda.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; use make PYTHON=python3.11 setup" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (two to five minutes the first time)"
	@$(call locked,setuptools) && $(HASHED) $(VENV)/setuptools.txt
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(VENV)/torch \
		"$$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' constraints.txt)"
	@$(call locked,torch) && $(HASHED) $(VENV)/torch.txt --no-index --find-links $(VENV)/torch && rm -r $(VENV)/torch
	@$(HASHED) constraints.txt
	@if $(BIN)/python -c 'import importlib.metadata as m; exit("nvidia" not in str(m.requires("torch")))'; then \
		$(HASHED) constraints-cuda.txt; fi
	@$(PIP) --editable .
	@touch $(READY)

extras: $(READY) ## Install what all extras need: evaluation harness, sweeps, liger, float8
	@$(HASHED) constraints-extras.txt

lock: ## Write the locks after a change of dependencies; ARGS=--upgrade takes the newest versions
	@$(PYTHON) .ci/lock $(ARGS)

run: $(READY) ## Run an experiment: make run ARGS="+experiment=quickstart"
	@$(BIN)/python -m solar.run $(ARGS)

test: $(READY) ## Run the tests (the quick ones)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto $(ARGS)

test-slow: $(READY) ## Run the long tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n auto --dist worksteal --durations 10 $(ARGS)

test-gpu: $(READY) ## Run the tests that need a GPU
	@$(BIN)/python -m pytest -q -m gpu -rs tests $(ARGS)

mutants: $(READY) ## Break solar on purpose and see the tests find each fault: make mutants ARGS="'hash not checked'"
	@$(BIN)/python -m tests.mutants.run $(ARGS)

soak: $(READY) ## Run tiny quickstarts under faults for half an hour; ARGS="--minutes 30 --seed 1 --log soak.jsonl"
	@$(BIN)/python -m tests.faults.soak $(ARGS)

check: $(READY) audit ## Format, lint, types and advisories, without changing anything
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy

audit: $(READY) ## Look every locked package up in the advisories, where they can be reached
	@$(BIN)/python .ci/audit

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

WHEELS ?= wheels
wheels: ## Fetch what a machine with a GPU and no network may lack, for this Python and system, into WHEELS
	@$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(WHEELS) --requirement benchmarks/wheels.txt

docs: $(READY) ## Write docs/configuration.md from the dataclasses and docs/reliability.md from the tests
	@$(BIN)/python -m solar.config.document > docs/configuration.md && echo "wrote docs/configuration.md"
	@$(BIN)/python -m tests.reliability.document > docs/reliability.md && echo "wrote docs/reliability.md"

clean: ## Remove the virtual environment and caches; outputs stay
	@rm -rf $(VENV) $(RIVALS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
