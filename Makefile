# One command each; every target sets up .venv first, and again only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Processes that share the tests; `make test WORKERS=0` runs them in this one, as a debugger needs it.
WORKERS ?= 2
CODE := $(wildcard src tests benchmarks examples .ci)
# Small tensors: more threads than one only get in each other's way, and timings spread.
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test browser check docs dist bench soak

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

# The reports in a real browser: needs chromium (apt-get install chromium).
browser: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[browser]"
	AMSC_NEEDS_BROWSER=1 $(BIN)/pytest -q -m browser tests/report/browser $(ARGS)

check: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py tests/test_public_surface.py

# The site, in build/site; a link that leads nowhere is an error.
docs: export NO_MKDOCS_2_WARNING = 1
docs: setup
	$(BIN)/mkdocs build --quiet

# Source and, out of that, wheel in dist/; the wheel tried where there is only what it declares, linked from .venv.
dist: setup
	rm -rf dist build/wheel-env
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python .ci/wheel.py dist/*.whl build/wheel-env
	build/wheel-env/bin/python -I .ci/try_wheel.py
	cd build && wheel-env/bin/python -I -m amsc --version && wheel-env/bin/amsc inspect resnet20

# The slow tests, then every benchmarks/*/bench_*.py in turn; each prints its result and the machine it ran on.
bench: setup
	$(BIN)/pytest -q -m slow
	set -e; for script in benchmarks/*/bench_*.py; do echo "== $$script"; $(BIN)/python $$script; done

# Thirty minutes of runs that are killed, stopped, damaged and resumed at random; options: make soak ARGS="--minutes 5"
soak: setup
	$(BIN)/python benchmarks/soak/soak.py $(ARGS)
