# A bare machine needs Python 3.11 or newer, make, and a package index within reach.
# Each target makes the environment that it runs in, and again when pyproject.toml changes.

BIN := .venv/bin
# Otherwise each process of the suite would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
PYTHONS := 3.11 3.12 3.13 3.14
# Some distributions have `venv` without `ensurepip`.
NEW_ENOUGH := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON = $(or $(shell for each in python3 python $(addprefix python,$(PYTHONS)); do \
	$$each -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$each; break; }; done),$(error no Python 3.11 or newer with venv was found))
# Each lower bound of pyproject.toml as an exact version.
OLDEST := import tomllib; \
	project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	extras = project["optional-dependencies"]; \
	names = [name for name in extras if name != "all"]; \
	lines = project["dependencies"] + [line for name in names for line in extras[name]]; \
	print(*(line.replace(">=", "==") for line in lines))
# Most tests wait for a process of theirs: one worker for each core, and one for the waits.
WORKERS = $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')

.PHONY: help demo test test-full bench docs format clean check size others release-check zoo
.PRECIOUS: .venvs/%/.installed

help:
	@echo "make demo       an example's tests under the plugin"
	@echo "make test       format, lint, types, layers, size, and the suite"
	@echo "make test-full  the same with each Python found, the oldest libraries, other plugins"
	@echo "make bench      measure, and write docs/explanation/speed.md"
	@echo "make zoo        run 40 small apps in six ways, and write docs/explanation/zoo.md"
	@echo "make docs       draw the pictures, and make the site of docs/, in build/docs"
	@echo "make format     rewrite the code as 'make test' wants it"
	@echo "make clean      remove everything that these targets made"

demo: .venvs/demo/.installed
	@.venvs/demo/bin/python examples/battle_d/demo.py

test: check
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

test-full: test
	@$(MAKE) --no-print-directory others

check: .venv/.installed size
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The bounds may only fall.
size: .venv/.installed
	$(BIN)/python .ci/size.py

# A version manager has a shim for versions that it refuses to start: start each one.
others: .venv/.installed
	@set -eu; \
	mine=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $(PYTHONS); do \
	    if [ $$version = $$mine ]; then continue; fi; \
	    if python$$version -c '$(NEW_ENOUGH)' 2>/dev/null; then \
	        $(MAKE) --no-print-directory test-in-$$version PYTHON_$$version=python$$version; \
	    else echo "Python $$version was not found: left out"; fi; \
	done
	@$(MAKE) --no-print-directory test-in-sqlalchemy-2.0 test-in-oldest
	@$(MAKE) --no-print-directory .venvs/others/.installed
	PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 .venvs/others/bin/pytest -n auto tests/others \
	    -p xdist.plugin -p pytest_asyncio.plugin

test-in-%: .venvs/%/.installed
	.venvs/$*/bin/pytest -n auto --dist worksteal

bench: .venvs/bench/.installed
	@.venvs/bench/bin/python -m bench

zoo: .venvs/zoo/.installed
	@.venvs/zoo/bin/python -m bench.ways

docs: .venvs/docs/.installed .venv/.installed
	@$(BIN)/python -m bench.pictures
	@.venvs/docs/bin/sphinx-build -q -E -W --keep-going -b html -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

# Builds from HEAD, installs the wheel for each Python found, and leaves both files in dist/.
release-check: .venvs/release/.installed
	@.venvs/release/bin/pytest -c tests/release/pytest.ini --confcutdir tests/release tests/release

format: .venv/.installed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venvs build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests examples bench -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml
	@[ -d .venv ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	@touch $@

WANTED_sqlalchemy-2.0 := 'sqlalchemy<2.1'
WANTED_main-of-pytest := git+https://github.com/pytest-dev/pytest
WANTED_main-of-sqlalchemy := git+https://github.com/sqlalchemy/sqlalchemy
WANTED_main-of-asyncpg := git+https://github.com/MagicStack/asyncpg
WANTED_main-of-psycopg := 'git+https://github.com/psycopg/psycopg\#subdirectory=psycopg'
WANTED_main-of-fastapi := git+https://github.com/fastapi/fastapi
WANTED_oldest = $$(.venvs/oldest/bin/python -c '$(OLDEST)')
EXTRAS_demo := sqlite,http,scenarios
.venvs/%/.installed: pyproject.toml
	@$(or $(PYTHON_$*),$(PYTHON)) -m venv --clear .venvs/$*
	@.venvs/$*/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@.venvs/$*/bin/python -m pip install --quiet --editable '.[$(or $(EXTRAS_$*),all)]' \
	    --group $(if $(filter bench zoo demo docs release others,$*),$*,test) $(WANTED_$*)
	@touch $@
