"""Keys are made, listed and deleted."""

import asyncio
from datetime import UTC

import pytest
from httpx2 import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api_keys.models import FIRST_KEY_ID, ApiKey, AskedQuery, KeyStatus, Scope
from api_keys.tokens import sha256_of
from pytest_arena import Scenario
from tests.e2e.problems import problem_of
from tests.holders import Holder, a_holder, bearer

INVOICES = {"where": {"field": "kind", "is": "invoice"}}


async def test_key_of_a_fixture_opens_the_door(client: AsyncClient, admin: Holder) -> None:
    """Scenario: Key of a fixture opens the door

    Given a key that a fixture has saved,
    When a request is made with it,
    Then the app knows the key.
    """
    response = await client.get("/keys/me", headers=admin.headers)

    assert response.status_code == 200
    assert response.json()["name"] == "admin"


@pytest.mark.scenario("New key is shown once")
async def test_new_key_is_shown_once(
    client: AsyncClient, db_session: AsyncSession, scenario: Scenario
) -> None:
    """Each step has a block: what it seeds, requests and asserts is told of it alone."""
    with scenario.given("a key that may read and write keys"):
        admin = a_holder("admin", Scope.KEYS_READ, Scope.KEYS_WRITE)
        db_session.add(admin.key)
        await db_session.commit()
    with scenario.when('it makes the key "dashboard" with POST /keys'):
        new = {"name": "dashboard", "scopes": ["query"]}
        made = (await client.post("/keys", json=new, headers=admin.headers)).json()
    with scenario.when("the new key is used for GET /keys/me"):
        mine = await client.get("/keys/me", headers=bearer(made["token"]))
    with scenario.then('it is known as "dashboard"'):
        assert mine.json()["name"] == "dashboard"
    with scenario.then("GET /keys/{key_id} does not tell it again"):
        again = await client.get(f"/keys/{made['id']}", headers=admin.headers)
        assert again.json()["prefix"] == made["prefix"]
        assert made["token"] not in again.text


async def test_what_a_request_commits_is_seen_by_the_test(
    client: AsyncClient, admin: Holder, db_session: AsyncSession
) -> None:
    """Scenario: What a request commits is seen by the test

    Given a key that was made over HTTP,
    Then the test finds its row: with the hash of its text, and what the database filled in.
    """
    new = {"name": "dashboard", "scopes": ["query"]}
    made = (await client.post("/keys", json=new, headers=admin.headers)).json()

    key = await db_session.get_one(ApiKey, made["id"])

    assert key.sha256 == sha256_of(made["token"])
    assert key.scopes == ["query"]
    assert key.status is KeyStatus.ACTIVE
    assert key.created_at.astimezone(UTC).isoformat() == made["created_at"].replace("Z", "+00:00")
    assert key.last_used_at is None


@pytest.mark.scenario("Of two at once only one gets the name")
async def test_of_two_at_once_only_one_gets_the_name(
    client: AsyncClient, admin: Holder, db_session: AsyncSession
) -> None:
    """The database decides which of them."""
    new = {"name": "dashboard", "scopes": ["query"]}
    responses = await asyncio.gather(
        *(client.post("/keys", json=new, headers=admin.headers) for _ in range(2))
    )

    made, refused = sorted(responses, key=lambda response: response.status_code)
    assert (made.status_code, made.json()["name"]) == (201, "dashboard")
    assert problem_of(refused, status=409) == "There is a key with the name dashboard."
    named = select(func.count()).where(ApiKey.name == "dashboard")
    assert await db_session.scalar(named) == 1


async def test_invalid_key_is_not_made(
    client: AsyncClient, admin: Holder, db_session: AsyncSession
) -> None:
    """Scenario: Invalid key is not made

    Given a name that is too short, an unknown scope and a date of the past,
    Then all three are told, and there is no new key.
    """
    new = {"name": "ab", "scopes": ["everything"], "expires_at": "2001-01-01T00:00:00Z"}
    response = await client.post("/keys", json=new, headers=admin.headers)

    detail = problem_of(response, status=422)
    assert all(field in detail for field in ("name: ", "scopes.0: ", "expires_at: "))
    assert await db_session.scalar(select(func.count(ApiKey.id))) == 1


async def test_keys_are_listed_page_by_page(
    client: AsyncClient, admin: Holder, db_session: AsyncSession
) -> None:
    """Scenario: Keys are listed page by page

    Given seven keys,
    When they are listed three at a time,
    Then three pages have each of them once.
    """
    names = [f"key {number}" for number in range(6)]
    db_session.add_all(a_holder(name).key for name in names)
    await db_session.commit()

    pages = []
    after: int | None = 0
    while after is not None:
        listed = await client.get(f"/keys?limit=3&after={after}", headers=admin.headers)
        pages.append([key["name"] for key in listed.json()["items"]])
        after = listed.json()["next"]

    assert [len(page) for page in pages] == [3, 3, 1]
    assert {name for page in pages for name in page} == {"admin", *names}


async def test_deleted_key_takes_along_what_it_asked(
    client: AsyncClient, admin: Holder, analyst: Holder, db_session: AsyncSession
) -> None:
    """Scenario: Deleted key takes along what it asked

    Given a key that has asked two queries,
    When it is deleted,
    Then the database deletes the queries too.
    """
    asked = select(func.count(AskedQuery.id))
    for _ in range(2):
        await client.post("/query", json=INVOICES, headers=analyst.headers)
    assert await db_session.scalar(asked) == 2

    deleted = await client.delete(f"/keys/{analyst.key.id}", headers=admin.headers)

    assert deleted.status_code == 204
    assert await db_session.scalar(asked) == 0


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_ids_are_the_same_in_each_test(client: AsyncClient, admin: Holder, turn: str) -> None:
    """Scenario: Ids are the same in each test

    Given that ids come from a sequence, which no rollback takes back,
    Then the first two keys of each test still have the first two ids.
    """
    new = {"name": f"of the {turn} test", "scopes": ["query"]}
    made = await client.post("/keys", json=new, headers=admin.headers)

    assert [admin.key.id, made.json()["id"]] == [FIRST_KEY_ID, FIRST_KEY_ID + 1]
