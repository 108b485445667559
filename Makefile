# Every target makes its own .venv when there is none, and does not repeat the set-up when nothing changed.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) uv pip install --quiet --python $(VENV)/bin/python --compile-bytecode --constraint constraints.txt
# What is installed: the package alone, and with it what the tests and tools need.
PACKAGE := $(VENV)/package
STAMP := $(VENV)/installed
CLUSTER := $(VENV)/cluster
SITE := $(VENV)/site

$(PACKAGE): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (about a minute, 6 GB)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(RUN) pip install --quiet --constraint constraints.txt uv
	@$(INSTALL) --editable .
	@touch $@

$(STAMP): $(PACKAGE)
	@echo "adding what the tests need"
	@$(INSTALL) --editable '.[dev]'
	@touch $@

$(CLUSTER): $(STAMP)
	@echo "adding what the tests of searches and clusters need"
	@$(INSTALL) --editable '.[dev,search,slurm,ray,service]'
	@touch $@

$(SITE): $(PACKAGE)
	@echo "adding what the site needs"
	@$(INSTALL) --editable '.[docs]'
	@touch $@

.PHONY: help setup demo test test-sample test-all test-oldest docs bench reliability results check audit format constraints clean
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## make .venv, with what the tests and tools need

demo: $(PACKAGE) ## train a conditional VAE on real digits, about a minute
	@$(RUN) vae_exp experiment=quickstart

test: $(STAMP) ## the fast tests: no network, no GPU, no data
	@$(RUN) pytest -q -n 2 --dist worksteal -m "not slow and not data"

test-sample: $(CLUSTER) ## the fast tests and a quarter of the others, at each commit another one
	@VAE_EXP_SAMPLE=0.25:$$(git rev-parse HEAD) $(RUN) pytest -q -n 2 --dist worksteal

test-all: $(CLUSTER) ## all tests, those on whole runs and real data too
	@$(RUN) pytest -q -n 2 --dist worksteal

test-oldest: $(STAMP) ## the fast tests with the oldest versions that pyproject.toml allows, in .venv-oldest
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@$(RUN) uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable '.[dev]'
	@.venv-oldest/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow and not data"

docs: $(SITE) ## build the site: docs/_build/html/index.html
	@$(VENV)/bin/sphinx-build -q -W --keep-going -j 2 docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(STAMP) ## measure speed and memory against others, 20 minutes; writes benchmarks/README.md
	@test -x benchmarks/.venv/bin/python || $(PYTHON) -m venv benchmarks/.venv
	@$(RUN) uv pip install --quiet --python benchmarks/.venv/bin/python --constraint constraints.txt pythae
	@$(VENV)/bin/python benchmarks/run.py

reliability: $(STAMP) ## kill runs and resume them, fill their memory, 20 minutes; writes docs/reliability.md
	@$(VENV)/bin/python benchmarks/reliability.py

results: $(STAMP) ## train models of every kind on MNIST, 25 minutes; writes docs/results.md
	@$(VENV)/bin/python results/run.py

check: $(STAMP) ## lint, format, types
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy

audit: $(STAMP) ## look the pins up among the known vulnerabilities; needs the network
	@$(VENV)/bin/python .ci/audit.py

format: $(STAMP) ## put the code into form
	@$(RUN) ruff check --fix
	@$(RUN) ruff format

constraints: $(STAMP) ## pin the newest versions that pyproject.toml allows
	@$(RUN) uv pip compile --quiet --upgrade --all-extras --no-annotate --no-header --output-file constraints.txt pyproject.toml

clean: ## remove .venv and caches; outputs/ and data/ stay
	rm -rf $(VENV) .venv-oldest .mypy_cache .pytest_cache .ruff_cache
