# The only door: people and CI call the same targets. `make` alone lists them.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
READY_FOR_BENCH := $(VENV)/.ready-for-bench

# Tests that start many processes, measure time or fill disks: not beside those that only compute.
TESTS_OF_PROCESSES := $(wildcard tests/e2e/test_*.py) tests/engines $(wildcard tests/integration/test_agent*.py) \
    tests/integration/test_usage_process.py
# File by file, in the order of tests/conftest.py: the longest first. On two cores there is work for
# three at a time: a third of the time is waiting.
THREE_AT_A_TIME := -n 3 --dist loadfile --no-loadscope-reorder
# Commits wait for disks: where memory has the space, tests that only compute write there.
SPACE_KB := $(shell df --output=avail /dev/shm 2>/dev/null | tail -n 1)
IN_MEMORY := $(shell [ "$(SPACE_KB)" -ge 4000000 ] 2>/dev/null && [ -w /dev/shm ] \
    && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)
ARGS ?=

# uv works in our folder, with the interpreter found below, whatever the caller's shell says.
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV
# With it every process that we start would compile its libraries anew: seconds each.
unexport PYTHONDONTWRITEBYTECODE
# Behind a proxy that re-signs, the system knows its certificate and uv's own list does not.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),)
export UV_SYSTEM_CERTS := true
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(READY) ## Create .venv from uv.lock; quick when nothing changed
	@echo "$(VENV) is ready"

.PHONY: run
run: $(READY) ## Start everything on 127.0.0.1 (ARGS="--data DIR ..." goes to `penstock dev`)
	@$(VENV)/bin/penstock dev $(ARGS)

# Without tests/house, which `make check` runs.
.PHONY: test
test: $(READY) ## Run all tests (ARGS="tests/unit -k name" runs some, EFFORT=4 looks harder)
ifneq ($(strip $(ARGS)),)
	@$(PYTHON) -m pytest $(ARGS)
else
	@failed=0; \
	$(IN_MEMORY) $(PYTHON) -m pytest $(THREE_AT_A_TIME) $(addprefix --ignore=,tests/house $(TESTS_OF_PROCESSES)) || failed=1; \
	$(if $(TESTS_OF_PROCESSES),$(PYTHON) -m pytest $(THREE_AT_A_TIME) $(TESTS_OF_PROCESSES) || failed=1;) \
	exit $$failed
endif

.PHONY: test-engines
test-engines: $(READY) ## Ask real engines and validators; their wheels go into .venv-engines, the first time
	@PENSTOCK_TEST_ENGINES=1 $(PYTHON) -m pytest $(or $(ARGS),tests/engines tests/integration/test_focus_validator.py)

.PHONY: check
check: $(READY) ## Format, lint, types, imports and house rules, in under 30 s
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target \
	    check-types check-house check-imports check-lint check-format
	@echo "check: all good"

.PHONY: check-format check-lint check-types check-imports check-house
check-format:
	@report=$$($(VENV)/bin/ruff format --check --output-format concise 2>&1) \
	    || { echo "$$report"; echo "make format mends this"; exit 1; }
check-lint:
	@$(VENV)/bin/ruff check --quiet
check-types:
	@$(VENV)/bin/mypy --no-error-summary
check-imports:
	@report=$$($(VENV)/bin/lint-imports 2>&1) || { echo "$$report"; exit 1; }
check-house:
	@$(PYTHON) -m pytest -q --no-header -p no:cacheprovider tests/house

.PHONY: format
format: $(READY) ## Format the code and mend what the linter can
	@$(VENV)/bin/ruff check --fix-only --quiet
	@$(VENV)/bin/ruff format --quiet

.PHONY: bench
bench: $(READY_FOR_BENCH) ## Measure beside nginx, HAProxy and Envoy, into benches/results
	@$(PYTHON) benches/load/run.py $(ARGS)

.PHONY: docs
docs: $(READY) ## Write docs/reference and deploy/ anew from the code
	@$(PYTHON) docs/generate.py && $(PYTHON) -m deploy.generate

.PHONY: clean
clean: ## Remove .venv and caches; data in .penstock stays
	@rm -rf $(VENV) .venv-engines .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The first Python that is new enough and able to make environments.
PYTHON_OK := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
CANDIDATES := $(PYTHON3) python3 python3.13 python3.12 python3.11

$(READY): pyproject.toml uv.lock
	@if ! $(PYTHON) -c '$(PYTHON_OK)' 2>/dev/null; then \
	    found=; \
	    for candidate in $(CANDIDATES); do \
	        if "$$candidate" -c '$(PYTHON_OK)' 2>/dev/null; then found=$$candidate; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "Penstock needs Python 3.11, 3.12 or 3.13 and found $$(python3 -V 2>&1)." >&2; \
	        echo "Install one, or name it: make setup PYTHON3=/path/to/python3.11" >&2; \
	        exit 1; \
	    fi; \
	    if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	        echo "$$found cannot make environments: its venv module is missing." >&2; \
	        echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	        exit 1; \
	    fi; \
	    echo "Creating $(VENV) with $$("$$found" --version)"; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	@$(PYTHON) -c 'import tomllib; \
	    packages = tomllib.load(open("uv.lock", "rb"))["package"]; \
	    uv = next(package for package in packages if package["name"] == "uv"); \
	    print("uv==" + uv["version"], *("--hash=" + wheel["hash"] for wheel in uv["wheels"]))' \
	    >$(VENV)/uv.txt
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	    --require-hashes --requirement $(VENV)/uv.txt
	@echo "Installing what uv.lock says (the first time takes a minute)"
	@$(VENV)/bin/uv sync --quiet --frozen --extra local-llm \
	    $(if $(wildcard $(READY_FOR_BENCH)),--group bench)
	@touch $@

$(READY_FOR_BENCH): $(READY)
	@$(VENV)/bin/uv sync --quiet --frozen --extra local-llm --group bench
	@touch $@
