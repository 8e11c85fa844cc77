"""How do functions get a connection or a session on a target, whatever driver there is?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.engine import Connection

    from pytest_arena._databases._shelves import Target

__all__ = ["in_async_session", "in_async_transaction", "in_session", "in_transaction"]


def in_transaction(target: Target, work: Callable[[Connection], Any]) -> None:
    """Call a sync function with a connection, and commit."""
    if target.is_async_only:
        in_async_transaction(target, lambda connection: connection.run_sync(work))
        return
    with target.engine() as engine, engine.begin() as connection:
        work(connection)


def in_session(target: Target, work: Callable[[Session], Any]) -> None:
    """Call a sync function with a session, and commit."""
    if target.is_async_only:
        in_async_session(target, lambda session: session.run_sync(work))
        return
    with target.engine() as engine, Session(engine) as session:
        work(session)
        session.commit()


def in_async_transaction(target: Target, work: Callable[[AsyncConnection], Awaitable[Any]]) -> None:
    """Call an async function with a connection, in an event loop of its own, and commit."""

    async def run() -> None:
        async with target.async_engine() as engine, engine.begin() as connection:
            await work(connection)

    asyncio.run(run())


def in_async_session(target: Target, work: Callable[[AsyncSession], Awaitable[Any]]) -> None:
    """Call an async function with a session, in an event loop of its own, and commit."""

    async def run() -> None:
        async with target.async_engine() as engine, AsyncSession(engine) as session:
            await work(session)
            await session.commit()

    asyncio.run(run())
