"""A block that changes what it is expected to change, and nothing else."""

from enum import Enum

import pytest
from async_app import engine
from models import Order
from sqlalchemy import text

from pytest_arena import deleted, inserted, updated
from pytest_arena.errors import LateWorkError, PendingWorkError


async def test_a_block_of_an_async_test(arena, client, db_session):
    db_session.add(Order(item="vase"))  # before the block, and no part of it
    async with arena.expect_changes(orders=inserted(1, item="chair"), stock=updated(amount=4)):
        await client.post("/orders/chair")
    async with arena.expect_changes():
        await client.get("/orders")
    async with arena.expect_changes(orders=deleted(1, item="vase") & inserted()):
        await client.delete("/orders/1")
        db_session.add(Order(item="desk"))  # its end is the block's
    assert (await db_session.get(Order, 3)).item == "desk"


def test_a_block_of_a_sync_test(arena, test_client, db_session):
    order = Order(item="vase")
    db_session.add(order)
    with arena.expect_changes(orders=inserted(1, status="new"), stock=updated()):
        test_client.post("/orders/chair")
    with arena.expect_changes(orders=updated(1, status="paid")):
        order.status = "paid"


async def test_a_plain_with_in_an_async_test(arena, client, db_session):
    with arena.expect_changes(orders=inserted(), stock=updated()):
        await client.post("/orders/chair")
    db_session.add(Order(item="vase"))
    with pytest.raises(PendingWorkError), arena.expect_changes(orders=inserted()):
        await client.post("/orders/chair")
    await db_session.commit()


@pytest.mark.parametrize("ignored", ["stock", ("st*", "visits")])
async def test_ignored_tables(arena, client, ignored):
    async with arena.expect_changes(orders=inserted(), ignore=ignored):
        await client.post("/orders/chair")


async def test_a_name_that_is_no_identifier(arena):
    quote = engine.dialect.identifier_preparer.quote
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE {quote('Some thing')} (id int primary key)"))
    assert not arena.changes()["Some thing"]
    async with (
        arena.expect_changes({"Some thing": inserted(1, id=7)}),
        engine.begin() as connection,
    ):
        await connection.execute(text(f"INSERT INTO {quote('Some thing')} VALUES (7)"))


async def test_a_block_waits_for_the_work_of_its_requests(arena, client):
    async with arena.expect_changes(orders=inserted(1, item="late")):
        await client.post("/later/late")


def test_a_sync_block_waits_too(arena, test_client):
    with arena.expect_changes(orders=inserted(1, item="late")):
        test_client.post("/later/late")


async def test_a_plain_with_cannot_wait(arena, client):
    with pytest.raises(LateWorkError), arena.expect_changes():
        await client.post("/later/late")
    await arena.settled()


async def test_an_error_of_the_block_wins(arena, client):
    with pytest.raises(LookupError):
        async with arena.expect_changes():
            await client.post("/breaks")
    with pytest.raises(LookupError), arena.expect_changes(stock=inserted()):
        await client.post("/breaks")


@pytest.mark.expect("AssertionError", at="arena.expect_changes")
def test_nothing_has_changed(arena, test_client):
    with arena.expect_changes(orders=inserted(), stock=updated(1, amount=4)):
        test_client.get("/orders")


@pytest.mark.expect("AssertionError", at="arena.expect_changes")
def test_a_value_of_another_type(arena, test_client):
    with arena.expect_changes(orders=inserted(1, id="1"), stock=updated()):
        test_client.post("/orders/chair")


@pytest.mark.expect("A101", at="arena.expect_changes")
def test_a_table_that_does_not_exist(arena, test_client):
    with arena.expect_changes(order=inserted()):
        test_client.get("/orders")


@pytest.mark.expect("TypeError", at="arena.expect_changes")
def test_what_is_no_expectation(arena):
    arena.expect_changes(orders=1)


@pytest.fixture(scope="module")
def lamps(arena):
    with arena.expect_changes(orders=inserted(2)), arena.session() as session:
        session.add_all([Order(item="lamp"), Order(item="lamp")])
        session.commit()


async def test_in_a_wide_fixture(lamps, arena, client):
    async with arena.expect_changes(orders=deleted(1, id=1)):
        await client.delete("/orders/1")


@pytest.mark.expect("A101", at="arena.max_statements(0)")
def test_a_block_that_no_with_enters(arena):
    arena.max_statements(0)


class Status(Enum):
    new = "just ordered"


def test_a_member_of_an_enum_is_stored_by_its_name(arena, test_client):
    with arena.expect_changes(orders=inserted(status=Status.new), stock=updated()):
        test_client.post("/orders/chair")


@pytest.mark.skipif(engine.dialect.name != "sqlite", reason="its search")
async def test_the_tables_of_a_virtual_table_are_left_out(arena):
    async with engine.begin() as connection:
        await connection.execute(text("CREATE VIRTUAL TABLE words USING fts5(word)"))
    async with arena.expect_changes(words=inserted()), engine.begin() as connection:
        await connection.execute(text("INSERT INTO words VALUES ('vase')"))
