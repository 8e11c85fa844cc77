"""A task of anyio runs the fixtures of several tests."""

import pytest
from async_app import maker
from models import Order

pytestmark = pytest.mark.anyio
LEFT = []


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def task(anyio_backend):
    yield


@pytest.fixture
async def left(task):
    LEFT.append(maker())
    LEFT[0].add(Order(item="vase"))
    await LEFT[0].flush()


@pytest.mark.expect("A602", at="await LEFT[0].flush()")
async def test_a_transaction_that_its_fixture_leaves(left):
    pass
