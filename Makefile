# curlgrad. Needs make and Python 3.11 or newer; everything else is installed into .venv from hashed sets.
#   PYTHON=python3.13   which Python makes the virtual environment
#   CUDA=12 | CUDA=13   use NVIDIA GPUs (in a virtual environment of its own)
#   ARGS='...'          arguments for what a target runs

PYTHON ?= python3
CUDA ?=
ARGS ?=

SET  := $(if $(CUDA),cuda$(CUDA),serve)
VENV := $(if $(CUDA),.venv-cuda$(CUDA),.venv)
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes --only-binary :all:

# The client has a pyproject of its own and may not be here yet, nor the benchmarks.
TYPED := engine app $(wildcard client/curlgrad client/src/curlgrad)


# One thread per test process: the processes are the parallelism, and BLAS pools that fight over cores are slow.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest
NOT_APART := not browser and not kill and not fuzz and not soak

.PHONY: help serve test test-slow test-all test-browser test-kill test-fuzz test-soak test-cupy test-gpu lint format bench docs lock clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo 'make serve          set everything up and serve on 127.0.0.1:8000   (ARGS="--port 9000", CUDA=12)'
	@echo 'make test           the tests, without the slow ones                (ARGS="-k autograd")'
	@echo 'make test-slow      the slow ones alone'
	@echo 'make test-all       all but those in a browser, and those that kill, fuzz or soak'
	@echo 'make test-browser   those in a browser: drives Chromium'
	@echo "make test-kill      kill -9 of workers and service under load     (ARGS='--kills 200')"
	@echo "make test-fuzz      hostile requests, bodies and programs         (ARGS='--examples 2000')"
	@echo "make test-soak      mixed load from 32 clients: memory, latency   (ARGS='--minutes 10')"
	@echo 'make test-cupy      the CUDA code held to the real CuPy, without a GPU (Linux on x86-64)'
	@echo 'make test-gpu       everything that runs on CUDA, on a GPU, and docs/gpu.md   (ARGS="--device cuda:1")'
	@echo 'make lint           style, types, the arrows between the rooms, the documents'
	@echo 'make format         put the code into the style that lint asks for'
	@echo 'make bench          measure the claims of the README'
	@echo 'make docs           write the documents that are made from the code'
	@echo 'make lock           make requirements/ from pyproject.toml          (ARGS=--upgrade)'
	@echo 'make clean          remove what make made'

# --- setting up -------------------------------------------------------------------------------------------------------

MIN_PYTHON := 3.11
MAX_PYTHON := 3.14
IS_SUPPORTED := import sys; low, high = [tuple(map(int, v.split("."))) for v in sys.argv[1:]]; sys.exit(not low <= sys.version_info[:2] <= high)

GOAL = $(or $(firstword $(MAKECMDGOALS)),serve)

# A folder without pip, left by a `venv` that failed halfway, would look finished: it is removed.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "curlgrad needs Python $(MIN_PYTHON) to $(MAX_PYTHON), and there is no '$(PYTHON)' here." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name one: make $(GOAL) PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	@$(PYTHON) -c '$(IS_SUPPORTED)' $(MIN_PYTHON) $(MAX_PYTHON) || { \
	  echo "curlgrad needs Python $(MIN_PYTHON) to $(MAX_PYTHON), and '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Name another one: make $(GOAL) PYTHON=python3.13" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its module venv or ensurepip is missing." >&2; \
	  echo "Debian, Ubuntu: apt install python3-venv. Or name another Python: make $(GOAL) PYTHON=python3.13" >&2; \
	  exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# Stamps: a set is installed again when its file is newer, or when the environment is.
$(VENV)/.installed-%: requirements/%.txt $(BIN)/python
	@echo "Installing $< into $(VENV)"
	@$(PIP) -r $<
	@touch $@

INSTALLED := $(VENV)/.installed-$(SET)
DEV       := $(if $(CUDA),$(INSTALLED)) $(VENV)/.installed-dev

# --- running ----------------------------------------------------------------------------------------------------------

serve: $(INSTALLED)
	@exec $(BIN)/python -m app $(ARGS)

test: $(DEV)
	$(PYTEST) -n auto -m 'not slow and $(NOT_APART)' $(ARGS)

test-slow: $(DEV)
	$(PYTEST) -n auto -m 'slow and $(NOT_APART)' $(ARGS)

test-all: $(DEV)
	$(PYTEST) -n auto -m '$(NOT_APART)' $(ARGS)

test-browser: $(DEV)
	@[ -n "$$CHROMIUM" ] || command -v chromium || command -v chromium-browser || command -v google-chrome || command -v chrome || { \
	  echo "The browser tests need Chromium, and there is none here. Debian: apt install chromium. macOS: brew install --cask chromium." >&2; \
	  echo "Or say where it is: make test-browser CHROMIUM=/path/to/chromium" >&2; \
	  exit 1; }
	$(PYTEST) -m browser $(ARGS)

test-kill: $(DEV)
	$(PYTEST) -m kill tests/kill -s $(ARGS)

# schemathesis in an environment of its own: it is a program here, and its dependencies are none of the service's.
FUZZ_VENV := .venv-fuzz

test-fuzz: $(DEV) $(FUZZ_VENV)/.installed
	SCHEMATHESIS=$(FUZZ_VENV)/bin/schemathesis $(PYTEST) -n auto -m fuzz tests/fuzz $(ARGS)

$(FUZZ_VENV)/.installed: requirements/fuzz.txt $(BIN)/python
	@echo "Installing $< into $(FUZZ_VENV)"
	@$(BIN)/python -m venv --clear $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes --only-binary :all: -r $<
	@touch $@

test-soak: $(DEV)
	$(PYTEST) -m soak tests/soak -s $(ARGS)

# CuPy and NVRTC of the hashed set, without the CUDA libraries that only a GPU needs: 0.4 GB instead of 3.
CUPY_VENV := .venv-cuda12
CUPY_PIP  := $(CUPY_VENV)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes --only-binary :all:

test-cupy:
	@if [ "$$(uname -s)" != Linux ] || [ "$$(uname -m)" != x86_64 ]; then \
	  echo "make test-cupy needs Linux on x86-64, for which CuPy and NVRTC have wheels here; this is $$(uname -s) on $$(uname -m)." >&2; \
	  echo "Skipped. The lists that it would check are held by make test all the same." >&2; \
	else $(MAKE) --no-print-directory CUDA=12 cupy-without-gpu ARGS='$(ARGS)'; fi

.PHONY: cupy-without-gpu
cupy-without-gpu: $(CUPY_VENV)/.installed-cupy
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(CUPY_VENV)/bin/python -m pytest -n auto tests/cupy tests/engine/test_simulated.py $(ARGS)

$(CUPY_VENV)/.installed-cupy: requirements/cuda12.txt requirements/dev.txt $(wildcard scripts/without_gpu.py) $(CUPY_VENV)/bin/python
	@echo "Installing CuPy and NVRTC of requirements/cuda12.txt into $(CUPY_VENV)"
	@$(CUPY_VENV)/bin/python scripts/without_gpu.py requirements/cuda12.txt > $(CUPY_VENV)/without-gpu.txt
	@$(CUPY_PIP) --no-deps -r $(CUPY_VENV)/without-gpu.txt
	@$(CUPY_PIP) -r requirements/dev.txt
	@touch $@

test-gpu:
	@$(MAKE) --no-print-directory CUDA=$(or $(CUDA),12) on-a-gpu ARGS='$(ARGS)'

.PHONY: on-a-gpu
on-a-gpu: $(DEV)
	$(BIN)/python scripts/gpu.py $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)
	PYTHONPATH=. $(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_docs.py

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV)
	@[ -f bench/__main__.py ] || { echo "There are no benchmarks yet." >&2; exit 1; }
	$(BIN)/python -m bench $(ARGS)

docs: $(DEV)
	@[ -f scripts/docs.py ] || { echo "No document is made from the code yet." >&2; exit 1; }
	$(BIN)/python scripts/docs.py $(ARGS)

lock: $(BIN)/python
	$(BIN)/python scripts/lock.py $(ARGS)

clean:
	rm -rf .venv .venv-cuda12 .venv-cuda13 .venv-fuzz .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist curlgrad.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
