"""A client of a role logs in once, before its first request."""

import asyncio

import pytest
import pytest_asyncio
from logins import ATTEMPTS


async def me(client):
    return (await client.get("/me")).json()


def of(role):
    return [role, f"Bearer {role}"]


async def test_roles_do_not_mix(client, client_as, arena):
    ada, bob = client_as("ada"), client_as("bob")
    found = await asyncio.gather(me(ada), me(bob), me(client))
    assert found == [of("ada"), of("bob"), [None, None]]
    assert {request.role for request in arena.requests} == {"ada", "bob", None}


async def test_first_requests_at_once_log_in_once(client_as):
    ATTEMPTS.clear()
    ada = client_as("ada")
    assert await asyncio.gather(*(me(ada) for _ in range(4))) == [of("ada")] * 4
    assert ATTEMPTS == ["ada"]


async def test_an_awaited_client_is_logged_in(client_as):
    ada = await client_as("ada")
    assert ada.cookies["user"] == "ada"
    async with ada:
        assert await me(ada) == of("ada")


async def test_a_stream_is_the_first_request(client_as):
    async with client_as("ada").stream("GET", "/me", headers={"authorization": "own"}) as response:
        await response.aread()
    assert response.json() == ["ada", "own"]


@pytest.mark.expect("A703", at='raise LookupError("no such user")')
async def test_a_login_that_fails_is_tried_again(client_as):
    stranger = client_as("stranger")
    await asyncio.gather(stranger.get("/me"), return_exceptions=True)
    await stranger.get("/me")


@pytest.mark.expect("A703")
async def test_a_login_that_returns_an_error(client_as):
    await client_as("nobody").get("/orders")


@pytest.mark.expect("A202", at="asyncpg.connect(")
async def test_a_login_that_the_guard_refuses(client_as):
    await client_as("outsider").get("/me")


@pytest.mark.expect("A703", at='test_client_as("ada").get')
def test_a_sync_client_cannot_await_the_login(test_client_as):
    test_client_as("ada").get("/me")


@pytest.mark.expect("AssertionError", at="arena.max_statements")
async def test_a_login_is_no_request_of_a_block(client_as, arena):
    with arena.max_statements(0):
        await client_as("ada")


@pytest.fixture(scope="module")
def wide_ada(arena):
    return arena.client_as("ada")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wide_bob(arena):
    return await arena.client_as("bob")


@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_a_wide_client_logs_in_in_its_fixture_or_once_in_each_test(wide_ada, wide_bob, turn):
    ATTEMPTS.clear()
    assert await asyncio.gather(me(wide_ada), me(wide_ada)) == [of("ada")] * 2
    assert await me(wide_bob) == of("bob")
    assert ATTEMPTS == ["ada"]
