"""Each test and each wide fixture calls both hooks once, whatever it writes."""

import pytest
import pytest_asyncio
from models import Order
from sqlalchemy import select

READS = "module fixture greeting"
WRITES = "module fixture order"


@pytest.fixture(scope="module")
def greeting(arena, cache):
    cache["greeting"] = "hello"


@pytest.fixture(scope="module")
def order(arena):
    with arena.session() as session:
        session.add(Order(item="chair"))
        session.commit()


@pytest.fixture(scope="class")
def late(cache):
    cache["late"] = "yes"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def awaited(arena):
    return "awaited"


async def test_an_async_fixture_of_the_module(awaited, calls):
    assert ("enter", "module fixture awaited") in calls


@pytest.mark.parametrize("time", ["first", "second"])
async def test_a_fixture_without_rows_keeps_its_state(time, greeting, client, cache):
    assert cache == {"greeting": "hello"}
    cache["greeting"] = time


async def test_a_fixture_with_rows(order, client, cache, calls):
    assert cache == {"greeting": "hello"}
    of_fixtures = [(call, name) for call, name in calls if name in {READS, WRITES}]
    assert of_fixtures == [("enter", READS), ("enter", WRITES)]


@pytest.fixture(scope="module")
def requested_late(arena):
    pass


@pytest.mark.expect("Failed", at="FAILURES.pop()")
async def test_a_hook_that_fails_at_a_late_fixture(failures, db_session, request):
    failures.append(pytest.fail.Exception("of the hook"))
    try:
        request.getfixturevalue("requested_late")
    finally:
        db_session.add(Order(item="lamp"))
        await db_session.commit()


async def test_after_the_hook_has_failed(db_session):
    assert not (await db_session.scalars(select(Order).filter_by(item="lamp"))).all()


class TestInAClass:
    def test_each_test_enters_once_and_leaves_once(self, calls):
        earlier = "test_hooks.py::test_after_the_hook_has_failed"
        assert [call for call, name in calls if name == earlier] == ["enter", "leave"]

    def test_a_fixture_that_a_test_requests_late(self, request, cache, calls):
        cache["time"] = "before"
        request.getfixturevalue("late")
        assert cache == {"greeting": "hello", "late": "yes"}
        assert calls[-2:] == [("enter", "class fixture late"), ("enter", request.node.nodeid)]
