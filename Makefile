# Everything that this project needs is set up here, in .venv, from the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?=
PEERS := .venv-peers
LOWEST := .venv-lowest
DATA ?= ../shared/data
SHUFFLES ?= 10
N ?= 500
HISTORIES ?= 100000
RECORDS ?= 10000
SEED ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lowest chaos chaos-brokers coverage simulate fuzz check format schemas bench clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: $(VENV)/.demo ## Replay real outcomes of real models through the whole service
	$(BIN)/metallm demo $(DEMO)

test: $(VENV)/.dev ## Run all tests on a real Kafka and PostgreSQL
	$(BIN)/pytest -n 2 --dist loadfile --max-worker-restart 0 $(TESTS)

lowest: $(LOWEST)/.test ## Run the tests that need no servers on the oldest libraries allowed
	$(LOWEST)/bin/pytest -n 2 --dist loadfile --max-worker-restart 0 tests/unit tests/contracts tests/property

chaos: $(VENV)/.dev ## Break processes, servers and networks by seeds SEED, and check N queries each
	$(BIN)/python -m tests.chaos.run --seeds $(or $(SEED),0-9) --queries $(N) --out out/chaos

chaos-brokers: $(VENV)/.dev ## Kill each of three brokers in turn under load, and audit what came of it
	$(BIN)/python -m benchmarks.stream.brokers

coverage: $(VENV)/.dev ## Show how much of the pure core its own tests reach
	$(BIN)/pytest -n 2 tests/unit tests/property tests/contracts --cov-fail-under=95 \
		$(foreach room,events arms errors encode policy route judge join evaluate,--cov=metallm_stream.$(room))

simulate: export OPENBLAS_NUM_THREADS := 1
simulate: $(VENV)/.dev ## Live through HISTORIES of crashes, zombies and repetitions without servers
	$(BIN)/python -m tests.simulation --histories $(HISTORIES) --seed $(or $(SEED),0)

fuzz: $(VENV)/.dev ## Send RECORDS malformed records through real services
	$(BIN)/python -m tests.fuzz --records $(RECORDS) --seed $(or $(SEED),0)

check: $(VENV)/.dev ## Lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(VENV)/.dev ## Generate schemas/ from the event models
	$(BIN)/metallm schemas schemas

bench: export OPENBLAS_NUM_THREADS := 1
bench: $(PEERS)/.bench ## Measure the policy beside other libraries; DATA is a folder of outcomes
	$(PEERS)/bin/python benchmarks/policy/speed.py
	$(PEERS)/bin/python benchmarks/policy/refresh.py
	$(PEERS)/bin/python benchmarks/policy/curves.py --data $(DATA) --shuffles $(SHUFFLES)
	$(PEERS)/bin/python benchmarks/policy/curves.py --data $(DATA) --shuffles $(SHUFFLES) --apgr
	$(PEERS)/bin/python benchmarks/policy/change.py --data $(DATA) --seeds $(SHUFFLES)

clean: ## Remove the virtual environment and what runs have left
	rm -rf $(VENV) $(PEERS) $(LOWEST) out .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

$(BIN)/python $(PEERS)/bin/python $(LOWEST)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(@D:/bin=)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing the service and the demo's extras (about a minute)"
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing the service and its tools (about a minute)"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(PEERS)/.bench: pyproject.toml | $(PEERS)/bin/python
	@echo "installing the policy and the libraries it is compared with (about two minutes)"
	$(PEERS)/bin/python -m pip install --quiet --editable '.[peers]'
	@touch $@

$(LOWEST)/.test: pyproject.toml | $(LOWEST)/bin/python
	@echo "installing the service with the lowest version of each of its libraries"
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --system-certs --python $(LOWEST)/bin/python \
		--resolution lowest-direct --editable '.[test,containers]'
	@touch $@
