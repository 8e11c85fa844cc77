"""BR-TEST-001: requests see the rows that a fixture has written."""

import re

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, BattleStatus, Phase, Tournament
from pytest_arena import AsyncClient, ClientAs, Scenario


@pytest.mark.scenario("Test can view tournament created in fixture")
async def test_a_request_sees_the_fixtures_tournament(
    client: AsyncClient, summer_battle: Tournament
) -> None:
    """The page shows the tournament, and each performer."""
    assert summer_battle.phase is Phase.PRESELECTION
    performers = [each.performers for each in summer_battle.categories]
    assert [len(each) for each in performers] == [8, 8]

    response = await client.get(f"/tournaments/{summer_battle.id}")

    assert response.status_code == 200
    assert "Summer Battle 2024" in response.text
    assert all(each.blaze in response.text for each in performers[0] + performers[1])


@pytest.mark.scenario("Test can view battle queue with real battles")
async def test_the_queue_shows_the_fixtures_battles(
    client_as: ClientAs, summer_battle: Tournament, queue: list[Battle]
) -> None:
    """Each battle has a card with the names of its performers."""
    response = await client_as("mc").get(f"/event/{summer_battle.id}/queue")

    cards = re.findall(r'<article class="battle-card".*?</article>', response.text, re.DOTALL)
    assert len(cards) == 4
    for card, battle in zip(cards, queue, strict=True):
        assert battle.first.blaze in card
        assert battle.second.blaze in card


@pytest.mark.scenario("Test can start a pre-existing battle")
async def test_a_request_starts_the_fixtures_battle(
    scenario: Scenario, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
) -> None:
    """The report has the evidence of each step, because each step has a block."""
    with scenario.given("a battle exists with status PENDING"):
        battle = queue[0]
        assert battle.status is BattleStatus.PENDING

    with scenario.given("I am authenticated as MC"):
        mc = client_as("mc")

    with scenario.when("I POST to /battles/{battle_id}/start"):
        response = await mc.post(f"/battles/{battle.id}/start")

    with scenario.then("the battle status should change to ACTIVE"):
        started = await db_session.get_one(Battle, battle.id)
        assert started.status is BattleStatus.ACTIVE

    with scenario.then("the response should redirect to command center"):
        assert response.status_code == 303
        assert response.headers["location"] == f"/event/{battle.tournament_id}"
