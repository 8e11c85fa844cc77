"""The report of a failed test names rows that a fixture wrote and never committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import env_of, shop
from tests.plugin.test_own_clients import not_committed

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
import pytest
import pytest_asyncio
from app import Order, engine, maker


@pytest.fixture
async def open_session():
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()
        yield


@pytest.fixture
async def closed_session():
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()


@pytest.fixture
async def added():
    async with maker() as session:
        session.add(Order(item="vase"))
        yield


@pytest.fixture
async def added_and_closed():
    async with maker() as session:
        session.add(Order(item="vase"))


@pytest.fixture
async def connection():
    async with engine.connect() as connection:
        await connection.execute(Order.__table__.insert(), [{"item": "a", "status": ""}] * 2)


@pytest.fixture
async def rolled_back():
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()
        await session.rollback()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of_the_module():
    async with maker() as session:
        session.add(Order(item="vase"))
        await session.flush()


async def orders(client):
    return (await client.get("/orders")).json()


async def test_open(open_session, client):
    assert await orders(client)


async def test_closed(closed_session, client):
    assert await orders(client)


async def test_added(added, client):
    assert await orders(client)


async def test_added_and_closed(added_and_closed, client):
    assert await orders(client)


async def test_connection(connection, client):
    assert await orders(client)


async def test_rolled_back(rolled_back, client):
    assert await orders(client)


async def test_of_the_module(of_the_module, client):
    assert await orders(client)
"""

WROTE = "the test or its fixture wrote orders"
ADDED = "the test or its fixture added Order"
CLOSED = "and closed the session without a commit:"
UNSEEN = "GET /orders could not see it"
NEXT = "next: commit it before the request: await session.commit()"
ADD = 'session.add(Order(item="vase"))'
INSERT = 'await connection.execute(Order.__table__.insert(), [{"item": "a", "status": ""}] * 2)'
NOT_COMMITTED = {
    "test_open": f"{WROTE} (1 row) and did not commit it: test_it.py:11  await session.flush()",
    "test_closed": f"{WROTE} (1 row) {CLOSED} test_it.py:19  await session.flush()",
    "test_added": f"{ADDED} and did not commit it: test_it.py:25  {ADD}",
    "test_added_and_closed": f"{ADDED} {CLOSED} test_it.py:32  {ADD}",
    "test_connection": f"{WROTE} (2 rows) {CLOSED} test_it.py:38  {INSERT}",
    "test_of_the_module": f"{WROTE} (1 row) {CLOSED} test_it.py:53  await session.flush()",
}


@pytest.mark.parametrize("how", ["copy", pytest.param("undo", marks=pytest.mark.slow)])
def test_a_failed_test_names_what_its_fixture_never_committed(example: Example, how: str) -> None:
    """A rollback of the fixture's is meant: no word of it."""
    run = shop(example, test_it=TESTS).run("-p", "no:randomly", env=env_of(how))
    run.expect(1, failed=7)
    expected = {name: [line, UNSEEN, NEXT] for name, line in NOT_COMMITTED.items()}
    assert not_committed(run) == expected


RECIPE = """
import pytest
from app import Base, Order, engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

test_engine = create_async_engine(URL) if URL else engine


@pytest.fixture
async def NAME():
    async with test_engine.connect() as connection:
        outer = await connection.begin()
        await connection.run_sync(Base.metadata.create_all)
        session = AsyncSession(connection, join_transaction_mode="MODE")
        yield session
        await session.close()
        await outer.rollback()


async def test_recipe(NAME, client):
    NAME.add(Order(item="vase"))
    await NAME.commit()
    assert (await client.get("/orders")).json() == ["vase"]


async def test_block(NAME, client):
    async with NAME.begin_nested():
        NAME.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["vase"]
"""
JOINS = "its session joins an outer transaction: session.commit() does not commit the rows"
USE = "next: use pytest-arena's `db_session`, and delete a fixture of this name"
OR_COMMIT = ", or commit the outer transaction"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["create_savepoint", "rollback_only"])
@pytest.mark.parametrize("name, step", [("db_session", USE), ("session", USE)])
@pytest.mark.parametrize("url", ["", "sqlite+aiosqlite:///test.db"])
def test_a_session_in_an_outer_transaction_commits_nothing(
    example: Example, name: str, step: str, url: str, mode: str
) -> None:
    """The commit is no next step. A savepoint that a test releases is another matter."""
    text = RECIPE.replace("NAME", name).replace("URL", repr(url)).replace("MODE", mode)
    # sqlite3 begins no transaction before a savepoint, unless it is told to.
    begins = """
from sqlalchemy import event


@event.listens_for(test_engine.sync_engine, "connect")
def connecting(connection, _):
    connection.isolation_level = None


@event.listens_for(test_engine.sync_engine, "begin")
def beginning(connection):
    connection.exec_driver_sql("BEGIN")
"""
    run = shop(example, test_it=text + begins).run("-p", "no:randomly", env=env_of("copy"))
    run.expect(1, failed=2)
    said = not_committed(run)
    where, unseen = (
        ("", UNSEEN) if not url else (" on test", "GET /orders on shop could not see it")
    )
    written = f"{WROTE} (1 row){where} and did not commit it: test_it.py:"
    line, *others = said["test_recipe"]
    assert line == f"{written}22  await {name}.commit()"
    assert others == [unseen, JOINS, step + (OR_COMMIT if not url else "")]
    line, *others = said["test_block"]
    assert line.startswith(written)
    assert others == [unseen, NEXT]
