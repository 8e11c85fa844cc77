"""Which databases are inside the arena, and where does each engine land?"""

from __future__ import annotations

import gc
import glob
import itertools
import re
import threading
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from pytest_arena import _gate
from pytest_arena._arena._builds import Builds
from pytest_arena._arena._files import Files, real, tails_of
from pytest_arena._arena._provision import Provision
from pytest_arena._arena._state import Database
from pytest_arena._gate import Aim, Asked, Key
from pytest_arena._isolation import ISOLATIONS
from pytest_arena._load import nearest
from pytest_arena._template import Recipe
from pytest_arena.errors import ArenaError, ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect, Engine

    from pytest_arena._arena._state import Level
    from pytest_arena._config import Config
    from pytest_arena._isolation import Isolation
    from pytest_arena._ledger import Ledger
    from pytest_arena._servers._sqlite import Home
    from pytest_arena._template import Store

__all__ = ["Databases"]

_MANY = 16  # databases, beside those in use: then engines are looked for that are garbage


class Databases:
    """The resolver that the gate asks: from an engine's URL to a database of the arena.

    The file in the URL tells which database is meant; each memory engine has one of its own.
    An engine keeps the database that it had first, also after a change of the working folder.
    """

    def __init__(self, config: Config, home: Home, store: Store, ledger: Ledger) -> None:
        self._config, self._home, self.ledger = config, home, ledger
        self.files = Files(config, home)
        self._by_key: dict[Key, Database] = {}
        self._registering = threading.RLock()
        self._by_engine: weakref.WeakKeyDictionary[Dialect, Database] = weakref.WeakKeyDictionary()
        self._builds = Builds()
        isolation = ISOLATIONS[config.isolation]
        self.provision = Provision(
            store, ledger, self._builds, isolation=isolation, recipe_of=self._recipe
        )
        self._count = itertools.count(1)
        self._many = _MANY
        self.levels: list[Level] = []
        self.primary: Database | None = None
        self.finished = False
        self.exported = ""  # the redirected variables, one a line

    # What the gate asks.

    def aim(self, asked: Asked) -> Aim | None:
        """Return where an engine lands, None where it may go its own way."""
        __tracebackhide__ = True
        if self.finished:
            raise self.ledger.refused(_gate.after_session(asked.name))
        if asked.product != "sqlite":
            self._check_foreign(asked)
            return None
        if asked.dialect not in self._by_engine and self._goes_its_own_way(asked.name):
            return None
        if (build := self._builds.now()) is not None:
            known = self.find(asked)
            return build.aim(known.name if known and known.name != build.name else "")
        database = self.register(asked)
        self.ensure(database)
        return database.aim

    def aim_attached(self, file: str, beside: Aim | None) -> Aim | None:
        """Return where a file lands that is attached to a connection which aims at ``beside``."""
        __tracebackhide__ = True
        if self.finished:
            raise self.ledger.refused(_gate.after_session(file))
        if self._goes_its_own_way(file):
            return None
        database = self._attached(file, self._by_key.get(beside.key) if beside else None)
        if (build := self._builds.now()) is not None:
            return build.aim(database.name if database.name != build.name else "")
        self.ensure(database)
        return database.aim

    def _attached(self, file: str, main: Database | None) -> Database:
        """The database that an attached file means. Its driver is that of the main one."""
        driver = main.dialect if main else make_url("sqlite://").get_dialect()
        database = self.register(Asked(driver(), "sqlite", file))
        database.attached = True
        return database

    def _check_foreign(self, asked: Asked) -> None:
        __tracebackhide__ = True
        if not self.files.is_allowed(asked.name):
            raise self.ledger.refused(_gate.unknown_connection(asked.name))

    def _goes_its_own_way(self, file: str) -> bool:
        if not file or self._database_at(file) is not None:
            return False
        return self.files.is_ours(file) or self.files.is_free(file)

    def current(self, key: Key) -> Aim | None:
        """Return where a connection to this database would land now."""
        __tracebackhide__ = True
        database = self._by_key.get(key)
        if self.finished:
            raise self.ledger.refused(_gate.after_session(database.name if database else ""))
        build = self._builds.now()
        if build is not None and (aim := build.current(key)) is not None:
            return aim
        return database.aim if database else None

    def aim_at(self, file: str) -> Aim | None:
        """Return what a connection that is open on this file aims at, None if nothing of ours."""
        database = self._database_at(file)
        return database.aim if database else None

    def is_inside(self, file: str) -> bool:
        """Whether this file is one of the arena's own; its content is there on return."""
        # A builder that opens the file by itself would wait for its own build.
        is_settled = self.finished or self._builds.now() is not None
        if (database := self._database_at(file)) is not None and not is_settled:
            self.ensure(database)
        return self.files.is_ours(file)

    def before_child(self, *, forked: bool) -> None:
        """A test starts another process: what it finds has to be there.

        That is what the environment names, and in a fork what its engines mean. A build that
        fails is left to the first connection, which says it.
        """
        if not self.serial() or self.finished:
            return
        for database in [one for one in self.known() if forked or str(one.live) in self.exported]:
            with suppress(ArenaError):
                self.ensure(database)

    def serial(self) -> int:
        """The serial of the level on top: a test's or an example's, 0 for a wide fixture's."""
        # What a builder takes and keeps is no leak of the test that happens to need the template.
        return self.levels[-1].serial if self.levels and self._builds.now() is None else 0

    def made_table(self, file: str, started: float, ended: float) -> None:
        """Keep what it costs that the app, and no template, makes the tables."""
        if self._database_at(file) is not None:
            self.ledger.made_table(started, ended)

    # What the run asks.

    def find(self, asked: Asked) -> Database | None:
        """Return the database that is meant, if it is known."""
        if (known := self._by_engine.get(asked.dialect)) is not None:
            return known
        at_file = self._database_at(asked.name) if asked.name else None
        key = self._key(asked)
        return at_file or (self._by_key.get(key) if key else None)

    def _key(self, asked: Asked) -> Key | None:
        if asked.name:
            return Key("file", real(asked.name))
        # A memory database without a name is its engine's alone.
        return Key("shared memory", asked.memory) if asked.memory else None

    def first(self) -> Database:
        """Return the app's first database; the next engine's, where none is known yet.

        Raises:
            ConfigError: all engines of the app are on other products.
        """
        if self.primary is None:
            self._know_engines()
        if self.primary is None:
            names = self._options_name()
            self.primary = self._expected("" if "" in names else next(iter(names), ""))
        return self.primary

    def _know_engines(self) -> None:
        """Those that have not connected yet count as well."""
        engines = _gate.engines_in_use()
        self.choose_primary([one for one in map(_gate.asked_by_engine, engines) if one])
        if engines and self._config.database != "sqlite":
            _check_products(engines)

    def named(self, name: str) -> Database:
        """Return a database by its name, which an engine or an option has given it.

        Raises:
            ConfigError: nobody knows this name, or several databases have it.
        """
        found = [database for database in self.known() if name in database.tails]
        if len(found) == 1:
            return found[0]
        if not found and name in self._options_name():
            return self._expected(name)
        raise self._several(name, found) if found else self._unknown(name)

    def _several(self, name: str, found: list[Database]) -> ConfigError:
        longer = [next(tail for tail in one.tails[::-1] if "/" in tail) for one in found]
        return ConfigError(
            f"there are {len(found)} databases {name!r}",
            why="which one was meant would depend on which was connected to first",
            cause=f"{', '.join(one.tails[0] for one in found)}\n{_gate.user_line() or ''}".strip(),
            fix=f"arena.session(database={longer[0]!r})",
        )

    def _unknown(self, name: str) -> ConfigError:
        names = sorted({*(one.name for one in self.known()), *self._options_name()} - {""})
        return ConfigError(
            f"there is no database {name!r}",
            why="each database of the app has the name of its file, without its ending",
            cause=f"known by now: {', '.join(names) or 'none'}\n{_gate.user_line() or ''}".strip(),
            fix=f"arena.session(database={nearest(name, names) if names else 'app'!r})",
        )

    def _expected(self, name: str) -> Database:
        """A database that somebody asks for before any engine: the first engine means it.

        Where the options name their databases, it is the engine on the file of that name.
        """
        key = Key("expected", name)
        if key not in self._by_key:
            dialect, shown = make_url(_usual_url()).get_dialect(), name or "app"
            live = self._live_file(f"{shown}.db")
            self._by_key[key] = Database(key, shown, (shown,), live, dialect)
        return self._by_key[key]

    def _adopted(self, key: Key, asked: Asked) -> Database | None:
        tails = tails_of(asked.name)
        for name in (*tails, ""):
            expected = self._by_key.pop(Key("expected", name), None)
            if expected is not None:
                # Before it stands among the others, whose names it must not have.
                expected.name = name or (self._free_name(tails) if tails else expected.name)
                expected.key, expected.tails = key, tails or expected.tails
                self._by_key[key] = expected
                return expected
        return None

    def _options_name(self) -> list[str]:
        return [*self._config.schema, *self._config.seed]

    def register(self, asked: Asked) -> Database:
        """Return the database that is meant; it has no content before its first connection."""
        with self._registering:
            database = self.find(asked) or self._add(asked)
            self._by_engine.setdefault(asked.dialect, database)
            if asked.dialect.is_async:  # an app with engines of both kinds is an async one
                database.dialect = type(asked.dialect)
            return database

    def _add(self, asked: Asked) -> Database:
        key = self._key(asked) or Key("memory", str(next(self._count)))
        database = self._by_key[key] = self._adopted(key, asked) or self._new(key, asked)
        if asked.name:
            self.files.add(asked.name)
        self.primary = self.primary or database
        return database

    def drop_orphans(self) -> list[Database]:
        """Between tests: drop the databases that nothing will ask for as they are now.

        Those in memory end with their engines, or when there are too many. On a file, one that
        only engines meant which are disposed of, or gone, starts from its template at its next use.
        """
        too_many = self._collect_engines()
        used = {self._by_engine.get(engine.dialect) for engine in _gate.engines_in_use()}
        dropped = [one for one in self.known() if one not in used and self._may_drop(one)]
        # Somebody keeps the engines: a cache of the framework's, a list of the app's. One that is
        # used again lands in a database that is as this one is now.
        dropped += [one for one in too_many if one not in dropped]
        for database in dropped:
            del self._by_key[database.key]
            self._drop(database)
        return dropped

    def _collect_engines(self) -> list[Database]:
        """An engine that was never disposed of waits for the garbage collector.

        Each keeps three descriptors of its database, so that these are counted. Returns the
        databases of tests gone by that are in memory, where there are too many of all; never the
        first one, which ``db_session`` means.
        """
        if len(self.provisioned()) < self._many:
            return []
        gc.collect()
        others = [one for one in self.known() if one is not self.primary]
        of_tests = [one for one in others if one.is_of_a_test and one.key.kind == "memory"]
        self._many = len(self.provisioned()) - len(of_tests) + _MANY
        return of_tests

    def _may_drop(self, database: Database) -> bool:
        if database.key.kind == "memory":
            return True
        is_asked_for = (
            database.is_expected
            or database.attached
            or database is self.primary
            or str(database.live) in self.exported
            or any(name in database.tails for name in self._options_name())
        )
        return not is_asked_for and not self.levels

    def _drop(self, database: Database) -> None:
        if self.primary is database:
            self.primary = None  # the next engine's takes its place
        for dialect in [one for one, known in self._by_engine.items() if known is database]:
            del self._by_engine[dialect]
        if database.isolation is not None:
            database.isolation.close()
            for file in database.live.parent.glob(f"{glob.escape(database.live.name)}*"):
                file.unlink(missing_ok=True)

    def _new(self, key: Key, asked: Asked) -> Database:
        tails, file = tails_of(asked.name), Path(asked.name).name or "memory.db"
        name = self._free_name(tails or ("memory",))
        return Database(
            key,
            name,
            tails or (name,),
            self._live_file(file),
            type(asked.dialect),
            born=next(self._count),
        )

    def _free_name(self, tails: tuple[str, ...]) -> str:
        """The shortest name that no other database has."""
        taken = {database.name for database in self._by_key.values()}
        free = (name for name in tails[::-1] if name not in taken)
        return next(free, "") or f"{next(self._count)}-{tails[-1]}"

    def _live_file(self, name: str) -> Path:
        """A file of its own, with room in its name for SQLite's side files.

        Simple letters: the path stands in URLs, too. Some file systems do not tell A from a.
        """
        simple = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[-100:]
        taken = {database.live.name.lower() for database in self._by_key.values()}
        while simple.lower() in taken:
            simple = f"{next(self._count)}-{simple[-100:]}"
        return self._home.file(simple)

    def prefer(self, asked: Asked) -> None:
        """Make this file the app's first database, unless tests have begun to use another one."""
        used = self.primary is not None and self.primary.isolation is not None
        if asked.product == "sqlite" and asked.name and self._is_the_apps(asked.name) and not used:
            self.primary = self.register(asked)

    def choose_primary(self, asked: list[Asked]) -> None:
        """Make known the databases of engines that exist: a file comes before a memory engine."""
        known = [one for one in asked if one.product == "sqlite" and self._is_the_apps(one.name)]
        for one in sorted(known, key=lambda one: not one.name):
            self.register(one)

    def _is_the_apps(self, file: str) -> bool:
        return not file or not self._goes_its_own_way(file)

    def known(self) -> list[Database]:
        """Return the databases that engines or variables mean, connected to or not."""
        return list(self._by_key.values())

    def provisioned(self) -> list[Database]:
        """Return the databases that somebody has connected to."""
        return [database for database in self._by_key.values() if database.isolation]

    def ensure(self, database: Database) -> Isolation:
        """Give a database its content, once.

        Raises:
            TemplateError: the template cannot be built; in full the first time.
        """
        return self.provision.ensure(database, self.levels)

    def _recipe(self, database: Database) -> Recipe:
        names = (*database.tails, "") if database is self.primary else database.tails
        return Recipe(
            next((self._config.schema[name] for name in names if name in self._config.schema), ""),
            next((self._config.seed[name] for name in names if name in self._config.seed), ""),
        )

    def _database_at(self, file: str) -> Database | None:
        path = real(file)
        return next((one for one in self._by_key.values() if str(one.live) == path), None)


def _check_products(engines: list[Engine]) -> None:
    foreign = [engine.url for engine in engines if engine.dialect.name != "sqlite"]
    if len(foreign) == len(engines):
        names = ", ".join(dict.fromkeys(_gate.described_url(url) for url in foreign))
        raise ConfigError(
            f"there is no database for this test: the app's engines are on {names}",
            why="this version isolates SQLite only; in a database of its own the test would not "
            "see what the app does",
            cause=str(_gate.user_line() or "db_session, or a fixture of arena's"),
            fix="an SQLite URL for tests; or, if db_session is to have a database beside the "
            "app's:\narena_database = sqlite",
        )


def _usual_url() -> str:
    return "sqlite+aiosqlite://" if find_spec("aiosqlite") else "sqlite://"
