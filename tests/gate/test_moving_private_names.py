"""What moving rests on that nobody promised. Each test says what has moved.

What the queue and the mutexes rest on is in ``test_loops.py``.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import Any

import pytest
from sqlalchemy.dialects.mysql.aiomysql import AsyncAdapt_aiomysql_connection
from sqlalchemy.dialects.mysql.asyncmy import AsyncAdapt_asyncmy_connection
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.engine import AdaptedConnection

from pytest_arena._gate._instrument import instrument_loops
from pytest_arena._gate.loops import _loop_bound
from pytest_arena._postgresql.moving import _moving_trial
from pytest_arena._postgresql.moving._transport import MovingTransport

asyncpg: Any = pytest.importorskip("asyncpg")


class Counting(_moving_trial._Paired):
    """A loop that counts the futures that it was asked for."""

    futures = 0

    def create_future(self) -> Any:
        """Count."""
        self.futures += 1
        return super().create_future()


async def connected(ours: socket.socket, theirs: socket.socket) -> tuple[Any, Counting]:
    """Connect to the other end of a pair."""
    loop = Counting(ours)
    names = dict.fromkeys(("user", "password", "database"), "arena")
    opened = asyncpg.connect(loop=loop, host="127.0.0.1", port=1, ssl=False, **names)
    connection, _ = await asyncio.gather(
        opened, _moving_trial._reply(theirs, _moving_trial._GREETING)
    )
    return connection, loop


def new(dialect: Any) -> Any:
    """Make a dialect that has no driver."""
    return dialect(dbapi=None)


class TestAsyncpg:
    """Names and habits of asyncpg."""

    def test_arguments_of_connect_pitfall_020(self) -> None:
        """`prepare()` adds two."""
        parameters = inspect.signature(asyncpg.connect).parameters
        assert {"loop", "max_cached_statement_lifetime"} <= set(parameters), (
            "asyncpg.connect() has other arguments: see prepare()"
        )

    def test_names_of_a_connection_pitfall_020(self) -> None:
        """`at_checkin()` reads four attributes."""
        assert {"_transport", "_protocol", "_loop", "_listeners"} <= set(
            asyncpg.Connection.__slots__
        ), "asyncpg.Connection has other names: see at_checkin() and transport_of()"

    def test_a_future_at_each_operation_pitfall_020(self) -> None:
        """`RunningLoop.create_future()` is what brings the socket into the running loop."""

        async def ask() -> None:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.settimeout(0)
                theirs.settimeout(0)
                connection, loop = await connected(ours, theirs)
                assert connection._loop is loop
                assert isinstance(connection._transport, MovingTransport)
                for _ in range(2):
                    before = loop.futures
                    answer = _moving_trial._reply(theirs, _moving_trial._ANSWER)
                    await asyncio.gather(connection.execute("anything"), answer)
                    assert loop.futures > before, (
                        "asyncpg does not ask its loop for a future when an operation begins any "
                        "more: connections cannot be led into the running loop there"
                    )
                connection.terminate()

        asyncio.run(ask())

    def test_a_statement_without_lifetime_has_no_timer_pitfall_020(self) -> None:
        """`prepare()` sets it to 0, for a timer would stay in the loop that is left."""
        from asyncpg.connection import _StatementCache  # noqa: PLC0415 - private: this test alone may break with it

        cache = _StatementCache(loop=None, max_size=1, on_remove=print, max_lifetime=0)
        statement = type("Statement", (), {"closed": False})()
        cache.put("query", statement)  # a timer would be an AttributeError of None
        assert cache.get("query") is statement


class TestSQLAlchemy:
    """Names and habits of SQLAlchemy."""

    def test_methods_of_a_dialect_pitfall_020(self) -> None:
        """`instrument_loops()` replaces them on the instance."""
        dialect = new(PGDialect_asyncpg)
        instrument_loops(dialect)
        assert {"do_ping", "do_close", "do_terminate"} <= set(vars(dialect))
        assert dialect.driver == "asyncpg"
        psycopg = new(PGDialectAsync_psycopg)
        instrument_loops(psycopg)
        assert "do_ping" not in vars(psycopg), "psycopg's connections need none of it"

    def test_a_pool_ends_connections_by_its_dialect_pitfall_020(self) -> None:
        """Else replacing the methods has no effect."""
        from sqlalchemy.pool import Pool  # noqa: PLC0415 - its source is looked at, nothing else

        source = inspect.getsource(Pool._close_connection)
        assert "self._dialect.do_terminate(" in source
        assert "self._dialect.do_close(" in source

    @pytest.mark.parametrize(
        "adapter",
        [
            AsyncAdapt_aiomysql_connection,
            AsyncAdapt_asyncmy_connection,
            AsyncAdapt_asyncpg_connection,
        ],
    )
    def test_adapted_connections_tell_the_drivers_pitfall_020(self, adapter: Any) -> None:
        """`bind_to_loop()` takes what they are told apart by."""
        driver = type("Driver", (), {})()
        adapted = adapter(None, driver)
        assert isinstance(adapted, AdaptedConnection)
        assert adapted.driver_connection is driver


class TestOtherDrivers:
    """As much of a driver that is not installed as the fallback looks at: MySQL's."""

    class Driver:
        """A connection with a transport of the loop that it was made in."""

        def __init__(self, writer: asyncio.StreamWriter) -> None:
            self._writer = writer

        def close(self) -> None:
            """Close without awaiting, as aiomysql and asyncmy do."""
            self._writer.transport.close()

    async def made(self, ours: socket.socket) -> Any:
        """Make one, and have the gate hear of it."""
        _, writer = await asyncio.open_connection(sock=ours)
        adapter: Any = AsyncAdapt_aiomysql_connection
        adapted = adapter(None, self.Driver(writer))
        _loop_bound.bind_to_loop(adapted)
        assert not _loop_bound.is_foreign(adapted)
        return adapted

    def test_closed_with_its_loop_pitfall_002(self) -> None:
        """The server hears of it before the next test begins."""
        ours, theirs = socket.socketpair()
        with theirs:
            adapted = asyncio.run(self.made(ours))
            theirs.settimeout(0)
            assert theirs.recv(1) == b""
            assert _loop_bound.is_foreign(adapted)

    def test_dropped_while_its_loop_stands_still_pitfall_002(self) -> None:
        """The server hears of it at once, the loop when it is closed."""
        ours, theirs = socket.socketpair()
        with theirs, asyncio.Runner() as still:
            adapted = still.run(self.made(ours))
            dialect = new(PGDialect_asyncpg)
            instrument_loops(dialect)
            dialect.do_terminate(adapted)
            assert not dialect.do_ping(adapted)
            theirs.settimeout(0)
            assert theirs.recv(1) == b""
