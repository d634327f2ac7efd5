# `make demo` and `make test` need Python 3.11 or newer and make; the rest is installed into .venv.

PYTHON ?= python3
# Anything pip should be told. PyTorch is only needed by the tests; its CPU build is much smaller:
#   make test PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
PYTEST_WORKERS ?= 2

BIN := .venv/bin
VENV := .venv/.created
INSTALLED := .venv/.installed
INSTALLED_TEST := .venv/.installed-test

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-base test test-full lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## run the whole TPO loop on small synthetic videos
	$(BIN)/tpo demo

demo-base: $(INSTALLED) ## train the small base model that the demo starts from
	$(BIN)/tpo demo-base

test: lint ## check formatting, lint and types, then run the quick tests
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile -m "not slow"

test-full: lint ## the same with the slow tests
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile

lint: $(INSTALLED_TEST) ## check formatting, lint and types only
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean: ## remove .venv and everything that tools left behind
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV):
	@command -v $(PYTHON) > /dev/null || { \
	  echo "$(PYTHON) was not found; name a Python 3.11 or newer: make PYTHON=/path/to/python"; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but tpo_jax needs Python 3.11 or newer;" \
	       "name one: make PYTHON=python3.12"; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# The stamps depend on what pip reads, so that an edit of a source file installs nothing again.
$(INSTALLED): $(VENV) setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e .
	@touch $@

$(INSTALLED_TEST): $(VENV) setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e ".[test]"
	@touch $@ $(INSTALLED)
