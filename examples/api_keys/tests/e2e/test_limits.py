"""Too often, and too deep."""

from typing import Any

import pytest
from httpx2 import AsyncClient

from api_keys.query_language import MAX_DEPTH
from api_keys.rate_limit import LIMIT, WINDOW_SECONDS
from pytest_arena import Scenario
from tests.e2e.problems import problem_of
from tests.holders import Holder


@pytest.mark.scenario("Key that is used too often has to wait")
async def test_key_that_is_used_too_often_has_to_wait(
    client: AsyncClient, admin: Holder, analyst: Holder, scenario: Scenario
) -> None:
    """Requests of a Given block are its preparation."""
    with scenario.given("a key that was used as often as it may be"):
        for _ in range(LIMIT):
            assert (await client.get("/keys/me", headers=analyst.headers)).status_code == 200
    with scenario.when("it is used for GET /keys/me"):
        refused = await client.get("/keys/me", headers=analyst.headers)
    with scenario.then("it is answered 429, and told how long to wait"):
        problem_of(refused, status=429)
        assert refused.json()["type"] == "https://httpstatuses.com/429"
        assert 0 < int(refused.headers["Retry-After"]) <= WINDOW_SECONDS
    with scenario.then("a key of somebody else is answered"):
        other = await client.get("/keys/me", headers=admin.headers)
        assert (other.status_code, other.json()["name"]) == (200, "admin")


async def test_query_that_is_too_deep_is_a_bad_request(
    client: AsyncClient, analyst: Holder
) -> None:
    """Scenario: Query that is too deep is a bad request

    Given a query as deep as it may be, and one that is deeper,
    Then the first is answered, and the second is 400: not 422, as other mistakes are.
    """
    answered = await _ask(client, analyst, nested(MAX_DEPTH))
    refused = await _ask(client, analyst, nested(MAX_DEPTH + 1))

    assert answered.status_code == 200
    assert f"{MAX_DEPTH + 1} levels deep" in problem_of(refused, status=400)


async def _ask(client: AsyncClient, holder: Holder, where: dict[str, Any]) -> Any:
    return await client.post("/query", json={"where": where}, headers=holder.headers)


def nested(depth: int) -> dict[str, Any]:
    """Make a condition with so many levels."""
    where: dict[str, Any] = {"field": "kind", "is": "invoice"}
    for _ in range(depth - 1):
        where = {"not": where}
    return where
