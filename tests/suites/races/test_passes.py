"""What each pass of a race begins with, returns, and leaves."""

import asyncio
import time

import httpx2
import pytest
import shop_app
from shop_app import Account, Seat, app, engine, lost_update
from sqlalchemy import func, select


FIRST = "/check_then_act?number=1"
SECOND = "/check_then_act?number=2"


async def seats(db_session):
    return await db_session.scalar(select(func.count()).select_from(Seat))


async def test_each_pass_begins_with_the_same_rows(client, arena, db_session):
    account = await db_session.get(Account, 1)
    account.money = 9  # committed before the first pass
    passes = 0
    async for race in arena.races():
        passes += 1
        assert await seats(db_session) == 0
        assert (await db_session.get(Account, 1)).money == 9
        db_session.add(Account(id=3, money=passes))  # of this pass alone
        await race(client.post("/lost_update_for_update"), client.post("/transfer?number=3"))
        assert {request.path for request in arena.requests} == {
            "/lost_update_for_update",
            "/transfer",
        }
        await db_session.refresh(account)
        assert account.money == 2
    assert passes > 2
    await db_session.refresh(account)
    assert account.money == 9
    assert arena.requests == ()
    assert not arena.changes()["seats"]


async def test_clients_of_two_roles(client_as, arena):
    async def asked(client):
        await client.post("/lost_update_one_statement")
        return (await client.post("/me")).json()

    staff = client_as("staff")
    async for race in arena.races(order="1122"):
        assert await race(asked(staff), asked(client_as("guest"))) == ["staff", "guest"]


async def test_a_client_of_the_user(arena, client):
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as own:
        async for race in arena.races(order="122211"):
            answers = await race(own.post(FIRST), own.post(SECOND))
            assert [answer.status_code for answer in answers] == [200, 200]
            break  # before the serial orders


async def test_functions_of_the_app(arena):
    async def spend():
        async with shop_app.maker() as session:
            await session.run_sync(lost_update, 1)

    async for race in arena.races(switches=0):
        with pytest.raises(shop_app.HTTPException):
            await race(spend(), spend())


async def test_a_group_of_errors(arena):
    async def fail():
        async with shop_app.maker() as session:
            await session.get(Account, 1)
        raise LookupError

    async for race in arena.races():
        with pytest.raises(ExceptionGroup) as raised:
            await race(fail(), fail())
        assert len(raised.value.exceptions) == 2


async def test_a_loop_that_was_left(client, arena, db_session):
    async for race in arena.races():
        await race(client.post(FIRST), client.post(SECOND))
        break
    assert await seats(db_session) == 1
    async for race in arena.races(limit=1):
        assert await seats(db_session) == 0
        await race(client.post(FIRST), client.post(SECOND))
    assert await seats(db_session) == 0


async def test_a_lock_of_the_app(arena, client):
    lock = asyncio.Lock()

    async def one_after_the_other():
        async with lock:
            return (await client.post(FIRST)).status_code

    async for race in arena.races():
        assert sorted(await race(one_after_the_other(), one_after_the_other())) == [200, 409]


async def count():
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(Account))


async def test_work_outside_of_the_race(arena, client):
    async for race in arena.races(switches=1):
        other = asyncio.create_task(count())
        await race(*[client.post("/lost_update_one_statement") for _ in range(2)])
        assert await other == 2


async def test_work_that_goes_on_after_its_request(arena, client):
    begun = asyncio.get_running_loop().create_future()

    async def begins():
        await count()
        begun.set_result(asyncio.create_task(count()))

    async def waits():
        return await (await begun)

    async for race in arena.races(limit=1):
        assert await race(begins(), waits()) == [None, 2]


async def take_a_seat():
    await asyncio.sleep(0.01)
    async with shop_app.maker.begin() as session:
        session.add(Seat(who="late"))


@app.post("/takes_two_seats")
async def begin_to_take_a_seat():
    async with shop_app.maker.begin() as session:
        session.add(Seat(who="vase"))
    app.state.task = asyncio.create_task(take_a_seat())


async def test_a_pass_ends_after_the_work_that_its_requests_have_begun(client, arena):
    async for race in arena.races(limit=1):
        await race(client.post("/takes_two_seats"), client.post("/takes_two_seats"))
        assert arena.changes().counted() == "seats +4"
    async for attempt in arena.interruptions():
        await attempt(client.post("/takes_two_seats"))
        assert arena.changes().counted() in ("seats +2", "nothing")


@pytest.mark.parametrize("path, order", [(FIRST, ""), (FIRST, "122211"), ("/add_if_none", "")])
@pytest.mark.expect("RaceWarning", at="await race(")
async def test_a_result_that_no_serial_order_has(client, arena, path, order):
    async for race in arena.races(order=order):
        await race(client.post(path), client.post(path))


async def test_a_result_of_a_serial_order_beyond_the_limit(client, arena):
    async def late():
        async with engine.connect() as connection:
            await connection.scalar(select(1))
        return await client.post(FIRST)

    async for race in arena.races(order="1222111", limit=2):
        await race(late(), client.post(FIRST))


@pytest.mark.parametrize("path", ["/lost_update_versioned", "/try_again", "/transfer_in_order"])
async def test_a_refused_request_is_no_warning(client, arena, path):
    async for race in arena.races():
        await race(client.post(path), client.post(path))


async def test_a_value_of_chance_that_one_serial_order_alone_writes(client, arena):
    async def take_a_seat_if_open():
        async with shop_app.maker.begin() as session:
            if (await session.get(Account, 1, with_for_update=True)).money > 7:
                session.add(Seat(who=str(time.monotonic_ns())))

    async for race in arena.races():
        await race(client.post("/lost_update_one_statement"), take_a_seat_if_open())


async def test_a_deadlock_ends_soon(client, arena):
    if shop_app.PRODUCT == "sqlite":
        pytest.skip("it has no deadlock")
    began = time.perf_counter()
    async for race in arena.races(order="122112"):
        await race(client.post("/transfer?number=1"), client.post("/transfer?number=2"))
        break
    assert time.perf_counter() - began < 5


def test_functions_in_threads(test_client, arena):
    for race in arena.races():
        answers = race(*[lambda: test_client.post("/lost_update_one_statement")] * 2)
        assert sorted(answer.status_code for answer in answers) == [200, 409]
