"""Fixtures of each scope, set-up functions, and unittest."""

import unittest

import pytest
from async_app import items, maker
from conftest import rows, write
from models import Order

ARENA = []


@pytest.fixture(scope="module", autouse=True)
def automatic(arena):
    ARENA[:] = [arena]
    write(arena, "automatic")
    yield
    write(arena, "end of automatic")


@pytest.fixture(scope="class")
def of_class(arena):
    write(arena, "class")
    yield
    write(arena, "end of class")


@pytest.fixture(scope="class")
def reads_only(arena):
    rows(arena)


def test_before_the_classes(found):
    assert found == ["automatic"]


class TestClass:
    def test_its_rows_are_whole_again(self, of_class, reads_only, found, turn):
        assert found == ["automatic", "class"]

    def test_its_rows_are_seen_by_requests(self, of_class, test_client):
        assert test_client.get("/orders").json() == ["automatic", "class"]
        test_client.post("/orders/chair")


class TestSecondClass:
    def test_the_fixture_is_set_up_again(self, of_class, found):
        assert found == ["automatic", "class"]


@pytest.fixture
def of_parameter(arena, request):
    write(arena, request.param)


@pytest.mark.parametrize("of_parameter", ["wide"], indirect=True, scope="class")
class TestParameter:
    def test_its_scope_is_that_of_the_parameter(self, of_parameter, found, turn):
        assert found == ["automatic", "wide"]


class TestXunit:
    @classmethod
    def setup_class(cls):
        write(ARENA[0], "setup_class")

    def setup_method(self):
        write(ARENA[0], "setup_method")

    @classmethod
    def teardown_class(cls):
        write(ARENA[0], "teardown_class")

    def test_set_up_functions(self, found, turn):
        assert found == ["automatic", "setup_class", "setup_method"]


class TestUnittest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        write(ARENA[0], "setUpClass")

    def setUp(self):
        write(ARENA[0], "setUp")

    def test_first(self):
        assert rows(ARENA[0]) == ["automatic", "setUpClass", "setUp"]
        write(ARENA[0], "test")

    def test_second(self):
        self.test_first()


class TestAsyncUnittest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        await self.add("asyncSetUp")

    async def add(self, item):
        async with maker.begin() as session:
            session.add(Order(item=item))
            return await items(session)

    async def test_first(self):
        assert await self.add("test") == ["automatic", "asyncSetUp", "test"]

    async def test_second(self):
        await self.test_first()


def test_after_the_classes(found):
    assert found == ["automatic"]


@pytest.fixture(scope="module", params=["a", "b"])
def parameter(arena, request):
    write(arena, request.param)
    return request.param


# The fixture lives until the module ends, so its tests are the last ones.
def test_a_parametrized_fixture(parameter, found, turn):
    assert found == ["automatic", parameter]
