"""BR-TEST-001: what a fixture wrote is there for every request of the test."""

from collections.abc import Callable

from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, BattleStatus, Phase, Tournament
from tests.pages import battle_cards


class TestFixtureDataVisibility:
    """E2E tests can access fixture-created data."""

    async def test_can_view_tournament_created_in_fixture(
        self, client: AsyncClient, summer_battle: Tournament
    ) -> None:
        """Scenario: Test can view tournament created in fixture

        Given a tournament "Summer Battle 2024" exists in PRESELECTION phase
        And the tournament has 2 categories with 8 performers each
        When I make an HTTP GET request to /tournaments/{tournament_id}
        Then the response status should be 200
        And the response should contain "Summer Battle 2024"
        """
        assert summer_battle.phase is Phase.PRESELECTION
        assert [len(category.performers) for category in summer_battle.categories] == [8, 8]

        response = await client.get(f"/tournaments/{summer_battle.id}")

        assert response.status_code == 200
        assert "Summer Battle 2024" in response.text

    async def test_can_view_battle_queue_with_real_battles(
        self,
        client_as: Callable[[str], AsyncClient],
        summer_battle: Tournament,
        queue: list[Battle],
    ) -> None:
        """Scenario: Test can view battle queue with real battles

        Given a tournament in PRESELECTION phase
        And 4 pending battles exist in the queue
        When I navigate to /event/{tournament_id}/queue via HTTP
        Then the response should contain 4 battle cards
        And each battle card should show performer names
        """
        response = await client_as("mc").get(f"/event/{summer_battle.id}/queue")

        cards = battle_cards(response.text)
        assert len(cards) == 4
        for card, battle in zip(cards, queue, strict=True):
            assert all(entry.blaze in card for entry in battle.entries)

    async def test_can_start_a_pre_existing_battle(
        self,
        client_as: Callable[[str], AsyncClient],
        db_session: AsyncSession,
        queue: list[Battle],
    ) -> None:
        """Scenario: Test can start a pre-existing battle

        Given a battle exists with status PENDING
        And I am authenticated as MC
        When I POST to /battles/{battle_id}/start
        Then the battle status should change to ACTIVE
        And the response should redirect to command center
        """
        battle = queue[0]
        assert battle.status is BattleStatus.PENDING

        response = await client_as("mc").post(f"/battles/{battle.id}/start")

        started = await db_session.get_one(Battle, battle.id)
        assert started.status is BattleStatus.ACTIVE
        assert response.status_code == 303
        assert response.headers["location"] == f"/event/{battle.tournament_id}"
