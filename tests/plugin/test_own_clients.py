"""The report of a failed test names what the test has written and not committed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example, Run

FILTERS = ("-W", "ignore::DeprecationWarning")

FAILING = """
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient
from app import Order, app, get_db, maker


async def test_never_flushed(db_session):
    db_session.add_all([Order(item="vase"), Order(item="lamp")])
    assert TestClient(app).get("/orders").json() == ["vase", "lamp"]


def test_flushed(test_client, db_session):
    test_client.get("/orders")
    db_session.add(Order(item="vase"))
    db_session.flush()
    assert 0


async def test_in_a_block_of_its_own(client):
    async with maker() as session:
        session.add_all([Order(item="vase"), Order(item="lamp")])
        await session.flush()
        assert (await client.get("/orders")).json() == ["vase", "lamp"]


@pytest.fixture
async def session():
    async with maker() as session:
        yield session
        await session.rollback()


async def test_of_a_fixture(session, client):
    await session.execute(text("UPDATE stock SET amount = 7 WHERE item = 'lamp'"))
    await client.get("/orders")
    assert 0


async def test_without_a_request(session):
    session.add(Order(item="vase"))
    await session.flush()
    assert 0


async def test_that_the_app_shares(session, client):
    app.dependency_overrides[get_db] = lambda: session
    session.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["vase"]
    await client.post("/pay/1")
    assert 0


async def test_that_commits(session, client, db_session):
    db_session.add(Order(item="vase"))
    await client.get("/orders")
    session.add(Order(item="lamp"))
    await session.commit()
    assert 0


async def test_whose_app_leaves_it_open(client):
    await client.post("/leaves")
    assert 0
"""

LEAVING = """


@app.post("/leaves")
async def leaves():
    app.state.session = maker()
    app.state.session.add(Order(item="vase"))
    await app.state.session.flush()
"""

WROTE = "the test or its fixture wrote"
OPEN = "and did not commit it:"
UNSEEN = "GET /orders could not see it"
NEXT = "next: commit it before the request: await session.commit()"
UPDATE = """await session.execute(text("UPDATE stock SET amount = 7 WHERE item = 'lamp'"))"""
NOT_COMMITTED = {
    "test_never_flushed": ["2 objects pending in db_session: await db_session.commit()"],
    "test_flushed": [
        f"{WROTE} orders (1 row) {OPEN} test_it.py:16  db_session.flush()",
        NEXT.replace("await ", ""),
    ],
    "test_in_a_block_of_its_own": [
        f"{WROTE} orders (2 rows) {OPEN} test_it.py:23  await session.flush()",
        UNSEEN,
        NEXT,
    ],
    "test_of_a_fixture": [f"{WROTE} stock (1 row) {OPEN} test_it.py:35  {UPDATE}", UNSEEN, NEXT],
    "test_without_a_request": [
        f"{WROTE} orders (1 row) {OPEN} test_it.py:42  await session.flush()",
        NEXT.replace("the request", "the app reads it"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_failed_test_tells_what_it_has_not_committed(example: Example, how: str) -> None:
    """Not what the app has left, nor what it shares with the test, nor what is committed."""
    project = shop(example, test_it=FAILING)
    run = project.with_files(app=project.files["app.py"] + LEAVING).run(*FILTERS, env=env_of(how))
    run.expect(1, failed=8)
    assert not_committed(run) == NOT_COMMITTED


def not_committed(run: Run) -> dict[str, list[str]]:
    """What the report of each test says of that."""
    parts = re.split(r"^_{4,} (\w+) _{4,}$", run.output, flags=re.MULTILINE)[1:]
    told = r"^not committed\n((?:    .*\n)+)"
    found = {
        name: re.search(told, report, re.MULTILINE)
        for name, report in zip(parts[::2], parts[1::2], strict=True)
    }
    lines = {name: one[1].splitlines() for name, one in found.items() if one}
    return {name: [re.sub(r": /\S+/", ": ", one.strip()) for one in lines[name]] for name in lines}
