"""Event mode with the fixtures of `async_conftest.py`: a factory for clients, one for data."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.models import BattleStatus
from app.repositories import BattleRepository
from tests.e2e.async_conftest import AsyncClientFactory, CreateBattle, CreateTournament
from tests.pages import battle_cards, is_whole_page


class TestEventModeWithRealData:
    """The pages of the day, on a tournament that a fixture made."""

    async def test_command_center_shows_real_tournament(
        self,
        async_client_factory: AsyncClientFactory,
        create_async_tournament_scenario: CreateTournament,
    ) -> None:
        """The MC's command center shows a tournament that was only flushed by a fixture."""
        tournament = await create_async_tournament_scenario(name="Summer Battle 2024")

        async with async_client_factory("mc") as client:
            response = await client.get(f"/event/{tournament.id}")

        assert response.status_code == 200
        assert "Summer Battle 2024" in response.text

    async def test_command_center_shows_progress_bar(
        self,
        async_client_factory: AsyncClientFactory,
        create_async_tournament_scenario: CreateTournament,
        create_async_battle: CreateBattle,
    ) -> None:
        """The command center counts the battles that a fixture made."""
        tournament = await create_async_tournament_scenario()
        first, second, third, fourth = tournament.categories[0].performers
        await create_async_battle([first, second])
        await create_async_battle([third, fourth])

        async with async_client_factory("mc") as client:
            response = await client.get(f"/event/{tournament.id}")

        assert "0 of 2 battles are completed" in response.text
        assert '<progress value="0" max="2">' in response.text

    async def test_battle_queue_partial_returns_html(
        self,
        async_client_factory: AsyncClientFactory,
        create_async_tournament_scenario: CreateTournament,
        create_async_battle: CreateBattle,
    ) -> None:
        """HTMX gets the cards of the queue without the page around them."""
        tournament = await create_async_tournament_scenario()
        battle = await create_async_battle(tournament.categories[0].performers[:2])

        async with async_client_factory("mc") as client:
            response = await client.get(
                f"/event/{tournament.id}/queue", headers={"HX-Request": "true"}
            )

        [card] = battle_cards(response.text)
        assert battle.title in card
        assert not is_whole_page(response.text)

    async def test_progress_partial_returns_html(
        self,
        async_client_factory: AsyncClientFactory,
        create_async_tournament_scenario: CreateTournament,
    ) -> None:
        """HTMX gets the progress of a phase without battles alone, and it is no error."""
        tournament = await create_async_tournament_scenario()

        async with async_client_factory("mc") as client:
            response = await client.get(
                f"/event/{tournament.id}/progress", headers={"HX-Request": "true"}
            )

        assert "0 of 0 battles are completed" in response.text
        assert not is_whole_page(response.text)


class TestBattleWorkflowWithRealData:
    """A battle that a fixture made, looked at and started."""

    async def test_can_view_fixture_created_battle(
        self,
        async_client_factory: AsyncClientFactory,
        create_async_tournament_scenario: CreateTournament,
        create_async_battle: CreateBattle,
    ) -> None:
        """The page of a battle from a fixture names both its performers."""
        tournament = await create_async_tournament_scenario(performers_per_category=2)
        performers = tournament.categories[0].performers
        battle = await create_async_battle(performers)

        async with async_client_factory("staff") as client:
            response = await client.get(f"/battles/{battle.id}")

        assert response.status_code == 200
        assert all(performer.dancer.blaze in response.text for performer in performers)

    async def test_can_start_fixture_created_battle(
        self,
        async_client_factory: AsyncClientFactory,
        async_e2e_session: AsyncSession,
        create_async_tournament_scenario: CreateTournament,
        create_async_battle: CreateBattle,
    ) -> None:
        """After the MC's start the test's own session reads the battle as active."""
        tournament = await create_async_tournament_scenario(performers_per_category=2)
        battle = await create_async_battle(tournament.categories[0].performers)

        async with async_client_factory("mc") as client:
            response = await client.post(f"/battles/{battle.id}/start")

        assert response.status_code == 303
        started = await BattleRepository(async_e2e_session).find(battle.id)
        assert started
        assert started.status is BattleStatus.ACTIVE


class TestSessionIsolationFix:
    """What a fixture wrote and a request answered are about the same rows."""

    async def test_tournament_created_in_fixture_is_visible_to_http(
        self, async_client_factory: AsyncClientFactory, create_async_tournament: CreateTournament
    ) -> None:
        """A tournament from the factory has its page for the staff."""
        tournament = await create_async_tournament(name="Test")

        async with async_client_factory("staff") as client:
            response = await client.get(f"/tournaments/{tournament.id}")

        assert response.status_code == 200
        assert "Test" in response.text

    async def test_multiple_entities_visible_in_same_test(
        self,
        async_client_factory: AsyncClientFactory,
        create_async_tournament_scenario: CreateTournament,
    ) -> None:
        """One page shows the tournament, its categories and each of their performers."""
        tournament = await create_async_tournament_scenario(
            name="Multi Jam", num_categories=2, performers_per_category=4
        )

        async with async_client_factory("staff") as client:
            page = (await client.get(f"/tournaments/{tournament.id}")).text

        blazes = [each.dancer.blaze for group in tournament.categories for each in group.performers]
        assert len(blazes) == 8
        assert all(text in page for text in ("Multi Jam", "Category 1", "Category 2", *blazes))
