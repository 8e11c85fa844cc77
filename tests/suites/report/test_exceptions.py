"""The app's own exception, with its line, also where the test sees only an answer."""

import asyncio
import os
from pathlib import Path

import pytest
import pytest_asyncio
from async_app import TOKEN, app, engine, get_db, maker
from fastapi import Depends, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from models import Order, Stock
from pytest_arena import inserted
from sqlalchemy import AsyncAdaptedQueuePool, __version__, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

fails = pytest.mark.expect("AssertionError", at="assert")


class ServiceError(Exception):
    pass


@app.exception_handler(ServiceError)
async def answer(request, error):
    return JSONResponse({}, 500)


async def store(db):
    db.add(Stock(item="chair", amount=1))
    await db.commit()  # a chair is there


@app.get("/handled")
async def handled():
    raise ServiceError("no vase")


class Speechless(Exception):
    __str__ = None


@app.get("/service")
async def service(db=Depends(get_db)):
    try:
        await store(db)
    except IntegrityError as error:
        raise ServiceError("no chair") from error


@app.get("/refused")
async def refused():
    try:
        raise TimeoutError("no answer")
    except TimeoutError as error:
        raise HTTPException(503, "later") from error


@app.get("/swallowed")
async def swallowed(db=Depends(get_db)):
    try:
        await store(db)
    except IntegrityError:
        return JSONResponse({}, 500)


@app.get("/meant")
async def meant():
    return StreamingResponse([f'{{"name":"vase","token":"{TOKEN}"}}'], 404)  # an empty last part


small = create_async_engine(
    os.environ["DATABASE_URL"],
    poolclass=AsyncAdaptedQueuePool,
    pool_size=2,
    max_overflow=0,
    pool_timeout=1,  # a loaded machine needs a part of it for the connections
)


@app.get("/keeps")
async def keeps():
    async with small.connect() as connection:
        await connection.execute(select(Order.id))
        await asyncio.sleep(60)


@fails
async def test_behind_an_answer(client):
    for path in ("handled", "refused", "meant"):
        await client.get(f"/{path}")
    assert False


@fails
async def test_of_a_statement(client):
    for path in ("service", "swallowed"):
        await client.get(f"/{path}")
    assert False


@fails
def test_behind_an_answer_to_a_sync_client(test_client):
    assert test_client.get("/handled").status_code == 200


@pytest.mark.expect("LookupError", at='raise LookupError("no such thing")')
async def test_that_reaches_the_test(client):
    await client.post("/breaks")


@pytest.mark.expect("IntegrityError")
async def test_of_the_commit_before_a_request(client, db_session):
    db_session.add(Stock(item="chair", amount=1))
    await client.get("/orders")


async def test_of_the_commit_before_a_login(client_as, db_session):
    db_session.add(Stock(item="chair", amount=1))
    with pytest.raises(IntegrityError, match="db_session"):
        await client_as("staff").get("/orders")
    await db_session.rollback()


@pytest.mark.expect("TimeoutError")
async def test_of_a_pool_whose_connections_the_app_keeps(client):
    await asyncio.gather(*[client.get("/keeps") for _ in range(3)])


@pytest.mark.expect("Speechless")
def test_whose_text_cannot_be_read():
    raise Speechless


@pytest_asyncio.fixture(scope="session")
async def wider_than_its_loop(): ...


@pytest.mark.expect("Failed")
async def test_of_a_fixture_that_is_wider_than_its_loop(wider_than_its_loop): ...


class TestOfTheSuitesOwnSession:
    @pytest.fixture
    def db_session(self, db_session):
        return db_session

    @pytest.fixture(scope="class")
    def wider(self, db_session): ...

    @pytest.mark.expect("Failed")
    def test_wider(self, wider): ...


@pytest.mark.expect("IntegrityError")
async def test_whose_parameters_are_secret():
    async with maker.begin() as session:
        session.add(Order(item=None, api_token=TOKEN))


@pytest.mark.expect("LoginError", at='client_as("staff")')
async def test_of_a_login(client_as):
    await client_as("staff").get("/orders")


@pytest.mark.expect("LookupError", at='raise LookupError("no such thing")')
async def test_of_a_request_beside_another(client):
    await asyncio.gather(client.get("/keeps"), client.post("/breaks"))


@pytest.fixture(scope="class")
def removed():
    yield
    Path("shop.db").unlink()


class TestOfTheSuitesOwnFile:
    @pytest.mark.expect("FileNotFoundError", at="unlink")
    async def test_removed(self, client, removed):
        assert (await client.get("/orders")).json() == []


@pytest_asyncio.fixture
async def awaited(db_session):
    async with db_session.begin_nested():
        db_session.add(Stock(item="vase", amount=1))


@pytest.mark.expect("TypeError", at="async with db_session.begin_nested()")
def test_of_a_sync_session_in_an_async_fixture(awaited): ...


@pytest.mark.expect("MissingGreenlet" if __version__ < "2.1" else "StatementError", at="order.item")
async def test_of_an_attribute_that_a_commit_has_expired():
    async with AsyncSession(engine) as session:
        order = Order(item="vase")
        session.add(order)
        await session.commit()
        assert order.item


@pytest.mark.expect("TypeError", at="arena.client(")
async def test_of_wrong_arguments(arena):
    for call in (lambda: arena.races(len), lambda: inserted("orders")):
        with pytest.raises((TypeError, ValueError), match=r"races|inserted"):
            call()
    arena.client(follow=True)


@fails
async def test_of_a_table_that_the_schema_lacks(db_session):
    try:
        await db_session.execute(text("SELECT * FROM missing"))
    except DBAPIError:
        assert False


@fails
async def test_of_earlier_passes(arena, client):
    async for attempt in arena.interruptions():
        await attempt(client.post("/orders/chair"))
    for _ in range(2):
        async with arena.fresh():
            await client.get("/handled")
    async for race in arena.races(limit=2):
        await race(client.get("/handled"), client.get("/orders"))
    assert False
