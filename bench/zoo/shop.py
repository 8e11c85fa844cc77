"""What the apps share, as a team's first modules have it: engines, models, sessions, routes."""

import asyncio
import os
from datetime import datetime
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, func, make_url, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

URL = make_url(os.environ["DATABASE_URL"])
engine = create_async_engine(URL)
sync_engine = create_engine(URL.set(drivername="postgresql+psycopg"))
maker = async_sessionmaker(engine, expire_on_commit=False)
sync_maker = sessionmaker(sync_engine)


class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True)


class Item(Base):
    __tablename__ = "items"
    name: Mapped[str] = mapped_column(unique=True)
    amount: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Note(Base):
    __tablename__ = "notes"
    text: Mapped[str]
    deleted_at: Mapped[datetime | None]


async def get_db() -> Any:
    async with maker() as session:
        yield session


Db = Annotated[AsyncSession, Depends(get_db)]
app = FastAPI()


@app.get("/items")
async def list_items(db: Db) -> dict[str, int]:
    return {item.name: item.amount for item in await db.scalars(select(Item).order_by(Item.id))}


@app.get("/notes")
async def list_notes(db: Db) -> list[str]:
    return list(await db.scalars(select(Note.text).order_by(Note.id)))


@app.post("/items/{name}", status_code=201)
async def add(name: str, db: Db) -> int:
    item = Item(name=name)
    db.add(item)
    try:
        await db.commit()
    except IntegrityError:
        await db.rollback()
        raise HTTPException(409) from None
    return item.id


@app.put("/items/{amount}")
async def change(amount: int, db: Db) -> None:
    (await db.scalars(select(Item))).one().amount = amount
    await db.commit()


# What the ways need to know: an app with more databases or session makers adds its own.
MAKERS = [maker]
METADATA = {"DATABASE_URL": Base.metadata}


# What the tests share.
async def rows(client: Any, path: str = "/items") -> Any:
    return (await client.get(path)).json()


async def save(session: AsyncSession, *rows: Base) -> None:
    session.add_all(rows)
    await session.commit()


async def posts(client: Any, *paths: str) -> list[int]:
    """Send requests at once. Return the sorted status codes."""
    answers = await asyncio.gather(*[client.post(path) for path in paths])
    return sorted(answer.status_code for answer in answers)


def green_and_red(name: str, good: Any, bad: Any, error: str = "AssertionError") -> Any:
    """Run a test of the app as it should be, and of a planted bug: that one must be red."""
    bug = pytest.param(bad, marks=pytest.mark.expect(error))
    return pytest.mark.parametrize(name, [good, bug])
