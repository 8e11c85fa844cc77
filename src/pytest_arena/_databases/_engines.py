"""The engines of our own, one for each database and kind, and the sessions on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pytest_arena import _gate
from pytest_arena._databases._sessions import Sessions
from pytest_arena._loop import run_in_new_loop, running_loop
from pytest_arena._origin import user_line
from pytest_arena._product import NOWHERE
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._product import Database
    from pytest_arena._values import Plan

__all__ = ["Engines"]


class SessionOwner(Protocol):
    """A test that runs."""

    sessions: Sessions

    @property
    def plan(self) -> Plan:
        """What it has asked for."""


class CurrentTest(Protocol):
    """Knows which test runs."""

    def running(self) -> SessionOwner:
        """Return the test, where there must be one."""

    def on_top(self) -> SessionOwner | None:
        """Return the test if its level is on top, and no wide fixture's."""


class Engines:
    """Made like the app's engine where there is one, so that PRAGMAs and types are the same."""

    def __init__(self, databases: Databases, current: CurrentTest) -> None:
        self._databases, self._current = databases, current
        self._sync: dict[Database, Engine] = {}
        self._async: dict[Database, AsyncEngine] = {}

    def first_url(self) -> URL:
        """Return the URL of the app's first database, which is there on return."""
        database = self._databases.known.first()
        self._databases.ensure(database)
        return self._url(database)

    def shown_url(self, database: Database) -> str:
        """Return where a database is, for a command line: a file, or a URL."""
        return database.file or self._url(database).set(password=None).render_as_string()

    def first_engine(self) -> Engine | AsyncEngine:
        """Return the engine on the app's first database, of the kind of the app's."""
        database = self._databases.known.first()
        return self._async_on(database) if database.dialect.is_async else self._sync_on(database)

    def open_session(self, name: str = "") -> AsyncSession | Session:
        """Open a session of the test, or one that a wide fixture has to close itself."""
        test = self._current.on_top()
        sessions = test.sessions if test else Sessions()
        meant = self._databases.known.named(name) if name else self._databases.known.first()
        return self._open(sessions, meant, wants_async=running_loop() is not None)

    def open_test_session(self) -> AsyncSession | Session:
        """Open a session of the kind of the test."""
        test = self._current.running()
        return self._open(
            test.sessions, self._databases.known.first(), wants_async=test.plan.is_async
        )

    def _open(
        self, sessions: Sessions, database: Database, *, wants_async: bool
    ) -> AsyncSession | Session:
        if wants_async and database.dialect.is_async:
            return sessions.open_async(self._async_on(database))
        return sessions.open_sync(self._sync_on(database))

    def _sync_on(self, database: Database) -> Engine:
        if database not in self._sync:
            engine = self._sync[database] = self._new_sync(database)
            self._databases.known.lead(engine.dialect, database)
        return self._sync[database]

    def _async_on(self, database: Database) -> AsyncEngine:
        if database not in self._async:
            engine = self._async[database] = self._new_async(database)
            self._databases.known.lead(engine.dialect, database)
        return self._async[database]

    def _url(self, database: Database) -> URL:
        """The URL under which anybody reaches the database, by the app's own driver."""
        self._databases.ensure(database)
        return database.product.url(database, _driver(database))

    def _engine_url(self, database: Database) -> URL:
        return _shown_url(database, _driver(database))

    def _new_sync(self, database: Database) -> Engine:
        # The app's own kind first: a test may have a sync engine of its own on an async app.
        kind = database.dialect.is_async
        engine = self._engine_of_app(database, kinds=(kind, not kind))
        if engine is not None and not engine.dialect.is_async:
            return _gate.engine_like(engine, self._engine_url(database))
        url = self._sync_url(database)
        return create_engine(url) if engine is None else _gate.sync_twin(engine, url)

    def _sync_url(self, database: Database) -> URL:
        driver = database.product.sync_driver()
        if driver is None:
            raise ConfigError(
                f"a sync session on {database.name} needs a sync driver, and none is installed",
                why=f"the app's own driver, {database.dialect.driver}, works in event loops alone",
                cause=str(user_line() or "db_session in a test that is no coroutine"),
                fix="pip install 'psycopg[binary]'   (or make the test async)",
            )
        return _shown_url(database, driver)

    def _new_async(self, database: Database) -> AsyncEngine:
        engine = self._engine_of_app(database, kinds=(True,))
        if engine is None:
            return create_async_engine(self._engine_url(database))
        return AsyncEngine(_gate.engine_like(engine, self._engine_url(database)))

    def _engine_of_app(self, database: Database, kinds: tuple[bool, ...]) -> Engine | None:
        """The oldest engine of the app's on this database, of the first of these kinds it has."""
        engines = [engine for engine in _gate.find_engines() if self._means(engine, database)]
        found = [one for one in engines if one.dialect.is_async in kinds]
        return min(found, key=lambda one: kinds.index(one.dialect.is_async), default=None)

    def _means(self, engine: Engine, database: Database) -> bool:
        asked = _gate.asked_by_engine(engine)
        known = self._databases.known
        return (
            asked is not None and asked.product in known.products and known.find(asked) is database
        )

    def close(self, databases: list[Database]) -> None:
        """Close the engines on databases that are no more."""
        for database in databases:
            if (sync := self._sync.pop(database, None)) is not None:
                sync.dispose()
            if (asynchronous := self._async.pop(database, None)) is not None:
                run_in_new_loop(asynchronous.dispose())


def _driver(database: Database) -> str:
    """The name of the app's driver; "" for SQLite's own, which its URLs do not name."""
    is_named = database.dialect.is_async or not database.file
    return database.dialect.driver if is_named else ""


def _shown_url(database: Database, driver: str) -> URL:
    """The URL of an engine of ours, which the gate leads.

    On a server it is of no place: the live database has no name at first, and another one later.
    """
    name = f"{database.product.name}+{driver}" if driver else database.product.name
    host = None if database.file else NOWHERE
    return URL.create(name, host=host, database=database.file or database.name)
