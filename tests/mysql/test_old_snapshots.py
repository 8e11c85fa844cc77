"""REPEATABLE READ, MySQL's default, hides a request's commit from a session that read before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mysql.shop import shop
from tests.parameters import slow_except

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

OWN_SESSIONS = """
from app import Item, engine, maker
from sqlalchemy import select

NAMES = select(Item.name).order_by(Item.id)


async def test_reads_before_and_after(client):
    async with maker() as session:
        assert (await session.scalars(NAMES)).all() == ["seeded"]
        await client.post("/items/pear")
        assert (await session.scalars(NAMES)).all() == ["seeded", "pear"]


async def test_ends_the_transaction(client):
    async with maker() as session:
        await session.scalars(NAMES)
        await client.post("/items/pear")
        await session.rollback()
        assert (await session.scalars(NAMES)).all() == ["seeded"]


async def test_reads_committed_rows(client):
    committed = engine.execution_options(isolation_level="READ COMMITTED")
    async with maker(bind=committed) as session:
        await session.scalars(NAMES)
        await client.post("/items/pear")
        assert (await session.scalars(NAMES)).all() == ["seeded"]
"""


@pytest.mark.parametrize(
    "driver", slow_except(["mysql+asyncmy", "mysql+aiomysql"], "mysql+asyncmy")
)
def test_a_session_of_the_test(server: StoryMySQLServer, tmp_path: Path, driver: str) -> None:
    """The report names the line that began the transaction, unless the test could see the rows."""
    run = shop(server, tmp_path, driver).with_files(test_own=OWN_SESSIONS).run()
    run.expect(1, failed=3).says("read from an old snapshot")
    line = "began before POST /items/pear, and could not see what it committed: test_own.py:10"
    run.says(line).says("next: before it reads again, session.rollback(), with await if it is")
    assert run.output.count("read from an old snapshot") == 1


# The session of FastAPI's full-stack template.
WIDE_SESSION = """
import pytest
from app import URL, Item
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

engine = create_engine(URL.replace("asyncmy", "pymysql"))


@pytest.fixture(scope="session", autouse=True)
def db(arena):
    with Session(engine) as session:
        yield session


@pytest.mark.parametrize("turn", range(2))
def test_commits_and_reads(db, turn):
    item = db.scalars(select(Item)).one()
    assert item.name == "seeded"
    item.name = "changed"
    db.commit()
    assert db.scalar(select(Item.name)) == "changed"
"""


def test_a_session_of_a_wide_fixture(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The snapshot of a test's last read ends with the test."""
    shop(server, tmp_path).with_files(test_wide=WIDE_SESSION).run("-q").expect(passed=2)


LATE_WORK = """
import asyncio
import threading
from app import Item, app, maker
from sqlalchemy import select

GATE = threading.Event()
NAMES = select(Item.name).order_by(Item.id)


async def add(name):
    await asyncio.to_thread(GATE.wait)
    async with maker.begin() as session:
        session.add(Item(name=name))


@app.post("/later/{name}")
async def later(name: str):
    GATE.clear()
    app.state.task = asyncio.create_task(add(name))


async def test_async(client, db_session, arena):
    await client.post("/later/pear")
    assert (await db_session.scalars(NAMES)).all() == ["seeded"]
    GATE.set()
    await arena.settled()
    assert (await db_session.scalars(NAMES)).all() == ["seeded", "pear"]


def test_sync(test_client, db_session, arena):
    test_client.post("/later/pear")
    assert db_session.scalars(NAMES).all() == ["seeded"]
    GATE.set()
    arena.settled()
    assert db_session.scalars(NAMES).all() == ["seeded", "pear"]
"""


def test_db_session_sees_late_work(server: StoryMySQLServer, tmp_path: Path) -> None:
    """`arena.settled()` ends the transaction that has read before."""
    shop(server, tmp_path).with_files(test_late=LATE_WORK).run("-q").expect(passed=2)
