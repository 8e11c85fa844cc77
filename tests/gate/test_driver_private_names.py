"""What the guard rests on in the drivers that nobody promised. Each test says what has moved."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

aiosqlite: Any = pytest.importorskip("aiosqlite")
asyncpg: Any = pytest.importorskip("asyncpg")
psycopg: Any = pytest.importorskip("psycopg")
psycopg2: Any = pytest.importorskip("psycopg2")
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

    def test_what_each_statement_goes_through(self) -> None:
        """By the names in `_OF_ASYNCPG`: nothing else speaks to the protocol with a statement."""
        connection = asyncpg.connection.Connection
        speaking = {
            name
            for name, function in vars(connection).items()
            if inspect.isfunction(function)
            and any(
                f"_protocol.{verb}(" in inspect.getsource(function)
                for verb in ("query", "prepare", "copy_in", "copy_out")
            )
        }
        looked_at = {"execute", "_get_statement", "_copy_out", "_copy_in"}
        named = {"copy_records_to_table"}  # its statement is made of names, and of a `where`
        assert speaking == looked_at | named

    def test_a_pool_calls_the_class_of_its_connections(self) -> None:
        """Else what a pool gives would still have the functions from before the guard."""
        source = inspect.getsource(asyncpg.pool.PoolConnectionProxyMeta)
        assert "getattr(self._con.__class__, meth_name)" in source

    def test_where_a_connection_has_gone(self) -> None:
        """`name_of()` tells it to the user."""
        assert "_addr" in asyncpg.connection.Connection.__slots__

    def test_what_an_app_sets_in_a_connection(self) -> None:
        """`describe_driver()` compares these."""
        names = {"_log_listeners", "_query_loggers", "_termination_listeners"}
        assert names <= set(asyncpg.connection.Connection.__slots__)

    def test_how_a_connection_ends(self) -> None:
        """Each end calls `_cleanup`, while `_protocol` still is the key of the record."""
        connection = asyncpg.connection.Connection
        assert {"_protocol", "_transport", "_loop", "_listeners"} <= set(connection.__slots__)
        for end in (connection.close, connection.terminate):
            assert "self._cleanup()" in inspect.getsource(end)
        assert "_protocol" not in inspect.getsource(connection._cleanup)

    def test_how_a_pool_opens_connections_and_takes_them_back(self) -> None:
        """Each connection has a holder, whose `_con` it is."""
        holder = asyncpg.pool.PoolConnectionHolder
        assert "_con" in holder.__slots__
        assert "self._con" in inspect.getsource(holder.release)
        assert "ch.release(" in inspect.getsource(asyncpg.pool.Pool.release)
        assert "self._con = " in inspect.getsource(holder.connect)

    def test_how_a_pool_is_opened(self) -> None:
        """`await pool` and `async with pool` have nothing else in common."""
        for opens in (asyncpg.pool.Pool.__await__, asyncpg.pool.Pool.__aenter__):
            assert "self._async__init__()" in inspect.getsource(opens)


class TestPsycopg:
    """Names and habits of psycopg."""

    @pytest.mark.parametrize("kind", [psycopg.Connection, psycopg.AsyncConnection])
    def test_what_each_connection_goes_through(self, kind: Any) -> None:
        """For `connect()` that was bound before the guard came."""
        assert "cls._connect_gen(conninfo" in inspect.getsource(kind.connect)
        assert "generators.connect(conninfo" in inspect.getsource(kind._connect_gen)

    def test_what_an_app_sets_in_a_connection(self) -> None:
        """`describe_driver()` compares the dictionaries, which a copy shares until a change."""
        source = inspect.getsource(psycopg._connection_base.BaseConnection.__init__)
        for name in ("_adapters", "_notice_handlers", "_notify_handlers"):
            assert f"self.{name}: " in source
        changed = psycopg.adapt.AdaptersMap(psycopg.adapters)
        copy = psycopg.adapt.AdaptersMap(changed)
        assert copy._loaders == changed._loaders
        assert (copy._dumpers, copy._dumpers_by_oid) == (changed._dumpers, changed._dumpers_by_oid)
        changed.register_loader("int4", psycopg.types.string.TextLoader)
        assert copy._loaders != changed._loaders

    @pytest.mark.parametrize(
        "name",
        [
            *("_execute_gen", "_executemany_gen_pipeline", "_executemany_gen_no_pipeline"),
            *("_stream_send_gen", "_start_copy_gen"),
        ],
    )
    def test_what_each_statement_goes_through(self, name: str) -> None:
        """All kinds of cursors inherit it."""
        assert "self._convert_query(" in inspect.getsource(getattr(psycopg.Cursor, name))
        kinds = (psycopg.Cursor, psycopg.AsyncCursor, psycopg.ClientCursor, psycopg.RawCursor)
        assert len({kind._convert_query for kind in kinds}) == 1

    def test_cursors_on_the_server(self) -> None:
        """They have a way of their own to it."""
        assert "self._convert_query(" in inspect.getsource(psycopg.ServerCursor._declare_gen)
        assert psycopg.ServerCursor._convert_query is psycopg.Cursor._convert_query

    @pytest.mark.parametrize("name", ["_execute_gen", "_stream_send_gen"])
    def test_a_transaction_begins_before_its_statement_is_converted(self, name: str) -> None:
        """`_start_query` of the connection forgets the writes of the transaction before."""
        source = inspect.getsource(getattr(psycopg.Cursor, name))
        assert source.index("self._start_query(") < source.index("self._convert_query(")
        assert "self._conn._start_query()" in inspect.getsource(psycopg.Cursor._start_query)
        for kind in (psycopg.Connection, psycopg.AsyncConnection):
            assert list(inspect.signature(kind._start_query).parameters) == ["self"]

    def test_where_the_number_of_rows_is_known(self) -> None:
        """Except in `executemany`, whose results have some of the rows each."""
        names = list(inspect.signature(psycopg.Cursor._set_results).parameters)
        assert names == ["self", "results"]
        source = inspect.getsource(psycopg.Cursor._set_results)
        assert "if self._execmany_returning is None:" in source
        assert psycopg.AsyncCursor._set_results is psycopg.Cursor._set_results

    def test_what_a_block_of_a_transaction_sends(self) -> None:
        """No cursor sees these savepoints."""
        transaction = psycopg.transaction.BaseTransaction
        for name in ("_get_enter_commands", "_get_rollback_commands"):
            assert inspect.isgeneratorfunction(inspect.unwrap(getattr(transaction, name)))
            assert f"in self.{name}():" in inspect.getsource(transaction)
        for kind in (psycopg.Transaction, psycopg.AsyncTransaction):
            assert isinstance(kind.connection, property)

    @pytest.mark.parametrize(
        "kind", [psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool]
    )
    def test_how_a_pool_hands_connections_out(self, kind: Any) -> None:
        """It discards a connection that has ended, and opens another one."""
        source = inspect.getsource(kind)
        assert "self._getconn_unchecked(" in source
        assert "self._putconn(conn, from_getconn=True)" in source
        assert list(inspect.signature(kind._getconn_unchecked).parameters) == ["self", "timeout"]
        assert "self._connect(" in inspect.getsource(kind._add_connection)

    def test_pools(self) -> None:
        """`open()` and `open=True` have nothing else in common."""
        for kind in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool):
            assert "_open" in vars(kind)

    def test_a_closed_pool_may_be_opened_again(self) -> None:
        """Its parts are made again when it is opened, and these attributes are all that is left."""
        for kind in (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool):
            source = inspect.getsource(kind._open)
            assert all(f"self.{name} = " in source for name in ("_tasks", "_sched", "_opened"))
            assert "self._closed and self._opened" in inspect.getsource(kind._check_open)
        source = inspect.getsource(psycopg_pool.base.BasePool.__init__)
        for name in ("_nconns", "_nconns_min", "_growing", "_opened"):
            assert f"self.{name} = " in source
        assert "self._ensure_lock()" in inspect.getsource(psycopg_pool.AsyncConnectionPool._open)


class TestPsycopg2:
    """Names and habits of psycopg2."""

    def test_what_each_connection_goes_through(self) -> None:
        """`connect()` finds it by its name in the module."""
        assert " _connect(dsn, " in inspect.getsource(psycopg2.connect)
        assert callable(psycopg2._psycopg._connect)

    def test_what_each_connection_of_a_pool_goes_through(self) -> None:
        """At the start of a pool, and when it grows."""
        pool: Any = pytest.importorskip("psycopg2.pool").AbstractConnectionPool
        assert "self._connect()" in inspect.getsource(pool.__init__)
        assert "self._connect(" in inspect.getsource(pool._getconn)


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
