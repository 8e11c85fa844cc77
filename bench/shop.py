"""The app under measure: 20 tables, one of them in use, a global engine, real commits."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import URL, Column, Integer, String, Table, create_engine, make_url, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SYNC_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
POOL: dict[str, Any] = {"poolclass": NullPool} if os.environ.get("BENCH_POOL") == "none" else {}


class Base(DeclarativeBase):
    """The models' base."""


class Item(Base):
    """A row that requests add and read."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    price: Mapped[int]


for number in range(19):
    Table(
        f"table_{number}",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(200), index=True),
        Column("price", Integer),
    )


def new_engine(url: URL | str) -> AsyncEngine:
    """Return an engine with a pool, or without one if connections cannot change the loop."""
    return create_async_engine(url, **POOL)


engine = new_engine(os.environ["DATABASE_URL"])
maker = async_sessionmaker(engine, expire_on_commit=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    """Open a session for each request."""
    async with maker() as session:
        yield session


Db = Annotated[AsyncSession, Depends(get_db)]
app = FastAPI()


@app.post("/items", status_code=201)
async def add(name: str, db: Db) -> dict[str, Any]:
    """Add an item."""
    item = Item(name=name, price=1)
    db.add(item)
    await db.commit()
    return {"id": item.id, "name": item.name}


@app.get("/items")
async def newest(db: Db) -> list[str]:
    """Return the newest items."""
    items = await db.scalars(select(Item).order_by(Item.id.desc()).limit(3))
    return [item.name for item in items]


@app.get("/items/{number}")
async def item(number: int, db: Db) -> dict[str, Any]:
    """Return an item."""
    item = await db.get_one(Item, number)
    return {"id": item.id, "name": item.name}


# What the variants share.


def create_tables(url: URL | str | None = None) -> None:
    """Create the tables by a sync engine."""
    target = make_url(url or os.environ["DATABASE_URL"])
    sync = create_engine(target.set(drivername=SYNC_DRIVERS[target.get_backend_name()]))
    Base.metadata.create_all(sync)
    sync.dispose()


def plain_client() -> AsyncClient:
    """Return a client of the app, without a lifespan, as FastAPI's documentation has it."""
    return AsyncClient(transport=ASGITransport(app), base_url="http://testserver")


@asynccontextmanager
async def client_with(sessions: Callable[[], AsyncSession]) -> AsyncIterator[AsyncClient]:
    """Open a client of the app, and override its sessions."""

    async def override() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    app.dependency_overrides[get_db] = override
    async with plain_client() as client:
        yield client
    app.dependency_overrides.clear()


@asynccontextmanager
async def client_of(engine: AsyncEngine) -> AsyncIterator[AsyncClient]:
    """Open a client of the app on an engine of the test, and dispose of the engine."""
    async with client_with(async_sessionmaker(engine, expire_on_commit=False)) as client:
        yield client
    await engine.dispose()
