"""Make the developer's database: `python -m app.dev_data`.

The migrations build it, and one transaction fills it, always with the same rows. A database
that already has users is left alone.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, select
from sqlalchemy.engine import Connection

from app.config import PROJECT
from app.db.database import async_session_maker, engine
from app.models import BattleStatus, Category, Dancer, Performer, Phase, Role, Tournament, User
from app.services.draw import draw_battles
from app.services.results import Scores, write_result

OPENED = datetime(2024, 6, 1, 9, 0, tzinfo=UTC)
"""A date of its own, so that the same rows come out on every day."""

USERS = (
    ("Ada Admin", "ada@battle-d.example", Role.ADMIN),
    ("Stella Staff", "stella@battle-d.example", Role.STAFF),
    ("Max MC", "max@battle-d.example", Role.MC),
)

DANCERS = """
Amina Diallo Ruby          | Bruno Costa Flow          | Chloe Martin Storm
Daiki Sato Kite            | Elena Rossi Blaze         | Farid Haddad Sandman
Grace Okafor Groove        | Hugo Lefevre Pivot        | Ines Moreau Echo
Jonas Weber Glide          | Kenji Tanaka Ronin        | Lucia Fernandez Salsa
Mateo Silva Cobra          | Nadia Petrova Frost       | Omar Benali Mirage
Paula Novak Comet          | Quentin Dubois Quake      | Rosa Jimenez Thorn
Samir Khan Monsoon         | Tara Singh Lotus          | Ugo Bianchi Vespa
Vera Horvat Raven          | Will Turner Anchor        | Xenia Popova Xray
Yann Girard Yoyo           | Zoe Laurent Zephyr        | Aya Nakamura Sakura
Ben Cohen Tempo            | Carla Mendes Samba        | David Mensah Drum
Eva Lindberg Aurora        | Felix Braun Gravity       | Gina Park Pixel
Hana Kim Moonwalk          | Ivan Kovac Tank           | Julia Schmidt Wave
Karim Toure Sahara         | Lena Fischer Shadow       | Marco Ricci Vinyl
Noor Rahman Saffron
"""
CREWS = ("Concrete Roots", "Night Shift", None)


def main() -> None:
    """Build and fill the database of the app's settings, unless it is there already."""
    if asyncio.run(_is_filled()):
        print(f"{_place()} already has data and stays as it is.")
        return
    command.upgrade(Config(PROJECT / "alembic.ini"), "head")
    asyncio.run(_fill())
    print(f"{_place()} is ready.")


def _place() -> str:
    return engine.url.render_as_string(hide_password=True)


async def _is_filled() -> bool:
    """Has somebody worked with this database before?"""
    if engine.dialect.name == "sqlite":
        _make_folder()
    async with engine.connect() as connection:
        filled = await connection.run_sync(_has_users)
    await engine.dispose()
    return filled


def _make_folder() -> None:
    """Make the folder that SQLite's file lies in; SQLite itself makes only the file."""
    Path(engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)


def _has_users(connection: Connection) -> bool:
    if not inspect(connection).has_table(User.__tablename__):
        return False
    return connection.scalar(select(User.id).limit(1)) is not None


async def _fill() -> None:
    """Add everything in one transaction: all of it stands, or none."""
    dancers = _make_dancers()
    summer, winter = _make_tournaments(dancers)
    async with async_session_maker.begin() as session:
        session.add_all([User(name=n, email=e, role=r, created_at=OPENED) for n, e, r in USERS])
        session.add_all([*dancers, summer, winter])
        await session.flush()
        summer.battles.extend(draw_battles(summer, Phase.PRESELECTION))
        await session.flush()
        _dance_some(summer)
    await engine.dispose()


def _make_dancers() -> list[Dancer]:
    names = [line.split() for line in DANCERS.replace("|", "\n").splitlines() if line.strip()]
    return [
        Dancer(
            first_name=first,
            last_name=last,
            blaze=blaze,
            email=f"{first}.{last}@dancers.example".lower(),
            crew=CREWS[number % len(CREWS)],
        )
        for number, (first, last, blaze) in enumerate(names)
    ]


def _make_tournaments(dancers: list[Dancer]) -> tuple[Tournament, Tournament]:
    """Make one tournament that is being danced and one that is open for registration."""
    hip_hop = _make_category("Hip hop 1v1", dancers[:8])
    breaking = _make_category("Breaking 1v1", dancers[8:16])
    house = _make_category("House 1v1", dancers[16:28])
    summer = Tournament(
        name="Summer Battle 2024",
        phase=Phase.PRESELECTION,
        created_at=OPENED,
        categories=[hip_hop, breaking],
        battles=[],
    )
    winter = Tournament(name="Winter Jam 2025", created_at=OPENED, categories=[house])
    return summer, winter


def _make_category(name: str, dancers: list[Dancer]) -> Category:
    return Category(name=name, performers=[Performer(dancer=dancer) for dancer in dancers])


def _dance_some(tournament: Tournament) -> None:
    """Complete the first two battles and send the third to the floor."""
    first, second, third = tournament.battles[:3]
    for battle in (first, second):
        ids = [entry.performer_id for entry in battle.entries]
        write_result(battle, Scores({performer_id: 60 + performer_id for performer_id in ids}))
    third.status = BattleStatus.ACTIVE


if __name__ == "__main__":
    main()
