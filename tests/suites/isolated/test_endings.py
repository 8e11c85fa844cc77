"""However a test ends, and whatever it leaves, the next one begins on a whole database."""

import threading

import pytest
from async_app import engine, maker
from models import Order
from sqlalchemy import text

LEFT = []


@pytest.mark.expect("AssertionError", at="assert False")
async def test_that_fails(client):
    await client.post("/orders/chair")
    assert False


async def test_that_is_skipped_in_the_middle(client):
    await client.post("/orders/chair")
    pytest.skip("it has seen enough")


@pytest.mark.expect("Exit", at="as a timeout does")
def test_that_is_broken_off(test_client):
    test_client.post("/orders/chair")
    raise Exit  # as a timeout does


class Exit(BaseException):
    pass


@pytest.mark.expect("Exit", at="INTERRUPTIONS.pop()")
def test_whose_hook_is_interrupted(test_client, interruptions):
    test_client.post("/orders/chair")
    interruptions.append(Exit())


@pytest.fixture
async def tear_down_fails(client):
    yield
    await client.post("/orders/chair")
    raise LookupError("at the end")


@pytest.mark.expect("LookupError", at="at the end")
async def test_whose_tear_down_fails(tear_down_fails, client):
    await client.post("/orders/chair")


@pytest.fixture
async def set_up_fails(client):
    await client.post("/orders/chair")
    raise LookupError("half-way")


@pytest.mark.expect("LookupError", at="half-way")
async def test_whose_set_up_fails(set_up_fails):
    pass


expected = pytest.param(True, marks=pytest.mark.xfail(raises=AssertionError))
reported = pytest.param(False, marks=pytest.mark.expect("A602", at="await session.flush()"))


@pytest.mark.parametrize("fails", [reported, expected])
async def test_that_leaves_a_transaction_open(fails):
    session = maker()
    session.add(Order(item="left"))
    await session.flush()
    LEFT.append(session)
    assert not fails


@pytest.mark.expect("LeakWarning", at="engine.connect()")
async def test_that_leaves_a_connection():
    connection = await engine.connect()
    await connection.execute(text("SELECT 1"))
    await connection.rollback()
    LEFT.append(connection)


def test_a_thread_that_has_ended(test_client):
    thread = threading.Thread(target=test_client.post, args=("/orders/chair",))
    thread.start()
    thread.join()
