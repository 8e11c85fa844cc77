"""A block of ``arena.fresh()`` begins with the present rows, and its own rows are undone."""

import pytest
from shop_app import Account, Seat, app, engine
from sqlalchemy import func, insert, select

from pytest_arena import inserted
from pytest_arena.errors import IsolationError


async def test_each_block_begins_with_the_present_rows(client, arena, db_session):
    db_session.add(Seat(who="before"))
    numbers = []
    for _ in range(3):
        async with arena.fresh():
            seat = Seat(who="in the block")
            db_session.add(seat)
            await db_session.flush()
            await client.post("/lost_update")
            assert not hasattr(app.state, "seat")
            app.state.seat = seat
            assert len(arena.requests) == 1
            assert len(arena.changes()["seats"]) == 1
            numbers.append(seat.id)
        assert arena.requests == ()
    assert len({*numbers}) == 1
    assert await db_session.scalar(select(func.count()).select_from(Seat)) == 1
    assert (await db_session.get(Account, 1)).money == 10
    assert arena.changes().counted() == "seats +1"


async def test_a_failed_block(client, arena, db_session):
    answer = await client.post("/me")
    with pytest.raises(IsolationError):
        async with arena.fresh():
            db_session.add(Seat(who="in the block"))
            await db_session.flush()
            await client.post("/lost_update")
            arena.changes(answer)  # of a request before the block
    assert await db_session.scalar(select(func.count()).select_from(Seat)) == 0
    assert (await db_session.get(Account, 1)).money == 10


def test_blocks_in_a_block(test_client, arena, db_session):
    with arena.fresh():
        with arena.fresh(), arena.expect_changes(seats=inserted(1)):
            db_session.add(Seat(who="in the block"))
        test_client.post("/lost_update")
        assert db_session.get(Account, 1).money == 3
        assert db_session.scalar(select(func.count()).select_from(Seat)) == 0
    assert db_session.get(Account, 1).money == 10


async def test_a_login_in_a_block_ends_with_it(client_as, arena):
    """Its row is undone, too."""
    staff = client_as("staff")
    for _ in range(2):
        async with arena.fresh():
            assert (await staff.post("/me")).json() == "staff"
        assert not staff.cookies


def test_a_login_of_a_sync_client(test_client_as, arena):
    staff = test_client_as("staff")
    for _ in range(2):
        with arena.fresh():
            assert staff.post("/me").json() == "staff"
        assert not staff.cookies


@pytest.fixture(scope="module")
def seat(arena):
    with arena.session() as session:
        session.add(Seat(who="module"))
        session.commit()


def test_a_wide_fixture_in_a_block(arena, db_session, request, turn):
    with arena.fresh():
        request.getfixturevalue("seat")
        assert db_session.scalar(select(func.count()).select_from(Seat)) == 1
    assert db_session.scalar(select(func.count()).select_from(Seat)) == 0


@pytest.mark.expect("LostWriteWarning", at="db.execute(")
async def test_a_write_that_the_app_forgot(client, arena):
    async with arena.fresh():
        await client.post("/forgotten")


@pytest.mark.expect("A101", at="arena.fresh()  # no with")
def test_no_block(arena):
    arena.fresh()  # no with


@pytest.mark.expect("A101", at="with arena.fresh():  # not async")
async def test_a_sync_block_in_an_async_test(arena):
    with arena.fresh():  # not async
        pass


@pytest.mark.skipif(engine.dialect.name != "mysql", reason="reads beside an open transaction")
@pytest.mark.expect("A501", at="connection.execute")
async def test_a_block_beside_an_open_transaction(arena):
    async with engine.connect() as connection:
        await connection.execute(insert(Seat).values(who="open"))
        async with arena.fresh():
            pass
