"""Too often, and too deep."""

from typing import Any

from httpx2 import AsyncClient

from api_keys.query_language import MAX_DEPTH
from api_keys.rate_limit import LIMIT, WINDOW_SECONDS
from tests.e2e.problems import problem_of
from tests.holders import Holder


async def test_key_that_is_used_too_often_has_to_wait(
    client: AsyncClient, admin: Holder, analyst: Holder
) -> None:
    """Scenario: Key that is used too often has to wait

    Given a key that was used as often as it may be,
    Then its next request is answered 429 and told how long to wait, and another key's is not.
    """
    for _ in range(LIMIT):
        assert (await client.get("/keys/me", headers=analyst.headers)).status_code == 200

    refused = await client.get("/keys/me", headers=analyst.headers)
    other = await client.get("/keys/me", headers=admin.headers)

    problem_of(refused, status=429)
    assert refused.json()["type"] == "https://httpstatuses.com/429"
    assert 0 < int(refused.headers["Retry-After"]) <= WINDOW_SECONDS
    assert other.status_code == 200


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
