# Two commands: `make demo` and `make test`. Each sets up its own environment first; a second run sets nothing up again.
# `make test-lowest` runs the tests on the lowest versions that pyproject.toml admits.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST := .venv-lowest

.PHONY: demo test test-lowest lint docs format clean

DEMO := runs/demo

demo: $(READY)
	$(BIN)/python train.py preset=quickstart run=$(DEMO)
	$(BIN)/python train.py base=$(DEMO) finetune.targets=counterfactual
	$(BIN)/python evaluate.py run=$(DEMO)-counterfactual evaluate.compare=[$(DEMO)]

test: $(READY) lint docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# What a notebook and a browser show does not depend on versions more than the other tests do.
test-lowest: $(LOWEST)/.ready
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 \
	    --ignore=tests/docs/test_notebook.py --ignore=tests/explorer/test_browser.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $(READY)

$(LOWEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt --editable '.[dev]'
	touch $(LOWEST)/.ready

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .ruff_cache dist
