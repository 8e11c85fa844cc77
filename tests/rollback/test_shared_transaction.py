"""What an app sees of the shared transaction: the same as of a server, by each driver."""

from __future__ import annotations

import asyncio
import secrets
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_arena._postgresql.rollback._sockets import Disconnected
from tests.rollback.conftest import opened
from tests.servers.postgresql import rows, run

if TYPE_CHECKING:
    from tests.rollback.conftest import Shared

INSERT = "INSERT INTO dancer (name) VALUES (%s)"


def test_a_commit_is_seen_and_leave_takes_it_back_pitfall_113(shared: Shared) -> None:
    """A commit is seen and leave takes it back."""
    with shared.psycopg() as connection:
        connection.execute(INSERT, ("Dune",))
    assert shared.names() == ["Sand", "Dune"]
    assert rows("SELECT name FROM dancer", shared.database) == [("Sand",)]
    assert shared.proxy.leave() is True
    assert shared.names() == ["Sand"]
    with shared.psycopg() as connection:
        number = connection.execute("SELECT last_value FROM dancer_id_seq").fetchone()
    assert number == (1,)


def test_a_rollback_takes_back_its_own_writes_only_pitfall_108(shared: Shared) -> None:
    """A rollback takes back its own writes only."""
    with shared.psycopg2() as connection, connection.cursor() as cursor:
        cursor.execute(INSERT, ("Dune",))
        connection.commit()
        cursor.execute(INSERT, ("Loess",))
        connection.rollback()
        cursor.execute("SELECT count(*) FROM dancer")
        assert cursor.fetchone() == (2,)


def test_a_connection_that_is_closed_in_a_transaction_loses_its_writes(shared: Shared) -> None:
    """A connection that is closed in a transaction loses its writes."""
    connection = shared.psycopg()
    connection.execute(INSERT, ("Dune",))
    assert len(shared.proxy.writers()) == 1
    connection.close()
    with shared.psycopg() as other:
        other.execute(INSERT, ("Loess",))  # waits until the proxy has noticed
    assert shared.names() == ["Sand", "Loess"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
def test_sqlalchemy_works_as_on_a_server(shared: Shared, driver: str) -> None:
    """Sqlalchemy works as on a server."""
    asyncio.run(_sqlalchemy(shared, driver))


async def _sqlalchemy(shared: Shared, driver: str) -> None:
    address = shared.proxy.address
    url = URL.create(
        f"postgresql+{driver}",
        address.user,
        database=shared.database,
        query={"host": address.host, "port": str(address.port)},
    )
    work = _work
    if driver in {"asyncpg", "psycopg_async"}:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            await connection.run_sync(work)
        await engine.dispose()
    else:
        sync = create_engine(url)
        with sync.connect() as connection:
            work(connection)
        sync.dispose()
    assert shared.names() == ["Sand", "Dune", "Loess"]


def _work(connection: Any) -> None:
    insert = text("INSERT INTO dancer (name) VALUES (:name)")
    connection.execute(insert, {"name": "Dune"})
    connection.commit()
    connection.execute(insert, {"name": "Gravel"})
    connection.rollback()
    with suppress(ZeroDivisionError), connection.begin_nested():
        connection.execute(insert, {"name": "Silt"})
        raise ZeroDivisionError
    with connection.begin_nested():
        connection.execute(insert, {"name": "Loess"})
    with pytest.raises(Exception, match="duplicate key"), connection.begin_nested():
        connection.execute(insert, {"name": "Dune"})
    many = [{"name": f"Clay {number}"} for number in range(3)]
    with connection.begin_nested() as nested:
        connection.execute(insert, many)
        nested.rollback()
    connection.commit()


def test_a_failed_statement_fails_its_own_transaction_only_pitfall_111(shared: Shared) -> None:
    """A failed statement fails its own transaction only."""
    with shared.psycopg() as connection, shared.psycopg() as other:
        connection.execute(INSERT, ("Dune",))
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(INSERT, ("Dune",))
        assert other.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.commit()  # PostgreSQL rolls back
    assert shared.names() == ["Sand"]


def test_savepoints_of_a_failed_transaction(shared: Shared) -> None:
    """Savepoints of a failed transaction."""
    with shared.psycopg(autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute(INSERT, ("Dune",))
        connection.execute('SAVEPOINT "A b"')
        connection.execute(INSERT, ("Gravel",))
        connection.execute("SAVEPOINT a")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(INSERT, ("Gravel",))
        connection.execute('ROLLBACK TO "A b"')
        with pytest.raises(psycopg.errors.InvalidSavepointSpecification):
            connection.execute("RELEASE a")
        connection.execute('ROLLBACK TO "A b"')
        connection.execute(INSERT, ("Loess",))
        connection.execute('RELEASE "A b"')
        connection.execute("COMMIT")
    assert shared.names() == ["Sand", "Dune", "Loess"]


def test_another_connection_reads_between_the_statements_of_a_transaction(shared: Shared) -> None:
    """Reads share a savepoint. It is above those of the transaction, and ends before they do."""
    with shared.psycopg() as connection, shared.psycopg(autocommit=True) as reader:
        connection.execute(INSERT, ("Dune",))
        reader.execute("SET timezone = 'Asia/Tokyo'")
        connection.execute("SAVEPOINT a")
        connection.execute(INSERT, ("Loess",))
        with pytest.raises(psycopg.errors.DivisionByZero):
            reader.execute("SELECT 1 / 0")
        assert reader.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
        connection.execute("RELEASE a")
        reader.execute("SELECT * FROM dancer")
        connection.commit()
        reader.execute("SELECT * FROM dancer")
        assert connection.execute("SHOW timezone").fetchone() != ("Asia/Tokyo",)
        reader.execute(INSERT, ("Silt",))
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(INSERT, ("Silt",))
        assert reader.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
        connection.rollback()
    assert shared.names() == ["Sand", "Dune", "Loess", "Silt"]


def test_an_error_keeps_what_was_before_the_last_savepoint(shared: Shared) -> None:
    """Rows, settings and cursors, as on a server."""
    with shared.psycopg() as connection:
        connection.execute(INSERT, ("Dune",))
        connection.execute("SET LOCAL timezone = 'Asia/Tokyo'")
        connection.execute("DECLARE names CURSOR FOR SELECT name FROM dancer ORDER BY id")
        connection.execute("SAVEPOINT a")
        connection.execute("SET LOCAL timezone = 'Europe/Rome'")
        assert connection.execute("FETCH names").fetchone() == ("Sand",)
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        connection.execute("ROLLBACK TO a")
        assert connection.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
        assert connection.execute("FETCH names").fetchone() == ("Dune",)
        connection.commit()
        assert connection.execute("SHOW timezone").fetchone() != ("Asia/Tokyo",)
    assert shared.names() == ["Sand", "Dune"]


def test_control_statements_outside_of_a_transaction(shared: Shared) -> None:
    """Control statements outside of a transaction."""
    warnings: list[str] = []
    with shared.psycopg(autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: warnings.append(str(notice.sqlstate)))
        connection.execute("COMMIT")
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        connection.execute("BEGIN")
        connection.execute("END")
        with pytest.raises(psycopg.errors.NoActiveSqlTransaction):
            connection.execute("SAVEPOINT a")
    assert warnings == ["25P01", "25P01", "25001"]


def test_a_script_with_transactions_pitfall_110(shared: Shared) -> None:
    """A script with transactions."""
    with shared.psycopg(autocommit=True) as connection:
        connection.execute(
            "BEGIN; INSERT INTO dancer (name) VALUES ('a;b'); COMMIT; -- done; \n"
            "BEGIN; INSERT INTO dancer (name) VALUES ('c'); ROLLBACK; SELECT 1"
        )
    assert shared.names() == ["Sand", "a;b"]


def test_a_second_writer_waits_and_a_reader_does_not_pitfall_107(shared: Shared) -> None:
    """A second writer waits and a reader does not."""
    waiting = threading.Event()
    done = threading.Event()

    def write() -> None:
        with shared.psycopg() as other:
            assert other.execute("SELECT 1").fetchone() == (1,)
            waiting.set()
            other.execute(INSERT, ("Loess",))
        done.set()

    with shared.psycopg() as connection:
        connection.execute(INSERT, ("Dune",))
        thread = threading.Thread(target=write)
        thread.start()
        assert waiting.wait(10)
        assert not done.wait(0.1)
        connection.commit()
    thread.join(10)
    assert done.is_set()
    assert shared.names() == ["Sand", "Dune", "Loess"]


def test_a_writer_that_waits_too_long_is_refused(shared: Shared) -> None:
    """A writer that waits too long is refused."""
    options = "-c lock_timeout=100"
    with shared.psycopg() as connection, shared.psycopg(options=options) as other:
        connection.execute(INSERT, ("Dune",))
        with pytest.raises(psycopg.errors.LockNotAvailable) as error:
            other.execute(INSERT, ("Loess",))
        assert "INSERT INTO dancer" in str(error.value)


def test_many_tasks_and_loops_pitfall_109(shared: Shared) -> None:
    """Many tasks and loops."""

    async def one(number: int) -> None:
        connection = await shared.asyncpg()
        async with connection.transaction():
            await connection.execute("INSERT INTO dancer (name) VALUES ($1)", f"{number}")
            await asyncio.sleep(0)
            await connection.fetch("SELECT count(*) FROM dancer")
        await connection.close()

    async def all_of(first: int) -> None:
        await asyncio.gather(*(one(first + number) for number in range(10)))

    threads = [
        threading.Thread(target=asyncio.run, args=(all_of(first),)) for first in (0, 100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(shared.names()) == 31


def test_asyncpg_prepares_copies_and_reads_by_a_cursor(shared: Shared) -> None:
    """Prepared statements, copies and cursors of asyncpg."""

    async def work() -> None:
        connection = await shared.asyncpg()
        statement = await connection.prepare("SELECT name FROM dancer WHERE id > $1")
        records = [(f"n{number}",) for number in range(50)]
        await connection.copy_records_to_table("dancer", records=records, columns=["name"])
        assert len(await statement.fetch(0)) == 51
        async with connection.transaction():
            cursor = await connection.cursor("SELECT name FROM dancer ORDER BY id")
            assert len(await cursor.fetch(10)) == 10
            other = await shared.asyncpg(statement_cache_size=0)
            assert await other.fetchval("SELECT count(*) FROM dancer WHERE id > $1", 0) == 51
            await other.close()
            assert len(await cursor.fetch(100)) == 41
        await connection.executemany(
            "INSERT INTO dancer (name) VALUES ($1)", [(f"m{number}",) for number in range(2000)]
        )
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.executemany(
                "INSERT INTO dancer (name) VALUES ($1)", [("fresh",), ("m1",)]
            )
        assert await connection.fetchval("SELECT count(*) FROM dancer") == 2051
        await connection.reset()
        await connection.close()

    asyncio.run(work())


def test_a_copy_of_asyncpg_outside_of_a_transaction_is_committed(shared: Shared) -> None:
    """It prepares a statement without a Sync, and then copies by a simple query."""

    async def work() -> None:
        connection = await shared.asyncpg()
        await connection.copy_records_to_table("dancer", records=[("Dune",)], columns=["name"])
        assert not shared.proxy.writers()
        assert shared.proxy.is_changed()
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.copy_records_to_table("dancer", records=[("Dune",)], columns=["name"])
        assert not shared.proxy.holders()
        await connection.close()

    asyncio.run(work())
    assert shared.names() == ["Sand", "Dune"]


def test_a_pool_of_asyncpg_resets_while_another_connection_writes(shared: Shared) -> None:
    """A pool of asyncpg resets while another connection writes."""

    async def work() -> None:
        writer = await shared.asyncpg()
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("INSERT INTO dancer (name) VALUES ('Dune')")
        place = shared.place
        async with asyncpg.create_pool(database=shared.database, **place, min_size=1) as pool:
            async with pool.acquire() as connection:
                await connection.fetchval("SELECT 1")
            async with pool.acquire() as connection:
                await connection.fetchval("SELECT 1")
        await transaction.commit()
        await writer.close()

    asyncio.run(work())


def test_psycopg_pipelines_copies_and_cursors(shared: Shared) -> None:
    """Pipelines, copies and cursors of psycopg."""
    with shared.psycopg() as connection:
        with connection.pipeline():
            connection.execute(INSERT, ("Dune",))
            count = connection.execute("SELECT count(*) FROM dancer")
            assert count.fetchone() == (2,)
        with connection.cursor("named") as cursor:
            cursor.execute("SELECT name FROM dancer ORDER BY id")
            assert cursor.fetchmany(1) == [("Sand",)]
            assert cursor.fetchall() == [("Dune",)]
        with connection.cursor().copy("COPY dancer (name) FROM STDIN") as copy:
            copy.write_row(("Loess",))
        with connection.cursor().copy("COPY (SELECT name FROM dancer) TO STDOUT") as copy:
            assert len(list(copy.rows())) == 3
        for _ in range(8):  # psycopg prepares at the fifth
            connection.execute("SELECT * FROM dancer WHERE id = %s", (1,))
    with shared.psycopg() as connection:
        copying = connection.cursor().copy("COPY dancer (name) FROM STDIN")
        with pytest.raises(psycopg.errors.UniqueViolation), copying as copy:
            copy.write_row(("Sand",))
    assert shared.names() == ["Sand", "Dune", "Loess"]


def test_large_objects_of_psycopg2_are_refused(shared: Shared) -> None:
    """Psycopg2 calls their functions by numbers. The same functions work in SQL."""
    with shared.psycopg2() as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.OperationalError, match="lo_get"):
            connection.lobject(0, "wb", 4243)
        connection.rollback()
        cursor.execute("SELECT lo_put(lo_create(4242), 0, 'sand')")
        connection.commit()
        cursor.execute("SELECT lo_get(4242)")
        assert bytes(cursor.fetchone()[0]) == b"sand"


def test_async_psycopg_in_autocommit(shared: Shared) -> None:
    """Psycopg's async connection in autocommit."""

    async def work() -> None:
        connection = await psycopg.AsyncConnection.connect(
            dbname=shared.database, **shared.place, autocommit=True
        )
        async with connection:
            await connection.execute(INSERT, ("Dune",))
            with pytest.raises(psycopg.errors.UniqueViolation):
                await connection.execute(INSERT, ("Dune",))
            async with connection.transaction(), connection.transaction():
                await connection.execute(INSERT, ("Loess",))

    asyncio.run(work())
    assert shared.names() == ["Sand", "Dune", "Loess"]


def test_a_pipeline_that_fails_outside_of_a_transaction(shared: Shared) -> None:
    """A pipeline that fails outside of a transaction."""
    with shared.psycopg(autocommit=True) as connection:
        with suppress(psycopg.errors.UniqueViolation), connection.pipeline():
            connection.execute(INSERT, ("Dune",))
            connection.execute(INSERT, ("Sand",))
        connection.execute("SELECT 1")
    assert shared.names() == ["Sand"]


@pytest.mark.parametrize("is_waiting", [False, True])
def test_a_statement_is_cancelled(shared: Shared, *, is_waiting: bool) -> None:
    """A statement is cancelled."""
    started = threading.Event()
    errors: list[str | None] = []

    def sleep(connection: psycopg.Connection[Any]) -> None:
        try:
            started.set()
            sql = "INSERT INTO dancer (name) VALUES ('x')"
            connection.execute(sql if is_waiting else "SELECT pg_sleep(20)")
        except psycopg.Error as error:
            errors.append(error.sqlstate)

    with shared.psycopg() as holder, shared.psycopg() as connection:
        if is_waiting:
            holder.execute(INSERT, ("Dune",))
        thread = threading.Thread(target=sleep, args=(connection,))
        thread.start()
        started.wait(5)
        while not errors:
            connection.cancel()
            connection.cancel_safe()
            thread.join(0.05)
        assert errors == ["57014"]
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_settings_belong_to_one_connection(shared: Shared) -> None:
    """Settings belong to one connection."""

    def value(connection: psycopg.Connection[Any], name: str) -> object:
        row = connection.execute(f"SELECT current_setting('{name}', true)").fetchone()
        assert row is not None
        return row[0]

    options = "-c app.tenant=b -c search_path=pg_catalog"
    with shared.psycopg() as first, shared.psycopg(options=options) as second:
        first.execute("SET app.tenant = 'a'")
        assert value(first, "app.tenant") == "a"
        assert value(second, "app.tenant") == "b"
        first.rollback()
        assert value(first, "app.tenant") in {None, ""}
        first.execute("SELECT set_config('app.tenant', 'c', false)")
        first.execute("SET LOCAL timezone = 'Asia/Tokyo'")
        assert value(first, "timezone") == "Asia/Tokyo"
        first.commit()
        assert value(first, "timezone") != "Asia/Tokyo"
        assert value(first, "app.tenant") == "c"
        assert value(second, "search_path") == "pg_catalog"
        second.execute("SET app.tenant TO 'd'")
        second.execute("RESET app.tenant")
        assert value(second, "app.tenant") == "b"
        first.execute(INSERT, ("Dune",))
        second.execute("SET statement_timeout = 1000")  # while the first one has written
        assert value(second, "statement_timeout") == "1s"
        assert value(first, "statement_timeout") == "0"
        first.commit()
        first.autocommit = True
        first.execute("DISCARD ALL")
        assert value(first, "app.tenant") in {None, ""}


@pytest.mark.parametrize("start", ["SET", "SET SESSION"])
@pytest.mark.parametrize("end", ["TO DEFAULT", "= default;"])
def test_a_setting_gets_the_value_with_which_the_app_connects(
    shared: Shared, start: str, end: str
) -> None:
    """The server's default is another one: the shared connection has none of the app's options."""
    with shared.psycopg(options="-c search_path=pg_catalog") as connection:
        connection.execute("SET search_path = public")
        connection.execute(f"{start} search_path {end}".encode())
        assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog",)
        connection.execute("SET TIME ZONE 'Asia/Tokyo'")
        connection.execute("SET TIME ZONE DEFAULT")
        assert connection.execute("SHOW timezone").fetchone() != ("Asia/Tokyo",)


@pytest.mark.parametrize("prepare", [False, True])
def test_some_commands_need_a_transaction_block(shared: Shared, *, prepare: bool) -> None:
    """The shared transaction is none of the app."""
    commands = ["DECLARE c CURSOR FOR SELECT 1", "LOCK TABLE dancer", "COMMIT AND CHAIN"]
    with shared.psycopg() as connection:
        connection.autocommit = True
        for command in commands:
            with pytest.raises(psycopg.errors.NoActiveSqlTransaction):
                connection.execute(command.encode(), prepare=prepare)
        connection.execute("DECLARE held CURSOR WITH HOLD FOR SELECT 1", prepare=prepare)
        connection.execute("CLOSE held")
        with connection.transaction():
            for command in commands[:2]:
                connection.execute(command.encode(), prepare=prepare)
        connection.execute("LOCK TABLE dancer; SELECT 1")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_cursor_ends_with_its_transaction(shared: Shared, end: str) -> None:
    """On the server it would live on in the shared transaction."""
    with shared.psycopg() as connection:
        connection.execute("DECLARE held CURSOR WITH HOLD FOR SELECT 7")
        connection.execute('DECLARE "a B" CURSOR FOR SELECT generate_series(1, 3)')
        assert connection.execute('FETCH "a B"').fetchone() == (1,)
        connection.execute("DECLARE closed CURSOR FOR SELECT 1")
        connection.execute("CLOSE closed")
        (connection.commit if end == "commit" else connection.rollback)()
        if end == "commit":
            assert connection.execute("FETCH held").fetchone() == (7,)
        with pytest.raises(psycopg.errors.InvalidCursorName):
            connection.execute('FETCH "a B"')


def test_a_portal_ends_with_its_transaction(shared: Shared) -> None:
    """The driver asyncpg reads the rows of a cursor by it. So does `session.stream()`."""

    async def read_after_the_commit() -> None:
        connection = await shared.asyncpg()
        transaction = connection.transaction()
        await transaction.start()
        cursor = await connection.cursor("SELECT generate_series(1, 3)")
        assert tuple(await cursor.fetchrow()) == (1,)
        await transaction.commit()
        with pytest.raises(asyncpg.InvalidCursorNameError):
            async with connection.transaction():
                await cursor.fetchrow()
        await connection.close()

    asyncio.run(read_after_the_commit())


def test_a_role_has_its_own_defaults_of_settings(shared: Shared) -> None:
    """ALTER ROLE … SET, also for one database. The connection's options come before them."""
    role = f"arena_role_{secrets.token_hex(6)}"
    run(
        f"CREATE ROLE {role}",
        f"ALTER ROLE {role} SET timezone = 'Asia/Tokyo'",
        f"ALTER ROLE {role} SET work_mem = '1MB'",
        f"ALTER ROLE {role} IN DATABASE {shared.database} SET work_mem = '2MB'",
        f"ALTER ROLE {role} SET app.tenant = 'a'",
        f"ALTER ROLE {role} SET app.guest = 'b'",
        database=shared.database,
    )
    try:
        place = {**shared.place, "user": role}
        with psycopg.connect(
            dbname=shared.database, autocommit=True, options="-c app.guest=c", **place
        ) as connection:
            names = ("TimeZone", "work_mem", "app.tenant", "app.guest", "session_authorization")
            asked = ", ".join(f"current_setting('{name}')" for name in names)
            wanted = ("Asia/Tokyo", "2MB", "a", "c", role)
            assert connection.execute(f"SELECT {asked}".encode()).fetchone() == wanted
            connection.execute("SET app.tenant = 'other'")
            connection.execute("RESET app.tenant")
            assert connection.execute("SHOW app.tenant").fetchone() == ("a",)
        with shared.psycopg() as other:
            assert other.execute("SHOW work_mem").fetchone() != ("2MB",)
    finally:
        run(f"DROP ROLE {role}", database=shared.database)


@pytest.mark.parametrize("is_set", [False, True])
def test_a_timeout_of_an_idle_transaction_ends_no_shared_connection(
    shared: Shared, *, is_set: bool
) -> None:
    """An app's timeout is for its connection. The shared one is idle in its transaction."""
    setting = "idle_in_transaction_session_timeout"
    options = "" if is_set else f"-c {setting}=1000"
    with shared.psycopg(options=options, autocommit=True) as connection:
        if is_set:
            connection.execute(f"SET {setting} = 1000")
            connection.execute(
                f"SET {setting} = 1000; INSERT INTO dancer (name) VALUES ('Loess')".encode()
            )
        connection.execute(INSERT, ("Dune",))
        [[value]] = shared.proxy._backend.query(f"SHOW {setting}").rows
        assert value == "0"


def test_settings_live_longer_than_a_level(shared: Shared) -> None:
    """Settings live longer than a level."""
    with shared.psycopg(autocommit=True) as connection:
        connection.execute("SET timezone = 'Asia/Tokyo'")
        connection.execute(INSERT, ("Dune",))
        shared.proxy.leave()
        shared.proxy.enter()
        connection.execute(INSERT, ("Dune",))
        assert connection.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)


def test_prepared_statements_belong_to_one_connection(shared: Shared) -> None:
    """Psycopg gives the first statement of each connection the same name."""
    with shared.psycopg(autocommit=True) as first, shared.psycopg(autocommit=True) as second:
        for _ in range(2):
            assert first.execute("SELECT 1", prepare=True).fetchone() == (1,)
            assert second.execute("SELECT 2", prepare=True).fetchone() == (2,)
        first.execute("DEALLOCATE ALL")
        assert second.execute("SELECT 2", prepare=True).fetchone() == (2,)
        assert first.execute("SELECT 3", prepare=True).fetchone() == (3,)
        assert second.execute("SELECT 2", prepare=True).fetchone() == (2,)


@pytest.mark.parametrize("is_autocommit", [False, True])
def test_deferred_constraints_are_checked_at_a_commit(
    shared: Shared, *, is_autocommit: bool
) -> None:
    """Deferred constraints are checked at a commit."""
    with shared.psycopg(autocommit=is_autocommit) as connection:
        with connection.transaction():
            connection.execute("INSERT INTO battle VALUES (1, 500)")
            connection.execute("INSERT INTO dancer (id, name) VALUES (500, 'Dune')")
        with pytest.raises(psycopg.errors.ForeignKeyViolation), connection.transaction():
            connection.execute("INSERT INTO battle VALUES (2, 600)")
        connection.rollback()
        with connection.transaction():
            connection.execute("INSERT INTO battle VALUES (3, 700)")
            connection.execute("INSERT INTO dancer (id, name) VALUES (700, 'Loess')")
    with shared.psycopg() as connection:
        assert connection.execute("SELECT id FROM battle").fetchall() == [(1,), (3,)]


def test_a_function_that_writes_is_a_write(shared: Shared) -> None:
    """A function that writes is a write."""
    with shared.psycopg() as connection:
        connection.execute(
            "CREATE FUNCTION add() RETURNS int LANGUAGE sql AS "
            "$$INSERT INTO dancer (name) VALUES ('Dune') RETURNING id$$"
        )
        connection.commit()
        connection.execute("SELECT add()")
        assert len(shared.proxy.writers()) == 1
        connection.rollback()
        connection.execute("SELECT nextval('dancer_id_seq')")
        connection.execute("SELECT * FROM dancer FOR UPDATE")
    assert shared.names() == ["Sand"]


def test_a_transaction_that_only_reads(shared: Shared) -> None:
    """A transaction that only reads."""
    with shared.psycopg(autocommit=True) as connection:
        connection.execute("BEGIN READ ONLY")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(INSERT, ("Dune",))
        connection.execute("ROLLBACK")
        connection.execute(INSERT, ("Dune",))


@pytest.mark.parametrize("first", ["INSERT INTO dancer (name) VALUES ('Dune')", "SAVEPOINT a"])
def test_a_transaction_that_may_no_longer_write(shared: Shared, first: str) -> None:
    """Its rows would be lost at COMMIT, so it is refused."""
    with shared.psycopg(autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute(first)
        with pytest.raises(psycopg.Error, match="READ ONLY after a write") as caught:
            connection.execute("SET TRANSACTION READ ONLY")
        assert 'isolation="clone"' in str(caught.value.diag.message_hint)


def test_a_client_that_reads_no_answers_is_ended(shared: Shared) -> None:
    """The end of a level does not wait for it."""
    rows = "SELECT repeat('x', 1000) FROM generate_series(1, 9000)"
    connection = shared.psycopg()
    copied = connection.cursor().copy(f"COPY ({rows}) TO STDOUT")
    copy = copied.__enter__()
    [pid] = shared.proxy.inside()
    shared.proxy.end(pid)
    with pytest.raises(psycopg.OperationalError):
        list(copy)
    connection.close()


def test_levels_are_a_stack(shared: Shared) -> None:
    """Levels are a stack."""
    proxy = shared.proxy
    with shared.psycopg(autocommit=True) as connection:
        connection.execute(INSERT, ("Dune",))
        proxy.enter()
        connection.execute("ALTER TABLE dancer ADD rank int")
        connection.execute("TRUNCATE dancer CASCADE")
        assert proxy.leave() is True
        assert shared.names() == ["Sand", "Dune"]
        proxy.enter()
        assert proxy.leave() is False
        proxy.leave()
        assert shared.names() == ["Sand"]


def test_time_moves_from_test_to_test(shared: Shared) -> None:
    """Time moves from test to test."""
    times = set()
    with shared.psycopg(autocommit=True) as connection:
        for _ in range(3):
            times.add(connection.execute("SELECT now()").fetchone())
            connection.execute(INSERT, ("Dune",))
            shared.proxy.leave()
            shared.proxy.enter()
    assert len(times) == 3


def test_a_transaction_left_open_is_cut_off(shared: Shared) -> None:
    """A transaction left open is cut off."""
    with shared.psycopg() as connection:
        connection.execute(INSERT, ("Dune",))
        shared.proxy.leave()
        shared.proxy.enter()
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.rollback()
        connection.execute(INSERT, ("Dune",))


def test_the_folder_of_a_killed_run_is_removed(shared: Shared, database: str) -> None:
    """A folder in which no process listens. That of a process that listens stays."""
    folder = Path(tempfile.mkdtemp(prefix="arena-proxy-"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(folder / ".s.PGSQL.5432"))
    with opened(database):
        assert not folder.exists()
        assert shared.names() == ["Sand"]


def test_the_server_ends_the_connection(shared: Shared) -> None:
    """The server ends the connection."""
    connection = shared.psycopg()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert shared.proxy.is_lost
    connection.close()
    for _ in range(2):
        with pytest.raises(Disconnected):
            shared.proxy.leave()


@pytest.mark.parametrize(
    "statement, words",
    [
        ("NOTIFY news", "NOTIFY"),
        ("SELECT * FROM dancer FOR UPDATE SKIP LOCKED", "SKIP LOCKED"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "SERIALIZABLE"),
        ("SELECT pg_advisory_lock(1)", "advisory"),
        ("LOAD 'plpgsql'", "LOAD keeps the library"),
        ("SELECT set_config('app.' || 'tenant', 'a', false)", "set_config with a computed name"),
    ],
)
def test_what_cannot_be_shown_is_reported_pitfall_112(
    shared: Shared, statement: str, words: str
) -> None:
    """What cannot be shown is reported."""
    with shared.psycopg(autocommit=True) as connection:
        connection.execute(statement)
    assert any(words in note for note in shared.notes)


def test_sequences_of_a_session(shared: Shared) -> None:
    """A level ends what a session knows of sequences. DISCARD SEQUENCES waits for no writer."""
    with shared.psycopg() as connection, shared.psycopg(autocommit=True) as other:
        connection.execute(INSERT, ("Dune",))
        other.execute("DISCARD SEQUENCES")
        connection.commit()
        shared.proxy.leave()
        shared.proxy.enter()
        for question in ("SELECT lastval()", "SELECT currval('dancer_id_seq')"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                other.execute(question)


@pytest.mark.parametrize(
    "statement",
    ["VACUUM", "PREPARE TRANSACTION 'a'", "PREPARE question AS SELECT 1"],
)
def test_what_does_not_work_has_a_hint(shared: Shared, statement: str) -> None:
    """What does not work has a hint."""
    with shared.psycopg2() as connection:
        connection.autocommit = True
        with connection.cursor() as cursor, pytest.raises(psycopg2.Error, match="clone"):
            cursor.execute(statement)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_connection_that_only_reads_cannot_write(shared: Shared, driver: str) -> None:
    """By its options, by a setting, and by the characteristics of its session."""
    setting = "default_transaction_read_only"
    ways = [
        (f"-c {setting}=on", ""),
        ("", f"SET {setting} = on"),
        ("", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
    ]
    for options, sets in ways:
        with getattr(shared, driver)(options=options) as connection:
            cursor = connection.cursor()
            if sets:
                cursor.execute(sets)
                connection.commit()
            with pytest.raises(Exception, match="read-only transaction"):
                cursor.execute("INSERT INTO dancer (name) VALUES ('Dune')")
            connection.rollback()
    assert shared.names() == ["Sand"]


def test_a_setting_whose_name_is_a_parameter(shared: Shared) -> None:
    """It belongs to one connection, too."""
    ask = "SELECT current_setting('app.tenant', true)"
    with shared.psycopg() as first, shared.psycopg() as second:
        first.execute("SELECT set_config(%s::text, %s, false)", ("app.tenant", "Dune"))
        first.execute("SELECT set_config( 'app.tenant', 'Dune', false)")
        assert not shared.notes
        first.execute("SELECT set_config(%s, %s, false)", ("app.tenant", "Sand"))
        first.commit()
        assert second.execute(ask).fetchone() in {(None,), ("",)}
        assert first.execute(ask).fetchone() == ("Sand",)
        first.execute("SELECT set_config(%s, %s, true)", ("app.tenant", "Dune"))
        assert second.execute(ask).fetchone() in {(None,), ("",)}
        assert first.execute(ask).fetchone() == ("Dune",)
        first.commit()
        assert first.execute(ask).fetchone() == ("Sand",)


def test_a_parameter_of_asyncpg_is_the_name_of_a_setting(shared: Shared) -> None:
    """Its statements are prepared before they are executed."""
    ask = "SELECT current_setting('app.tenant', true)"

    async def work() -> list[object]:
        first = await shared.asyncpg()
        second = await shared.asyncpg()
        for _ in range(2):
            await first.fetch("SELECT set_config($1, $2, false)", "app.tenant", "Sand")
        values = [await second.fetchval(ask), await first.fetchval(ask)]
        await first.close()
        await second.close()
        return values

    [other, own] = asyncio.run(work())
    assert own == "Sand"
    assert other in {None, ""}


def test_a_setting_that_a_block_of_code_changes(shared: Shared) -> None:
    """It stays with the connection that has executed the block."""
    with (
        shared.psycopg(autocommit=True) as first,
        shared.psycopg(autocommit=True) as second,
    ):
        first.execute("DO $$BEGIN SET timezone = 'Asia/Tokyo'; END$$")
        first.execute("DO $$BEGIN EXECUTE format('SET search_path = %I', 'pg_catalog'); END$$")
        assert second.execute("SHOW timezone").fetchone() != ("Asia/Tokyo",)
        assert first.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
        assert first.execute("SHOW search_path").fetchone() == ("pg_catalog",)


def test_locks_and_new_values_of_an_enum_are_explained(shared: Shared) -> None:
    """They act differently in one transaction."""
    with shared.psycopg(autocommit=True) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('calm')")
        connection.execute("ALTER TYPE mood ADD VALUE 'wild'")
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("SELECT 'wild'::mood")
        assert "arena_isolation = rollback" in str(caught.value.diag.message_hint)
        connection.execute("SELECT pg_advisory_unlock_all()")
        assert shared.notes == []
        connection.execute("BEGIN; LOCK TABLE dancer; COMMIT")
    assert "LOCK TABLE excludes no other connection" in shared.notes[0]
