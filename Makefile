PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUITE_ARGS ?=
DATA_ROOT ?= data

.DEFAULT_GOAL := help
.PHONY: help setup digits fashion docs test test-all lint format

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## a virtual environment in .venv with the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

digits: $(STAMP) ## the main job: every method on scikit-learn's digits, one seed (SUITE_ARGS="--seeds 0,1,2" for more)
	$(BIN)/python -m benchmark.run --suite digits $(SUITE_ARGS)

fashion: $(STAMP) ## Fashion-MNIST at 16 pixels, 4 hours a seed on two cores, resumable (DATA_ROOT=DIR; downloads what is missing)
	$(BIN)/python -m benchmark.run --suite fashion_mnist --budget medium --name fashion_mnist-medium --data-root $(DATA_ROOT) \
		--set data.init_args.download=true --seeds 0 $(SUITE_ARGS)

docs: $(STAMP) ## the pages of docs/ as a site in site/, warnings as errors
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site:    site/index.html"

test: $(STAMP) ## the tests, without those marked slow
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(STAMP) ## all tests: runs killed 20 times (--kills N for more), 300 spoilt files (--cases N)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP) ## ruff: rules and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## apply ruff's fixes and layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
