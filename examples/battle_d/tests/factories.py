"""Things a test begins with. They are made here and saved by the test, in its own session."""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app.models import (
    Base,
    Battle,
    BattleEntry,
    BattleStatus,
    Category,
    Dancer,
    Outcome,
    Performer,
    Phase,
    Tournament,
)

BLAZES = ("Ruby", "Flow", "Storm", "Kite", "Groove", "Pivot", "Echo", "Glide", "Ronin", "Salsa")
Thing = TypeVar("Thing", bound=Base)
_numbers = count(1)


def a_dancer(blaze: str | None = None) -> Dancer:
    """Make a dancer whom no other test object equals."""
    number = next(_numbers)
    blaze = blaze or f"{BLAZES[number % len(BLAZES)]} {number}"
    email = f"dancer-{number}@dancers.example"
    return Dancer(email=email, first_name="Dancer", last_name=str(number), blaze=blaze)


def a_category(
    name: str = "Hip hop 1v1", *, performers: int = 0, blazes: Iterable[str] = (), places: int = 4
) -> Category:
    """Make a category with so many performers, or with performers of these names."""
    dancers = [a_dancer(blaze) for blaze in blazes] or [a_dancer() for _ in range(performers)]
    members = [Performer(dancer=dancer) for dancer in dancers]
    return Category(name=name, places=places, performers=members)


def a_tournament(
    *categories: Category, name: str = "Test Jam", phase: Phase = Phase.PRESELECTION
) -> Tournament:
    """Make a tournament of the given categories, in the given phase."""
    return Tournament(name=name, phase=phase, categories=[*categories], battles=[])


def a_battle(
    performers: Sequence[Performer], *, status: BattleStatus = BattleStatus.PENDING
) -> Battle:
    """Make a battle between performers, the next in their tournament's queue."""
    category = performers[0].category
    tournament = category.tournament
    return Battle(
        tournament=tournament,
        category=category,
        phase=tournament.phase,
        position=len(tournament.battles) + 1,
        status=status,
        entries=[BattleEntry(performer=each, slot=slot) for slot, each in enumerate(performers, 1)],
    )


def a_scored_battle(performers: Sequence[Performer], scores: Iterable[int]) -> Battle:
    """Make a completed battle in which each performer has a score."""
    battle = a_battle(performers, status=BattleStatus.COMPLETED)
    battle.outcome = Outcome.SCORED
    for entry, score in zip(battle.entries, scores, strict=True):
        entry.score = score
    return battle


def a_won_battle(performers: Sequence[Performer], winner: Performer) -> Battle:
    """Make a completed battle with a winner."""
    battle = a_battle(performers, status=BattleStatus.COMPLETED)
    battle.outcome, battle.winner = Outcome.WON, winner
    return battle


def pending_battles(category: Category) -> list[Battle]:
    """Make a battle of every two performers of a category."""
    pairs = zip(category.performers[::2], category.performers[1::2], strict=True)
    return [a_battle(pair) for pair in pairs]


async def save(session: AsyncSession, thing: Thing) -> Thing:
    """Commit a thing and all that belongs to it."""
    session.add(thing)
    await session.commit()
    return thing
