# Everything a developer does, one command each. `make help` lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# With EXAMPLE=orders, any target runs in .examples/orders: a copy of the project with the example's partner.py in the
# place of shared/partner.py.
EXAMPLE :=
ifneq ($(EXAMPLE),)
GOALS := $(or $(MAKECMDGOALS),help)
.PHONY: $(GOALS)
$(GOALS):
	@$(MAKE) --silent --no-print-directory setup EXAMPLE=
	@$(CURDIR)/.venv/bin/python scripts/stage-example $(EXAMPLE)
	@$(MAKE) --no-print-directory -C .examples/$(EXAMPLE) $@ EXAMPLE= VENV=$(CURDIR)/.venv PEERS=$(CURDIR)/.venvs/bench \
		UV="$$(command -v uv || echo $(CURDIR)/.tools/bin/uv)"
else

PYTHON_VERSION := 3.13
VENV := .venv
PYTHON := $(VENV)/bin/python
# One more than the processors: many tests wait for processes and sockets.
WORKERS := $(shell echo $$((1 + $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))))
# The machine's uv, else a private copy in .tools/.
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)

PEERS := .venvs/bench

# The tests and the sandbox start many processes of Python. Each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Optional requirements of the package. Each has a file of its own beside requirements.txt.
EXTRAS := azure-monitor otlp token-store

# The age from which `make pin` accepts a release: most bad ones are withdrawn sooner. Dependabot waits as long.
COOLDOWN := 7 days

.PHONY: help setup demo up relay test coverage test-long test-all test-chaos bench check audit format start package test-package pin clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z.-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make .venv with everything in it

.tools/bin/uv: requirements-uv.txt
	@echo "Installing uv into .tools/"
	@python3 -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

$(VENV)/.installed: requirements.txt requirements-dev.txt | $(filter .tools/bin/uv,$(UV))
	@echo "Making $(VENV) with Python $(PYTHON_VERSION)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON_VERSION) $(VENV) || { \
		echo "Python $(PYTHON_VERSION) is neither on this machine nor to be had from uv's releases: install it first." >&2; exit 1; }
	@$(UV) pip sync --quiet --require-hashes --python $(PYTHON) requirements-dev.txt
	@touch $@

demo: setup ## Deliver records end to end on this machine, then exit
	@$(PYTHON) -m sandbox demo $(ARGS)

up: setup ## Run the partner API and the app until Ctrl-C
	@$(PYTHON) -m sandbox up $(ARGS)

relay: $(filter .tools/bin/uv,$(UV)) ## Install the command line, `relay`
	@$(UV) tool install --quiet --force .
	@echo "Installed relay: $$($(UV) tool dir --bin)/relay"
	@command -v relay >/dev/null || echo "Your PATH lacks that folder: run \`uv tool update-shell\`, or use the whole path."

local.settings.json: | $(VENV) ## Make the settings for one machine, where there are none
	@$(PYTHON) -m sandbox settings >$@
	@echo "Made $@: its partners are the sandbox's ($(PYTHON) -m sandbox partner --port 8081)."

$(VENV):
	@$(MAKE) --no-print-directory setup

start: setup ## Run the app under the Azure Functions Core Tools, with Azurite
	@scripts/start $(ARGS)

PYTEST = $(PYTHON) -m pytest -n $(WORKERS) --dist worksteal

test: setup ## Run the tests, except the long ones
	@$(PYTEST) -m "not long" $(ARGS)

coverage: setup ## Run the same tests, and fail below 95 % branch coverage of shared/
	@$(PYTEST) -m "not long" --cov --cov-report=term --cov-fail-under=95 $(ARGS)

test-long: setup ## Run the tests that take many processes or much time, and try many more generated examples
	@$(PYTEST) -m "long or hypothesis" --hypothesis-profile=thorough $(ARGS)

test-chaos: setup ## Deliver 1,000 records through 60 s of everything going wrong
	@CHAOS_SECONDS=60 CHAOS_RECORDS=1000 CHAOS_KILLS=10 $(PYTHON) -m pytest -n 2 tests/end_to_end/test_chaos.py $(ARGS)

# Those of this list that are here; CI tests each on a machine that has it.
VERSIONS := 3.11 3.12 3.13 3.14

test-all: $(filter .tools/bin/uv,$(UV)) ## Run the tests on every Python of VERSIONS that is here
	@scripts/test-all $(UV) $(VERSIONS)

$(PEERS)/.installed: benchmarks/requirements.txt | $(VENV)/.installed
	@echo "Making $(PEERS) with the peers"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(PEERS)
	@$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(PEERS)/bin/python benchmarks/requirements.txt
	@touch $@

bench: $(PEERS)/.installed ## Measure the app beside its peers, and write docs/performance.md; QUICK=1 for a look
	@$(PEERS)/bin/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

check: setup ## Lint, format, types, requirements and the direction of imports
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m mypy
	@$(VENV)/bin/deptry . --config .deptry.toml --no-ansi
	@$(PYTHON) -m pytest --quiet tests/test_import_direction.py

# pip-audit also fails if it cannot look a package up, for example without a network. It audits the versions that apply to
# the Python it runs on.
PIP_AUDIT = $(UV) tool run --python $(PYTHON_VERSION) pip-audit==2.10.1 --strict --disable-pip --require-hashes

audit: setup ## Check the GitHub workflows, and look the requirements up in a database of known vulnerabilities
	@$(VENV)/bin/zizmor --offline --no-progress .github
	@$(PIP_AUDIT) $(foreach name,app $(EXTRAS),--requirement deployment/locks/$(name).txt)
	@$(PIP_AUDIT) --requirement requirements-dev.txt
	@$(PIP_AUDIT) --requirement benchmarks/requirements.txt
	@$(PIP_AUDIT) --requirement requirements-uv.txt

format: setup ## Format the code and mend what ruff can mend
	@$(PYTHON) -m ruff check --fix
	@$(PYTHON) -m ruff format

package: setup ## Build dist/app.zip, which is deployed to Azure, and dist/app with the same files
	@$(PYTHON) -m deployment package $(ARGS)

test-package: package ## Deliver a business from the package, in an environment with its requirements.txt alone
	@$(PYTHON) -m deployment try --uv $(UV)

# One file serves every Python from the oldest supported one on: --universal adds a marker where they differ.
COMPILE = $(UV) pip compile --quiet --generate-hashes --universal --python-version $(firstword $(VERSIONS)) \
	--no-emit-index-url --no-annotate --exclude-newer "$(COOLDOWN)" --custom-compile-command "make pin" $(ARGS)

pin: setup ## Pin all requirements with their hashes; ARGS=--upgrade for newer versions
	@echo uv | $(COMPILE) - --output-file requirements-uv.txt
	@$(COMPILE) requirements-dev.in --output-file requirements-dev.txt
	@$(COMPILE) --constraints requirements-dev.txt benchmarks/requirements.in --output-file benchmarks/requirements.txt
	@for name in app $(EXTRAS); do \
		$(COMPILE) --constraints requirements-dev.txt requirements.txt \
			$$(ls requirements-$$name.txt 2>/dev/null) --output-file deployment/locks/$$name.txt || exit 1; \
	done

clean: ## Remove everything that the other targets made
	rm -rf .examples .venv .venvs .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage dist

endif
