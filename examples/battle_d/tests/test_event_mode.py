"""The day of the event, on rows that are there before the first request."""

import asyncio

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.models import Battle, BattleStatus, Phase, Tournament
from pytest_arena import AsyncClient, ClientAs, TestClient
from tests.data import a_tournament, add_battles


async def test_of_two_starts_at_the_same_moment_one_is_refused(
    client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
) -> None:
    """Each request has a connection. The unique index decides at the second commit."""
    mc, admin = client_as("mc"), client_as("admin")

    answers = await asyncio.gather(
        mc.post(f"/battles/{queue[0].id}/start"), admin.post(f"/battles/{queue[1].id}/start")
    )

    assert sorted(answer.status_code for answer in answers) == [303, 409]
    active = select(func.count()).where(Battle.status == BattleStatus.ACTIVE)
    assert await db_session.scalar(active) == 1


async def test_the_winners_of_real_battles_come_to_the_next_phase(
    client_as: ClientAs, db_session: AsyncSession, queue: list[Battle]
) -> None:
    """MC, judge and staff take turns. The tournament waits for its last battle."""
    mc, judge, staff = client_as("mc"), client_as("judge"), client_as("staff")
    advance = f"/tournaments/{queue[0].tournament_id}/advance"
    for battle in queue:
        assert (await staff.post(advance)).status_code == 409
        await mc.post(f"/battles/{battle.id}/start")
        await judge.post(f"/battles/{battle.id}/encode", data={"winner": battle.second_id})

    assert (await staff.post(advance)).status_code == 303

    tournament = await db_session.get_one(Tournament, queue[0].tournament_id)
    assert tournament.phase is Phase.POOLS
    winners = [battle.second_id for battle in queue]
    drawn = [(battle.first_id, battle.second_id) for battle in tournament.battles[4:6]]
    assert drawn == [(winners[0], winners[1]), (winners[2], winners[3])]


@pytest.mark.parametrize("role, status", [("mc", 303), ("staff", 403), ("judge", 403)])
async def test_only_the_mc_starts_battles(
    client_as: ClientAs, queue: list[Battle], role: str, status: int
) -> None:
    """Each role logs in by its own link."""
    response = await client_as(role).post(f"/battles/{queue[0].id}/start")

    assert response.status_code == status


async def test_a_stranger_sees_no_queue(client: AsyncClient, queue: list[Battle]) -> None:
    """Neither a missing cookie nor a forged link lets a client in."""
    assert (await client.get("/auth/verify?token=forged")).status_code == 401
    assert (await client.get(f"/event/{queue[0].tournament_id}/queue")).status_code == 401


def test_plain_functions_use_a_sync_client_and_a_sync_session(
    test_client_as: ClientAs[TestClient], db_session: Session
) -> None:
    """The app stays async. The test reads what the requests have committed."""
    staff = test_client_as("staff")
    tournament = a_tournament()
    battles = add_battles(tournament)
    db_session.add(tournament)

    staff.post("/tournaments/create", data={"name": "Winter Jam"})
    test_client_as("mc").post(f"/battles/{battles[0].id}/start")

    names = db_session.scalars(select(Tournament.name).order_by(Tournament.id)).all()
    assert names == ["Summer Battle 2024", "Winter Jam"]
    assert db_session.get_one(Battle, battles[0].id).status is BattleStatus.ACTIVE
