# Every target does its own set-up: a fresh machine needs python3 >= 3.11 with venv, and make.
#
#   make demo                 the quickstart example, on real input
#   make test [ARGS="-k x"]   all tests, on all cores; JOBS= runs them one after the other
#   make check                lint, types, floors, change notes, docs
#   make test-all             all tests on every Python 3.11 - 3.13 found
#   make bench | docs | changelog VERSION=x.y.z | clean

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
# Tests run side by side, one process per core, at most four: more would only wait for one another.
JOBS   ?= -n logical --maxprocesses 4 --dist worksteal

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE  := $(wildcard src tests examples benchmarks tools docs/conf.py)

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types floors fragments docs test-all bench changelog format clean

help:
	@sed -n 's/^#   //p' Makefile

# One install per version of pyproject.toml.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "procession needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || echo missing)."; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module (on Debian and Ubuntu: apt install python3-venv)."; exit 1; } >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/quickstart.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(JOBS) $(ARGS)

check: lint types floors fragments docs
	@echo "check: all passed"

lint: $(STAMP)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(STAMP)
	$(BIN)/mypy $(CODE)
	PATH="$(abspath $(BIN)):$$PATH" basedpyright --verifytypes procession --ignoreexternal

floors: $(STAMP)
	$(BIN)/lint-imports

fragments: $(STAMP)
	$(BIN)/python tools/changes.py

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

test-all:
	@PYTHON="$(PYTHON)" ARGS="$(ARGS)" MAKE="$(MAKE)" sh tools/test-all.sh

bench: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@for file in benchmarks/[a-z]*.py; do echo "==> $$file"; $(BIN)/python "$$file" $(ARGS) || exit 1; done

changelog: $(STAMP)
	@test -n "$(VERSION)" || { echo "usage: make changelog VERSION=x.y.z"; exit 2; } >&2
	$(BIN)/towncrier build --yes --version "$(VERSION)"

format: $(STAMP)
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean:
	rm -rf $(VENV) .venv-3.* build dist docs/_build out .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  .import_linter_cache .coverage .coverage.* htmlcov timeline.html timeline.json trace.json
	find src tests examples benchmarks docs tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
