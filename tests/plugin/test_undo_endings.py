"""Tests that are broken off, go on in a thread, or stand inside one transaction: on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

RINGS = """
import signal
import pytest
from sqlalchemy import select
from app import Dancer
from pytest_arena._postgresql.isolation import ServerIsolation

leave = ServerIsolation.leave


def ring(*_):
    pytest.fail("Timeout")


@pytest.fixture(scope="module")
def crew(arena):
    with arena.session() as session:
        session.add(Dancer(name="Crew"))
        session.commit()


@pytest.fixture(params=["before the rows are back", "after that"])
def late(request):
    \"\"\"The alarm rings while the test's level is being left.\"\"\"
    signal.signal(signal.SIGALRM, ring)
    yield

    def rung(self):
        ServerIsolation.leave = leave
        if request.param == "after that":
            leave(self)
        signal.raise_signal(signal.SIGALRM)
        return request.param == "after that" or leave(self)

    ServerIsolation.leave = rung


def test_broken_off(crew, late, arena):
    with arena.session() as session:
        assert session.scalars(select(Dancer.name).order_by(Dancer.id)).all() == ["Sand", "Crew"]
        session.add(Dancer(name="Left"))
        session.commit()


def test_after(crew, arena):
    with arena.session() as session:
        assert session.scalars(select(Dancer.name).order_by(Dancer.id)).all() == ["Sand", "Crew"]


def test_after_the_module(arena):
    pass
"""
AFTER = """
from sqlalchemy import select
from app import Dancer


def test_after(arena):
    with arena.session() as session:
        assert session.scalars(select(Dancer.name)).all() == ["Sand"]
"""


@pytest.mark.slow
def test_a_timeout_while_a_level_is_left_pitfall_070(example: Example) -> None:
    """It is told, and what the test wrote goes all the same."""
    run = on_postgresql(example, test_it=RINGS, test_later=AFTER).run("--tb=short")
    run.expect(1, passed=5, errors=2).says("Failed: Timeout")
    run.never_says("is not the top one")


ONE_TRANSACTION = """
import threading
import pytest
import sqlalchemy
from sqlalchemy import text


@pytest.fixture(scope="module")
def engine(arena):
    engine = sqlalchemy.create_engine(arena.url.replace("+asyncpg", "+psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def connection(engine):
    with engine.connect() as connection:
        transaction = connection.begin()
        connection.execute(text("INSERT INTO dancers (name) VALUES ('Crew')"))
        yield connection
        transaction.rollback()


@pytest.mark.parametrize("turn", range(3))
def test_a_number_of_a_sequence_in_a_savepoint_pitfall_057(connection, turn):
    savepoint = connection.begin_nested()
    connection.execute(text("INSERT INTO dancers (name) VALUES ('Savepoint')"))
    assert connection.scalar(text("SELECT count(*) FROM dancers")) == 3
    savepoint.rollback()
"""

AT_WORK = """
import threading
import pytest
import sqlalchemy
from concurrent.futures import ThreadPoolExecutor
from sqlalchemy import select, text
from app import Dancer

LATE = "INSERT INTO dancers (name) SELECT 'Late' FROM (SELECT pg_sleep(400)) waits"


@pytest.fixture(scope="module")
def worker(arena):
    engine = sqlalchemy.create_engine(arena.url.replace("+asyncpg", "+psycopg"))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(str).result()

        def work(has_begun):
            with engine.begin() as connection:
                has_begun.set()
                connection.execute(text(LATE))

        yield lambda has_begun: pool.submit(work, has_begun)
    engine.dispose()


waiting = []


def test_a_statement_is_under_way(worker, arena):
    has_begun = threading.Event()
    waiting.append(worker(has_begun))
    has_begun.wait()
    with arena.session() as session:
        at_work = text("SELECT count(*) FROM pg_stat_activity WHERE query = :late")
        while not session.scalar(at_work, {"late": LATE}):
            pass


def test_it_was_ended(worker, arena):
    # On a slow machine the connection may end while SQLAlchemy rolls back, with another error.
    assert waiting[0].exception() is not None
    with arena.session() as session:
        assert session.scalars(select(Dancer.name)).all() == ["Sand"]
"""


@pytest.mark.slow
def test_transactions_of_wide_fixtures_pitfall_044_057(example: Example) -> None:
    """One that only took numbers stays; a job's statement ends with its test, as a leak."""
    project = on_postgresql(example, test_savepoints=ONE_TRANSACTION, test_worker=AT_WORK)
    run = project.run("-W", "error::pytest.PytestUnhandledThreadExceptionWarning")
    run.expect(1, passed=5, errors=1).says("ConnectionLeak", "test_worker.py:19", "[A602]")


NEW_TABLES = """
from contextlib import asynccontextmanager
from sqlalchemy import text
from pytest_arena import inserted
from app import engine


async def run(*statements):
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def test_rows_of_tables_that_the_test_has_made_pitfall_029(arena, client):
    await run("CREATE TABLE made (a int)", "INSERT INTO made VALUES (1)")
    try:
        async with arena.expect_changes():
            await run("INSERT INTO made VALUES (2)")
    except AssertionError as error:
        assert "unexpected: + made  a=2" in str(error)
        assert "a=1" not in str(error)
    else:
        assert 0, "a wrong pass"
    async with arena.expect_changes(made=inserted(1, a=3)):
        await run("INSERT INTO made VALUES (3)")
    try:
        async with arena.expect_changes(another=inserted(2)):
            await run("CREATE TABLE another (a int)", "INSERT INTO another VALUES (1), (2)")
    except AssertionError as error:
        assert "CREATE TABLE public.another" in str(error)
        assert "missing" not in str(error)
    else:
        assert 0, "a wrong pass"
    assert "made +3" in str(arena.changes())
"""


@pytest.mark.slow
def test_expected_changes_of_new_tables_pitfall_029(example: Example) -> None:
    """As where an app makes its tables when it starts, which is in each test."""
    on_postgresql(example, test_it=NEW_TABLES).run().expect(passed=1)
