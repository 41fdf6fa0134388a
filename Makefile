# Everything runs from .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE := 1
# Where somebody's pip is told to install for the user, no virtual environment could be filled.
export PIP_USER := 0

.DEFAULT_GOAL := help
.PHONY: help demo test check serve bench clients proxies browser soak fuzz kill cases families pocket pocket2 suite examples notebook clean deploy-check image-test

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

WANTED := import sys; sys.version_info >= (3, 11) or sys.exit( \
  "wanted Python 3.11 or newer, found %d.%d (%s): make PYTHON=python3.12 ..." \
  % (sys.version_info[0], sys.version_info[1], sys.executable))

$(STAMP): pyproject.toml requirements/constraints.txt
	@$(PYTHON) -c '$(WANTED)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint requirements/constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --constraint requirements/constraints.txt torch
	$(BIN)/pip install --quiet --constraint requirements/constraints.txt --group dev --editable '.[demo,drawings,families,otel]'
	@touch $(STAMP)

demo: $(STAMP) ## Train, store, find and apply a vector on easy-VQA through the service, and print the table
	$(BIN)/vlibrary demo

serve: $(STAMP) ## Run everything on http://127.0.0.1:8000 (Ctrl-C stops it)
	$(BIN)/vlibrary serve

check: $(STAMP) ## Static checks: format, lint, types, import contracts, dependencies, dead code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/vulture

test: check ## Static checks, then all tests with coverage
	$(BIN)/coverage erase
	@# Two processes of one thread each: more threads than cores hold each other up. The long files come
	@# first in order; by number of tests they would be last, and one process would wait for the other.
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(STAMP) ## Measure the figures of docs/benchmarks
	@for name in prompts training engine steering cold_vector rest overload retrieval memory \
	  beside_training; do \
	  echo "bench $$name" >&2; $(BIN)/python -m benchmarks.$$name --json || exit 1; done
	@# Last, because what it needs makes every start of a process slower.
	$(BIN)/pip install --quiet --constraint requirements/constraints.txt --editable '.[bench,demo]'
	@for name in peers abstention word_table; do \
	  echo "bench $$name" >&2; $(BIN)/python -m benchmarks.$$name --json || exit 1; done

DEPLOY_TOOLS := build/deploy-tools

$(DEPLOY_TOOLS)/.installed: requirements/deploy.txt
	$(PYTHON) -m venv $(DEPLOY_TOOLS)
	$(DEPLOY_TOOLS)/bin/pip install --quiet --requirement requirements/deploy.txt
	@touch $@

deploy-check: $(DEPLOY_TOOLS)/.installed ## Hold compose.yaml and the chart against their schemas
	$(DEPLOY_TOOLS)/bin/pytest --override-ini addopts= --confcutdir tests/deployment tests/deployment

image-test: $(STAMP) deploy-check ## Build both images as root on Debian, and run the main job against them
	docker/build-test-images.sh
	$(BIN)/pytest -m images tests/images

CLIENTS := build/clients

$(CLIENTS)/.installed: requirements/clients.txt tests/clients/package.json
	$(PYTHON) -m venv $(CLIENTS)/venv
	$(CLIENTS)/venv/bin/pip install --quiet --requirement requirements/clients.txt
	@mkdir -p $(CLIENTS)/node && cp tests/clients/package.json $(CLIENTS)/node/
	cd $(CLIENTS)/node && npm install --no-audit --no-fund --silent
	@touch $@

clients: $(STAMP) $(CLIENTS)/.installed ## OpenAI's packages, LangChain, LiteLLM and the Vercel AI SDK against a fresh service
	tests/clients/run.sh

PROXIES := build/proxies/.installed

$(PROXIES):
	@mkdir -p build/proxies
	cd build/proxies && apt-get download nginx caddy && for package in *.deb; do dpkg-deb -x $$package .; done
	@touch $@

proxies: $(STAMP) $(PROXIES) ## Streams behind nginx and Caddy of Debian's packages, which are unpacked below build/
	$(BIN)/pytest -m proxies tests/proxies

browser: $(STAMP) ## Markup in all that can be stored, in Debian's Chromium
	$(BIN)/pytest -m browser tests/integration/browser

cases: $(STAMP) $(PROXIES) ## What people really bring, and the scripts in the folder VLIBRARY_CASES, against a fresh service
	$(BIN)/pytest -m cases tests/cases

families: $(STAMP) ## A fresh service for every family of backbones, with its real processor
	$(BIN)/pytest -m families tests/families

soak: $(STAMP) ## 10,000 requests with 1,000 vectors, and many more random plans of the exactness test
	$(BIN)/pytest -m soak tests/soak tests/integration/api/test_several_apis.py -s

fuzz: $(STAMP) ## 5,000 requests made from the schema (VLIBRARY_FUZZ_CASES), 2,000 steps of two tenants (.._STEPS)
	$(BIN)/pytest -m fuzz tests/integration/fuzz tests/integration/tenants -s

kill: $(STAMP) ## 200 times kill -9 (VLIBRARY_KILL_CYCLES) of every part of a service while clients write
	$(BIN)/pytest -m kill tests/kill -s

pocket: $(STAMP) ## Rebuild the bundled pocket LVLM from nothing (about an hour on 2 cores; resumable)
	$(BIN)/python -m tools.pocket

pocket2: $(STAMP) ## Train the backbone that binds names in context (wants a GPU; goes on where it stopped)
	$(BIN)/python -m tools.pocket2

examples: $(STAMP) ## Three uses of vectors, trained and measured on the pocket LVLM
	$(BIN)/python -m examples.uses

notebook: $(STAMP) ## Execute examples/many_shots.ipynb against the service at VLIBRARY_URL, and keep what it shows
	$(BIN)/pip install --quiet --constraint requirements/constraints.txt --group notebook
	$(BIN)/jupyter execute --inplace examples/many_shots.ipynb

suite: $(STAMP) ## Fetch third-party pictures and write the suites that `vlibrary evaluate --suite` reads
	$(BIN)/pip install --quiet --constraint requirements/constraints.txt --editable '.[bench,demo,drawings]'
	$(BIN)/python -m tools.suite

clean: ## Remove what the other targets made, but for stored data
	rm -rf --one-file-system $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache demo.json demo.png
