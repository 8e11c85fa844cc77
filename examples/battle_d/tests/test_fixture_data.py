"""BR-TEST-001: what a fixture wrote is there for every request of the test."""

from collections.abc import Callable

import pytest
from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, BattleStatus, Phase, Tournament
from pytest_arena import Scenario
from tests.pages import battle_cards


class TestFixtureDataVisibility:
    """E2E tests can access fixture-created data."""

    @pytest.mark.scenario("Test can view tournament created in fixture")
    async def test_can_view_tournament_created_in_fixture(
        self, client: AsyncClient, summer_battle: Tournament
    ) -> None:
        """The fixture wrote the tournament; the page shows it."""
        assert summer_battle.phase is Phase.PRESELECTION
        assert [len(category.performers) for category in summer_battle.categories] == [8, 8]

        response = await client.get(f"/tournaments/{summer_battle.id}")

        assert response.status_code == 200
        assert "Summer Battle 2024" in response.text

    @pytest.mark.scenario("Test can view battle queue with real battles")
    async def test_can_view_battle_queue_with_real_battles(
        self,
        client_as: Callable[[str], AsyncClient],
        summer_battle: Tournament,
        queue: list[Battle],
    ) -> None:
        """Four battles between eight performers, each on a card of its own."""
        response = await client_as("mc").get(f"/event/{summer_battle.id}/queue")

        cards = battle_cards(response.text)
        assert len(cards) == 4
        for card, battle in zip(cards, queue, strict=True):
            assert all(entry.blaze in card for entry in battle.entries)

    @pytest.mark.scenario("Test can start a pre-existing battle")
    async def test_can_start_a_pre_existing_battle(
        self,
        scenario: Scenario,
        client_as: Callable[[str], AsyncClient],
        db_session: AsyncSession,
        queue: list[Battle],
    ) -> None:
        """Step by step: each block has its own evidence in the report."""
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
