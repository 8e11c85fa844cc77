"""Explains errors of drivers' connections and pools that an earlier test has opened."""

import asyncio
import traceback
from collections.abc import Sequence
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from pytest_arena._postgresql import FACTS
from pytest_arena._values import sqlstate

_MOST_REASONS = 3
_SIGNS_OF_END = (
    "terminating connection due to administrator command",
    "connection is closed",
    "connection already closed",
    "server closed the connection",
    "connection was closed",
    "underlying connection",
    "cannot switch to state",
)
_ENDED = """\
pytest-arena has ended a connection that outlives its tests:
{}
next: open it in a fixture of scope="function", or use the app's engine, which connects again"""


def explain(error: BaseException, ended: Sequence[str]) -> str:
    """Explain an error of a driver's connection or pool, "" for another error."""
    if isinstance(error, SQLAlchemyError):
        return ""
    if ended:
        # If a `with` block of psycopg2's connection cannot roll back, it raises another error.
        for cause in (error, error.__context__):
            is_of_driver = type(cause).__module__.partition(".")[0] in FACTS.drivers
            if is_of_driver and any(sign in str(cause) for sign in _SIGNS_OF_END):
                return _ENDED.format("\n".join(dict.fromkeys(ended[-_MOST_REASONS:])))
    is_of_psycopg = type(error).__module__ == "psycopg.errors"
    is_ended = sqlstate(error) == _ENDED_BY_ADMINISTRATOR
    if (is_of_psycopg and is_ended) or _has_lost_psycopg2(error):
        return _POOL_OF_PSYCOPG
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if type(error).__name__ == "PoolTimeout" and _has_workers_of_closed_loop(frames):
        return _POOL_WITHOUT_WORKERS
    modules = {str(frame.f_globals.get("__name__")) for frame in frames}
    is_of_an_engine = any(module.startswith("sqlalchemy.") for module in modules)
    is_of_asyncpg = bool(modules & {"asyncpg.pool", "asyncpg.connection"})
    may_explain = is_of_asyncpg and not is_of_an_engine
    # `str` is last, because the `__str__` of an app's error may raise.
    if may_explain and any(sign in str(error) for sign in _OF_ANOTHER_LOOP):
        is_of_pool = "asyncpg.pool" in modules
        return _POOL_OF_ASYNCPG if is_of_pool else _CONNECTION_OF_ASYNCPG
    return ""


def _has_workers_of_closed_loop(frames: list[FrameType]) -> bool:
    """Whether a pool of psycopg has workers in a closed event loop, where they never run."""
    for frame in frames:
        if frame.f_globals.get("__name__") != "psycopg_pool.pool_async":
            continue
        workers = getattr(frame.f_locals.get("self"), "_workers", ())
        for worker in workers:
            if isinstance(worker, asyncio.Task) and worker.get_loop().is_closed():
                return True
    return False


_POOL_WITHOUT_WORKERS = """\
the workers of this AsyncConnectionPool are tasks of the event loop in which an earlier test has
opened it. That loop is closed, so no worker opens a connection
next: open the pool in the app's lifespan, and close it there"""


def _has_lost_psycopg2(error: BaseException) -> bool:
    """Whether a statement of psycopg2 lost its connection. psycopg2 reports no SQLSTATE for that.

    If a ``with`` block of the connection cannot roll back, it raises another error.
    """
    for cause in (error, error.__context__):
        kind = type(cause)
        if cause is None or kind.__module__ != "psycopg2":
            continue
        raised_in = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)][-1]
        is_connecting = raised_in.f_globals.get("__name__") == "psycopg2"
        if kind.__name__ == "OperationalError" and not is_connecting:
            return True
    return False


_ENDED_BY_ADMINISTRATOR = "57P01"
_POOL_OF_PSYCOPG = """\
the server has ended this connection. If a driver opens a connection without an engine,
pytest-arena ends it at the end of the test. A pool that the app keeps in a global still has it
next: open the pool in the app's lifespan, and close it there"""
_OF_ANOTHER_LOOP = (
    "another operation is in progress",
    "attached to a different loop",
    "Event loop is closed",
)
_POOL_OF_ASYNCPG = """\
this pool of asyncpg works only in the event loop that created it, which was an earlier test's
next: create the pool in the app's lifespan (`async with asyncpg.create_pool(…) as pool:`), and keep
it on app.state, not in a global that outlives the app"""


_CONNECTION_OF_ASYNCPG = """\
this connection of asyncpg works only in the event loop that opened it, which was an earlier test's
next: open it in the app's lifespan, and keep it on app.state, not in a global"""
