"""Who may come in, and what a refusal says."""

from datetime import UTC, datetime, timedelta

import pytest
from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from api_keys.models import Scope
from tests.e2e.problems import problem_of
from tests.holders import Holder, a_holder, bearer


async def test_without_a_key_nobody_comes_in(client: AsyncClient) -> None:
    """Scenario: Without a key nobody comes in

    Given a request without a key,
    Then it is answered 401, and told how to give one.
    """
    response = await client.get("/keys")

    assert "A key is needed" in problem_of(response, status=401)
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.scenario("Forged key is not known")
async def test_forged_key_is_not_known(client: AsyncClient, admin: Holder) -> None:
    """Scenario: Forged key is not known

    Given a key whose prefix is known and whose secret part is guessed,
    Then it is refused.
    """
    forged = admin.token[:-4] + "beef"

    response = await client.get("/keys/me", headers=bearer(forged))

    assert problem_of(response, status=401) == "This key is not known."


@pytest.mark.scenario("Key that is <state> is refused", row={"state": "revoked"})
async def test_revoked_key_is_refused(client: AsyncClient, admin: Holder, analyst: Holder) -> None:
    """Scenario: Revoked key is refused

    Given a key that works,
    When it is revoked,
    Then its next request is refused.
    """
    assert (await client.get("/keys/me", headers=analyst.headers)).status_code == 200

    revoked = await client.post(f"/keys/{analyst.key.id}/revoke", headers=admin.headers)

    assert revoked.json()["status"] == "REVOKED"
    refused = await client.get("/keys/me", headers=analyst.headers)
    assert problem_of(refused, status=401) == "This key was revoked."


@pytest.mark.scenario("Key that is <state> is refused", row={"state": "expired"})
async def test_expired_key_is_refused(client: AsyncClient, db_session: AsyncSession) -> None:
    """Scenario: Expired key is refused

    Given a key that has expired a minute ago, which no request could have made,
    Then it is refused.
    """
    a_minute_ago = datetime.now(UTC) - timedelta(minutes=1)
    former = a_holder("former", Scope.QUERY, expires_at=a_minute_ago)
    db_session.add(former.key)
    await db_session.commit()

    response = await client.get("/keys/me", headers=former.headers)

    assert problem_of(response, status=401) == "This key has expired."


@pytest.mark.scenario("Key without the scope is refused")
async def test_key_without_the_scope_is_refused(client: AsyncClient, analyst: Holder) -> None:
    """The refusal names the scope that the key lacks."""
    new = {"name": "my own admin", "scopes": ["keys:write"]}

    response = await client.post("/keys", json=new, headers=analyst.headers)

    assert problem_of(response, status=403) == "This key lacks the scope keys:write."


@pytest.mark.scenario("Use of a key is written down")
async def test_use_of_a_key_is_written_down(
    client: AsyncClient, analyst: Holder, db_session: AsyncSession
) -> None:
    """What the request has committed is read by the test's session."""
    assert analyst.key.last_used_at is None

    response = await client.get("/keys/me", headers=analyst.headers)

    assert response.json()["name"] == "analyst"
    await db_session.refresh(analyst.key)
    assert analyst.key.last_used_at is not None
