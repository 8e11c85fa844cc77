"""Work that outlives its owner is named, and gets no connection."""

import asyncio
import sysconfig
import threading
import time
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx2
import late_app
import pytest
from anyio import create_task_group, to_thread
from fastapi import FastAPI
from late_app import add_after_the_gate, add_without_an_engine, in_a_pool, in_a_thread, sync_engine
from models import Order
from sqlalchemy import insert, select

late = pytest.mark.expect("LateWorkWarning")


@pytest.fixture
def opened_gate():
    """Open the gate, and return how the work behind it has ended."""
    late_app.ENDS.clear()
    late_app.GATE.set()
    deadline = time.monotonic() + 20
    while not late_app.ENDS and time.monotonic() < deadline:
        time.sleep(0.01)
    yield late_app.ENDS
    late_app.GATE.clear()


def check_refused(ends, db_session):
    assert "written" not in ends
    assert ends
    assert db_session.scalars(select(Order)).all() == []


@late
async def test_leaves_an_endless_task(client):
    await client.post("/endless")


SOURCE = """
async def _watch(end):
    await end.wait()

def write(gate, engine, statement):
    gate.wait(30)
    with engine.begin() as connection:
        connection.execute(statement)
"""
LIBRARY = {}
exec(compile(SOURCE, f"{sysconfig.get_path('purelib')}/library.py", "exec"), LIBRARY)
WATCHING = []


class TestTaskOfALibrary:  # for its loop, as of sse-starlette
    def test_it_serves_the_next_test(self, test_client, turn):
        @late_app.app.get(f"/watched/{turn}")
        async def watched():
            if not WATCHING:
                WATCHING.append(asyncio.create_task(LIBRARY["_watch"](asyncio.Event())))
            return not WATCHING[0].done()

        assert test_client.get(f"/watched/{turn}").json() is True


@pytest.mark.parametrize("way", ["thread", "pool"], scope="class")
class TestRequest:
    @late
    async def test_leaves(self, client, way):
        await client.post(f"/leave/{way}")

    def test_next(self, opened_gate, db_session, way):
        check_refused(opened_gate, db_session)


@pytest.mark.parametrize("begin", [in_a_thread, in_a_pool], scope="class")
class TestTest:
    def test_leaves(self, arena, begin):
        begin(add_after_the_gate)

    def test_next(self, opened_gate, db_session, begin):
        check_refused(opened_gate, db_session)


class TestThreadWithoutAnEngine:
    def test_leaves(self, arena):
        in_a_thread(partial(add_after_the_gate, add_without_an_engine))

    def test_next(self, opened_gate, db_session):
        assert opened_gate == ["LateWorkError"]
        assert db_session.scalars(select(Order)).all() == []


class TestJobOfALibrary:
    def test_leaves(self, arena):
        statement = insert(Order).values(item="late", status="new")
        job = late_app.POOL.submit(LIBRARY["write"], late_app.GATE, sync_engine, statement)
        job.add_done_callback(lambda job: late_app.ENDS.append(str(job.exception())))

    def test_next(self, opened_gate, db_session):
        check_refused(opened_gate, db_session)
        assert "test_left.py" in opened_gate[0]


@pytest.fixture(scope="class")
def thread_of_a_class(arena):
    in_a_thread(add_after_the_gate)


class TestFixture:
    def test_its_thread_writes_while_it_lives(self, thread_of_a_class, opened_gate):
        assert opened_gate == ["written"]


class TestFixtureThatLeaves:
    def test_leaves(self, thread_of_a_class):
        pass


class TestAfterTheFixture:
    def test_next(self, opened_gate, db_session):
        check_refused(opened_gate, db_session)


HAS_WRITTEN = threading.Event()


def write_and_wait():
    with sync_engine.begin() as connection:
        connection.execute(insert(Order).values(item="late", status="new"))
        HAS_WRITTEN.set()
        late_app.GATE.wait(30)
        late_app.ENDS.append("over")


@asynccontextmanager
async def lifespan(app):
    async with create_task_group() as group:
        group.start_soon(partial(to_thread.run_sync, write_and_wait, abandon_on_cancel=True))
        yield
        group.cancel_scope.cancel()


class TestThreadOfTheLifespan:
    @pytest.fixture
    def arena_app(self):
        return FastAPI(lifespan=lifespan)

    @late
    async def test_leaves(self, client):
        assert await asyncio.to_thread(HAS_WRITTEN.wait, 20)

    def test_next(self, db_session):
        assert db_session.scalars(select(Order)).all() == []


def test_the_thread_of_the_lifespan_ends(opened_gate, db_session):
    check_refused(opened_gate, db_session)


def test_no_thread_is_left():
    assert not any("after_the_gate" in thread.name for thread in threading.enumerate())


class TestStubborn:
    @late
    def test_a_request_that_ignores_its_end(self, live_server):
        def ask(url):
            with suppress(httpx2.HTTPError):  # the server ends before its answer
                httpx2.get(url)

        url = f"{live_server.url}/stubborn"
        threading.Thread(target=ask, args=(url,), daemon=True).start()
        assert late_app.BEGUN.wait(20)

    def test_the_next_test_does_not_wait_for_it(self, live_server):
        assert httpx2.get(f"{live_server.url}/orders").json() == []

    def test_it_ends(self):
        late_app.STOP.set()
