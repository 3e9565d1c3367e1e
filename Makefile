# The two commands are `make serve` and `make test`; each sets up whatever it needs first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
PYTEST_ARGS ?=

.PHONY: help serve test lint format bench soak attacks recording docs lock clean

help:
	@echo "make serve   run the server on tools.d/, with the embedded Postgres"
	@echo "make test    run the whole test suite"
	@echo "make lint    formatting, lint, types, and the arrows between the rooms"
	@echo "make bench   the benchmarks, against bare FastMCP in the same run (BENCH_ARGS=--quick)"
	@echo "make soak    half an hour at half load: does anything grow? (SOAK_ARGS='--minutes 5')"
	@echo "make attacks  every attack in every profile, and the table in docs/security.md (as root)"
	@echo "make docs    write the generated references in docs/ anew"
	@echo "make recording  play the README's terminal recording anew"
	@echo "make format  format the code"
	@echo "make lock    resolve the dependencies anew"
	@echo "make clean   remove the environment and what the tools left behind"

$(BIN)/uv: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Portoser needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.serve: $(BIN)/uv requirements/main.txt pyproject.toml
	$(UV) install --quiet --python $(BIN)/python --require-hashes -r requirements/main.txt
	$(UV) install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements/dev.txt
	$(UV) install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

serve: $(VENV)/.serve
	exec $(BIN)/python -m portoser serve

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.runtime $(filter --quick --full,$(BENCH_ARGS))
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak $(SOAK_ARGS)

recording: $(VENV)/.dev
	PYTHONPATH=tests/e2e $(BIN)/python tests/e2e/e2e_recording.py

attacks: $(VENV)/.dev
	$(BIN)/python tests/attacks/attacks_table.py

docs: $(VENV)/.dev
	$(BIN)/python -m portoser.cli.docs

lock: $(BIN)/uv
	$(UV) compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade requirements/bootstrap.in -o requirements/bootstrap.txt
	$(UV) compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade pyproject.toml -o requirements/main.txt
	$(UV) compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url pyproject.toml --group dev -c requirements/main.txt -o requirements/dev.txt

clean:
	rm -rf $(VENV) .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
