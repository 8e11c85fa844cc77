"""A task of anyio runs the fixtures of several tests."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from async_app import engine, maker
from models import Order, sync_url
from pytest_arena.errors import LateWorkError
from sqlalchemy import create_engine

pytestmark = pytest.mark.anyio
LEFT = []
POOL = ThreadPoolExecutor(1)
GATE = Event()


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def task(anyio_backend):
    yield


def connect():
    GATE.wait(30)
    create_engine(sync_url(str(engine.url))).connect().close()


@pytest.fixture
async def left(task):
    LEFT[:] = maker(), POOL.submit(connect)
    LEFT[0].add(Order(item="vase"))
    await LEFT[0].flush()


@pytest.mark.expect("A602", at="await LEFT[0].flush()")
async def test_a_transaction_that_its_fixture_leaves(left):
    pass


async def test_the_job_of_its_fixture(task):
    GATE.set()
    with pytest.raises(LateWorkError):
        LEFT[1].result()
