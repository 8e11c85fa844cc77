"""What browser tests in another language begin with: `arena serve --seeds tests.for_browsers`."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.mailer import mailer
from tests.factories import a_category, a_tournament, pending_battles


async def event(session: AsyncSession, performers: int = 8) -> dict[str, object]:
    """Add a tournament in its preselection, whose battles wait; return their ids."""
    category = a_category("Hip hop 1v1", performers=performers)
    tournament = a_tournament(category, name="Summer Battle 2024")
    battles = pending_battles(category)
    session.add_all([tournament, *battles])
    await session.flush()
    return {"tournament": tournament.id, "battles": [battle.id for battle in battles]}


def letter(_session: object, to: str) -> str:
    """Return the link of the latest letter to an address."""
    latest = mailer.find_latest(to)
    assert latest, f"No letter was sent to {to}."
    return latest.text
