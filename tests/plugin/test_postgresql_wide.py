"""PostgreSQL: what wider fixtures hold, while tests get one database after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

HELD = """
import threading
import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from app import Dancer, engine

sync_engine = sqlalchemy.create_engine("postgresql+psycopg://me:s3cret@db.example.org/shop")
COUNT = text("SELECT count(*) FROM dancers")
ADD = text("INSERT INTO dancers (name) VALUES ('New')")


@pytest.fixture(scope="module")
def held():
    with sync_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.mark.parametrize("turn", range(3))
def test_a_connection_of_a_fixture_goes_along(held, arena, turn):
    held.execute(ADD)
    assert held.scalar(COUNT) == 2
    with arena.session() as session:
        assert session.scalar(COUNT) == 2


@pytest.fixture(scope="module")
def connection():
    with sync_engine.connect() as connection:
        yield connection


@pytest.fixture
def session(connection):
    # https://docs.sqlalchemy.org/en/20/orm/session_transaction.html#session-external-transaction
    transaction = connection.begin()
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        yield session
    transaction.rollback()


@pytest.mark.parametrize("turn", range(3))
def test_a_suite_that_undoes_itself_pitfall_005(session, turn):
    session.add(Dancer(name="Recipe"))
    session.commit()
    assert session.scalar(COUNT) == 2


@pytest.fixture(scope="module")
def worker():
    ended, failed = threading.Event(), []

    def work():
        while not ended.is_set():
            try:
                with sync_engine.begin() as connection:
                    connection.execute(text("SELECT pg_sleep(0.01)"))
            except sqlalchemy.exc.DBAPIError as error:
                failed.append(error)  # its database was given up under it

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ended.set()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("turn", range(4))
async def test_what_a_fixtures_thread_holds_is_no_tests_pitfall_010(worker, client, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Bob")).status_code == 201
"""


@pytest.mark.slow
def test_what_wider_fixtures_hold_over_their_tests(example: Example) -> None:
    """P2, P3, P7: connections follow, transactions of a recipe too, threads are nobody's leak."""
    run = on_postgresql(example, test_it=HELD).run("-W", "ignore").expect(passed=10)
    run.never_says("ConnectionLeak", "refused")
