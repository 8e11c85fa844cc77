"""What the guard rests on in the drivers that nobody promised. Each test says what has moved."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

aiosqlite: Any = pytest.importorskip("aiosqlite")
asyncpg: Any = pytest.importorskip("asyncpg")
psycopg: Any = pytest.importorskip("psycopg")
psycopg_pool: Any = pytest.importorskip("psycopg_pool")


class TestAsyncpg:
    """Names and habits of asyncpg."""

    def test_what_each_connection_goes_through(self) -> None:
        """`connect()` and pools call it by its name in the module."""
        assert "await connect_utils._connect(" in inspect.getsource(asyncpg.connect)

    def test_what_reads_the_arguments(self) -> None:
        """`target()` asks it what they mean, and neither for a password nor for certificates."""
        read = asyncpg.connect_utils._parse_connect_dsn_and_args
        names = set(inspect.signature(read).parameters)
        assert {"dsn", "host", "port", "user", "database", "password", "ssl"} <= names

    def test_where_a_connection_has_gone(self) -> None:
        """`name_of()` tells it to the user."""
        assert "_addr" in asyncpg.connection.Connection.__slots__


class TestPsycopg:
    """Names and habits of psycopg."""

    def test_pools(self) -> None:
        """`open()` and `open=True` have nothing else in common."""
        for kind in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool):
            assert "_open" in vars(kind)


class TestAiosqlite:
    """Names of aiosqlite."""

    def test_what_each_call_goes_through(self) -> None:
        """`_executing()` and `_connecting()` see all work of its thread except `stop()`."""
        speaking = {
            name
            for name, function in vars(aiosqlite.Connection).items()
            if inspect.isfunction(function) and "_tx.put_nowait(" in inspect.getsource(function)
        }
        assert speaking == {"_execute", "_connect", "stop"}

    def test_where_the_connection_of_sqlite3_is(self) -> None:
        """`_conn` raises if it is not open."""
        assert "self._connection" in inspect.getsource(aiosqlite.Connection.__init__)
