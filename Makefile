# One command each; every target sets up .venv first, and again only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Processes that share the tests; `make test WORKERS=0` runs them in this one, as a debugger needs it.
WORKERS ?= 2
CODE := $(wildcard src tests benchmarks examples)
# Small tensors: more threads than one only get in each other's way, and timings spread.
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test check bench

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev,parquet,integrations]"
	touch $(STAMP)

# Train a small network on the embedded digits, halve it, prove the cut. Options: make demo ARGS="--out FOLDER"
demo: setup
	$(BIN)/amsc demo $(ARGS)

test: setup
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py tests/test_public_surface.py

# The slow tests, then every benchmarks/*/bench_*.py in turn; each prints its result and the machine it ran on.
bench: setup
	$(BIN)/pytest -q -m slow
	set -e; for script in benchmarks/*/bench_*.py; do echo "== $$script"; $(BIN)/python $$script; done
