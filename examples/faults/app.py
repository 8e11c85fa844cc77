"""A dance tournament in one file, with the developer's database beside it: `python app.py`.

Written as apps are: one global engine, real commits, and a pool for a small machine.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool

DEVELOPERS_DATABASE = Path(__file__).resolve().with_name("developer.db")


class Base(DeclarativeBase):
    """All tables of the app."""


class User(Base):
    """Somebody who logs in."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Dancer(Base):
    """Somebody who dances."""

    __tablename__ = "dancers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Tournament(Base):
    """A day of battles."""

    __tablename__ = "tournaments"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


# One connection: whoever comes second waits for it.
engine = create_async_engine(
    f"sqlite+aiosqlite:///{DEVELOPERS_DATABASE}",
    poolclass=AsyncAdaptedQueuePool,
    pool_size=1,
    max_overflow=0,
)
async_session_maker = async_sessionmaker(engine, expire_on_commit=False)


async def init_db() -> None:
    """Create every table that is missing."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def drop_db() -> None:
    """Drop every table, and with them every row."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give one session to each request."""
    async with async_session_maker() as session:
        yield session


def get_role() -> str:
    """Tell who asks; nobody is logged in here."""
    return "guest"


Db = Annotated[AsyncSession, Depends(get_db)]
app = FastAPI()


@app.get("/tournaments/{tournament_id}")
async def show_tournament(tournament_id: int, db: Db) -> str:
    """Show one tournament."""
    tournament = await db.get(Tournament, tournament_id)
    if tournament is None:
        raise HTTPException(404)
    return tournament.name


@app.get("/dancers")
async def list_dancers(db: Db) -> list[str]:
    """List who dances."""
    return [*await db.scalars(select(Dancer.name).order_by(Dancer.id))]


@app.post("/dancers/{name}", status_code=201)
async def add_dancer(name: str, db: Db) -> None:
    """Register a dancer."""
    db.add(Dancer(name=name))
    await db.commit()


@app.get("/staff")
async def show_staff_room(role: Annotated[str, Depends(get_role)]) -> str:
    """Let the staff in, and nobody else."""
    if role != "staff":
        raise HTTPException(403)
    return "welcome"


async def make_developers_database() -> None:
    """Make what a developer works with: 3 users, 40 dancers, 2 tournaments."""
    await init_db()
    async with async_session_maker.begin() as session:
        session.add_all(User(name=name) for name in ("Ada", "Max", "Stella"))
        session.add_all(Dancer(name=f"Dancer {number}") for number in range(1, 41))
        session.add_all(Tournament(name=name) for name in ("Spring Jam", "Summer Jam"))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(make_developers_database())
