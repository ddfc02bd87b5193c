# `make` lists the commands. Each installs what it needs: python3 (3.11 or newer), make and a package index are required.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
JOBS   ?= 2
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UNITS  := analysis artifacts backbones config core data io layers losses metrics objectives results runtime sampling tokenizers

.DEFAULT_GOAL := help
.PHONY: help setup train matrix leaderboard test test-unit test-all test-faults test-gpu test-wheel lint format types docs docs-serve lock release clean

help:  ## List the commands
	@grep -hE '^[a-z-]+: *.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY)  ## Create .venv and install all packages for training and tests

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"ldbench needs Python 3.11 or newer, and $(PYTHON) is {v[0]}.{v[1]}. Give another one: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Setting up $(VENV): about 6 GB of packages, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'
	@$(BIN)/python -m compileall -q src  # with PYTHONDONTWRITEBYTECODE every process would compile again
	@touch $(READY)

train: $(READY)  ## Train VMAE on real digits and measure it (ARGS="tokenizer.seed=1 ..." adds overrides)
	@$(BIN)/python -m ldbench.train tokenizer=vmae $(ARGS)

matrix: $(READY)  ## Train 3 tokenizers x 3 generators on real digits in JOBS processes, then the leaderboard (ARGS="seed=0,1,2 ..." adds overrides)
	@$(BIN)/python -m ldbench.train experiments=matrix_digits hydra.launcher.jobs=$(JOBS) $(ARGS)
	@$(BIN)/python -m ldbench.leaderboard

test: $(READY)  ## Run the default test suite in JOBS processes, default 2 (ARGS="-k name" selects tests)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

test-unit: $(READY)  ## Run the tests of single parts, which train nothing: layers, objectives, sampling, configs, metrics, artifacts, records
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not trains" \
		$(addprefix tests/,$(UNITS)) tests/test_architecture.py $(ARGS)

test-all: $(READY)  ## Run all tests, including the slow ones, with all cases of tests that run a share of them by default
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not faults" $(ARGS) || [ $$? -eq 5 ]  # 5: ARGS select none
	@$(BIN)/python -m pytest -n0 -m faults tests/faults $(ARGS) || [ $$? -eq 5 ]  # these fork, see docs/architecture.md

test-faults: $(READY)  ## Kill stages at random, fill the disk, truncate checkpoints, run concurrently; prints a table
	@$(BIN)/python -m pytest -n0 -m faults tests/faults $(ARGS)

test-gpu: $(READY)  ## Run the GPU tests, which the other commands skip
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "gpu and not slow" tests/gpu tests/analysis/gmm/test_em.py $(ARGS)

test-wheel: $(READY)  ## Install the wheel into an empty environment and train with it
	@$(BIN)/python -m pytest tests/test_package.py

lint: $(READY)  ## Check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(READY)  ## Format the code
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

types: $(READY)  ## Check types
	@$(BIN)/mypy

docs: $(READY)  ## Build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "Open site/index.html; make docs-serve shows it with its search."

docs-serve: $(READY)  ## Serve the site on this machine, built anew when a page changes
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

lock: $(READY)  ## Update requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate \
		--extra dev --extra notebooks pyproject.toml -o requirements.lock

release: $(READY)  ## Build wheel and sdist into dist/, check them and try the wheel on every Python that is here
	@BIN=$(BIN) .ci/release

leaderboard: $(READY)  ## Write tables of all records and leaderboard.html (ARGS="merge=DIR ..." adds overrides)
	@$(BIN)/python -m ldbench.leaderboard $(ARGS)

clean:  ## Remove .venv, caches and the built site; artifacts, records and runs stay
	@rm -rf $(VENV) site .pytest_cache .ruff_cache .mypy_cache .hypothesis
