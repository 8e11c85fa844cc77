"""What tests start with: rows, logins, and tournaments that are in progress."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.login import link_for
from app.models import Battle, Category, Performer, Phase, Role, Tournament, User


async def seed(session: AsyncSession) -> None:
    """Add a user of each role."""
    session.add_all(User(email=f"{role}@battle-d.example", role=role) for role in Role)


def log_in(client: Any, role: str) -> Any:
    """Let an async or a sync client follow the login link of a role's user."""
    return client.get(login_link(None, role))


def login_link(_session: object, role: str) -> str:
    """Return the login link of a role's user. Browser tests call this function, too."""
    return link_for(f"{role}@battle-d.example")


def a_tournament() -> Tournament:
    """Return a tournament in its preselection: 2 categories with 8 performers each."""
    categories = []
    for name in ("Hip hop", "Breaking"):
        performers = [Performer(blaze=f"{name} {number}") for number in range(8)]
        categories.append(Category(name=name, performers=performers))
    return Tournament(
        name="Summer Battle 2024", phase=Phase.PRESELECTION, categories=categories, battles=[]
    )


def add_battles(tournament: Tournament) -> list[Battle]:
    """Let each two performers of the first category wait for a battle."""
    performers = tournament.categories[0].performers
    pairs = zip(performers[::2], performers[1::2], strict=True)
    tournament.battles.extend(Battle(first=first, second=second) for first, second in pairs)
    return tournament.battles


async def event(session: AsyncSession) -> int:
    """Add a tournament with four pending battles for a browser test, and return its id."""
    tournament = a_tournament()
    add_battles(tournament)
    session.add(tournament)
    await session.flush()
    return tournament.id
