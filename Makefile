# Every documented command. `make` or `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
STAMP := $(VENV)/.installed-dev
PROTO := build/proto-venv
DEFACE := build/deface-venv
INSTALL := install --quiet --disable-pip-version-check --no-deps
RUNTIME := --extra cli --extra worker --extra fallback --group build
DEV := --extra cli --extra worker --extra tracing --extra fallback --extra heic --extra mediapipe --group dev
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11
.DEFAULT_GOAL := help

.PHONY: help setup demo fmt check test e2e bench bench-worker fuzz serve generate verify lock clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 14

setup: $(SETUP) ## Make .venv with what the command and the worker need, pinned in requirements/runtime.txt

$(SETUP): requirements/runtime.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip $(INSTALL) --require-hashes -r requirements/runtime.txt
	$(BIN)/pip $(INSTALL) --no-build-isolation --editable .
	@touch $(SETUP)

# The tests and checks need more: requirements/dev.txt has the same versions and their tools.
$(STAMP): $(SETUP) requirements/dev.txt
	$(BIN)/pip $(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $(STAMP)

demo: $(SETUP) ## Blur the sample photographs and make a report to look at
	rm -rf demo
	$(BIN)/faceblur blur examples/photos --out demo/blurred --report demo/report.html --receipts demo/receipts.jsonl
	@$(BIN)/python examples/show_receipts.py demo/receipts.jsonl
	@echo "The pictures are in demo/blurred/; open demo/report.html to look at them."

fmt: $(STAMP) ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: $(STAMP) ## Formatting, lint, types, import contracts, the gRPC contract
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code && ../$(BIN)/buf breaking --against baseline.binpb

test: $(STAMP) ## The tests: no network, no cluster, no Docker
	$(BIN)/pytest

e2e: $(STAMP) ## The tests with real processes on this machine
	$(BIN)/pytest e2e/local

bench: $(STAMP) $(DEFACE)/.installed ## What is found, how fast, in how much memory; EVALSET=path for the evaluation set
	$(BIN)/python tests/benchmarks/engine_bars.py --deface $(DEFACE)/bin/deface $(if $(EVALSET),--evalset $(EVALSET))

bench-worker: $(STAMP) ## The worker under load, on the sample photographs
	$(BIN)/python tests/benchmarks/worker_bars.py start overhead reference highest overload memory --samples examples/photos

$(DEFACE)/.installed: requirements/deface.txt
	$(PYTHON) -m venv --clear $(DEFACE)
	$(DEFACE)/bin/pip $(INSTALL) --require-hashes -r requirements/deface.txt
	@touch $@

fuzz: $(STAMP) ## 20,000 mutated files through the engine
	$(BIN)/python tests/fuzz/fuzz_engine.py --count 20000 --seed 1

serve: $(SETUP) ## Run a gRPC worker here
	$(BIN)/python -m faceblur_worker --log-format text

generate: $(PROTO)/.installed $(STAMP) ## Make the generated files anew: gRPC stubs, the worker's settings table
	$(PROTO)/bin/python proto/generate.py
	$(BIN)/python -m faceblur_worker.config > docs/worker-configuration.md

verify: $(PROTO)/.installed $(STAMP) ## Fail if a generated file differs from what generate makes
	$(PROTO)/bin/python proto/generate.py --check
	$(BIN)/python -m faceblur_worker.config | diff - docs/worker-configuration.md

$(PROTO)/.installed: proto/requirements.txt
	$(PYTHON) -m venv --clear $(PROTO)
	$(PROTO)/bin/pip $(INSTALL) --require-hashes -r proto/requirements.txt
	@touch $@

lock: ## Resolve the pinned requirements anew (needs uv)
	$(COMPILE) --overrides requirements/overrides.txt $(DEV) pyproject.toml -o requirements/dev.txt
	$(COMPILE) --overrides requirements/overrides.txt --constraint requirements/dev.txt $(RUNTIME) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) --overrides requirements/overrides.txt --constraint requirements/dev.txt --extra worker --extra tracing pyproject.toml -o requirements/worker.txt
	$(COMPILE) --constraint requirements/dev.txt --group build -o requirements/build.txt
	$(COMPILE) requirements/deface.in -o requirements/deface.txt
	$(COMPILE) proto/requirements.in -o proto/requirements.txt

clean: ## Remove what the commands made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist demo
