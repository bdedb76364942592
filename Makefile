# absurd: durable tasks on PostgreSQL for observatories.  `make` tells what there is.
#
# Needs a Python of 3.11 or newer and its pip; no compiler, and no PostgreSQL (a wheel brings the server).

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# What `make test` takes: T=PATH runs a part of the suite, V=1 names each test, COVERAGE=1 measures coverage,
# J=N takes N processes, each with a server of its own (0: none but pytest's own); a test waits more than it works.
T ?=
V ?=
J ?= 4
COVERAGE ?=

.PHONY: help install demo test soak bench lint docs clean

help: ## tell what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## make the environment in .venv and install the project into it
	@echo "absurd is installed in $(VENV): $(BIN)/absurd --help"

# The stamp is the last thing written: an installation that broke off is begun again.
$(INSTALLED): pyproject.toml .ci/environment $(wildcard tasks/*/*.c tasks/*/*.h)
	@sh .ci/environment $(VENV)
	@touch $@

demo: $(INSTALLED) ## see a simulated night go from raw visibilities to light curves, in some minutes
	@$(BIN)/absurd demo

test: $(INSTALLED) ## run the tests (T=PATH a part, V=1 each by name, J=N in N processes, COVERAGE=1 with coverage)
	@$(BIN)/pytest -n $(J) --dist worksteal --durations 40 --durations-min 5 $(if $(V),-v,) $(if $(COVERAGE),--cov --cov-report=term-missing:skip-covered,) $(T)

soak: $(INSTALLED) ## go on with the proofs for a long time: faults, races, models (T=PATH a part)
	@ABSURD_TEST_SOAK=1 $(BIN)/pytest $(if $(V),-v,) $(or $(T),tests/soak tests/stateful tests/faults tests/scheduler tests/schema/test_gates.py tests/tasks/export/test_kill.py tests/tasks/session/test_crash.py tests/tasks/session/test_sealing.py)

bench: $(INSTALLED) ## measure the queue, exports, cut-outs and images, five rounds of each benchmark (T=NAME one of them)
	@for name in $(or $(T),queue latency backlog snapshot dag slots packing idle export cutout batch calibration imaging mosaic photometry); do \
		echo "== absurd bench $$name"; $(BIN)/absurd bench $$name --rounds 5 || exit; done

lint: $(INSTALLED) ## check style, types, import floors and packaging
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pytest -q tests/test_style.py tests/test_types.py tests/test_layers.py tests/test_packaging.py

docs: $(INSTALLED) ## write the reference pages of docs/ from the code, and the site of all pages to build/site
	@$(BIN)/python tests/reference.py
	@$(BIN)/python -m sphinx -q -W --keep-going -b html -d build/site-trees docs build/site
	@echo "the site begins at build/site/index.html"

clean: ## remove the environment and everything else that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
