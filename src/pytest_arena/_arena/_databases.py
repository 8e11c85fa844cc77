"""Which databases are inside the arena, and where does each engine land?"""

from __future__ import annotations

import glob
import itertools
import os
import re
import threading
import weakref
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from pytest_arena import _gate
from pytest_arena._gate import Aim, Asked
from pytest_arena._isolation import Copy
from pytest_arena._template import Recipe
from pytest_arena._values import Stage
from pytest_arena.errors import ArenaError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from sqlalchemy.engine import Dialect

    from pytest_arena._config import Config
    from pytest_arena._isolation import Isolation
    from pytest_arena._ledger import Ledger
    from pytest_arena._servers._sqlite import Home
    from pytest_arena._template import Store

__all__ = ["Database", "Databases", "Level"]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A state of all databases that is entered and left. ``serial`` is 0 but for a test's."""

    owner: object
    name: str
    serial: int = 0
    stage: Stage = Stage.SEEDED


@dataclass(slots=True, eq=False)
class Database:
    """One database of the app, and the arena's in its place."""

    key: Hashable
    name: str
    live: Path
    dialect: type[Dialect]  # the class: an instance would keep the app's engine alive
    isolation: Isolation | None = None
    failure: TemplateError | None = None
    busy: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def aim(self) -> Aim:
        """Where a connection lands now."""
        generation = self.isolation.generation if self.isolation else 0
        return Aim(self.key, str(self.live), generation)


class Databases:
    """The resolver that the gate asks: from an engine's URL to a database of the arena.

    The file in the URL tells which database is meant; each memory engine has one of its own.
    An engine keeps the database that it had first, also after a change of the working folder.
    """

    def __init__(self, config: Config, home: Home, store: Store, ledger: Ledger) -> None:
        self._config, self._home, self._store, self._ledger = config, home, store, ledger
        self._cache = config.cache.resolve()
        self._root = config.root
        self._by_key: dict[Hashable, Database] = {}
        self._orphans: list[Database] = []
        self._registering = threading.RLock()
        self._by_engine: weakref.WeakKeyDictionary[Dialect, Database] = weakref.WeakKeyDictionary()
        self._building: ContextVar[Path | None] = ContextVar("arena_building", default=None)
        self._count = itertools.count(1)
        self._seen: dict[Path, tuple[int, int] | None] = {}
        self.levels: list[Level] = []
        self.temporary: Callable[[], Path | None] = lambda: None
        self.primary: Database | None = None
        self.finished = False
        self.exported = ""  # the redirected variables, one a line

    # What the gate asks.

    def aim(self, asked: Asked) -> Aim | None:
        """Return where an engine lands, None where it may go its own way."""
        __tracebackhide__ = True
        if self.finished:
            raise self._kept(_gate.after_session(asked.name))
        if asked.product != "sqlite":
            self._check_foreign(asked)
            return None
        if asked.dialect not in self._by_engine and self._goes_its_own_way(asked.name):
            return None
        if (building := self._building.get()) is not None:
            return Aim(("building", building), str(building), 0)
        database = self.register(asked)
        self.ensure(database)
        return database.aim

    def _check_foreign(self, asked: Asked) -> None:
        __tracebackhide__ = True
        if not self.is_allowed(asked.name):
            raise self._kept(_gate.unknown_connection(asked.name))

    def _goes_its_own_way(self, file: str) -> bool:
        if not file or self._database_at(file) is not None:
            return False
        return self._is_ours(file) or self.is_free(file)

    def current(self, key: Hashable) -> Aim | None:
        """Return where a connection to this database would land now."""
        __tracebackhide__ = True
        database = self._by_key.get(key)
        if self.finished:
            raise self._kept(_gate.after_session(database.name if database else ""))
        building = self._building.get()
        if building is not None and key == ("building", building):
            return Aim(key, str(building), 0)
        return database.aim if database else None

    def aim_at(self, file: str) -> Aim | None:
        """Return what a connection that is open on this file aims at, None if nothing of ours."""
        database = self._database_at(file)
        return database.aim if database else None

    def is_inside(self, file: str) -> bool:
        """Whether this file is one of the arena's own; its content is there on return."""
        # A builder that opens the file by itself would wait for its own build.
        is_settled = self.finished or self._building.get() is not None
        if (database := self._database_at(file)) is not None and not is_settled:
            self.ensure(database)
        return self._is_ours(file)

    def before_child(self) -> None:
        """A test starts another process: what it finds in the environment has to be there.

        A build that fails is left to the first connection, which says it.
        """
        if not self.level() or self.finished:
            return
        for database in [one for one in self.known() if str(one.live) in self.exported]:
            with suppress(ArenaError):
                self.ensure(database)

    def is_free(self, file: str) -> bool:
        """Whether tests may open this file themselves: pytest's folders, ``arena_allow``."""
        temporary = self.temporary()
        if temporary is not None and Path(self._real(file)).is_relative_to(temporary):
            return not self._is_link_to_app(file)
        names = {file, self._real(file)}
        return any(self.is_allowed(name) or self.is_allowed(f"sqlite:///{name}") for name in names)

    def is_allowed(self, name: str) -> bool:
        """Whether ``arena_allow`` names this database. A relative file is one below the root."""
        patterns = [*self._config.allow, *(str(self._root / text) for text in self._config.allow)]
        return name in patterns or any(fnmatch(name, pattern) for pattern in patterns)

    def belongs_to_app(self, file: str) -> bool:
        """Whether this is a file of an engine's, so that a database of the arena stands for it.

        Engines that have not connected yet count: asking the garbage collector for them costs
        some milliseconds, for a file that is not known yet.
        """
        is_known = ("file", self._real(file)) in self._by_key or self._is_link_to_app(file)
        return (is_known or self._is_meant_by_an_engine(file)) and not self.is_free(file)

    def _is_meant_by_an_engine(self, file: str) -> bool:
        real = self._real(file)
        found = [_gate.asked_by_engine(engine) for engine in _gate.find_engines()]
        return any(one and one.product == "sqlite" and self._means(one, real) for one in found)

    def _means(self, asked: Asked, real: str) -> bool:
        return bool(asked.name) and self._real(asked.name) == real

    def _is_link_to_app(self, file: str) -> bool:
        """Whether the file is another name, a hard link, of one that belongs to the app."""
        path = Path(file)
        if not path.exists() or path.stat().st_nlink == 1:
            return False
        return any(known.exists() and known.samefile(path) for known in self._files_of_app())

    def _files_of_app(self) -> Iterator[Path]:
        for key in list(self._by_key):
            if isinstance(key, tuple) and key[0] == "file":
                yield Path(key[1])

    def stands_for(self, real: str) -> bool:
        """Whether a database of the arena stands in this file's place, known by its real path."""
        return ("file", real) in self._by_key and not self.is_free(real)

    def level(self) -> int:
        """The serial of the test whose level is on top, else 0."""
        # What a builder takes and keeps is no leak of the test that happens to need the template.
        return self.levels[-1].serial if self.levels and self._building.get() is None else 0

    def refused(self, error: ArenaError) -> None:
        """Keep what was raised, since the app may swallow it."""
        self._ledger.refused(error)

    def note(self, line: str) -> None:
        """Keep a line for the summary."""
        self._ledger.note(line)

    def made_table(self, file: str, started: float, ended: float) -> None:
        """Keep what it costs that the app, and no template, makes the tables."""
        if self._database_at(file) is not None:
            self._ledger.made_table(started, ended)

    # What the run asks.

    def find(self, asked: Asked) -> Database | None:
        """Return the database that is meant, if it is known."""
        if (known := self._by_engine.get(asked.dialect)) is not None:
            return known
        at_file = self._database_at(asked.name) if asked.name else None
        return at_file or self._by_key.get(self._key(asked))

    def _key(self, asked: Asked) -> Hashable | None:
        if asked.name:
            return ("file", self._real(asked.name))
        # A memory database without a name is its engine's alone.
        return ("shared memory", asked.memory) if asked.memory else None

    def first(self) -> Database:
        """Return the app's first database; the next engine's, where none is known yet."""
        if self.primary is None:
            dialect = make_url(_usual_url()).get_dialect()
            name = next(
                (name for name in (*self._config.schema, *self._config.seed) if name), "app"
            )
            self.primary = Database(("unknown",), name, self._home.file(f"{name}.db"), dialect)
            self._by_key[self.primary.key] = self.primary
        return self.primary

    def _adopted(self, key: Hashable, asked: Asked) -> Database | None:
        """The first database was asked for before any engine: the first engine means it.

        Where the options name their databases, it is the first one named.
        """
        unknown, name = self._by_key.get(("unknown",)), Path(asked.name).stem
        if unknown is None or (self._names_databases() and unknown.name != name):
            return None
        self._by_key[key] = self._by_key.pop(("unknown",))
        unknown.key, unknown.name = key, name or unknown.name
        return unknown

    def _names_databases(self) -> bool:
        return any((*self._config.schema, *self._config.seed))

    def register(self, asked: Asked) -> Database:
        """Return the database that is meant; it has no content before its first connection."""
        with self._registering:
            database = self.find(asked) or self._add(asked)
            self._by_engine.setdefault(asked.dialect, database)
            if asked.dialect.is_async:  # an app with engines of both kinds is an async one
                database.dialect = type(asked.dialect)
            return database

    def _add(self, asked: Asked) -> Database:
        key = self._key(asked)
        if key is None:
            key = ("memory", next(self._count))
        database = self._by_key[key] = self._adopted(key, asked) or self._new(key, asked)
        if asked.name:
            self._seen[Path(self._real(asked.name))] = _signature(asked.name)
        self.primary = self.primary or database
        if not asked.name and not asked.memory:  # it ends with its engine
            _gate.when_gone(asked.dialect, partial(self._orphans.append, database))
        return database

    def drop_orphans(self) -> list[Database]:
        """Between tests: drop the memory databases whose engines are disposed of, or gone."""
        dropped = list(dict.fromkeys(self._orphans))
        self._orphans.clear()
        for database in dropped:
            if self._by_key.pop(database.key, None) is not None:
                self._drop(database)
        return dropped

    def _drop(self, database: Database) -> None:
        if self.primary is database:
            self.primary = None  # the next engine's takes its place
        for dialect in [one for one, known in self._by_engine.items() if known is database]:
            del self._by_engine[dialect]
        if database.isolation is not None:
            database.isolation.close()
            for file in database.live.parent.glob(f"{glob.escape(database.live.name)}*"):
                file.unlink(missing_ok=True)

    def _new(self, key: Hashable, asked: Asked) -> Database:
        name = Path(asked.name).name or "memory.db"
        if any(database.name == Path(name).stem for database in self._by_key.values()):
            name = f"{next(self._count)}-{name}"
        # Simple letters, and room for SQLite's side files: the path stands in URLs, too.
        file = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[-100:]
        return Database(key, Path(name).stem, self._home.file(file), type(asked.dialect))

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

    def changed_files(self) -> list[str]:
        """Return the app's own files that are not what they were: another process wrote to them."""
        return [str(file) for file, before in self._seen.items() if _signature(file) != before]

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
        with database.lock:
            if database.failure is not None:
                raise self._kept(_said_before(database.failure))
            if database.isolation is None and not database.busy:
                database.busy = True
                try:
                    database.isolation = self._provision(database)
                finally:
                    database.busy = False
            return database.isolation  # type: ignore[return-value]  # None only inside _provision

    def _provision(self, database: Database) -> Isolation:
        try:
            isolation = Copy(database.live, self.template(database, Stage.SEEDED))
            for level in self.levels:
                self.enter(isolation, database, level)
        except TemplateError as error:
            database.failure = error
            raise self._kept(error) from error.__cause__
        return isolation

    def enter(self, isolation: Isolation, database: Database, level: Level) -> None:
        """Open a level on one database, with the content that the level asks for."""
        isolation.enter()
        if level.stage is not Stage.SEEDED:
            isolation.replace(self.template(database, level.stage))

    def template(self, database: Database, stage: Stage) -> Path | None:
        """Return the template for a database; None for an empty one."""
        return self._store.ensure(self._recipe(database), stage, self._aimed_at)

    def _recipe(self, database: Database) -> Recipe:
        names = (database.name, "") if database is self.primary else (database.name,)
        return Recipe(
            next((self._config.schema[name] for name in names if name in self._config.schema), ""),
            next((self._config.seed[name] for name in names if name in self._config.seed), ""),
        )

    @contextmanager
    def _aimed_at(self, file: Path) -> Iterator[None]:
        token = self._building.set(file)
        try:
            yield
        finally:
            self._building.reset(token)

    def _database_at(self, file: str) -> Database | None:
        real = self._real(file)
        return next((one for one in self._by_key.values() if str(one.live) == real), None)

    def _is_ours(self, file: str) -> bool:
        real = Path(self._real(file))
        return real.is_relative_to(self._home.path) or real.is_relative_to(self._cache)

    def _real(self, file: str) -> str:
        return str(Path(file).resolve())

    def _kept(self, error: ArenaError) -> ArenaError:
        self._ledger.refused(error)
        return error


def _signature(file: str | Path) -> tuple[int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116 - a string or a path
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _usual_url() -> str:
    return "sqlite+aiosqlite://" if find_spec("aiosqlite") else "sqlite://"


def _said_before(failure: TemplateError) -> TemplateError:
    return TemplateError(
        f"no database: {failure.what.partition(' failed:')[0]} failed, as the first test that "
        "connected says",
        why="no test can have a database before its template is built",
        cause=failure.cause,
        fix="the same as there",
    )
