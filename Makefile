# Everything here sets itself up: a Python of 3.11 or later with venv, and make, are all it takes.
#
#   make demo     a shop of two tenants, encrypted, rotated and shredded before your eyes
#   make test     lint, types, import contracts, and all tests, on SQLAlchemy 2.1 and 2.0, several runs side by side
#   make coverage the tests on SQLAlchemy 2.1, and which lines they leave out
#   make bench    the budgets, measured beside the peers
#   make format   rewrite the sources as `make lint` wants them
#   make lock     pin the newest dependencies again (needs uv)

PYTHON ?= python3

# One environment a purpose; each stamp is newer than everything it was installed from.
VENV       := .venv
VENV_SA20  := .venv-sa20
VENV_BENCH := .venv-bench
BIN        := $(VENV)/bin

# The pinned files are complete, which `pip check` proves, so that nothing has to be resolved again.
PIP     := -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --no-deps --no-compile --require-hashes --requirement
PACKAGE := $(PIP) install --no-deps --no-build-isolation --editable .

# The tests whose subject meets SQLAlchemy, and so are run on both releases.
SQLALCHEMY_TESTS := tests/sqlalchemy tests/keystores/sql tests/keystores/test_conformance.py \
	$(foreach page,quickstart search,'tests/docs/test_pages.py::test_the_code_of_a_page_works[docs/$(page).md]')

# Those that do not care are run once: these in two runs of their own, the others with SQLAlchemy 2.1.
SERVICE_TESTS := $(addprefix tests/,aws kms outages telemetry testing)
SURFACE_TESTS := $(addprefix tests/,benchmarks cli docs examples)

# The longest first, so that all end together.
RUNS := test-2.1 test-surface test-2.0 test-services

# What each run says of the real parts.
PARTS := build/real-parts

.PHONY: demo test $(RUNS) coverage lint format bench lock clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/python examples/demo.py

# Three at once, each shown when it has ended; then what they talked to, all together.
test: lint $(VENV_SA20)/.dev
	@rm -rf $(PARTS)
	@$(MAKE) --no-print-directory --keep-going --jobs=3 --output-sync=target $(RUNS); \
		ended=$$?; $(BIN)/python -m tests.servers.closing $(PARTS)/test-* && exit $$ended

test-2.1:
	@echo "== tests, SQLAlchemy 2.1"
	@$(BIN)/python -m pytest --quiet --save-parts=$(PARTS)/$@ $(addprefix --ignore=,$(SERVICE_TESTS) $(SURFACE_TESTS))

test-2.0:
	@echo "== tests, SQLAlchemy 2.0"
	@$(VENV_SA20)/bin/python -m pytest --quiet --save-parts=$(PARTS)/$@ $(SQLALCHEMY_TESTS)

test-services:
	@echo "== tests of services and devices"
	@$(BIN)/python -m pytest --quiet --save-parts=$(PARTS)/$@ $(SERVICE_TESTS)

test-surface:
	@echo "== tests of commands, pages and examples"
	@$(BIN)/python -m pytest --quiet --save-parts=$(PARTS)/$@ $(SURFACE_TESTS)

lint: $(VENV)/.dev
	@echo "== lint"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@echo "== types"
	@$(BIN)/mypy
	@echo "== import contracts"
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format

# Not part of the tests, which tracing slows down.
coverage: $(VENV)/.dev
	@$(BIN)/python -m pytest --quiet --cov

bench: $(VENV_BENCH)/.bench
	@$(VENV_BENCH)/bin/python -m benchmarks

# The demonstration needs a third of what the tests need; the tests then add to the same environment.
$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(VENV)/bin/python
	@echo "== installing into $(VENV)"
	@$(BIN)/python $(INSTALL) requirements/demo.txt
	@$(BIN)/python $(PACKAGE)
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.demo
	@echo "== installing the tests' needs into $(VENV)"
	@$(BIN)/python $(INSTALL) requirements/dev.txt
	@$(BIN)/python $(PIP) check
	@touch $@

$(VENV_SA20)/.dev: requirements/dev.txt requirements/sqlalchemy-2.0.txt pyproject.toml | $(VENV_SA20)/bin/python
	@echo "== installing into $(VENV_SA20)"
	@$(VENV_SA20)/bin/python $(INSTALL) requirements/dev.txt
	@$(VENV_SA20)/bin/python $(INSTALL) requirements/sqlalchemy-2.0.txt
	@$(VENV_SA20)/bin/python $(PACKAGE)
	@$(VENV_SA20)/bin/python $(PIP) check
	@touch $@

$(VENV_BENCH)/.bench: requirements/bench.txt pyproject.toml | $(VENV_BENCH)/bin/python
	@echo "== installing into $(VENV_BENCH)"
	@$(VENV_BENCH)/bin/python $(INSTALL) requirements/bench.txt
	@$(VENV_BENCH)/bin/python $(PACKAGE)
	@$(VENV_BENCH)/bin/python $(PIP) check
	@touch $@

$(VENV)/bin/python $(VENV_SA20)/bin/python $(VENV_BENCH)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fieldvault needs Python 3.11 or later")'
	@$(PYTHON) -m venv $(@D)/..

LOCK := uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header --no-annotate
lock:
	@$(LOCK) pyproject.toml --group dev --output-file requirements/dev.txt
	@$(LOCK) pyproject.toml --group demo --constraint requirements/dev.txt --output-file requirements/demo.txt
	@$(LOCK) pyproject.toml --group bench --constraint requirements/dev.txt --output-file requirements/bench.txt
	@$(LOCK) --no-deps --group pyproject.toml:sqlalchemy-2-0 --output-file requirements/sqlalchemy-2.0.txt

clean:
	@rm -rf $(VENV) $(VENV_SA20) $(VENV_BENCH) build dist .coverage* .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache
