"""The day of the event, on tournaments and battles that are there before the first request."""

import asyncio
from collections.abc import Callable

from httpx2 import AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.models import Battle, BattleEntry, BattleStatus, Outcome, Phase, Tournament
from tests.factories import (
    a_battle,
    a_category,
    a_scored_battle,
    a_tournament,
    a_won_battle,
    save,
)
from tests.pages import battle_cards, is_whole_page

ClientAs = Callable[[str], AsyncClient]


class TestEventModeWithRealTournament:
    """What the MC sees of a tournament that is there."""

    async def test_shows_a_tournament_that_was_there_before(
        self, client_as: ClientAs, summer_battle: Tournament, queue: list[Battle]
    ) -> None:
        """The command center of a pre-created tournament shows its name and all its battles."""
        response = await client_as("mc").get(f"/event/{summer_battle.id}")

        assert "Summer Battle 2024" in response.text
        assert "Nobody dances now." in response.text
        assert len(battle_cards(response.text)) == len(queue)

    async def test_cards_show_the_names_of_the_performers(
        self, client_as: ClientAs, db_session: AsyncSession
    ) -> None:
        """A battle card shows the blazes of exactly the performers of that battle."""
        category = a_category(blazes=["Ruby", "Flow", "Storm", "Kite"])
        await save(db_session, a_tournament(category))
        ruby, flow, storm, kite = category.performers
        db_session.add_all([a_battle([ruby, flow]), a_battle([storm, kite])])

        response = await client_as("mc").get(f"/event/{category.tournament_id}")

        first, second = battle_cards(response.text)
        assert "Ruby vs Flow" in first
        assert "Storm vs Kite" in second

    async def test_puts_the_started_battle_on_the_floor(
        self, client_as: ClientAs, queue: list[Battle]
    ) -> None:
        """After the start of a pre-created battle the MC is led to a page that shows it active."""
        mc = client_as("mc")

        response = await mc.post(f"/battles/{queue[2].id}/start", follow_redirects=True)

        on_the_floor = battle_cards(response.text)[0]
        assert queue[2].title in on_the_floor
        assert 'data-status="ACTIVE"' in on_the_floor

    async def test_gives_htmx_the_board_alone(
        self, client_as: ClientAs, queue: list[Battle]
    ) -> None:
        """HTMX gets the same cards without the page around them."""
        address = f"/event/{queue[0].tournament_id}"
        mc = client_as("mc")

        page = await mc.get(address)
        part = await mc.get(address, headers={"HX-Request": "true"})

        assert is_whole_page(page.text)
        assert not is_whole_page(part.text)
        assert battle_cards(part.text) == battle_cards(page.text)

    async def test_counts_how_far_the_phase_is(
        self, client_as: ClientAs, db_session: AsyncSession, summer_battle: Tournament
    ) -> None:
        """Of battles that were danced and battles that wait, the progress counts both."""
        first, second, third, fourth = summer_battle.categories[0].performers[:4]
        db_session.add_all([a_scored_battle([first, second], [87, 79]), a_battle([third, fourth])])

        response = await client_as("mc").get(f"/event/{summer_battle.id}/progress")

        assert "1 of 2 battles are completed" in response.text
        assert "<dd>87</dd>" in response.text

    async def test_shows_no_battle_of_another_tournament(
        self, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
    ) -> None:
        """The command center of a tournament without battles is empty beside a full one."""
        other = await save(db_session, a_tournament(a_category(performers=2), name="Other Jam"))

        response = await client_as("mc").get(f"/event/{other.id}")

        assert "Other Jam" in response.text
        assert battle_cards(response.text) == []
        assert len(queue) == 4


class TestBattleWorkflowWithRealData:
    """Starting and judging battles that are there: one at a time, and for everybody."""

    async def test_start_waits_while_another_battle_is_on_the_floor(
        self, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
    ) -> None:
        """A second start is refused, names the battle on the floor, and changes nothing."""
        queue[0].status = BattleStatus.ACTIVE

        response = await client_as("mc").post(f"/battles/{queue[1].id}/start")

        assert response.status_code == 409
        assert f"{queue[0].title} is still on the floor." in response.text
        assert await _statuses(db_session) == ["ACTIVE", "PENDING", "PENDING", "PENDING"]

    async def test_of_two_starts_at_the_same_moment_one_wins(
        self, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
    ) -> None:
        """Of two starts at once, over two connections, one is done and one is refused."""
        mc, admin = client_as("mc"), client_as("admin")
        await asyncio.gather(mc.get("/tournaments"), admin.get("/tournaments"))

        answers = await asyncio.gather(
            mc.post(f"/battles/{queue[0].id}/start"), admin.post(f"/battles/{queue[1].id}/start")
        )

        assert sorted(answer.status_code for answer in answers) == [303, 409]
        assert sorted(await _statuses(db_session)) == ["ACTIVE", "PENDING", "PENDING", "PENDING"]

    async def test_results_complete_a_battle_that_was_on_the_floor_before(
        self, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
    ) -> None:
        """Encoding a pre-created active battle stores each score and completes it."""
        queue[0].status = BattleStatus.ACTIVE
        ruby, flow = (entry.performer_id for entry in queue[0].entries)

        response = await client_as("judge").post(
            f"/battles/{queue[0].id}/encode", data={f"score_{ruby}": "87", f"score_{flow}": "79"}
        )

        assert response.status_code == 303
        battle = await db_session.get_one(Battle, queue[0].id)
        assert (battle.status, battle.outcome) == (BattleStatus.COMPLETED, Outcome.SCORED)
        assert await _scores(db_session, battle) == {ruby: 87, flow: 79}

    async def test_results_with_a_score_missing_change_nothing(
        self, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
    ) -> None:
        """A form without one of the scores is refused, and not even the other one is stored."""
        queue[0].status = BattleStatus.ACTIVE
        ruby, flow = (entry.performer_id for entry in queue[0].entries)

        response = await client_as("judge").post(
            f"/battles/{queue[0].id}/encode", data={f"score_{ruby}": "87"}
        )

        assert response.status_code == 422
        assert f"{queue[0].entries[1].blaze} needs a score" in response.text
        assert await _scores(db_session, queue[0]) == {ruby: None, flow: None}

    async def test_pool_battle_may_be_a_draw(
        self, client_as: ClientAs, client: AsyncClient, db_session: AsyncSession
    ) -> None:
        """A draw in the pools is shown on the battle's public card."""
        category = a_category(performers=2)
        await save(db_session, a_tournament(category, phase=Phase.POOLS))
        battle = await save(db_session, a_battle(category.performers, status=BattleStatus.ACTIVE))

        await client_as("judge").post(f"/battles/{battle.id}/encode", data={"winner": "draw"})

        [card] = battle_cards((await client.get(f"/battles/{battle.id}")).text)
        assert "<p>Draw</p>" in card

    async def test_two_battles_in_a_row(
        self, client_as: ClientAs, client: AsyncClient, queue: list[Battle]
    ) -> None:
        """MC and judge take turns on a pre-created queue, and everybody sees the same queue."""
        address = f"/event/{queue[0].tournament_id}/queue"
        async with client_as("mc") as mc, client_as("judge") as judge:
            for battle in queue[:2]:
                await _dance(mc, judge, battle)
            seen = [(await viewer.get(address)).text for viewer in (mc, judge)]

        titles = [battle.title for battle in queue[2:]]
        for html in seen:
            cards = battle_cards(html)
            assert all(title in card for title, card in zip(titles, cards, strict=True))
        public = await client.get(f"/battles/{queue[0].id}")
        assert "COMPLETED" in public.text

    async def test_completed_battle_takes_no_second_result(
        self, client_as: ClientAs, db_session: AsyncSession, summer_battle: Tournament
    ) -> None:
        """The results of a battle that was completed before stay as they are."""
        ruby, flow = summer_battle.categories[0].performers[:2]
        battle = await save(db_session, a_scored_battle([ruby, flow], [87, 79]))

        response = await client_as("judge").post(
            f"/battles/{battle.id}/encode", data={f"score_{ruby.id}": "1", f"score_{flow.id}": "2"}
        )

        assert response.status_code == 409
        assert await _scores(db_session, battle) == {ruby.id: 87, flow.id: 79}

    async def test_battle_of_an_earlier_phase_no_longer_starts(
        self, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
    ) -> None:
        """A pending battle that the tournament has left behind, as no form makes it, stays."""
        queue[0].tournament.phase = Phase.POOLS

        response = await client_as("mc").post(f"/battles/{queue[0].id}/start")

        assert response.status_code == 409
        assert "belongs to PRESELECTION, not to the present phase." in response.text
        assert await _statuses(db_session) == ["PENDING"] * 4


class TestPhaseAdvancementWithRealPerformers:
    """Who comes how far, by what performers did in battles that are there."""

    async def test_phase_waits_for_its_battles(
        self, client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
    ) -> None:
        """The tournament stays in its preselection while battles of it are open."""
        staff = client_as("staff")

        response = await staff.post(f"/tournaments/{queue[0].tournament_id}/advance")

        assert response.status_code == 409
        assert all(f"{battle.title} is still PENDING." in response.text for battle in queue)
        tournament = await db_session.get_one(Tournament, queue[0].tournament_id)
        assert tournament.phase is Phase.PRESELECTION

    async def test_a_whole_day(
        self, client_as: ClientAs, client: AsyncClient, db_session: AsyncSession
    ) -> None:
        """A registered field of four dances through all phases to one winner."""
        category = a_category(blazes=["Ruby", "Flow", "Storm", "Kite"], places=3)
        made = await save(db_session, a_tournament(category, phase=Phase.REGISTRATION))
        staff, mc, judge = client_as("staff"), client_as("mc"), client_as("judge")

        for phase in (Phase.PRESELECTION, Phase.POOLS, Phase.FINALS):
            await staff.post(f"/tournaments/{made.id}/advance")
            for battle in await _battles(db_session, phase):
                await _dance(mc, judge, battle)
        await staff.post(f"/tournaments/{made.id}/advance")

        tournament = await db_session.get_one(Tournament, made.id)
        assert tournament.phase is Phase.COMPLETED
        [final] = await _battles(db_session, Phase.FINALS)
        public = await client.get(f"/battles/{final.id}")
        assert "Kite vs Storm" in public.text
        assert "Winner: Kite" in public.text

    async def test_small_field_stays_in_registration(
        self, client_as: ClientAs, db_session: AsyncSession
    ) -> None:
        """With as many performers as places there is nobody to choose from, and no battle."""
        category = a_category(performers=4, places=4)
        made = await save(db_session, a_tournament(category, phase=Phase.REGISTRATION))

        response = await client_as("staff").post(f"/tournaments/{made.id}/advance")

        assert response.status_code == 409
        assert "Hip hop 1v1 has 4 performers and needs at least 5." in response.text
        assert await _statuses(db_session) == []

    async def test_best_of_the_preselection_meet_in_the_pools(
        self, client_as: ClientAs, db_session: AsyncSession
    ) -> None:
        """Three places for four: everybody but the one with the lowest score meets everybody."""
        category = a_category(blazes=["Ruby", "Flow", "Storm", "Kite"], places=3)
        made = await save(db_session, a_tournament(category))
        ruby, flow, storm, kite = category.performers
        db_session.add_all([a_scored_battle([ruby, flow], [80, 61])])
        db_session.add_all([a_scored_battle([storm, kite], [62, 90])])

        response = await client_as("staff").post(f"/tournaments/{made.id}/advance")

        assert response.status_code == 303
        pools = await _battles(db_session, Phase.POOLS)
        assert [_performer_ids(battle) for battle in pools] == [
            {kite.id, ruby.id},
            {kite.id, storm.id},
            {ruby.id, storm.id},
        ]

    async def test_most_points_in_the_pools_lead_to_the_final(
        self, client_as: ClientAs, db_session: AsyncSession
    ) -> None:
        """Two wins and one win go to the final; the draw of the others does not."""
        category = a_category(blazes=["Ruby", "Flow", "Storm", "Kite"])
        made = await save(db_session, a_tournament(category, phase=Phase.POOLS))
        ruby, flow, storm, kite = category.performers
        pools = [([kite, ruby], kite), ([kite, flow], kite), ([storm, ruby], storm)]
        db_session.add_all(a_won_battle(pair, winner) for pair, winner in pools)
        drawn = a_battle([ruby, flow], status=BattleStatus.COMPLETED)
        drawn.outcome = Outcome.DRAWN
        db_session.add(drawn)

        await client_as("staff").post(f"/tournaments/{made.id}/advance")

        [final] = await _battles(db_session, Phase.FINALS)
        assert _performer_ids(final) == {kite.id, storm.id}


async def _dance(mc: AsyncClient, judge: AsyncClient, battle: Battle) -> None:
    """Start a battle and let the performer who registered last win it."""
    performers = sorted(entry.performer_id for entry in battle.entries)
    form = {f"score_{performer_id}": str(50 + performer_id) for performer_id in performers}
    started = await mc.post(f"/battles/{battle.id}/start")
    encoded = await judge.post(
        f"/battles/{battle.id}/encode", data={**form, "winner": str(performers[-1])}
    )
    assert (started.status_code, encoded.status_code) == (303, 303)


def _performer_ids(battle: Battle) -> set[int]:
    return {entry.performer_id for entry in battle.entries}


async def _battles(session: AsyncSession, phase: Phase) -> list[Battle]:
    """Give the battles of a phase with their entries, in the order of the queue."""
    battles = await session.scalars(
        select(Battle)
        .where(Battle.phase == phase)
        .order_by(Battle.position)
        .options(selectinload(Battle.entries))
    )
    return [*battles]


async def _statuses(session: AsyncSession) -> list[str]:
    return [*await session.scalars(select(Battle.status).order_by(Battle.position))]


async def _scores(session: AsyncSession, battle: Battle) -> dict[int, int | None]:
    entries = await session.scalars(select(BattleEntry).where(BattleEntry.battle_id == battle.id))
    return {entry.performer_id: entry.score for entry in entries}
