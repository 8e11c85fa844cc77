"""A zoo of tests that pass and prove nothing: does each of them show facts that say so?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import told
from tests.scenarios.seen import facts_of, seeing

if TYPE_CHECKING:
    from tests.scenarios.proving import Told

ZOO = """
import sqlite3
from unittest import mock
import httpx2
from fastapi import FastAPI
from starlette.testclient import TestClient
from app import Dancer, app

other = FastAPI()

@other.get("/dancers")
def dancers():
    return ["Storm"]

@pytest.fixture
def storm(db_session):
    db_session.add(Dancer(name="Storm"))

@proves
async def test_honest(client, storm):
    assert "Storm" in (await client.get("/dancers")).json()

@proves
async def test_asserts_true(client, storm):
    await client.get("/dancers")
    assert True

@proves
async def test_asserts_itself(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == answer.status_code

@proves
async def test_asserts_a_tuple(client, storm):
    answer = await client.get("/dancers")
    assert not False

@proves
async def test_asserts_truths_on_one_line(client, storm):
    await client.get("/dancers"); assert 1 == 1; assert "ok"

@proves
async def test_asserts_before(client, storm):
    assert client is not None
    await client.get("/dancers")

@pytest.fixture
def asserting(client):
    yield
    assert True

@proves
async def test_asserts_in_teardown(client, storm, asserting):
    await client.get("/dancers")

@pytest.fixture
async def asking(client, storm):
    yield
    assert (await client.get("/dancers")).json()

@proves
async def test_asks_in_teardown(asking):
    pass

@proves
async def test_raises_for_status_alone(client, storm):
    (await client.get("/dancers")).raise_for_status()

@proves
def test_asks_another_app(storm, db_session):
    db_session.commit()
    with TestClient(other) as client:
        assert client.get("/dancers").json() == ["Storm"]

@proves
async def test_seeds_another_database(client, tmp_path):
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE dancers (name TEXT)")
    connection.execute("INSERT INTO dancers VALUES ('Storm')")
    connection.commit()
    connection.close()
    assert (await client.get("/dancers")).json()

@proves
async def test_swallows(client, storm):
    answer = await client.get("/dancers")
    try:
        assert answer.json() == []
    except AssertionError:
        pass

@proves
async def test_expects_to_fail(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    pytest.xfail("some day")

@proves
async def test_mocks_the_answer(client, storm):
    with mock.patch.object(client, "get", mock.AsyncMock(return_value=["Storm"])):
        assert await client.get("/dancers") == ["Storm"]

@proves
async def test_seeds_too_late(client, db_session):
    answer = await client.get("/dancers")
    db_session.add(Dancer(name="Storm"))
    await db_session.commit()
    assert answer.status_code == 200

@proves
def test_asks_nobody(storm):
    assert [1]

@proves
async def test_asserts_in_the_login_alone(client_as, storm):
    client = await client_as("staff")
    await client.get("/dancers")
"""

LOGIN = """
async def login(client, role):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all of them."""
    example = seeing(tmp_path_factory.mktemp("zoo"), ZOO).with_files(conftest=LOGIN)
    return told(
        example.change("pytest.ini", "[pytest]\n", "[pytest]\narena_login = conftest:login\n"),
        *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
    )


def test_the_honest_one_is_proven(zoo: Told) -> None:
    """Else the others would be hollow for another reason."""
    assert zoo.statuses["honest"] == "PROVEN"


@pytest.mark.parametrize(
    "name, reason",
    [
        ("asserts_true", "no assertion"),
        ("asserts_itself", "no assertion"),
        ("asserts_a_tuple", "no assertion"),
        ("asserts_truths_on_one_line", "no assertion"),
        ("asserts_before", "no assertion"),
        ("asserts_in_teardown", "no assertion"),
        ("raises_for_status_alone", "no assertion"),
        ("swallows", "no assertion"),
        ("asserts_in_the_login_alone", "no assertion"),
        ("asks_another_app", "no request reached the app"),
        ("asks_nobody", "no request reached the app"),
        ("asks_in_teardown", "before the tear-down, which sent GET /dancers (send it in the test"),
        ("mocks_the_answer", "no request reached the app"),
        ("seeds_another_database", "no row was seeded"),
        ("seeds_too_late", "no row was seeded"),
    ],
)
def test_a_hollow_test_shows_what_it_lacks(zoo: Told, name: str, reason: str) -> None:
    """Each of them passes, and none of them proves its scenario."""
    assert zoo.statuses[name] == "HOLLOW", zoo.run.output
    assert reason in zoo.reason(name)


def test_an_expected_failure_proves_nothing(zoo: Told) -> None:
    """Whatever has been asserted before."""
    assert zoo.statuses["expects_to_fail"] == "XFAIL"


def test_a_constant_assertion_is_told_as_one(zoo: Told) -> None:
    """Whoever reads the facts sees what there was instead."""
    [one] = facts_of(zoo, "asserts_true")["asserted"]
    assert (one["text"], one["constant"] if "constant" in one else one["is_constant"]) == (
        "True",
        True,
    )


def test_a_login_is_no_request_of_the_test(zoo: Told) -> None:
    """It is part of having a client."""
    requests = facts_of(zoo, "asserts_in_the_login_alone")["requests"]
    assert [(one["method"], one["role"]) for one in requests] == [("GET", "staff")]
