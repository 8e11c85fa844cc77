"""The fixtures of a team that shared one session between its tests and its routes.

Their names and their use stay as they were: `async with async_client_factory("staff") as client`,
`await create_async_tournament(name="Test")`. What stood behind them, a session maker, an override
of `get_db`, made-up tokens and a rollback at the end, is gone: each is a line over the fixtures
of pytest-arena, and the routes use the app's own sessions.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import pytest
from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Battle, BattleStatus, Performer, Phase, Tournament
from tests.factories import a_battle, a_category, a_tournament

AsyncClientFactory = Callable[[str], AsyncClient]
CreateTournament = Callable[..., Awaitable[Tournament]]


class CreateBattle(Protocol):
    """What the fixture `create_async_battle` is."""

    async def __call__(
        self, performers: Sequence[Performer], *, status: BattleStatus = BattleStatus.PENDING
    ) -> Battle:
        """Make a battle between performers and flush it."""


@pytest.fixture
def async_e2e_session(db_session: AsyncSession) -> AsyncSession:
    """The session that the test writes with; what it flushed, every request sees."""
    return db_session


@pytest.fixture
def async_client_factory(client_as: AsyncClientFactory) -> AsyncClientFactory:
    """A client for each role; opened with `async with`, it is logged in."""
    return client_as


@pytest.fixture
def create_async_tournament(async_e2e_session: AsyncSession) -> CreateTournament:
    """Tournaments of any name and phase, without categories."""

    async def create(name: str = "Test Jam", phase: Phase = Phase.REGISTRATION) -> Tournament:
        tournament = a_tournament(name=name, phase=phase)
        async_e2e_session.add(tournament)
        await async_e2e_session.flush()
        return tournament

    return create


@pytest.fixture
def create_async_tournament_scenario(
    async_e2e_session: AsyncSession, create_async_tournament: CreateTournament
) -> CreateTournament:
    """Tournaments in their preselection, with categories and performers in them."""

    async def create(
        name: str = "Test Jam", *, num_categories: int = 1, performers_per_category: int = 4
    ) -> Tournament:
        tournament = await create_async_tournament(name, Phase.PRESELECTION)
        for number in range(1, num_categories + 1):
            category = a_category(f"Category {number}", performers=performers_per_category)
            tournament.categories.append(category)
        await async_e2e_session.flush()
        return tournament

    return create


@pytest.fixture
def create_async_battle(async_e2e_session: AsyncSession) -> CreateBattle:
    """Battles between performers, pending unless something else is said."""

    async def create(
        performers: Sequence[Performer], *, status: BattleStatus = BattleStatus.PENDING
    ) -> Battle:
        battle = a_battle(performers, status=status)
        async_e2e_session.add(battle)
        await async_e2e_session.flush()
        return battle

    return create
