"""The engines of our own, one for each database and kind, kept from test to test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pytest_arena import _gate

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy.engine import Engine

    from pytest_arena._arena._databases import Database, Databases

__all__ = ["Engines"]


class Engines:
    """Made like the app's engine where there is one, so that PRAGMAs and types are the same."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._sync: dict[Database, Engine] = {}
        self._async: dict[Database, AsyncEngine] = {}

    def sync_engine(self, database: Database) -> Engine:
        """Return a sync engine on a database of the arena."""
        if database not in self._sync:
            self._sync[database] = self._new_sync(database)
        return self._sync[database]

    def async_engine(self, database: Database) -> AsyncEngine:
        """Return an async engine on a database of the arena."""
        if database not in self._async:
            self._async[database] = self._new_async(database)
        return self._async[database]

    def url(self, database: Database) -> URL:
        """Return the URL under which anybody reaches the database, by the app's own driver."""
        driver = f"sqlite+{database.dialect.driver}" if database.dialect.is_async else "sqlite"
        return URL.create(driver, database=str(database.live))

    def _new_sync(self, database: Database) -> Engine:
        # The app's own kind first: a test may have a sync engine of its own on an async app.
        kind = database.dialect.is_async
        engine = self._engine_of_app(database, kinds=(kind, not kind))
        url = URL.create("sqlite", database=str(database.live))
        if engine is None:
            return create_engine(url)
        return (
            _gate.sync_twin(engine, url)
            if engine.dialect.is_async
            else _gate.engine_like(engine, self.url(database))
        )

    def _new_async(self, database: Database) -> AsyncEngine:
        engine = self._engine_of_app(database, kinds=(True,))
        if engine is None:
            return create_async_engine(self.url(database))
        return AsyncEngine(_gate.engine_like(engine, self.url(database)))

    def _engine_of_app(self, database: Database, kinds: tuple[bool, ...]) -> Engine | None:
        engines = [engine for engine in _gate.find_engines() if self._means(engine, database)]
        engines = _gate.oldest_first(engines)
        for is_async in kinds:
            for engine in engines:
                if engine.dialect.is_async is is_async:
                    return engine
        return None

    def _means(self, engine: Engine, database: Database) -> bool:
        asked = _gate.asked_by_engine(engine)
        if asked is None or asked.product != "sqlite":
            return False
        return self._databases.find(asked) is database

    def close(self, databases: list[Database]) -> None:
        """Close the engines on databases that are no more."""
        for database in databases:
            if (sync := self._sync.pop(database, None)) is not None:
                sync.dispose()
            if (asynchronous := self._async.pop(database, None)) is not None:
                _run(asynchronous.dispose())


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    # Not asyncio.run, which takes the main thread's event loop away from the user.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()
