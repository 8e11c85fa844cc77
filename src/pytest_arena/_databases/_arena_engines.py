"""The engines of our own, one for each database and kind, and the sessions on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pytest_arena import _gate
from pytest_arena._origin import user_line
from pytest_arena._process import run_in_new_loop
from pytest_arena._product import NOWHERE
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._databases._sessions import Sessions
    from pytest_arena._product import Database


class Engines:
    """Made like the app's engine where there is one, so that PRAGMAs and types are the same."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
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

    def open_session(
        self, sessions: Sessions, name: str = "", *, wants_async: bool
    ) -> AsyncSession | Session:
        """Open a session on a database; without a name, on the app's first one."""
        known = self._databases.known
        database = known.named(name) if name else known.first()
        if wants_async and database.dialect.is_async:
            return sessions.open_async(self._async_on(database))
        return sessions.open_sync(self._sync_on(database))

    def _sync_on(self, database: Database) -> Engine:
        if database not in self._sync:
            # The app's own kind first: a test may have a sync engine of its own on an async app.
            kind = database.dialect.is_async
            like = self._engine_of_app(database, kinds=(kind, not kind))
            if like is not None and not like.dialect.is_async:
                engine = _gate.engine_like(like, _shown_url(database, _driver(database)))
            else:
                url = _shown_url(database, _sync_driver(database))
                engine = create_engine(url) if like is None else _gate.sync_twin(like, url)
            self._sync[database] = engine
            self._databases.known.by_engine[engine.dialect] = database
        return self._sync[database]

    def _async_on(self, database: Database) -> AsyncEngine:
        if database not in self._async:
            like = self._engine_of_app(database, kinds=(True,))
            url = _shown_url(database, _driver(database))
            engine = AsyncEngine(_gate.engine_like(like, url)) if like else create_async_engine(url)
            self._async[database] = engine
            self._databases.known.by_engine[engine.dialect] = database
        return self._async[database]

    def _url(self, database: Database) -> URL:
        """The URL under which anybody reaches the database, by the app's own driver."""
        self._databases.ensure(database)
        return database.product.url(database, _driver(database))

    def _engine_of_app(self, database: Database, kinds: tuple[bool, ...]) -> Engine | None:
        """The oldest engine of the app's on this database, of the first of these kinds it has."""
        engines = [engine for engine in _gate.find_engines() if self._means(engine, database)]
        fit = [engine for engine in engines if engine.dialect.is_async in kinds]
        return min(fit, key=lambda engine: kinds.index(engine.dialect.is_async), default=None)

    def _means(self, engine: Engine, database: Database) -> bool:
        known = self._databases.known
        if (asked := _gate.asked_by_engine(engine)) is None or asked.product not in known.products:
            return False
        return known.find(asked) is database

    def close(self, databases: list[Database]) -> None:
        """Close the engines on databases that are no more."""
        for database in databases:
            if (sync := self._sync.pop(database, None)) is not None:
                sync.dispose()
            if (asynchronous := self._async.pop(database, None)) is not None:
                run_in_new_loop(asynchronous.dispose())


def _sync_driver(database: Database) -> str:
    driver = database.product.sync_driver()
    if driver is None:
        raise ConfigError(
            f"a sync session on {database.name} needs a sync driver, and none is installed",
            why=f"the app's own driver, {database.dialect.driver}, works in event loops alone",
            cause=str(user_line() or "db_session in a test that is no coroutine"),
            fix="pip install 'psycopg[binary]'   (or make the test async)",
        )
    return driver


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
