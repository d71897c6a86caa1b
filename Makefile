# Everything this project does from a terminal. `make` alone prints this list.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.PHONY: help setup run test lint bench chaos reload-check outage django-suite docs db-stop db-start db-shell db-url

# The newest Python that is plainly called python3, or the newest there is.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
BIN := .venv/bin
ARGS ?=

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: python-is-there ## Make .venv and install what the site needs
	@$(PYTHON) config/prepare.py requirements.txt

run: setup ## Serve the chat on http://127.0.0.1:8000 (PORT=… for another port) until Ctrl-C
	@exec $(BIN)/python -m config.devserver

test: setup-dev ## Run every test (ARGS="-k streaming -x" goes to pytest)
	@exec $(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

lint: setup-dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: python-is-there ## Measure against every other way to connect (twenty minutes)
	@$(PYTHON) config/prepare.py requirements.txt requirements-dev.txt requirements-bench.txt
	@exec $(BIN)/python -m benchmarks $(ARGS)

chaos: setup-dev ## Let people chat while PostgreSQL fails, and count what is stored (SEED=7 TURNS=10000)
	@exec $(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(TURNS),--turns $(TURNS)) $(ARGS)

reload-check: setup-dev ## Save files under every server that loads code anew, and count sessions (SAVES=200; ten minutes)
	@exec $(BIN)/python -m tests.saves $(if $(SAVES),--saves $(SAVES)) $(ARGS)

outage: python-is-there ## Draw what an outage of 20 s looks like on Django's own pool and on ours (a minute)
	@$(PYTHON) config/prepare.py requirements.txt requirements-dev.txt requirements-bench.txt
	@exec $(BIN)/python -m benchmarks.outage $(ARGS)

django-suite: setup-dev ## Run Django's own tests on dbresilience (needs the system's PostgreSQL; a quarter of an hour)
	@exec $(BIN)/python -m tests.django_suite $(ARGS)

docs: setup-dev ## Write docs/reference from the code, and check the documentation against it
	@$(BIN)/python docs/reference/generate.py
	@exec $(BIN)/python -m pytest -q tests/test_docs.py tests/chat/test_docs.py tests/dbresilience/test_reference.py $(ARGS)

db-stop: setup ## Stop PostgreSQL under the running site, to see what it does
	@$(BIN)/python -m config.database stop

db-start: setup ## Start PostgreSQL again
	@$(BIN)/python -m config.database start

db-shell: setup ## Ask the running site's PostgreSQL by hand, with psql
	@exec $(BIN)/python -m config.database shell

db-url: setup ## Print the address of that PostgreSQL, for other programs
	@$(BIN)/python -m config.database url

.PHONY: setup-dev python-is-there
setup-dev: python-is-there
	@$(PYTHON) config/prepare.py requirements.txt requirements-dev.txt

python-is-there:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed, and no python3 on this machine is." >&2; exit 1; }
