# Two commands: `make demo` and `make test`. Each sets up its own environment first; a second run sets nothing up again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint format clean

DEMO := runs/demo
# Hard and soft labels as published: the likelihood is hardly felt, and the predictor sees each image as it is.
LOOSE := finetune.tolerance=0.5 finetune.multiplier_floor=0 finetune.intervened_weight=1 finetune.augment=0
COMPARE := evaluate.compare=[$(DEMO),$(DEMO)-hard,$(DEMO)-soft]

demo: $(READY)
	$(BIN)/python train.py preset=quickstart run=$(DEMO)
	for targets in hard soft; do \
	  $(BIN)/python train.py base=$(DEMO) finetune.targets=$$targets $(LOOSE) || exit; done
	$(BIN)/python train.py base=$(DEMO) finetune.targets=counterfactual
	$(BIN)/python evaluate.py run=$(DEMO)-counterfactual $(COMPARE)

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache dist
