"""What a test changes in an app ends with the test."""

import pytest
from async_app import get_db
from life import STARTS, app
from models import Order


@pytest.fixture(scope="module")
def wide_client(arena):
    return arena.client()


# The first test of the run: with `arena_lifespan = session`, the fixture starts the app.
@pytest.mark.asyncio(loop_scope="module")
async def test_the_app_of_a_wide_client_starts_in_each_test(wide_client, turn):
    assert (await wide_client.get("/orders")).json() == ["start-up"]


def test_an_app_of_the_session_starts_once(arena_lifespan, pytestconfig, turn):
    if pytestconfig.getini("arena_lifespan") == "session":
        assert STARTS == ["up"]


async def test_overrides_and_state_end_with_the_test(client, turn):
    assert not app.dependency_overrides
    assert (await client.get("/state")).json() is None
    app.dependency_overrides[get_db] = lambda: None
    app.state.fake = "test"
    assert (await client.get("/state")).json() == "test"


def test_a_replaced_dictionary_of_overrides(test_client, request):
    app.dependency_overrides = {get_db: lambda: None}
    request.getfixturevalue("doctest_namespace")  # a session fixture


@pytest.fixture(scope="module")
def wide(arena):
    app.state.fake = app.dependency_overrides[len] = "module"


def test_those_of_a_wide_fixture_stay(wide, test_client, turn):
    assert app.dependency_overrides == {len: "module"}
    assert test_client.get("/state").json() == "module"
    app.state.fake = app.dependency_overrides[len] = "test"


async def test_a_request_has_a_copy_of_the_context(client, turn):
    assert (await client.post("/user/Sand")).json() == "nobody"
    assert (await client.post("/user/Dune")).json() == "nobody"


class TestNeedsFixtures:
    @pytest.fixture
    def arena_app(self, db_session):
        app.state.fake = "from the fixture"
        app.dependency_overrides[get_db] = lambda: db_session
        return app

    async def test_the_override(self, client, db_session):
        db_session.add(Order(item="vase"))
        assert "vase" in (await client.get("/orders")).json()
        assert (await client.get("/state")).json() == "from the fixture"
