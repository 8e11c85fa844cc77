"""What an app sees of the shared transaction: the same as of a server, by each driver."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from pymysql.constants import CLIENT
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_arena._product.sharing._sockets import Disconnected
from tests.rollback.on_mysql.conftest import INSERT, ask, names, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rollback.on_mysql.conftest import SharedDatabase


def test_a_commit_is_seen_and_taken_back(shared: SharedDatabase) -> None:
    """The database itself never has the row."""
    with shared.connect(autocommit=False) as connection:
        ask(connection, INSERT, "Dune")
        connection.commit()
    assert shared.names() == ["Sand", "Dune"]
    assert shared.committed_names() == ["Sand"]
    assert not shared.proxy.is_committed
    shared.proxy.restart()
    assert shared.names() == ["Sand"]


def test_a_rollback_takes_back_its_own_writes_only(shared: SharedDatabase) -> None:
    """So do a closed connection, and a ROLLBACK TO."""
    with shared.connect(autocommit=False) as connection:
        ask(connection, INSERT, "Dune")
        connection.commit()
        ask(connection, INSERT, "Loess")
        connection.rollback()
        assert names(connection) == ["Sand", "Dune"]
        ask(connection, INSERT, "kept")
        ask(connection, "SAVEPOINT one")
        ask(connection, INSERT, "undone")
        ask(connection, "ROLLBACK TO SAVEPOINT one")
        with pytest.raises(pymysql.OperationalError, match="SAVEPOINT two does not exist"):
            ask(connection, "ROLLBACK TO two")
        ask(connection, "RELEASE SAVEPOINT one")
        connection.commit()
        ask(connection, INSERT, "lost")
    with shared.connect() as other:
        ask(other, INSERT, "last")  # waits until the proxy has noticed
    assert shared.names() == ["Sand", "Dune", "kept", "last"]


def test_a_failed_statement_fails_alone(shared: SharedDatabase) -> None:
    """The transaction goes on, as on a server."""
    with shared.connect(autocommit=False) as connection:
        ask(connection, INSERT, "Dune")
        with pytest.raises(pymysql.IntegrityError, match="Duplicate"):
            ask(connection, INSERT, "Dune")
        with pytest.raises(pymysql.ProgrammingError, match="syntax"):
            ask(connection, "SELECT FROM FROM")
        ask(connection, INSERT, "Loess")
        connection.commit()
    assert shared.names() == ["Sand", "Dune", "Loess"]


def test_a_second_writer_waits_and_a_reader_does_not(shared: SharedDatabase) -> None:
    """The reader sees uncommitted rows, which is reported."""
    done = threading.Event()

    def write() -> None:
        with shared.connect() as other:
            ask(other, INSERT, "Loess")
        done.set()

    with shared.connect(autocommit=False) as connection:
        ask(connection, INSERT, "Dune")
        thread = threading.Thread(target=write)
        thread.start()
        assert shared.names() == ["Sand", "Dune"]
        assert not done.wait(0.1)
        connection.commit()
    thread.join(10)
    assert done.is_set()
    assert shared.names() == ["Sand", "Dune", "Loess"]
    assert any("sees uncommitted rows of another" in note for note in shared.notes)


def test_a_writer_that_waits_too_long_is_refused(shared: SharedDatabase) -> None:
    """The error names the statement that has written."""
    if "10.6." in shared.proxy.version:
        pytest.skip("MariaDB 10.6 does not report the settings of InnoDB")
    patience = "SET SESSION innodb_lock_wait_timeout = 1"
    with shared.connect(autocommit=False) as connection:
        ask(connection, INSERT, "Dune")
        with (
            shared.connect(init_command=patience) as other,
            pytest.raises(pymysql.OperationalError, match=r"1205.*INSERT INTO dancer"),
        ):
            ask(other, INSERT, "Loess")


def test_each_connection_has_its_settings(shared: SharedDatabase) -> None:
    """Settings, character sets, and the last number."""
    question = "SELECT @@time_zone, @@sql_mode, @@collation_connection, LAST_INSERT_ID()"
    with shared.connect() as first, shared.connect(charset="latin1") as second:
        usual = ask(second, question)
        ask(first, "SET time_zone = '+09:00', sql_mode = '', autocommit = 1")
        ask(first, "SET NAMES utf8mb4 COLLATE utf8mb4_bin")
        ask(first, INSERT, "Dune")
        assert ask(second, question) == usual
        ask(second, INSERT, "Loëss")
        assert ask(first, question) == [("+09:00", "", "utf8mb4_bin", 2)]
        assert names(first) == names(second) == ["Sand", "Dune", "Loëss"]


def test_autocommit_is_a_connections_own(shared: SharedDatabase) -> None:
    """To switch it on commits, as on a server."""
    with shared.connect(autocommit=False) as connection, shared.connect() as other:
        ask(connection, INSERT, "Dune")
        assert shared.proxy.writers()
        ask(connection, "SET autocommit = 1")
        assert not shared.proxy.writers()
        ask(other, INSERT, "Loess")
        ask(other, "BEGIN")
        ask(other, INSERT, "undone")
        ask(other, "ROLLBACK")
        ask(other, "START TRANSACTION READ ONLY")
        with pytest.raises(pymysql.OperationalError, match="READ ONLY"):
            ask(other, INSERT, "refused")
    assert shared.names() == ["Sand", "Dune", "Loess"]


COMMITTING = [
    "CREATE TABLE more (a INT)",
    "ALTER TABLE dancer ADD COLUMN mood INT",
    "TRUNCATE dancer",
    "ANALYZE TABLE dancer",
    "CREATE TABLE dancer (a INT)",  # fails, and commits first
]


@pytest.mark.parametrize("statement", COMMITTING)
def test_a_statement_that_commits_is_noticed(shared: SharedDatabase, statement: str) -> None:
    """What follows is in a transaction again."""
    with shared.connect(autocommit=False) as connection:
        ask(connection, INSERT, "Dune")
        with suppress(pymysql.OperationalError):
            ask(connection, statement)
        assert shared.proxy.is_committed
        ask(connection, INSERT, "Loess")
        connection.rollback()
    assert "Loess" not in shared.names()


def test_a_temporary_table_commits_nothing(shared: SharedDatabase) -> None:
    """It ends with the level, as do locks by name and variables."""
    with shared.connect() as connection:
        ask(connection, "CREATE TEMPORARY TABLE passing (a INT)")
        ask(connection, "INSERT INTO passing VALUES (1)")
        ask(connection, "SET @x = 1")
        ask(connection, "SELECT GET_LOCK(%s, 0)", shared.database)
        assert not shared.proxy.is_committed
        shared.proxy.restart()
        assert ask(connection, f"SELECT @x, IS_USED_LOCK('{shared.database}')") == [(None, None)]
        with pytest.raises(pymysql.ProgrammingError, match="doesn't exist"):
            ask(connection, "SELECT * FROM passing")
    assert any("GET_LOCK excludes no other" in note for note in shared.notes)


@pytest.mark.parametrize("procedure", ["commits", "begins"])
def test_a_procedure_that_ends_the_transaction(shared: SharedDatabase, procedure: str) -> None:
    """It cannot be known what it has left, so that all connections end with the reason."""
    with shared.connect() as idle, shared.connect() as connection:
        ask(connection, INSERT, "Dune")
        with pytest.raises(pymysql.OperationalError, match=f"CALL {procedure}.*has ended"):
            ask(connection, f"CALL {procedure}()")
        with pytest.raises(pymysql.OperationalError):
            ask(idle, "SELECT 1")
    assert shared.proxy.is_lost
    with pytest.raises(Disconnected):
        shared.proxy.restart()


def test_a_deadlock_rolls_back_the_whole_transaction(shared: SharedDatabase) -> None:
    """The error says that the test's rows are gone."""
    with shared.directly(autocommit=False) as outside, shared.connect() as connection:
        for number in range(20):
            ask(outside, INSERT, f"outside {number}")
        ask(connection, "UPDATE dancer SET name = 'Dust' WHERE id = 1")
        thread = threading.Thread(target=wait_for_first, args=(outside,))
        thread.start()
        with pytest.raises(pymysql.OperationalError, match="rolled back all rows of this test"):
            ask(connection, "UPDATE dancer SET name = 'x' WHERE name = 'outside 0'")
        thread.join(10)
        outside.rollback()
    assert shared.proxy.is_lost


def wait_for_first(connection: Any) -> None:
    """Wait for the lock of the first row."""
    ask(connection, "UPDATE dancer SET name = 'y' WHERE id = 1")


def test_the_real_connection_ends(shared: SharedDatabase) -> None:
    """All connections end with the reason."""
    with shared.connect() as connection, shared.directly() as control:
        [(pid,)] = ask(connection, "SELECT CONNECTION_ID()")
        ask(control, f"KILL {pid}")
        with pytest.raises(pymysql.OperationalError, match="share has ended, by KILL"):
            ask(connection, "SELECT 1")


def test_a_statement_is_cancelled(shared: SharedDatabase) -> None:
    """That of this connection alone."""
    with shared.connect() as connection:
        timer = threading.Timer(0.2, shared.proxy.interrupt, (connection.thread_id(),))
        timer.start()
        with pytest.raises(pymysql.OperationalError, match="interrupted"):
            ask(connection, "SELECT COUNT(*) FROM dancer a JOIN (SELECT SLEEP(30)) b")
        timer.join()
        assert names(connection) == ["Sand"]


@pytest.mark.slow
def test_large_packets_and_many_rows(shared: SharedDatabase) -> None:
    """Values of many megabytes, all bytes, NULL, and several results of a procedure."""
    photo = bytes(range(256)) * 10_000  # 2.5 MB
    with shared.connect(client_flag=CLIENT.MULTI_STATEMENTS) as connection:
        ask(connection, "UPDATE dancer SET photo = CONCAT(_binary %s, %s)", photo, photo)
        [row] = ask(connection, "SELECT photo, photo, photo, photo, NULL, '' FROM dancer")
        assert row == (*[photo * 2] * 4, None, "")  # 20 MB: a packet has at most 16
        with pytest.raises(pymysql.OperationalError, match="1153"):
            ask(connection, "UPDATE dancer SET photo = _binary %s", bytes(40_000_000))
        rows = ", ".join(f"({n})" for n in range(3000))
        ask(connection, f"INSERT INTO dancer (name) VALUES {rows}")
        assert len(names(connection)) == 3001
        with connection.cursor() as cursor:
            cursor.execute("CALL adds(); SELECT ';', 3; DELETE FROM dancer WHERE name = 'added'")
            results = [list(cursor.fetchall())]
            while cursor.nextset():
                results.append(list(cursor.fetchall()))
        assert results == [[(1,)], [(2,)], [], [(";", 3)], []]
    assert len(shared.names()) == 3001


def test_an_update_counts_as_the_driver_asks(shared: SharedDatabase) -> None:
    """SQLAlchemy's drivers count the rows that were found, others those that have changed."""
    for flags, number in ((0, 0), (CLIENT.FOUND_ROWS, 1)):
        with shared.connect(client_flag=flags) as connection, connection.cursor() as cursor:
            assert cursor.execute("UPDATE dancer SET name = 'Sand'") == number


@pytest.mark.parametrize("driver", ["pymysql", "aiomysql", "asyncmy"])
def test_sqlalchemy_works_as_on_a_server(shared: SharedDatabase, driver: str) -> None:
    """Transactions, savepoints, errors, many values."""
    asyncio.run(_sqlalchemy(shared, driver))


async def _sqlalchemy(shared: SharedDatabase, driver: str) -> None:
    address = shared.proxy.address
    url = URL.create(
        f"mysql+{driver}",
        address.user,
        host="localhost",
        database=shared.database,
        query={"unix_socket": address.host},
    )
    work: Callable[[Any], None] = _work
    if driver == "pymysql":
        sync = create_engine(url)
        with sync.connect() as connection:
            work(connection)
        sync.dispose()
    else:
        engine = create_async_engine(url)
        async with engine.connect() as connection_:
            await connection_.run_sync(work)
        await engine.dispose()
    assert shared.names() == ["Sand", "Dune", "Loess"]


def _work(connection: Any) -> None:
    insert = text("INSERT INTO dancer (name) VALUES (:name)")
    assert connection.execute(insert, {"name": "Dune"}).lastrowid == 2
    connection.commit()
    connection.execute(insert, {"name": "Gravel"})
    connection.rollback()
    with suppress(ZeroDivisionError), connection.begin_nested():
        connection.execute(insert, {"name": "Silt"})
        raise ZeroDivisionError
    with connection.begin_nested():
        connection.execute(insert, {"name": "Loess"})
    with pytest.raises(Exception, match="Duplicate entry"), connection.begin_nested():
        connection.execute(insert, {"name": "Dune"})
    with connection.begin_nested() as nested:
        connection.execute(insert, [{"name": f"Clay {number}"} for number in range(3)])
        nested.rollback()
    connection.commit()


def test_what_is_refused(shared: SharedDatabase) -> None:
    """Another database, two-phase commit, and prepared statements of the protocol."""
    with shared.connect() as connection:
        for statement in ("USE mysql", "XA START 'x'"):
            with pytest.raises(pymysql.MySQLError, match="arena_isolation = rollback"):
                ask(connection, statement)
        with pytest.raises(pymysql.MySQLError, match="arena_isolation = rollback"):
            connection.select_db("mysql")
        connection._execute_command(22, "SELECT 1")
        with pytest.raises(pymysql.MySQLError, match="prepared statements of a driver"):
            connection._read_packet()
        ask(connection, f"USE {shared.database}")
        ask(connection, "LOCK TABLES dancer WRITE")
        ask(connection, "UNLOCK TABLES")
        connection.ping()
    assert shared.names() == ["Sand"]
    assert any("LOCK TABLES excludes no other" in note for note in shared.notes)


@pytest.mark.parametrize(
    "statement, error",
    [
        ("SET SESSION sql_log_bin = 0", "one open transaction"),
        ("LOAD DATA LOCAL INFILE 'rows' INTO TABLE dancer", "sends no files"),
    ],
)
def test_an_error_of_the_isolation(shared: SharedDatabase, statement: str, error: str) -> None:
    """The server's error has the cause and the next step."""
    with (
        shared.connect() as connection,
        pytest.raises(pymysql.MySQLError, match=rf"{error}.*isolation=\"clone\""),
    ):
        ask(connection, statement)


@pytest.mark.parametrize(
    "statements",
    [
        ("SAVEPOINT A", "UPDATE", "ROLLBACK TO a"),
        ("SAVEPOINT a", "UPDATE", "RELEASE SAVEPOINT a", "ROLLBACK TO a"),
        ("SAVEPOINT b", "SAVEPOINT a", "UPDATE", "ROLLBACK TO b"),
        ("SAVEPOINT b", "SAVEPOINT a", "UPDATE", "RELEASE SAVEPOINT b", "ROLLBACK TO a"),
        ("SAVEPOINT b", "SAVEPOINT a", "ROLLBACK TO b", "ROLLBACK TO a"),
    ],
)
def test_a_savepoint_replaces_one_of_its_name(
    shared: SharedDatabase, statements: tuple[str, ...]
) -> None:
    """The answers are those of a connection without the proxy."""
    answers: list[object] = []
    for connect in (shared.directly, shared.connect):
        with connect(autocommit=False) as connection:
            ask(connection, "SAVEPOINT a")
            ask(connection, INSERT, "first")
            try:
                for statement in statements:
                    update = "UPDATE dancer SET name = CONCAT(name, '!')"
                    ask(connection, statement.replace("UPDATE", update))
            except pymysql.MySQLError as error:
                answers.append(error.args)
            answers.append(names(connection))
            connection.rollback()
    half = len(answers) // 2
    assert answers[:half] == answers[half:]


def test_many_tasks_and_loops(database: str) -> None:
    """Each has a transaction, one after the other."""
    with opened(database, lock_timeout=30) as shared:
        threads = [
            threading.Thread(target=asyncio.run, args=(_add_many(shared, start),))
            for start in (0, 100)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(shared.names()) == 21


async def _add_many(shared: SharedDatabase, start: int) -> None:
    import asyncmy  # noqa: PLC0415 - of this test alone

    async def add(number: int) -> None:
        connection = await asyncmy.connect(**shared.place, database=shared.database)
        async with connection.cursor() as cursor:
            await cursor.execute(INSERT, (f"{number}",))
            await cursor.execute("SELECT COUNT(*) FROM dancer")
        await connection.commit()
        await connection.ensure_closed()

    await asyncio.gather(*(add(start + number) for number in range(10)))
