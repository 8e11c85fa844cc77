"""A test that leaves something open fails or warns, and the next test finds nothing of it."""

import asyncio
import gc
import weakref
from typing import ClassVar

import pytest
import pytest_asyncio
from async_app import engine, maker
from fastapi.testclient import TestClient
from late_app import app, sync_engine
from models import Order, Visit
from sqlalchemy import select
from sqlalchemy.orm import scoped_session, sessionmaker

LEFT = []
Session = scoped_session(sessionmaker(sync_engine))


@pytest.fixture(autouse=True)
def whole(arena):
    """No earlier test has left a row or a lock."""
    with arena.session() as session:
        assert session.scalars(select(Order)).all() == []
        session.add(Visit(path="/"))
        session.commit()


async def flush(session):
    LEFT.append(session)
    session.add(Order(item="left"))
    await session.flush()


@pytest.mark.expect("RuntimeError")
async def test_a_failed_test_has_no_second_error():
    await flush(maker())
    raise RuntimeError


@pytest.mark.expect("A602", at="await app.state.held.execute")
async def test_a_connection_in_the_apps_state(client):
    app.state.held = await engine.connect()
    await app.state.held.execute(Order.__table__.insert().values(item="left", status="new"))


@pytest.fixture
async def broken():
    yield
    await flush(maker())
    raise RuntimeError


@pytest.mark.expect("RuntimeError")
async def test_a_transaction_of_a_broken_tear_down(broken):
    pass


@pytest.mark.expect("A602", at="Session.flush()")
def test_a_scoped_session(turn):
    Session.add(Order(item="left"))
    Session.flush()


@pytest.mark.expect("LeakWarning")
def test_a_pending_object_in_a_scoped_session():
    Session.add(Order(item="left"))


def test_no_object_is_pending():
    assert not Session.new
    Session.remove()


@app.post("/dropped")
async def drop():
    session = maker()
    await session.execute(select(Order))


@pytest.mark.expect("LeakWarning", at="await session.execute(select(Order))")
async def test_a_session_that_no_code_closes(client):
    await client.post("/dropped")


@app.post("/kept")
def keep():
    LEFT.append(sync_engine.connect())


@pytest.fixture(scope="module")
def wide_client():
    with TestClient(app) as client:
        yield client


@pytest.mark.expect("LeakWarning", at="LEFT.append(sync_engine.connect())")
def test_a_connection_of_a_request_of_a_wide_client(wide_client):
    wide_client.post("/kept")


async def test_a_client_is_kept_until_the_test_ends(client):
    gc.disable()
    await client.get("/orders")
    LEFT[:] = [weakref.ref(client)]


def test_it_has_waited_for_no_garbage_collection():
    gc.enable()
    assert LEFT[0]() is None


@pytest.mark.asyncio(loop_scope="module")
class TestOneLoop:
    """asyncio closes a dropped generator in a task of its own, after the test's last line."""

    CLOSED: ClassVar = []

    async def numbers(self):
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            self.CLOSED.append(1)

    async def test_a_dropped_generator(self):
        assert await anext(self.numbers()) == 1

    async def test_it_was_closed_with_its_test(self):
        assert self.CLOSED == [1]

    @pytest.mark.expect("LeakWarning", at="await asyncio.Event().wait()")
    async def test_a_task(self):
        async def endless():
            await asyncio.Event().wait()

        self.CLOSED[:] = [asyncio.create_task(endless())]

    async def test_it_was_cancelled(self):
        assert self.CLOSED[0].cancelled()

    async def test_an_error_of_no_task(self):
        asyncio.get_running_loop().call_exception_handler({"message": "a lost connection"})


class TestTheFirstOfALoop:
    @pytest_asyncio.fixture(loop_scope="class")
    async def task(self):
        async def endless():
            await asyncio.Event().wait()

        return asyncio.create_task(endless())

    @pytest.mark.expect("LeakWarning", at="await asyncio.Event().wait()")
    def test_a_task_of_a_fixture(self, task):
        assert not task.done()
