"""A list of dancers in one file. `python app.py` makes the developer's database beside it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DEVELOPERS_DATABASE = Path(__file__).resolve().with_name("developer.db")


class Base(DeclarativeBase):
    """The parent of every table."""


class Dancer(Base):
    """A person who dances."""

    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


# The pool has one connection: other requests wait for it.
engine = create_async_engine(
    os.environ.get("DATABASE_URL", f"sqlite+aiosqlite:///{DEVELOPERS_DATABASE}"),
    pool_size=1,
    max_overflow=0,
)
async_session_maker = async_sessionmaker(engine, expire_on_commit=False)


async def init_db() -> None:
    """Create every table that is missing."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def drop_db() -> None:
    """Drop every table with its rows."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the session factory that the count of dancers uses."""
    app.state.session_factory = async_session_maker
    yield
    app.state.session_factory = None


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give each request a session."""
    async with async_session_maker() as session:
        yield session


def get_role() -> str:
    """Return the role of the client: nobody is logged in."""
    return "guest"


Database = Annotated[AsyncSession, Depends(get_db)]
app = FastAPI(lifespan=lifespan)


@app.get("/count")
async def count_dancers() -> int:
    """Count the dancers."""
    factory: async_sessionmaker[AsyncSession] | None = getattr(app.state, "session_factory", None)
    if factory is None:
        raise RuntimeError("Database session factory not initialized")
    async with factory() as session:
        return await session.scalar(select(func.count(Dancer.id))) or 0


@app.get("/dancers")
async def list_dancers(db: Database) -> list[str]:
    """List the dancers."""
    return [*await db.scalars(select(Dancer.name).order_by(Dancer.id))]


@app.get("/dancers/{dancer_id}")
async def show_dancer(dancer_id: int, db: Database) -> str:
    """Show a dancer."""
    dancer = await db.get(Dancer, dancer_id)
    if dancer is None:
        raise HTTPException(404)
    return dancer.name


@app.post("/dancers/{name}", status_code=201)
async def add_dancer(name: str, db: Database) -> None:
    """Register a dancer."""
    db.add(Dancer(name=name))
    await db.commit()


@app.get("/staff")
async def show_staff_room(role: Annotated[str, Depends(get_role)]) -> str:
    """Let only the staff in."""
    if role != "staff":
        raise HTTPException(403)
    return "welcome"


async def make_developers_database() -> None:
    """Create the table, and add 40 dancers."""
    await init_db()
    async with async_session_maker.begin() as session:
        session.add_all(Dancer(name=f"Dancer {number}") for number in range(1, 41))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(make_developers_database())
