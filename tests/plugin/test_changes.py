"""What a test has changed, as it asks for it: since it began, or in one of its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example

SINCE_THE_BEGINNING = """
import subprocess, sys
import pytest
from sqlalchemy import text
from app import Order, Stock, engine, maker
from pytest_arena import Changes


@pytest.fixture(scope="module")
def lamps(arena):
    assert not arena.changes()
    with arena.session() as session:
        session.add(Order(item="lamp"))
        session.commit()
    assert arena.changes().tables == ("orders",)  # in a wider fixture: what that has changed


@pytest.fixture
async def vase(db_session, lamps):
    db_session.add(Order(item="vase"))
    await db_session.commit()


async def test_what_fixtures_of_its_own_and_requests_have_changed(arena, client, vase, db_session):
    assert isinstance(arena.changes(), Changes)
    assert await client.post("/orders/chair")
    changes = arena.changes()
    assert [one.after["item"] for one in changes["orders"].inserted] == ["vase", "chair"]
    [stock] = changes["stock"].updated
    assert (stock.before["amount"], stock.after["amount"]) == (5, 4)
    assert stock.columns == ("amount",)
    assert changes.tables == ("orders", "stock")
    await client.delete("/orders/3")
    assert str(arena.changes()).startswith("orders +1, stock ~1")  # net
    await client.delete("/orders/1")
    assert [one.before["item"] for one in arena.changes().deleted] == ["lamp"]


def test_nothing_is_left_of_that(arena, lamps):
    assert not arena.changes()


def test_pending_work_is_committed_first_and_the_session_goes_on(arena, db_session):
    order = Order(item="desk")
    db_session.add(order)
    assert arena.changes()["orders"].inserted[0].after["item"] == "desk"
    assert order in db_session
    order.status = "paid"
    assert arena.changes()["orders"].inserted[0].after["status"] == "paid"
    db_session.delete(order)
    assert not arena.changes()


async def test_pending_work_that_cannot_be_awaited_is_an_error(arena, db_session):
    db_session.add(Order(item="desk"))
    with pytest.raises(Exception, match="an async test asks for changes") as caught:
        arena.changes()
    assert "await db_session.commit()" in str(caught.value)
    assert "test_it.py:" in str(caught.value)
    await db_session.commit()
    assert len(arena.changes()) == 1


async def test_what_is_not_committed_and_what_was_rolled_back_is_no_change(arena):
    async with maker() as session:
        session.add(Order(item="desk"))
        await session.flush()
        assert not arena.changes()
        await session.rollback()
    assert not arena.changes()


async def test_texts_and_keys_and_tables_without_rows(arena):
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE stock SET item = 'sofa' WHERE item = 'chair'"))
        await connection.execute(text("DELETE FROM stock WHERE item = 'lamp'"))
    lines = str(arena.changes()).splitlines()
    assert lines == [
        "stock +1 -2",
        "  + stock item='sofa'  amount=5",
        "  - stock item='chair'  amount=5",
        "  - stock item='lamp'  amount=2",
    ]


async def test_what_was_changed_and_changed_back_is_no_change(arena):
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE stock SET amount = amount + 1"))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE stock SET amount = amount - 1"))
    assert not arena.changes()


@pytest.mark.arena(seed=False)
async def test_without_its_seed(arena, db_session):
    db_session.add(Stock(item="lamp", amount=1))
    await db_session.commit()
    assert str(arena.changes()).splitlines()[0] == "stock +1"


def test_another_process_counts_as_well(arena):
    code = (
        "import sys, sqlalchemy as s\\n"
        "with s.create_engine(sys.argv[1]).begin() as c:\\n"
        "    c.execute(s.text(\\"INSERT INTO visits (path) VALUES ('/child')\\"))"
    )
    url = arena.url.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
    subprocess.run([sys.executable, "-c", code, url], check=True)
    assert arena.changes()["visits"].inserted[0].after["path"] == "/child"


def test_a_test_without_a_database_has_changed_nothing(arena):
    assert not arena.changes()
    with pytest.raises(Exception, match="analytics"):
        arena.changes(database="analytics")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_what_has_changed_since_the_test_began(example: Example, how: str) -> None:
    """Net, committed, by whomever; each isolation says the same."""
    run = shop(example, test_it=SINCE_THE_BEGINNING).run(env=env_of(how))
    run.expect(passed=10).never_says("s3cret")


OF_A_REQUEST = """
import asyncio
import pytest
from app import Order, maker


async def test_of_each_request_by_its_place_or_itself(arena, client, db_session):
    db_session.add(Order(item="vase"))
    await client.post("/orders/chair")
    await client.get("/orders")
    async with maker() as session:
        session.add(Order(item="desk"))
        await session.commit()
    await client.post("/orders/lamp")
    assert str(arena.changes(0)).splitlines()[0] == "orders +1, stock ~1"
    assert arena.changes(0)["orders"][0].after["item"] == "chair"
    assert not arena.changes(arena.requests[1])
    assert arena.changes(-1)["stock"].updated[0].after == {"item": "lamp", "amount": 1}
    assert arena.changes(arena.requests[2]) == arena.changes(2)


async def test_requests_at_once_have_their_changes_together(arena, client):
    await asyncio.gather(*(client.post(f"/orders/{item}") for item in ("chair", "lamp", "chair")))
    await client.post("/orders/chair")
    assert arena.changes(0) == arena.changes(1) == arena.changes(2)
    assert len(arena.changes(0)["orders"].inserted) == 3
    assert len(arena.changes(3)["orders"].inserted) == 1


async def test_redirects_belong_to_the_request_that_followed_them(arena, client):
    await client.post("/old/chair", follow_redirects=True)
    assert [one.status for one in arena.requests] == [307, 201]
    assert arena.changes(0) == arena.changes(1)
    assert arena.changes(1).tables == ("orders", "stock")


def test_of_a_sync_client(arena, test_client):
    with pytest.raises(LookupError):
        test_client.post("/breaks")
    test_client.post("/orders/chair")
    assert arena.changes(0)["visits"].inserted
    assert arena.changes(1).tables == ("orders", "stock")


async def test_by_the_answers_of_both_kinds(arena, client, test_client):
    first, second = await client.post("/orders/lamp"), test_client.get("/orders")
    assert arena.changes(first).tables == ("orders", "stock")
    assert not arena.changes(second)
    del second.extensions["arena"]  # as that of a client of another's
    with pytest.raises(ValueError, match="GET http.*/orders is no request of this test"):
        arena.changes(second)


@pytest.fixture
async def ordered(client):
    await client.post("/orders/lamp")


async def test_of_a_fixture_of_its_own(arena, ordered, client):
    assert arena.changes(0).tables == ("orders", "stock")


def test_no_request_of_this_test(arena, test_client):
    test_client.get("/orders")
    old = arena.requests[0]
    test_client.get("/orders")
    assert not arena.changes(old)
    del arena._run.current.test.turns[:]
    with pytest.raises(ValueError, match="GET /orders is no request of this test"):
        arena.changes(old)
    with pytest.raises(IndexError):
        arena.changes(7)
"""


# What a request has taken and goes on with is given back before the next one begins.
BETWEEN = """

import asyncio
GO, TASKS = asyncio.Event(), []


@app.post("/later")
async def later():
    session = maker()
    session.add(Visit(path="/later"))
    await session.flush()

    async def goes_on():
        await GO.wait()
        await session.commit()
        await session.close()

    TASKS.append(asyncio.create_task(goes_on()))


@app.get("/hello")
async def hello():
    return "hello"
"""
BETWEEN_REQUESTS = """
import app


async def test_it(arena, client):
    assert (await client.post("/later")).status_code == 200
    app.GO.set()
    await arena.settled()
    await client.get("/orders")
    await client.get("/hello")
    await client.get("/hello")
    assert arena.changes().tables == ("visits",)
    assert [bool(arena.changes(place)) for place in range(4)] == [False] * 4
"""


@pytest.mark.parametrize("how", ["copy", "undo"])
@pytest.mark.slow
def test_what_is_written_between_two_requests_is_no_ones(example: Example, how: str) -> None:
    """A request begins when the last one ended only where nobody can have written meanwhile."""
    files = shop(example, test_it=BETWEEN_REQUESTS)
    files = files.with_files(app=files.files["app.py"] + BETWEEN)
    files.run(env=env_of(how)).expect(passed=1)


@pytest.mark.parametrize("how", slow_except(["copy", "undo"], "undo"))
def test_what_a_request_has_changed(example: Example, how: str) -> None:
    """Whichever client made it, and whatever else was done between two of them."""
    shop(example, test_it=OF_A_REQUEST).run(env=env_of(how)).expect(passed=7)


NOT_KNOWN = """
import pytest
from pytest_arena import IsolationError, inserted, updated


async def test_it(arena, client):
    await client.post("/orders/chair")
    with pytest.raises(IsolationError) as caught:
        arena.changes(0)
    print(caught.value)
    async with arena.expect_changes(orders=inserted(), stock=updated()):
        await client.post("/orders/chair")
"""


def test_an_isolation_that_does_not_know_says_so_and_what_to_do(example: Example) -> None:
    """A clone would have to be read whole at each request; around a block it is."""
    run = shop(example, test_it=NOT_KNOWN).run("-s", env=env_of("clone")).expect(passed=1)
    run.says(
        "POST /orders/chair: the changes of this request in shop are not known",
        "with clone pytest-arena read nothing at that time: the database did not answer, or each "
        "request would have had to read all of it",
        "test_it.py:9",
        "with arena.expect_changes(...)",
    )


MANY = """
import pytest
from pytest_arena import IsolationError


def test_many(arena, test_client):
    for _ in range(130):
        test_client.get("/orders")
    test_client.post("/orders/chair")
    assert not arena.changes(0)
    assert not arena.changes(60)
    assert arena.changes(-1)
    with pytest.raises(IsolationError, match="GET /orders: the changes of this") as caught:
        arena.changes(10)
    assert "pytest-arena keeps only the changes of the last hundred requests" in str(caught.value)
    kept = [turn for turn in arena._run.current.test.turns if turn.before is not None]
    assert len(kept) < 110
"""


@pytest.mark.slow
def test_of_very_many_requests_the_last_hundred_are_known(example: Example) -> None:
    """A moment may hold the content of a database."""
    shop(example, test_it=MANY).run().expect(passed=1)


LOCKED = """
import sqlite3
from contextlib import closing
import pytest
from pytest_arena import IsolationError


def test_it(arena, test_client):
    test_client.post("/orders/chair")
    with closing(sqlite3.connect(arena.url.partition("///")[2])) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(IsolationError, match="'shop' cannot be read now"):
            arena.changes()
        with pytest.raises(IsolationError, match="'shop' cannot be read now"):
            with arena.expect_changes():
                raise AssertionError("never")
        test_client.get("/docs")  # is not held up
    assert arena.changes().tables == ("orders", "stock")
"""


@pytest.mark.slow
def test_a_lock_in_the_way_is_named(example: Example) -> None:
    """At the line that asks; nobody waits for it, and a request does not fail for it."""
    shop(example, test_it=LOCKED).run().expect(passed=1)


SEVERAL = """
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from app import app  # its engine is the first one

log = create_async_engine("sqlite+aiosqlite:///log.db")


async def test_two(arena, client):
    async with log.begin() as connection:
        await connection.execute(text("CREATE TABLE lines (text VARCHAR)"))
        await connection.execute(text("INSERT INTO lines VALUES ('hello')"))
    await client.post("/orders/chair")
    assert arena.changes().tables == ("orders", "stock")
    assert "lines" in arena.changes(database="log").tables
    assert not arena.changes(0, database="log")
    assert 0
"""


@pytest.mark.slow
def test_each_database_is_asked_by_its_name(example: Example) -> None:
    """The first one if none is named; a report tells of all, and says which."""
    run = shop(example, test_it=SEVERAL).run().expect(1, failed=1)
    run.says(
        "+ log/lines text='hello'", "POST /orders/chair 201 on shop shop/orders +1, shop/stock ~1"
    )


TOO_MANY = """
import pytest
from sqlalchemy import text
from app import Order
from pytest_arena import inserted
from pytest_arena.errors import IsolationError


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add_all(Order(item="lamp") for _ in range(60))
        session.execute(text("CREATE INDEX more ON orders (item)"))
        session.commit()
    assert len(arena.changes()["orders"]) == 60
    yield
    for asked in (arena.changes, lambda: list(arena.changes()["orders"])):
        with pytest.raises(IsolationError, match="not all changed rows of"):
            asked()
    with arena.expect_changes(visits=inserted(0)):
        pass


def test_it(arena, wide):
    assert not arena.changes()
"""


@pytest.mark.slow
def test_rows_of_which_only_some_are_kept_are_not_told_as_none(example: Example) -> None:
    """Where a level was entered above a changed schema: what is missing there could not be seen."""
    run = shop(example, test_it=TOO_MANY).run(env=env_of("undo"))
    run.expect(passed=1)
