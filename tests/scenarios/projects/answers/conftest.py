"""The fixtures, and a marker for each test: its scenario has its name."""

import pytest
from app import HOOKS, Dancer

pytest.register_assert_rewrite("helpers")


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.scenario(item.function.__name__.removeprefix("test_")))


@pytest.fixture
def storm(db_session):
    storm = Dancer(name="Storm")
    db_session.add(storm)
    return storm


@pytest.fixture(scope="module")
def outbox():
    return []


@pytest.fixture(scope="module")
def mailer(outbox):
    HOOKS["renamed"] = lambda: outbox.append("it")
    yield
    HOOKS.clear()


@pytest.fixture(scope="module")
def shared_box():
    return []


@pytest.fixture
async def first(client):
    return await client.get("/dancers")


@pytest.fixture
def storm_too(arena):
    with arena.session() as session:
        session.add(Dancer(name="Storm"))
        session.commit()
