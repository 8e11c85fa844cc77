"""A block that changes what it is expected to change, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example

AS_EXPECTED = """
import pytest
from sqlalchemy import text
from app import Order, Stock, engine, maker
from pytest_arena import deleted, inserted, updated


async def test_async(arena, client, db_session):
    db_session.add(Order(item="vase"))  # before the block, and no part of it
    async with arena.expect_changes(orders=inserted(1, item="chair"), stock=updated(amount=4)):
        await client.post("/orders/chair")
    async with arena.expect_changes():
        await client.get("/orders")
        await client.post("/pay/1")  # forgets to commit
    async with arena.expect_changes(orders=deleted(1, item="vase") & inserted()):
        await client.delete("/orders/1")
        db_session.add(Order(item="desk"))  # its end is the block's
    assert (await db_session.get(Order, 3)).item == "desk"


def test_sync(arena, test_client, db_session):
    order = Order(item="vase")
    db_session.add(order)
    with arena.expect_changes(orders=inserted(1, status="new"), stock=updated()):
        test_client.post("/orders/chair")
    with arena.expect_changes(orders=updated(1, status="paid")):
        order.status = "paid"
    assert order in db_session


async def test_a_plain_with_in_an_async_test(arena, client, db_session):
    with arena.expect_changes(orders=inserted(), stock=updated()):
        await client.post("/orders/chair")
    db_session.add(Order(item="vase"))
    with pytest.raises(Exception, match="an async test asks for changes") as caught:
        with arena.expect_changes(orders=inserted()):
            await client.post("/orders/chair")
    assert "async with arena.expect_changes" in str(caught.value)


async def test_ignored_tables(arena, client):
    async with arena.expect_changes(orders=inserted(), ignore=("st*", "visits")):
        await client.post("/orders/chair")
    async with arena.expect_changes(orders=inserted(), ignore="stock"):
        await client.post("/orders/chair")


async def test_a_table_with_another_name(arena):
    async with engine.begin() as connection:
        await connection.execute(text('CREATE TABLE "Some thing" (id integer primary key)'))
        await connection.execute(text("CREATE TABLE ignore (id integer primary key)"))
    async with arena.expect_changes({"Some thing": inserted(1, id=7), "ignore": inserted()}):
        async with engine.begin() as connection:
            await connection.execute(text('INSERT INTO "Some thing" VALUES (7)'))
            await connection.execute(text("INSERT INTO ignore VALUES (7)"))


async def test_an_error_of_the_block_wins(arena, client):
    with pytest.raises(LookupError, match="no such thing"):
        async with arena.expect_changes():
            await client.post("/breaks")
    with pytest.raises(ZeroDivisionError):
        with arena.expect_changes(orders=inserted(7)):
            1 / 0


async def test_a_table_that_does_not_exist(arena, client):
    with pytest.raises(AssertionError, match="has no table order; did you mean orders"):
        async with arena.expect_changes(order=inserted(), stock=updated()):
            await client.post("/orders/chair")
    with pytest.raises(AssertionError, match="^[^\\n]* has no table nothing_like_it$"):
        async with arena.expect_changes(nothing_like_it=inserted(0)):
            await client.get("/orders")


def test_what_is_no_expectation(arena):
    with pytest.raises(TypeError, match="orders=1 is no expectation: write orders=ins"):
        arena.expect_changes(orders=1)
    with pytest.raises(TypeError, match="orders is expected twice"):
        arena.expect_changes({"orders": inserted(1)}, orders=deleted(1))


def test_a_block_that_connects_first(arena, db_session):
    with arena.expect_changes(visits=inserted(0)):
        pass
    with arena.expect_changes(orders=inserted(1, item="first")):
        db_session.add(Order(item="first"))


@pytest.fixture(scope="module")
def lamps(arena):
    with arena.expect_changes(orders=inserted(2)):
        with arena.session() as session:
            session.add_all([Order(item="lamp"), Order(item="lamp")])
            session.commit()


async def test_in_a_wider_fixture(lamps, arena, client):
    async with arena.expect_changes(orders=deleted(1, id=1)):
        await client.delete("/orders/1")
"""


@pytest.mark.parametrize("how", HOWS)
def test_a_block_that_does_what_is_expected(example: Example, how: str) -> None:
    """Under each isolation, with the sessions of the test as they come."""
    run = shop(example, test_it=AS_EXPECTED).run(env=env_of(how))
    run.expect(passed=10)


OTHERWISE = """
from pytest_arena import deleted, inserted, updated


async def test_too_much(arena, client):
    async with arena.expect_changes(orders=inserted(1, item="lamp") & deleted()):
        await client.post("/orders/chair")


def test_nothing_at_all(arena, test_client):
    with arena.expect_changes(orders=inserted(), stock=updated(1, amount=4)):
        test_client.get("/orders")
"""


@pytest.mark.parametrize("how", ["copy", pytest.param("undo", marks=pytest.mark.slow)])
def test_a_block_that_does_something_else_fails_and_says_in_what(
    example: Example, how: str
) -> None:
    """Each row, readable, at the user's line, without the plugin's own."""
    run = shop(example, test_it=OTHERWISE).run("--tb=short", env=env_of(how)).expect(1, failed=2)
    run.says(
        """
        AssertionError: the database did not change as expected
        E     unexpected: + orders id=1  item='chair' status='new' api_token=*** NULL: note
        E     missing:    orders: 1 inserted row with item='lamp'
        E     missing:    orders: 1 deleted row
        E     unexpected: ~ stock item='chair'  amount 5 → 4
        E   all changes: orders +1, stock ~1
        """,
        """
        E     missing:    orders: 1 inserted row
        E     missing:    stock: 1 updated row with amount=4
        E   all changes: nothing
        """,
    )
    run.says("test_it.py:6: in test_too_much", "test_it.py:11: in test_nothing_at_all")
    run.never_says("_observed.py", "s3cret")


OTHER_TYPES = """
from pytest_arena import inserted, updated


def test_text(arena, test_client):
    with arena.expect_changes(orders=inserted(1, id="1", item="chair"), stock=updated()):
        test_client.post("/orders/chair")
"""


@pytest.mark.slow
def test_a_value_of_another_type_is_named_with_both_types(example: Example) -> None:
    """``id=1`` and ``id='1'`` look alike."""
    run = shop(example, test_it=OTHER_TYPES).run("--tb=short").expect(1, failed=1)
    run.says("1 inserted row with id='1' item='chair' (id is of type int in the database, not str)")


LATER = """
import asyncio
import threading

from app import Order, app, maker

GATE = threading.Event()
TASKS = set()


async def add():
    await asyncio.sleep(0.05)
    async with maker.begin() as session:
        session.add(Order(item="late"))


async def for_ever():
    await asyncio.Event().wait()


@app.post("/later", status_code=202)
async def later():
    TASKS.add(asyncio.create_task(add()))


@app.post("/endless", status_code=202)
async def endless():
    TASKS.add(asyncio.create_task(for_ever()))
"""

WAITS = """
import pytest
from pytest_arena import inserted
from pytest_arena.errors import LateWorkError


async def test_async(arena, client):
    async with arena.expect_changes(orders=inserted(1, item="late")):
        await client.post("/later")


async def test_async_that_expects_nothing(arena, client):
    with pytest.raises(AssertionError, match="item='late'"):
        async with arena.expect_changes():
            await client.post("/later")


def test_sync(arena, test_client):
    with arena.expect_changes(orders=inserted(1, item="late")):
        test_client.post("/later")


async def test_a_plain_with(arena, client):
    with pytest.raises(LateWorkError, match="async with arena.expect_changes"):
        with arena.expect_changes():
            await client.post("/later")
    await arena.settled()
"""

ENDLESS = """
import pytest


@pytest.mark.parametrize("turn", range(2))
async def test_endless(arena, client, turn):
    async with arena.expect_changes():
        await client.post("/endless")
"""


@pytest.mark.parametrize("how", ["copy", pytest.param("undo", marks=pytest.mark.slow)])
def test_a_block_waits_for_the_work_that_its_requests_have_begun(
    example: Example, how: str
) -> None:
    """Also in a sync test. A plain `with` in an async test cannot wait."""
    project = shop(example, test_it=WAITS, later=LATER)
    project = project.change("pytest.ini", "app:app", "later:app")
    project.run("-q", "-oarena_settle=30", env=env_of(how)).expect(passed=4)


def test_a_block_names_work_that_does_not_end(example: Example) -> None:
    """Once in a run."""
    project = shop(example, test_it=ENDLESS, later=LATER)
    project = project.change("pytest.ini", "app:app", "later:app")
    run = project.run("-q", "-oarena_settle=0.1").expect(passed=2)
    words = "arena.expect_changes(…) compared the rows while work of a request still ran: "
    assert run.output.count(words) == 1
    run.says(f"arena: test_it.py::test_endless[0]: {words}", "later.py:")
