"""The app under measure: many tables, one of them in use, a global engine, real commits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI
from sqlalchemy import URL, Column, Integer, String, Table, event, insert, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from bench.suite.databases import url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.orm import Session

TABLES = int(os.environ.get("BENCH_TABLES", "20"))
ROWS = int(os.environ.get("BENCH_ROWS", "0"))
JOURNAL = os.environ.get("BENCH_JOURNAL", "delete")
POOL: dict[str, Any] = {"poolclass": NullPool} if os.environ.get("BENCH_POOL") == "none" else {}


class Base(DeclarativeBase):
    """The models' base."""


class Item(Base):
    """What the requests make and read."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    price: Mapped[int]


tables = [
    Table(
        f"table_{number}",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(200), index=True),
        Column("price", Integer),
    )
    for number in range(TABLES - 1)
]
every_table: list[Any] = [Item.__table__, *tables]


def seed(session: Session) -> None:
    """The rows that every test starts with: about 180 bytes each, in equal parts."""
    for table in every_table if ROWS else []:
        count = ROWS // TABLES
        rows = [{"name": f"{number:08} {'sand ' * 14}", "price": number} for number in range(count)]
        session.execute(insert(table), rows)


def new_engine(url: URL | str) -> AsyncEngine:
    """An engine in the journal mode under measure, with a pool or without."""
    engine = create_async_engine(url, **POOL)

    @event.listens_for(engine.sync_engine, "connect")
    def set_journal_mode(connection: Any, _record: object) -> None:
        if JOURNAL != "delete":
            connection.execute(f"PRAGMA journal_mode={JOURNAL}").close()

    return engine


engine = new_engine(url())
maker = async_sessionmaker(engine, expire_on_commit=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    """A session for each request."""
    async with maker() as session:
        yield session


Db = Annotated[AsyncSession, Depends(get_db)]
app = FastAPI()


@app.post("/items", status_code=201)
async def add(name: str, db: Db) -> dict[str, Any]:
    """Make an item."""
    item = Item(name=name, price=1)
    db.add(item)
    await db.commit()
    return {"id": item.id, "name": item.name}


@app.get("/items")
async def newest(db: Db) -> list[str]:
    """The newest items: never many, though the floor lets them pile up."""
    found = await db.scalars(select(Item).order_by(Item.id.desc()).limit(3))
    return [item.name for item in found]


@app.get("/items/{number}")
async def one(number: int, db: Db) -> dict[str, Any]:
    """One item."""
    item = await db.get_one(Item, number)
    return {"id": item.id, "name": item.name}


@app.get("/nothing")
async def nothing() -> dict[str, Any]:
    """A request without a database."""
    return {}
