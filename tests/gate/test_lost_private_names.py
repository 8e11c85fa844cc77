"""What lost writes rest on that nobody promised. Each test says what has moved."""

from __future__ import annotations

import asyncio
import inspect
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from sqlalchemy.pool.base import _AdhocProxiedConnection

from pytest_arena._gate._pooled import PooledConnection
from pytest_arena._gate.writes import _lost_writes
from pytest_arena._gate.writes._lost_writes import _caller_of_rollback, error_on_its_way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

DIALECTS: list[Any] = [
    *(SQLiteDialect_pysqlite, SQLiteDialect_aiosqlite, PGDialect_psycopg2, PGDialect_psycopg),
    *(PGDialectAsync_psycopg, PGDialect_asyncpg),
]
TABLE = Table("dancers", MetaData(), Column("id", Integer, primary_key=True))


class Watched:
    """A database in memory; whoever works on its dialect is noted."""

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        self.calls: list[str] = []
        self.contexts: list[Any] = []
        self.asked_for: list[bool] = []
        self.leaving: list[bool] = []
        with self.engine.begin() as connection:
            TABLE.create(connection)
        self.watch(self.engine)

    def watch(self, engine: Engine) -> None:
        """Replace the methods, as `instrument()` does."""
        dialect: Any = engine.dialect
        for name in ("do_execute", "do_executemany", "do_execute_no_params", "do_commit"):
            setattr(dialect, name, self.noting(name, getattr(dialect, name)))
        roll_back = dialect.do_rollback

        def do_rollback(pooled: Any) -> None:
            self.asked_for.append(bool(_caller_of_rollback(sys._getframe(1))))
            self.leaving.append(error_on_its_way() is not None)
            roll_back(pooled)

        dialect.do_rollback = do_rollback

    def noting(self, name: str, method: Callable[..., Any]) -> Any:
        """Note a call."""

        def noted(*args: Any, **named: Any) -> None:
            self.calls.append(name)
            self.contexts.append(named.get("context", args[-1]))
            method(*args, **named)

        return noted


@pytest.fixture(name="watched")
def _watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.engine.dispose()


class TestDialect:
    """Methods of a dialect, which are replaced on the instance."""

    @pytest.mark.parametrize("kind", DIALECTS)
    def test_what_they_are_given(self, kind: Any) -> None:
        """`_execute()` takes the last argument for the context."""
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            parameters = list(inspect.signature(getattr(kind, name)).parameters)
            assert parameters[1:3] == ["cursor", "statement"], name
            assert parameters[-1] == "context", name

    def test_each_statement_goes_through_one_of_them(self, watched: Watched) -> None:
        """By the instance: else nothing that is written is seen."""
        with watched.engine.connect() as connection:
            connection.execute(insert(TABLE))
            connection.execute(insert(TABLE), [{"id": 7}, {"id": 8}])
            connection.execution_options(no_parameters=True).exec_driver_sql("SELECT 1")
            connection.commit()
        assert watched.calls == [
            "do_execute",
            "do_executemany",
            "do_execute_no_params",
            "do_commit",
        ]

    def test_what_a_statement_knows_of_itself(self, watched: Watched) -> None:
        """`may_write()` and `failed()` ask for it."""
        with watched.engine.connect() as connection:
            connection.execute(insert(TABLE), [{"id": 1}, {"id": 2}])
            connection.execute(text("UPDATE dancers SET id = id + 7"))
            connection.execute(TABLE.update().values(id=9).where(TABLE.c.id == 1))
            connection.execute(TABLE.delete())
            root = connection
        many, told, changed, removed = watched.contexts
        assert all(isinstance(one, DefaultExecutionContext) for one in watched.contexts)
        assert (many.isinsert, many.executemany, many.is_text) == (True, True, False)
        assert (told.isinsert, told.executemany, told.is_text) == (False, False, True)
        assert (changed.isupdate, removed.isdelete) == (True, True)
        assert all(one.root_connection is root for one in watched.contexts)

    def test_a_connection_that_learns_to_know_a_server_has_no_place_for_notes(self) -> None:
        """`PooledConnection.find()` takes it for one of which nothing is known."""
        connection: Any = _AdhocProxiedConnection(None, None)  # type: ignore[arg-type]  # as said
        with pytest.raises((AttributeError, NotImplementedError)):
            connection.info  # noqa: B018 - that is the test
        assert PooledConnection.find(connection) is None


class TestRollback:
    """Frames by which a rollback is told from a close."""

    @pytest.mark.parametrize(
        "way",
        [
            lambda one: one.rollback(),
            lambda one: one.get_transaction().rollback(),
            lambda one: one.connection().rollback() if isinstance(one, Session) else one.rollback(),
        ],
        ids=["itself", "its transaction", "its connection"],
    )
    @pytest.mark.parametrize("kind", ["session", "connection"])
    def test_who_asks_for_it(self, watched: Watched, kind: str, way: Callable[[Any], None]) -> None:
        """Somewhere on the way there is a function of SQLAlchemy's with this name."""
        opened: Any = Session(watched.engine) if kind == "session" else watched.engine.connect()
        with opened as one:
            one.execute(insert(TABLE))
            way(one)
            assert watched.asked_for[0], "SQLAlchemy's rollback() leaves no frame: see _lost_writes"

    @pytest.mark.parametrize("kind", ["session", "connection"])
    def test_who_only_closes(self, watched: Watched, kind: str) -> None:
        """There is none with this name."""
        opened: Any = Session(watched.engine) if kind == "session" else watched.engine.connect()
        with opened as one:
            one.execute(insert(TABLE))
        assert watched.asked_for[0] is False

    @pytest.mark.parametrize("kind", [AsyncSession, AsyncConnection])
    @pytest.mark.parametrize("way", ["itself", "its transaction", "close"])
    def test_async(self, watched: Watched, kind: Any, way: str) -> None:
        """In a greenlet, whose frames end where it begins."""
        asyncio.run(_rolled_back(watched, kind, way))
        assert watched.asked_for[0] is (way != "close")


async def _rolled_back(watched: Watched, kind: Any, way: str) -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    opened: Any = AsyncSession(engine) if kind is AsyncSession else engine.connect()
    async with opened as one:
        await one.run_sync(lambda sync: TABLE.create(_bind(sync)))
        await one.commit()
        watched.watch(engine.sync_engine)
        await one.execute(insert(TABLE))
        if way == "itself":
            await one.rollback()
        elif way == "its transaction":
            await one.get_transaction().rollback()
        else:
            await one.close()
    await engine.dispose()


def _bind(sync: Any) -> Any:
    return sync.connection() if isinstance(sync, Session) else sync


class TestLeaving:
    """Methods of two classes, which are replaced for good."""

    @pytest.mark.parametrize("kind", [AsyncSession, AsyncConnection])
    def test_they_are_the_classes_own(self, kind: Any) -> None:
        """With these arguments and no others."""
        for name, number in (("close", 1), ("__aexit__", 4)):
            method = inspect.unwrap(vars(kind)[name])
            assert inspect.iscoroutinefunction(method), name
            assert len(inspect.signature(method).parameters) == number, name

    @pytest.mark.parametrize("kind", [AsyncSession, AsyncConnection])
    @pytest.mark.parametrize("how", ["by an error", "well"])
    def test_an_error_is_seen_where_it_closes_one(
        self, watched: Watched, kind: Any, how: str
    ) -> None:
        """Through the task and the greenlet in which SQLAlchemy does so."""
        _lost_writes.note_errors_on_leaving()
        asyncio.run(_left(watched, kind, is_broken=how == "by an error"))
        assert watched.leaving[0] is (how == "by an error")


async def _left(watched: Watched, kind: Any, *, is_broken: bool) -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    opened: Any = AsyncSession(engine) if kind is AsyncSession else engine.connect()
    with suppress(LookupError):
        async with opened as one:
            watched.watch(engine.sync_engine)
            await one.execute(text("SELECT 1"))
            watched.leaving.clear()  # the first connection was rolled back, when it was looked at
            if is_broken:
                raise LookupError
    await engine.dispose()


class TestDrivers:
    """Names by which an app's connection is asked whether it has written."""

    def test_asyncpg(self) -> None:
        """Through SQLAlchemy's adapter."""
        asyncpg: Any = pytest.importorskip("asyncpg")
        assert callable(AsyncAdapt_asyncpg_connection.run_async)
        assert inspect.iscoroutinefunction(asyncpg.Connection.fetchrow)
        assert asyncpg.Connection.__module__.partition(".")[0] == "asyncpg"

    def test_psycopg(self) -> None:
        """Below its transactions: its libpq, as on connections of ours."""
        psycopg: Any = pytest.importorskip("psycopg")
        assert callable(psycopg.pq.PGconn.exec_)
        assert {"nfields", "ntuples", "get_value", "error_field"} <= set(dir(psycopg.pq.PGresult))
        assert callable(psycopg.pq.error_message)
        assert psycopg.pq.DiagnosticField.SQLSTATE
        for kind in (psycopg.Connection, psycopg.AsyncConnection):
            assert kind.__module__.partition(".")[0] == "psycopg"

    def test_psycopg2(self) -> None:
        """The bare cursor, and what the connection knows of its transaction."""
        pytest.importorskip("psycopg2")
        library: Any = sys.modules["psycopg2.extensions"]
        assert callable(library.cursor)
        assert library.TRANSACTION_STATUS_IDLE == 0
        assert "transaction_status" in dir(library.ConnectionInfo)
        assert "psycopg2" in {
            one.__module__.partition(".")[0] for one in library.connection.__mro__
        }
