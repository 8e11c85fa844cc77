"""Suites under ``--arena-isolation=rollback``: an app as it is, and what cannot be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except

if TYPE_CHECKING:
    from tests.example import Example, Run

HEAD = """
import asyncio
import sqlite3
import threading
import pytest
import sqlalchemy
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from app import Dancer, app, engine, maker

SYNC = "sqlite:///dev.db"


async def names():
    async with maker() as session:
        return list(await session.scalars(select(Dancer.name).order_by(Dancer.id)))
"""


def ran(example: Example, test: str, *args: str) -> Run:
    """Run a module of tests under rollback."""
    return example.with_files(test_it=HEAD + test).run(
        "test_it.py", "--arena-isolation=rollback", *args
    )


WORKS = """
@pytest.fixture(scope="module")
def kept():
    engine = sqlalchemy.create_engine(SYNC)

    @event.listens_for(engine, "connect")
    def connect(connection, record):
        connection.execute("PRAGMA journal_mode = persist").close()

    yield engine
    engine.dispose()


def begins_itself(sync):
    @event.listens_for(sync, "connect")
    def connect(connection, record):
        connection.isolation_level = None

    @event.listens_for(sync, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")


@pytest.mark.parametrize("recipe", ["", "begins_itself"])
def test_nested_pitfall_101(arena, recipe):
    sync = sqlalchemy.create_engine(SYNC)
    if recipe:
        begins_itself(sync)
    with Session(sync) as session:
        session.add(Dancer(name="outer"))
        with session.begin_nested():
            session.add(Dancer(name="inner"))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Dancer(name="Sand"))
            session.flush()
        session.commit()
    with sync.connect() as connection:
        found = connection.scalars(text("SELECT name FROM dancers ORDER BY id")).all()
    assert found == ["Sand", "outer", "inner"]
    sync.dispose()


async def test_a_shared_session_pitfall_107_108(client):
    async with engine.connect() as connection:
        transaction = await connection.begin()
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('outer')"))
        session = maker(bind=connection, join_transaction_mode="create_savepoint")
        session.add(Dancer(name="kept"))
        await session.commit()
        await session.rollback()
        assert "kept" in list(await session.scalars(select(Dancer.name)))
        await session.close()
        await transaction.rollback()
    assert await names() == ["Sand"]


@pytest.mark.parametrize("number", range(2))
async def test_a_journal_mode_ends_with_its_test(number):
    async with engine.connect() as connection:
        assert await connection.scalar(text("PRAGMA journal_mode")) != "wal"
        assert await connection.scalar(text("PRAGMA journal_mode = wal")) == "wal"
        assert await connection.scalar(text("PRAGMA journal_mode")) == "wal"


@pytest.mark.parametrize("number", range(2))
def test_the_journal_mode_of_an_engine_stays(arena, kept, number):
    with kept.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "persist"


async def test_requests_at_once_pitfall_109(client):
    answers = await asyncio.gather(*[client.post(f"/dancers/{n}") for n in range(8)])
    assert {answer.status_code for answer in answers} == {201}
    assert len(await names()) == 9


async def test_engines_threads_and_drivers_pitfall_104_113(client, arena):
    await client.post("/dancers/async")

    def work():
        other = sqlalchemy.create_engine(SYNC)
        with other.begin() as connection:
            connection.execute(text("INSERT INTO dancers (name) VALUES ('sync')"))
        other.dispose()

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await names() == ["Sand", "async", "sync"]
    with sqlite3.connect(arena.url.partition(":///")[2]) as raw:
        raw.execute("INSERT INTO dancers (name) VALUES ('raw')")
    raw.close()
    assert (await client.get("/dancers")).json() == ["Sand", "async", "sync", "raw"]


async def test_an_error_in_a_request_pitfall_111(client):
    with pytest.raises(IntegrityError):
        await client.post("/dancers/Sand")
    assert (await client.post("/dancers/new")).status_code == 201
    assert await names() == ["Sand", "new"]


async def test_ddl_is_rolled_back():
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE more (a)"))
        await connection.execute(text("ALTER TABLE dancers ADD COLUMN age"))


@pytest.mark.parametrize("turn", [1, 2])
async def test_numbers_and_schema(client, turn):
    async with engine.connect() as connection:
        columns = await connection.execute(text("PRAGMA table_info(dancers)"))
        assert len(columns.all()) == 2
    await client.post("/dancers/new")


async def test_raw_commit_pitfall_110():
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('text')"))
        await connection.exec_driver_sql("COMMIT")
        with pytest.raises(OperationalError, match="no transaction is active"):
            await connection.exec_driver_sql("COMMIT")
    assert await names() == ["Sand", "text"]


async def test_changes(client, arena):
    await client.post("/dancers/new")
    assert "name='new'" in str(arena.changes())


@pytest.fixture(scope="class")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="wide"))
        session.commit()


class TestWide:
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_a_wide_fixture(self, wide, client, turn):
        assert await names() == ["Sand", "wide"]
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM dancers"))


async def test_a_row_that_another_transaction_has_not_committed(client):
    async with maker() as session:
        session.add(Dancer(name="not yet"))
        await session.flush()
        assert (await client.get("/dancers")).json() == ["Sand"]
        await session.commit()
    assert (await client.get("/dancers")).json() == ["Sand", "not yet"]


@pytest.mark.arena(schema=False)
def test_an_empty_database(arena):
    sync = sqlalchemy.create_engine(SYNC)
    with sync.begin() as connection:
        assert not sqlalchemy.inspect(connection).get_table_names()
        connection.execute(text("CREATE TABLE other (a)"))
    sync.dispose()


async def test_after_an_empty_database():
    assert await names() == ["Sand"]
"""


@pytest.mark.parametrize("order", slow_except(["", "reversed"], "reversed"))
def test_an_app_as_it_is(example: Example, order: str) -> None:
    """Engines, threads, savepoints, DDL and wide fixtures, with a test before and after each."""
    turn = "\ndef pytest_collection_modifyitems(items):\n    items.reverse()\n"
    if order:
        example = example.with_files(conftest=turn)
    run = ran(example, WORKS).expect(passed=20)
    run.never_says("not verified", "is not as it was")


R_TREE = """
@pytest.fixture(scope="module")
def other():
    engine = sqlalchemy.create_engine(SYNC)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module", autouse=True)
def places(other):
    with other.begin() as connection:
        connection.execute(text("CREATE VIRTUAL TABLE places USING rtree(id, x1, x2)"))
        connection.execute(text("INSERT INTO places VALUES (1, 0, 1)"))


@pytest.mark.parametrize("turn", range(3))
async def test_an_r_tree_and_two_engines(client, other, turn):
    with other.begin() as connection:
        assert connection.scalar(text("SELECT x2 FROM places")) == 1
        connection.execute(text("UPDATE places SET x2 = 9"))
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def test_an_r_tree_and_two_engines(example: Example) -> None:
    """SQLite registers no function of another engine while an R-tree has a blob open."""
    ran(example, R_TREE).expect(passed=3)


def test_a_forgotten_commit_is_lost_and_named(example: Example) -> None:
    """P3: no later request sees the row, and the summary names the line."""
    forgetful = """
@app.post("/forgetful/{name}")
async def forgetful(name: str):
    async with maker() as session:
        session.add(Dancer(name=name))
        await session.flush()


async def test_it(client):
    await client.post("/forgetful/lost")
    assert (await client.get("/dancers")).json() == ["Sand"]
"""
    ran(example, forgetful).expect(passed=1).says("wrote dancers (1 row)")
    ran(example, forgetful, "--arena-lost-writes=fail").expect(1, passed=1, errors=1)


@pytest.mark.slow
def test_a_transaction_left_open_is_a_leak(example: Example) -> None:
    """The next test starts clean, and the session of the earlier one cannot write into it."""
    left = """
kept = []


async def test_leaves():
    session = maker()
    kept.append(session)
    session.add(Dancer(name="left"))
    await session.flush()


async def test_next(client):
    assert await names() == ["Sand"]
    assert (await client.post("/dancers/new")).status_code == 201
"""
    ran(example, left).expect(1, passed=2, errors=1).says("test_it.py:")


@pytest.mark.slow
def test_a_writer_waits_and_the_error_shows_both_lines_pitfall_107(example: Example) -> None:
    """A request waits for the test's transaction, in the app's own time."""
    waits = """
async def test_waits(client):
    async with maker() as session:
        session.add(Dancer(name="first"))
        await session.flush()
        task = asyncio.ensure_future(client.post("/dancers/second"))
        await asyncio.wait([task], timeout=0.2)
        assert not task.done()
        await session.commit()
        assert (await task).status_code == 201
    assert await names() == ["Sand", "first", "second"]


async def test_waits_too_long(client):
    async with maker() as session:
        session.add(Dancer(name="first"))
        await session.flush()
        await client.post("/dancers/second")
"""
    run = ran(example, waits, "--arena-lock-timeout=0.5")
    run.expect(1, passed=1, failed=1)
    run.says("database is locked", "app.py:", "test_it.py:", "await session.flush()")


@pytest.mark.slow
def test_what_one_connection_cannot_do_is_named(example: Example) -> None:
    """An error or a line for each."""
    limits = """
async def test_attach():
    async with engine.connect() as connection:
        with pytest.raises(Exception, match="ATTACH does not work under rollback"):
            await connection.execute(text("ATTACH ':memory:' AS other"))


async def test_vacuum():
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM"))


async def test_a_copy(tmp_path):
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(f"VACUUM INTO '{tmp_path / 'copy.db'}'"))
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT name FROM dancers").fetchall() == [("Sand",)]
    copy.close()


async def test_temporary_tables():
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TEMP TABLE mine (a)"))


def test_converters():
    parses = sqlalchemy.create_engine(SYNC, connect_args={"detect_types": 1})
    with pytest.raises(Exception, match="detect_types does not work under rollback"):
        parses.connect()
"""
    run = ran(example, limits).expect(passed=5)
    run.says("VACUUM was skipped", "all connections see the temporary table of one connection")


@pytest.mark.slow
def test_a_statement_that_rolls_back_everything(example: Example) -> None:
    """OR ROLLBACK ends the app's transaction alone."""
    statement = """
async def test_it(client):
    await client.post("/dancers/kept")
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO dancers (name) VALUES ('lost')"))
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT OR ROLLBACK INTO dancers (name) VALUES ('Sand')"))
    assert await names() == ["Sand", "kept"]


async def test_next():
    assert await names() == ["Sand"]
"""
    ran(example, statement).expect(passed=2)


def test_a_transaction_of_a_wide_fixture(example: Example) -> None:
    """A suite that undoes its tests by savepoints in a transaction of its own."""
    undoes = """
@pytest.fixture(scope="module")
def connection(arena):
    sync = sqlalchemy.create_engine(SYNC)
    event.listen(sync, "connect", lambda raw, record: setattr(raw, "isolation_level", None))
    event.listen(sync, "begin", lambda begun: begun.exec_driver_sql("BEGIN"))
    with sync.connect() as connection, connection.begin() as outer:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('outer')"))
        yield connection
        outer.rollback()
    sync.dispose()


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_it(connection, turn):
    nested = connection.begin_nested()
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        session.add(Dancer(name="mine"))
        session.commit()
        assert list(session.scalars(select(Dancer.name))) == ["Sand", "outer", "mine"]
    nested.rollback()
"""
    run = ran(
        example.with_files(
            test_z=f"{HEAD}async def test_after():\n    assert await names() == ['Sand']\n"
        ),
        undoes,
        "test_z.py",
    )
    run.expect(passed=4).says("a fixture keeps a transaction open during its tests")


@pytest.mark.slow
def test_another_process_is_named(example: Example) -> None:
    """It sees the rows of the template, cannot write, and the summary says so."""
    process = """
import subprocess
import sys

CODE = '''
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
print(connection.execute("SELECT name FROM dancers").fetchall())
try:
    connection.execute("DELETE FROM dancers")
except sqlite3.OperationalError as error:
    print(error)
'''


async def test_it(client, arena):
    await client.post("/dancers/new")
    command = [sys.executable, "-c", CODE, arena.url.partition(":///")[2]]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "[('Sand',)]\\ndatabase is locked\\n"
"""
    run = ran(example, process).expect(passed=1)
    run.says("test_it.py::test_it started a process that may use the database")
