"""Nine tests that pass. Their names say what would have to fail for them to notice."""

from collections.abc import Callable

import pytest
from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, BattleStatus, Tournament
from pytest_arena import Scenario

ClientAs = Callable[[str], AsyncClient]


# What evidence finds: something was never done.


@pytest.mark.scenario("nothing was seeded")
async def test_without_a_seed(client: AsyncClient) -> None:
    """The page of an empty list is a page."""
    response = await client.get("/tournaments")
    assert response.status_code == 200


@pytest.mark.scenario("nothing was requested")
async def test_without_a_request(db_session: AsyncSession, queue: list[Battle]) -> None:
    """It reads what it wrote."""
    battle = await db_session.get_one(Battle, queue[0].id)
    assert battle.status is BattleStatus.PENDING


@pytest.mark.scenario("nothing was asserted")
async def test_without_an_assertion(client: AsyncClient, summer_battle: Tournament) -> None:
    """A line that looks like a check, and is none."""
    response = await client.get(f"/tournaments/{summer_battle.id}")
    response.raise_for_status()
    assert True


@pytest.mark.scenario("asserted before the request")
async def test_asserted_too_early(client: AsyncClient, summer_battle: Tournament) -> None:
    """What is checked is the fixture."""
    assert summer_battle.name == "Summer Battle 2024"
    await client.get(f"/tournaments/{summer_battle.id}")


@pytest.mark.scenario("one outcome was forgotten")
async def test_with_an_empty_step(
    scenario: Scenario, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
) -> None:
    """Each step has its block; the last block holds nothing."""
    with scenario.given("a battle exists with status PENDING"):
        battle = queue[0]

    with scenario.when("I POST to /battles/{battle_id}/start"):
        await client_as("mc").post(f"/battles/{battle.id}/start")

    with scenario.then("the battle status should change to ACTIVE"):
        started = await db_session.get_one(Battle, battle.id)
        assert started.status is BattleStatus.ACTIVE

    with scenario.then("the response should redirect to command center"):
        pass


# What only sabotage finds: everything was done, and one thing of it makes no difference.


@pytest.mark.scenario("the seed does not matter")
async def test_passes_without_its_seed(client: AsyncClient, summer_battle: Tournament) -> None:
    """Every page has that heading."""
    response = await client.get("/tournaments")
    assert response.status_code == 200
    assert "Tournaments" in response.text


@pytest.mark.scenario("the commit does not matter")
async def test_passes_without_a_commit(client_as: ClientAs, queue: list[Battle]) -> None:
    """The answer says that it was done; nobody looks whether it was."""
    response = await client_as("mc").post(f"/battles/{queue[0].id}/start")
    assert response.status_code == 303


@pytest.mark.scenario("the page does not matter")
async def test_passes_on_an_empty_page(client: AsyncClient, summer_battle: Tournament) -> None:
    """An empty page has the same status."""
    response = await client.get(f"/tournaments/{summer_battle.id}")
    assert response.status_code == 200


@pytest.mark.scenario("the answer does not matter")
async def test_passes_on_a_server_error(
    client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
) -> None:
    """The battle has begun; what the user was told is nobody's concern."""
    await client_as("mc").post(f"/battles/{queue[0].id}/start")

    started = await db_session.get_one(Battle, queue[0].id)
    assert started.status is BattleStatus.ACTIVE
