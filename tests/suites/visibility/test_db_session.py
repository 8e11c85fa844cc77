"""`db_session` and `arena.session()`: what requests see of them, and what they see of requests."""

import asyncio

import pytest
from async_app import engine, items, maker
from models import Order
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import greenlet_spawn

from pytest_arena.errors import PendingWorkError


async def test_it_is_of_the_kind_of_the_test(db_session):
    assert isinstance(db_session, AsyncSession)


async def get(db):
    return (await db.get(Order, 1)).status


async def get_one(db):
    return (await db.get_one(Order, 1)).status


async def scalar(db):
    return (await db.scalar(select(Order))).status


async def execute(db):
    return (await db.execute(select(Order))).scalar().status


async def stream(db):
    return (await (await db.stream_scalars(select(Order))).one()).status


async def query(db):
    return await db.run_sync(lambda session: session.query(Order).first().status)


@pytest.mark.parametrize("read", [get, get_one, scalar, execute, stream, query])
async def test_every_read_is_fresh(db_session, client, vase, read):
    await client.post("/settle/1")
    assert await read(db_session) == "paid"
    assert vase.status == "paid"


def test_reads_of_a_sync_session_are_fresh(db_session, test_client, turn):
    vase = Order(item="vase")
    db_session.add(vase)
    test_client.post("/settle/1")
    assert db_session.scalars(select(Order.status)).all() == ["paid"]
    assert db_session.get(Order, 1).status == vase.status == "paid"


async def test_instances_keep_their_values_over_the_commit_before_a_request(db_session, client):
    lamp = Order(item="lamp")
    db_session.add(lamp)
    await client.get("/orders")
    await db_session.commit()
    assert (lamp.id, lamp.item) == (1, "lamp")


async def test_a_read_does_not_overwrite_what_the_test_has_changed(db_session, vase):
    vase.item = "mine"
    with db_session.no_autoflush:
        assert (await db_session.get_one(Order, 1)).item == "mine"
    assert (await db_session.scalar(select(Order))).item == "mine"


async def test_a_read_after_a_request_keeps_what_the_test_has_changed(db_session, client, vase):
    await client.post("/settle/1")
    vase.item = "mine"
    with db_session.no_autoflush:
        assert await get(db_session) == await scalar(db_session) == "new"
    assert await scalar(db_session) == "paid"
    assert vase.item == "mine"


async def test_a_read_inside_of_a_flush_does_not_overwrite_it(db_session, client, vase):
    @event.listens_for(db_session.sync_session, "before_flush")
    def read(session, *_):
        session.scalars(select(Order)).all()

    await client.post("/settle/1")
    vase.status = "sent"
    await db_session.commit()
    assert await scalar(db_session) == "sent"


async def test_a_read_without_a_flush_is_fresh(db_session, client, vase):
    with db_session.no_autoflush:
        await client.post("/settle/1")
        assert (await db_session.get_one(Order, 1)).status == "paid"


async def by_a_session(arena):
    async with maker.begin() as other:
        (await other.get(Order, 1)).status = "paid"
        yield "new"  # on MySQL the session has a snapshot from now on
    yield "paid"


async def by_a_statement(arena):
    async with maker() as other:
        (await other.get(Order, 1)).status = "paid"
        await other.flush()
        if arena.isolation == "rollback":  # it refuses the text
            await other.commit()
        else:
            await other.execute(text("COMMIT"))
    yield "paid"


async def by_another_session_of_the_test(arena):
    async with arena.session() as other:
        (await other.get(Order, 1)).status = "paid"
        await other.commit()
        yield "paid"


SETTLE = "UPDATE orders SET status = 'paid'"


async def by_a_connection_without_transactions(arena):
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql(SETTLE)
        yield "paid"


async def by_a_connection_of_the_driver(arena):
    def settle():
        raw = engine.sync_engine.raw_connection()
        raw.cursor().execute(SETTLE)
        raw.commit()
        return raw

    raw = await greenlet_spawn(settle)
    yield "paid"
    await greenlet_spawn(raw.close)


@pytest.mark.parametrize("reads", [get, scalar])
@pytest.mark.parametrize(
    "commit",
    [
        by_a_session,
        by_a_statement,
        by_another_session_of_the_test,
        by_a_connection_without_transactions,
        by_a_connection_of_the_driver,
    ],
)
async def test_a_query_sees_what_is_committed(arena, db_session, vase, commit, reads):
    async for status in commit(arena):
        if status == "new":
            assert await reads(db_session) == "new"
            continue
        await db_session.commit()
        assert await reads(db_session) == vase.status == status


async def test_a_poll_sees_what_a_task_commits(arena, db_session, vase):
    async def settle():
        async for _ in by_a_session(arena):
            await asyncio.sleep(0)

    task = asyncio.create_task(settle())
    while await scalar(db_session) == "new":
        await db_session.commit()
    assert vase.status == "paid"
    await task


async def test_gathered_requests_see_what_is_pending(db_session, client):
    async with db_session.begin_nested():
        db_session.add(Order(item="vase"))
    answers = await asyncio.gather(*(client.get("/orders") for _ in range(5)))
    assert [answer.json() for answer in answers] == [["vase"]] * 5


async def test_a_request_sees_what_is_pending_in_each_session(arena, db_session, client):
    other = arena.session()
    for session in (db_session, other):
        session.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["vase", "vase"]


async def test_a_transaction_that_has_only_read_ends_before_a_request(db_session, client):
    assert await items(db_session) == []
    await client.post("/orders/chair")
    assert await items(db_session) == ["chair"]


@pytest.mark.parametrize("way", ["add", "flush", "savepoint"])
async def test_a_sync_request_cannot_commit_async_work(db_session, test_client, way):
    vase = Order(item="vase")
    db_session.add(vase)
    if way == "flush":
        await db_session.flush()
    if way == "savepoint":
        await (await db_session.begin_nested()).commit()
    with pytest.raises(PendingWorkError):
        test_client.get("/orders")
    await db_session.commit()
    vase.item = "vase"  # as before
    assert len(test_client.get("/orders").json()) == 1


def test_a_row_that_the_database_refuses_is_an_error_at_the_request(db_session, test_client):
    db_session.add(Order(item=None))
    with pytest.raises(IntegrityError, match="db_session") as caught:
        test_client.get("/orders")
    assert not hasattr(caught.value.orig, "__notes__")  # of a lock
    db_session.rollback()


@pytest.mark.expect("AssertionError", at="assert False")
async def test_a_tear_down_has_the_session_also_after_a_failure(vase):
    assert False


async def test_nothing_is_left_checked_out(arena, db_session):
    assert engine.sync_engine.pool.checkedout() == 0
    assert arena.engine.sync_engine.pool.checkedout() == 0
    assert await items(db_session) == []
