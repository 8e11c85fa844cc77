"""How do functions get a connection or a session on a target, whatever driver there is?"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sqlalchemy.engine import URL, Connection, Engine

    from pytest_arena._product import Target

__all__ = ["in_async_session", "in_async_transaction", "in_session", "in_transaction"]


@contextmanager
def _engine(url: URL) -> Iterator[Engine]:
    engine = create_engine(url, poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def _async_engine(target: Target) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(target.async_url, poolclass=NullPool)
    try:
        yield engine
    finally:
        await engine.dispose()


def in_transaction(target: Target, work: Callable[[Connection], Any]) -> None:
    """Call a sync function with a connection, and commit."""
    if (url := target.sync_url) is None:
        in_async_transaction(target, lambda connection: connection.run_sync(work))
        return
    with _engine(url) as engine, engine.begin() as connection:
        work(connection)


def in_session(target: Target, work: Callable[[Session], Any]) -> None:
    """Call a sync function with a session, and commit."""
    if (url := target.sync_url) is None:
        in_async_session(target, lambda session: session.run_sync(work))
        return
    with _engine(url) as engine, Session(engine) as session:
        work(session)
        session.commit()


def in_async_transaction(target: Target, work: Callable[[AsyncConnection], Awaitable[Any]]) -> None:
    """Call an async function with a connection, in an event loop of its own, and commit."""

    async def run() -> None:
        async with _async_engine(target) as engine, engine.begin() as connection:
            await work(connection)

    asyncio.run(run())


def in_async_session(target: Target, work: Callable[[AsyncSession], Awaitable[Any]]) -> None:
    """Call an async function with a session, in an event loop of its own, and commit."""

    async def run() -> None:
        async with _async_engine(target) as engine, AsyncSession(engine) as session:
            await work(session)
            await session.commit()

    asyncio.run(run())
