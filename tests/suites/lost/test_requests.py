"""What a request wrote and never committed fails its test, where warnings are errors."""

import asyncio
from contextlib import suppress

import fastapi
import httpx2
import pytest
import units
from async_app import app, engine, get_db, maker
from fastapi import Depends, HTTPException
from fastapi.responses import JSONResponse
from models import Order, Stock
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

lost = "LostWriteWarning"


async def deleted(db):
    await db.delete(await db.get(Stock, "chair"))


async def by_text(db):
    await db.execute(text("/* b */ insert into orders (item, status) values ('vase', 'new')"))


async def returning(db):
    await db.execute(insert(Order).values(item="vase", status="new").returning(Order.id))


async def committed_before(db):
    stock = await db.get(Stock, "chair")
    await db.commit()
    stock.amount = 77


async def conflict(db):
    db.add(Stock(item="chair", amount=1))


async def committed_by_text(db):
    await units.executed(db)
    await db.execute(text("COMMIT"))


async def autocommit(db):
    await db.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    await units.executed(db)


async def expunged(db):
    order = Order(item="vase")
    db.add(order)
    db.expunge(order)


async def the_same_value(db):
    (await db.get(Stock, "chair")).amount = 5


async def changed_back(db):
    stock = await db.get(Stock, "chair")
    stock.amount = 77
    stock.amount = 5


async def only_read(db):
    await db.get(Stock, "chair")


async def get_careful():
    async with maker() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


def work_of(name):
    return getattr(units, name, None) or globals()[name]


@app.post("/do/{name}/{status}")
async def do(name: str, status: int, db=Depends(get_db)):
    await work_of(name)(db)
    return JSONResponse({}, status)


@app.get("/hidden")
async def hidden(db=Depends(get_db)):
    stock = await db.get(Stock, "chair")
    stock.amount = 77
    return stock.amount


@app.post("/careful/{name}")
async def careful(name: str, db=Depends(get_careful)):
    await work_of(name)(db)


@app.post("/raises/{status}")
async def raises(status: int, db=Depends(get_db)):
    await units.flushed(db)
    raise HTTPException(status) if status != 500 else LookupError("of the app")


@app.post("/catches")
async def catches(db=Depends(get_db)):
    await units.flushed(db)
    with suppress(IntegrityError):
        await db.execute(insert(Stock).values(item="chair", amount=1))
    await db.commit()


@app.post("/connection")
async def of_a_connection():
    async with engine.connect() as connection:
        await connection.execute(insert(Order).values(item="vase", status="new"))


@app.post("/task")
async def in_a_task():
    async def work():
        async with maker() as session:
            await units.flushed(session)

    await asyncio.create_task(work())


NAMES = [
    *("flushed", "added", "changed", "deleted", "executed", "committed_before"),
    *("by_text", "recovered"),
]
if engine.dialect.name != "mysql":  # MySQL cannot return rows
    NAMES.append("returning")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.expect(lost)
async def test_what_is_lost(client, name):
    assert (await client.post(f"/do/{name}/200")).status_code == 200


@pytest.mark.parametrize("path", ["/do/flushed/200", "/do/added/201", "/task"])
@pytest.mark.expect(lost, at="# lost")
async def test_the_line_that_wrote(client, path):
    await client.post(path)


@pytest.mark.expect(lost, at="insert(Order)")
async def test_a_connection_without_a_session(client):
    await client.post("/connection")


KEPT = [
    *("committed", "tried", "expunged", "the_same_value", "changed_back", "only_read"),
    *("committed_by_text", "autocommit"),
]


@pytest.mark.parametrize("name", KEPT)
async def test_what_is_not_lost(client, name):
    assert (await client.post(f"/do/{name}/200")).status_code == 200


async def test_a_get_that_changes_an_object_for_its_answer(client):
    assert (await client.get("/hidden")).json() == 77


@pytest.fixture
def answers_first():
    if tuple(map(int, fastapi.__version__.split(".")[:2])) < (0, 118):
        pytest.skip("this FastAPI answers after the dependency has ended")


@pytest.mark.parametrize("name", ["flushed", "added", "changed"])
@pytest.mark.expect("LateCommitWarning", at="await session.commit()")
async def test_a_dependency_that_commits_after_the_answer(answers_first, client, name):
    assert (await client.post(f"/careful/{name}")).status_code == 200


async def pay(begun):
    async with maker.begin() as session:
        await units.flushed(session)
        begun.set()
        await app.state.answered.wait()


@app.post("/leaves-a-task")
async def leave_a_task():
    begun, app.state.answered = asyncio.Event(), asyncio.Event()
    app.state.task = asyncio.create_task(pay(begun))
    await begun.wait()


class TestMiddleware:
    @pytest.fixture
    def arena_app(self):
        async def closing(scope, receive, send):
            async def send_and_go_on(message):
                await send({**message, "more_body": True})

            await app(scope, receive, send_and_go_on)
            if scope.get("path") == "/leaves-a-task":
                app.state.answered.set()
                await app.state.task
            await send({"type": "http.response.body"})

        return closing

    @pytest.mark.expect("LateCommitWarning", at="await session.commit()")
    async def test_a_dependency_behind_a_middleware(self, answers_first, client):
        assert (await client.post("/careful/flushed")).status_code == 200

    async def test_a_task_that_commits_beside_it(self, client):
        assert (await client.post("/leaves-a-task")).status_code == 200


@pytest.mark.expect("LateWorkWarning")
async def test_a_commit_that_fails_after_the_answer(answers_first, arena):
    client = arena.client(raise_app_exceptions=False)
    assert (await client.post("/careful/conflict")).status_code == 200


async def read_late():
    async with maker() as session:
        yield session
        await session.execute(text("SELECT no_column FROM orders"))


@app.get("/read-late")
async def read_and_answer(db=Depends(read_late)):
    await db.execute(text("SELECT item FROM orders"))


@pytest.mark.expect("LateWorkWarning")
def test_a_read_that_fails_after_the_answer(answers_first, live_server):
    assert httpx2.get(f"{live_server.url}/read-late").status_code == 200


@pytest.mark.parametrize("name", NAMES)
async def test_an_answer_that_refuses(client, name):
    assert (await client.post(f"/do/{name}/409")).status_code == 409


@pytest.mark.parametrize("status", [404, 500])
async def test_an_error(arena, status):
    client = arena.client(raise_app_exceptions=False)
    assert (await client.post(f"/raises/{status}")).status_code == status


@pytest.mark.skipif(engine.dialect.name != "postgresql", reason="only it rolls back at this commit")
@pytest.mark.expect(lost, at="# lost")
async def test_a_commit_after_a_failed_statement(client):
    assert (await client.post("/catches")).status_code == 200


async def test_an_override_with_the_tests_session(client, db_session):
    app.dependency_overrides[get_db] = lambda: db_session
    await client.post("/do/committed/200")
