# `make` alone lists the targets. Everything is installed in .venv; PYTHON chooses the interpreter:
# make install PYTHON=python3.12. ARGS is passed on: make test ARGS=tests/model

PYTHON := python3
SHELL := /bin/sh
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q
ARGS :=
BENCHMARKS := train_vs_transformers second_start start_time shift_windows

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-all check bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

install: .venv/.installed ## create .venv with t5smith in it: .venv/bin/t5smith

demo: install ## train a tiny Norwegian T5 from the bundled text, all stages
	$(BIN)/t5smith run norwegian-tiny $(ARGS)

test: .venv/.installed-test ## run all tests except the slow ones
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" $(ARGS)

test-all: .venv/.installed-test .venv/.installed-runtimes .venv4/.installed ## run all tests
	EXAMPLES=all $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: .venv/.installed-test ## check format, lint, types and references in documents
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/pyright
	$(BIN)/python -m pytest -p no:xdist -p no:cacheprovider tests/test_docs.py

bench: .venv/.installed-test ## run the benchmarks named in BENCHMARKS; benchmarks/gpu.py is for a GPU
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

lock: .venv/.installed ## resolve pyproject.toml again and write requirements/*.txt
	$(BIN)/python tools/lock.py

clean: ## remove the environment and all caches; keep runs/
	rm -rf .venv .venv4 .cache .pytest_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The locked versions first, then t5smith itself, built with the locked build tools.
.venv/.installed: requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "t5smith needs Python 3.11 or newer with its venv module; \
	$(PYTHON) is not: make install PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements/lock.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/.installed-test: .venv/.installed requirements/test.lock.txt
	$(PIP) -r requirements/test.lock.txt
	@touch $@

# What runs exported models, for tests of test-all.
.venv/.installed-runtimes: .venv/.installed-test requirements/runtimes.txt
	$(PIP) -c requirements/test.lock.txt -r requirements/runtimes.txt
	@touch $@

# transformers 4.57 beside 5, for some tests.
.venv4/.installed: requirements/transformers4.txt
	$(PYTHON) -m venv .venv4
	.venv4/bin/python -m pip --disable-pip-version-check install -q -r requirements/transformers4.txt
	@touch $@
