# `make demo` and `make test` set everything up on a fresh machine; nothing else is needed but Python 3.10 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-slow test-gpu lint format sanitize benchmark clean

setup: $(READY)

# torch and torchvision first and together: the pair must come from one place to work with each other, and the kernel is
# compiled against the torch that is here, not one fetched into a build environment.
$(READY): pyproject.toml setup.py $(wildcard csrc/*.h csrc/*.cpp csrc/ops/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch torchvision 'setuptools>=77'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]'
	touch $@

demo: setup  ## all seven convolutions on the embedded images; then a trained model converted and fine-tuned
	$(BIN)/rfaconv compare
	$(BIN)/rfaconv train --conv conv --epochs 8 --out runs/plain
	$(BIN)/rfaconv convert runs/plain --out runs/converted.safetensors
	$(BIN)/rfaconv compare --start runs/plain --convs rfa --epochs 2 --set lr=0.01 --out runs/from-plain

# Two files at a time; with more threads than cores, each would be many times slower.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-gpu: setup  ## the Triton kernels on an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sanitize:  ## every CPU kernel under AddressSanitizer and UBSan against plain loops: some two minutes
	csrc/check/run.sh

benchmark: setup  ## layers and models against Conv2d and the plain formula
	$(BIN)/rfaconv profile layers
	$(BIN)/rfaconv profile models

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
