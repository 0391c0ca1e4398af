# Each target sets up .venv by itself. PYTHON chooses the interpreter (3.11 to 3.14), TORCH one of constraints/torch-*.txt,
# pip's own settings the index, SCALE the grids (gpu takes hours). CPU_INDEX is asked for torch first where there is no NVIDIA
# GPU; empty, it is not.
PYTHON ?= python3
TORCH ?= 2.13
CPU_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := .venv/bin
PINS := constraints/packages.txt constraints/torch-$(TORCH).txt
PIP := $(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(PINS))
REPORT := .venv/.report-$(TORCH)
TEST := .venv/.test-$(TORCH)
FAKE := .venv-fake-gpu/.torch-$(TORCH)

.PHONY: report sample test quick test-slow test-ranks test-slurm test-fake-gpu test-fake-gpu-reports test-fake-gpu-coverage lint check mutate same against-transformers gpu-check clean

# Where there is a GPU, a first report comes after some minutes; a cell that fails there ("-") does not keep the whole one back.
report: $(REPORT)
	-$(BIN)/snakemake --cores 1 $(if $(SCALE),--config scale=$(SCALE) --) first_report
	$(BIN)/snakemake --cores 1 $(if $(SCALE),--config scale=$(SCALE) --) report/writeup.md all

# The shapes of public leaderboards, beside their entries; without the devices what can be predicted. SCALE=gpu where there are some.
leaderboard-attention leaderboard-step: $(REPORT)
	$(BIN)/snakemake --cores 1 --configfile leaderboards/$(@:leaderboard-%=%).yaml $(if $(SCALE),--config scale=$(SCALE)) -- \
	  $(if $(@:leaderboard-attention=),fsdp,attention)

test: lint
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# What another Python, torch or Triton may break, in a few minutes.
quick: $(TEST)
	$(BIN)/python -m pytest -n 3 --dist loadfile $(addprefix tests/,kernels measure models data pipeline reporting test_versions.py test_installation.py)

# The longest tests.
test-slow: $(TEST)
	$(BIN)/python -m pytest -n 2 --dist load -m slow

# Alone on the machine: these hold fourteen ranks at once to a deadline, or a run to three seconds.
test-ranks: $(TEST)
	$(BIN)/python -m pytest -m ranks

# On pretended GPUs, of which sizes and calls are real and values and speeds are not: torch's CUDA build from PyPI (0.5 GB,
# without the libraries of NVIDIA that it asks for) beside .venv, and the headers of its CUDA.
test-fake-gpu: $(FAKE)
	$(BIN)/python -m pytest -n 2 --dist load -m 'fake_gpu and not slow' tests/fake_gpu

# The quick grid with its report on four pretended machines, about half an hour each on two cores.
test-fake-gpu-reports: $(FAKE)
	$(BIN)/python -m pytest -m 'fake_gpu and slow' tests/fake_gpu

# The share of the lines that only a device enters which the tests on pretended GPUs enter; fails below nine in ten.
test-fake-gpu-coverage: $(FAKE)
	.venv-fake-gpu/bin/python -m pip install --quiet --no-deps 'coverage>=7.10'
	rm -f .venv-fake-gpu/.coverage*
	COVERAGE_FILE=$(CURDIR)/.venv-fake-gpu/.coverage COVERAGE_PROCESS_START=$(CURDIR)/tests/fake_gpu/coverage.ini \
	  $(BIN)/python -m pytest -n 2 --dist load -m 'fake_gpu and not slow' tests/fake_gpu
	COVERAGE_FILE=.venv-fake-gpu/.coverage .venv-fake-gpu/bin/python -m coverage combine --quiet .venv-fake-gpu
	.venv-fake-gpu/bin/python tests/fake_gpu/device_lines.py .venv-fake-gpu/.coverage

$(FAKE): $(TEST)
	test -x .venv-fake-gpu/bin/python || $(BIN)/python -m venv .venv-fake-gpu
	@rm -f .venv-fake-gpu/.torch-*
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" > "$$(.venv-fake-gpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	.venv-fake-gpu/bin/python -m pip install --quiet --no-deps --ignore-installed $$(sed -n 's/^torch==/torch===/p' constraints/torch-$(TORCH).txt)
	.venv-fake-gpu/bin/python -m pip install --quiet --no-deps --upgrade --target .venv-fake-gpu/headers nvidia-cuda-runtime===13.0.96
	touch $@

# On Debian: apt install slurmctld slurmd slurm-client munge. Starts a cluster of three nodes on this host, and writes nothing outside of its folder.
test-slurm: $(TEST)
	$(PIP) --editable '.[slurm]'
	$(BIN)/python -m pytest -m slurm tests/slurm

check: lint
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/workflow/test_lint.py

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

# Renews docs/sample from the report that is there; needs Chromium.
sample: $(REPORT)
	$(BIN)/python docs/sample/renew.py

# Removes one safeguard at a time, in a copy, and fails unless a test fails each time.
mutate: $(TEST)
	$(BIN)/python tests/mutate.py

# The same cells twice, each in five processes, in turn; fails if a difference is found, or if a phase takes another time
# by itself than in a step. Alone on the machine.
same: $(REPORT)
	$(BIN)/snakemake --cores 1 --configfile tests/same_against_same.yaml --until measure_end_to_end measure_ceilings -- end_to_end
	$(BIN)/python tests/same_against_same.py

# The decoder's step against that of transformers' Llama, in turn; about half an hour, alone on the machine.
against-transformers: $(REPORT)
	PYTHONPATH=. $(BIN)/python tests/against_transformers.py

# Installs nothing: a GPU box may not be able to download. Without .venv, PYTHON is what holds torch and triton.
gpu-check:
	PYTHONPATH=src $(or $(wildcard $(BIN)/python),$(PYTHON)) -m stepbench.cli.gpu_check

clean:
	rm -rf .venv .venv-fake-gpu .mypy_cache .ruff_cache .pytest_cache .hypothesis .snakemake .stepbench

$(REPORT): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || { echo "make: stepbench needs Python 3.11 to 3.14, got \
	$$($(PYTHON) -V 2>/dev/null || echo no $(PYTHON)): install one (apt install python3-venv; brew install python; uv python install) and say make $(MAKECMDGOALS) PYTHON=its-path" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@rm -f .venv/.report-* .venv/.test-*
	@if test "$$(uname -s)" = Linux && test -n "$(CPU_INDEX)" && ! command -v nvidia-smi >/dev/null && ! test -e /dev/nvidiactl; then \
		echo "make: no NVIDIA GPU: installing torch's CPU build from $(CPU_INDEX)"; \
		$(PIP) --no-deps --retries 1 --index-url $(CPU_INDEX) torch || echo "make: not available there; using pip's own index, which may download several GB of CUDA"; fi
	$(PIP) --editable .
	touch $@

$(TEST): $(REPORT)
	$(PIP) --editable '.[dev]'
	touch $@
