# `make` alone lists the targets. They use .venv where it exists; `make check PYTHON=python3.12` uses another one.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
PYTEST := $(PYTHON) -m pytest -n auto --dist loadscope
RUFF := $(PYTHON) -m ruff

.DEFAULT_GOAL := help
.PHONY: help check lint format types test test-slow smoke benchmark

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check: lint types test ## lint, types and tests: what every change must pass

lint: ## style of the code, and whether it is formatted
	$(RUFF) check .
	$(RUFF) format --check .

format: ## format the code and mend what the linter can mend
	$(RUFF) check --fix .
	$(RUFF) format .

types: ## types of the package
	$(PYTHON) -m mypy

test: ## the fast tests
	$(PYTEST)

test-slow: ## the slow tests only
	$(PYTEST) -m slow

smoke: ## the real command line at toy size: train, evaluate, predict
	@export PATH="$(dir $(PYTHON)):$$PATH"; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; set -ex; \
	redifu train tests/smoke/recipe.yaml training.output="$$folder/model"; \
	redifu evaluate "$$folder/model" tests/smoke/conversations.jsonl --output "$$folder/metrics.json"; \
	redifu predict "$$folder/model" tests/smoke/conversations.jsonl --output "$$folder/predictions.csv"; \
	head -n 3 "$$folder/predictions.csv"

benchmark: ## speed and memory against a literal reference of the released equations
	$(PYTHON) scripts/benchmarks/model.py --reference tests/released_reference.py
