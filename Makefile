# Each target sets up .venv by itself. PYTHON chooses the interpreter (3.11 or 3.12), pip's own settings the index.
PYTHON ?= python3
BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt

.PHONY: report test test-slow test-ranks lint check mutate same gpu-check clean

report: .venv/.report
	$(BIN)/snakemake --cores 1 report/writeup.md all

test: lint
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# What takes longest, and would make everybody wait.
test-slow: .venv/.test
	$(BIN)/python -m pytest -n 2 --dist load -m slow

# Alone on the machine: these hold fourteen ranks at once to a deadline, or a run to three seconds.
test-ranks: .venv/.test
	$(BIN)/python -m pytest -m ranks

check: lint
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/workflow/test_lint.py

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

# Takes out one safeguard at a time, in a copy, and fails unless a test turns red each time.
mutate: .venv/.test
	$(BIN)/python tests/mutate.py

# The same cells twice, each in five processes, in turn; fails if a difference is found. Alone on the machine.
same: .venv/.report
	$(BIN)/snakemake --cores 1 --configfile tests/same_against_same.yaml -- end_to_end
	$(BIN)/python tests/same_against_same.py

# Installs nothing: a GPU box may not be able to download. Without .venv, PYTHON is what holds torch and triton.
gpu-check:
	PYTHONPATH=src $(or $(wildcard $(BIN)/python),$(PYTHON)) -m stepbench.cli.gpu_check

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .snakemake .stepbench

.venv/.report: $(INPUTS)
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 13) else "make: PYTHON must be 3.11 or 3.12, got " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.test: .venv/.report
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
