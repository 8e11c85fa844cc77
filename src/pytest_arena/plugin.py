"""pytest's options and hooks. A run that uses no database loads only this and few other modules."""

from __future__ import annotations

import os
import re
import shlex
import sys
from copy import copy
from typing import TYPE_CHECKING, Any

import pytest

# isort: off
from pytest_arena import _interpreter  # before all others, which it imports

# isort: on
from pytest_arena import _fixtures
from pytest_arena._config._options import ALL_QUESTIONS, FLAGS, MARKERS, OPTIONS
from pytest_arena._config._supported import DRIVERS, FILE_FORMAT

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from types import ModuleType

    from pytest_arena._owner import Owner
    from pytest_arena.scenarios._blocks import Scenario


class LevelHooks:
    """Hooks by which a project restores state outside of its databases.

    For example a cache in the process's memory, or data of another service.
    """

    def pytest_arena_enter(self, level: Owner) -> object:
        """Called when a level begins: of a test, a wide fixture, a block or a start of the app.

        A block is that of ``arena.fresh()``, a pass of a loop, or a replay. ``level.name`` names
        the level. ``level.is_test`` is True for a test and its blocks.

        Example::

            def pytest_arena_enter(level):
                limiter.reset()
        """

    def pytest_arena_leave(self, level: Owner) -> object:
        """Called when a level ends, before pytest-arena restores the databases.

        If the hook raises, the test fails. pytest-arena still restores the databases.
        """


@pytest.fixture
def scenario(pytestconfig: pytest.Config) -> Scenario:
    """Blocks for the steps of the scenario that the test proves. See `pytest_arena.Scenario`."""
    from pytest_arena.scenarios._blocks import Scenario  # noqa: PLC0415 - only tests that use it

    scenarios = pytestconfig.pluginmanager.get_plugin("arena_scenarios")
    return Scenario(scenarios.recorder if scenarios else None)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add each option to pytest's configuration, and a few to the command line.

    Then install the gate, before pytest loads further plugins.
    """
    group = parser.getgroup(
        "arena",
        "pytest-arena: every test of a web app gets its own database. Options are set in pytest's "
        "configuration file (arena_app = ...), or by -o arena_app=... for one run",
    )
    for option in OPTIONS:
        about = option.help
        if option.choices:
            about += f" {', '.join(option.choices)}."
        if option.default:
            about += f" Default: {option.default}."
        if option.flag:
            group.addoption(
                option.flag,
                dest=option.ini,
                metavar="VALUE",
                help=f"arena_{option.name} for one run.",
            )
        if option.many:
            parser.addini(option.ini, about, type="linelist", default=[])
        else:
            parser.addini(option.ini, about, type="string", default="")
    for name, settings in FLAGS.items():
        group.addoption(name, **settings)
    config: Any = pluginmanager.get_plugin("pytestconfig")
    if hasattr(config, "rootpath"):  # `pytest.main(plugins=[…])` adds options before it is known
        config.stash[_WAITING] = Waiting(config, parser)
        config.stash[_WAITING].begin_or_watch()


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add pytest-arena's hooks and fixtures."""
    pluginmanager.add_hookspecs(LevelHooks)
    pluginmanager.register(_fixtures, "arena_fixtures")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Install the gate before pytest imports the user's code, if a plugin has set a variable."""
    args[:] = _without_values_behind(args)  # pytest parses them again
    waiting = early_config.stash.get(_WAITING, None) or Waiting(early_config, parser)
    early_config.stash[_IS_IN_TIME] = True
    waiting.begin_or_watch()


_WAITING = pytest.StashKey["Waiting"]()
_IS_IN_TIME = pytest.StashKey[bool]()
_WATCHED = ("sqlalchemy", *DRIVERS)


def pytest_configure(config: pytest.Config) -> None:
    """Add the markers. Refuse a plugin that pytest has loaded after the user's code."""
    if _IS_IN_TIME not in config.stash:
        raise pytest.UsageError(
            "pytest_arena.plugin was loaded too late to redirect the app to test databases: "
            "remove it from pytest_plugins. pytest loads it without that entry, or by "
            "-p pytest_arena.plugin"
        )
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def _without_values_behind(words: list[str]) -> list[str]:
    """Return a command line in which no path behind ``--arena-replay`` is its value."""
    return [f"{word}={ALL_QUESTIONS}" if word == "--arena-replay" else word for word in words]


def _names_in_file(config: pytest.Config) -> list[str]:
    """Return the names of our options in pytest's configuration file, also wrong names."""
    if config.inipath is None:
        return []
    if not re.search(r"(?m)^[ \t]*arena_", config.inipath.read_text(encoding="utf-8")):
        return []
    from pytest_arena._config._read import values_of  # noqa: PLC0415 - only files with options

    return [name for name in values_of(config.inipath) if name.startswith("arena_")]


class Waiting:
    """Begins the run when it is set up, or at the first import of SQLAlchemy or of a driver.

    A test may be the first that imports SQLAlchemy. Then `begin` checks the collection and enters
    the test's level. A run also begins when code removes a database file.
    """

    def __init__(self, config: pytest.Config, parser: pytest.Parser) -> None:
        config.pluginmanager.register(self, "arena_waiting")
        self._config = config
        # pytest reads our flags after it has loaded all plugins. A worker of pytest-xdist has them.
        words = [*config.getini("addopts"), *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
        words += map(os.fspath, config.invocation_params.args)
        parsed = parser.parse_known_args(
            _without_values_behind(words), namespace=copy(config.option)
        )
        self._flags = {
            name.removeprefix("arena_"): getattr(config.option, name, None) or value
            for name, value in vars(parsed).items()
            if name.startswith("arena_")
        }
        # Plugins that have connected without the gate, if they could.
        self._earlier: list[ModuleType] = []
        if any(name in sys.modules for name in _WATCHED if name not in sys.stdlib_module_names):
            plugins = config.pluginmanager.get_plugins()
            self._earlier = [each for each in plugins if hasattr(each, "__file__")]
        self._has_begun = False
        self._temporary: Path | None = None
        self._items: list[pytest.Item] | None = None  # after the collection
        self._item: pytest.Item | None = None  # the running test

    def begin_or_watch(self) -> None:
        """Begin the run if an option is set, or a variable that the defaults name.

        Else begin it later, before the user's code opens a connection or removes a file.
        """
        values = [self._config.getini(option.ini) for option in OPTIONS]
        values += [os.environ.get("ARENA_DATABASE"), os.environ.get("DATABASE_URL")]
        if any(values) or any(self._flags.values()) or _names_in_file(self._config):
            self.begin()
            return
        for name in _WATCHED:
            _interpreter.when_imported(name, lambda _module: self.begin())
        events = ("os.remove", "os.rename")
        _interpreter.on_audit_events(dict.fromkeys(events, self._begin_for_file))

    def _begin_for_file(self, *arguments: object) -> None:
        """Begin the run before a file is removed or renamed that may be a database."""
        if any(re.search(FILE_FORMAT.name, str(argument)) for argument in arguments):
            self.begin()

    def begin(self) -> None:
        """Begin the run. From now on pytest calls the hooks of `_hooks` in place of these."""
        # A run inside of a test of another run belongs to that test.
        if self._has_begun or any(not run.databases.finished for run in _fixtures.RUNS.values()):
            return
        self._has_begun = True
        from pytest_arena import _hooks  # noqa: PLC0415 - only runs that use a database

        _hooks.start(
            self._config,
            flags=self._flags,
            earlier=self._earlier,
            names=_names_in_file(self._config),
            temporary=self._temporary,
        )
        self._config.pluginmanager.unregister(self)
        self._config.pluginmanager.register(_hooks, "arena_hooks")
        if self._items is not None:
            _hooks.pytest_collection_modifyitems(self._items, self._config)
        if self._item is not None:
            _hooks.join_test(self._item)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Begin the run if a test uses a fixture of pytest-arena."""
        self._items = items
        names = {name for item in items for name in getattr(item, "fixturenames", ())}
        if not names.isdisjoint(_fixtures.__all__):
            self.begin()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note the running test."""
        self._item = item

    def pytest_runtest_logfinish(self) -> None:
        """Note that no test runs."""
        self._item = None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self) -> Generator[None, Any, Any]:
        """Note the folder in which pytest creates `tmp_path`, if a test uses it."""
        result = yield
        if isinstance(result, pytest.TempPathFactory):
            self._temporary = result.getbasetemp().resolve()
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self) -> None:
        """Begin the run of a controller, which collects the facts of its workers."""
        self.begin()
