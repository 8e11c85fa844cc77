"""Make the developer's database: `python -m app.dev_data`. It prints a login link for each user."""

import asyncio

from app.database import async_session_maker, engine
from app.login import link_for
from app.models import Base, Battle, Category, Performer, Phase, Role, Tournament, User


async def main() -> None:
    """Create the tables, and add a user of each role and a tournament with two battles."""
    emails = {role: f"{role}@battle-d.example" for role in Role}
    dancers = [Performer(blaze=blaze) for blaze in ("Ruby", "Flow", "Storm", "Kite")]
    tournament = Tournament(
        name="Summer Battle 2024",
        phase=Phase.PRESELECTION,
        categories=[Category(name="Hip hop 1v1", performers=dancers)],
        battles=[
            Battle(first=dancers[0], second=dancers[1]),
            Battle(first=dancers[2], second=dancers[3]),
        ],
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_session_maker.begin() as session:
        session.add_all(User(email=email, role=role) for role, email in emails.items())
        session.add(tournament)
    await engine.dispose()
    for role, email in emails.items():
        print(f"{role}: http://127.0.0.1:8000{link_for(email)}")


if __name__ == "__main__":
    asyncio.run(main())
