"""A shop, whose requests change several tables, leave some out, and forget a commit."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example, Run

__all__ = ["HOWS", "env_of", "shop", "stories"]

TITLE = "arena: what this test changed (+ inserted, ~ updated, - deleted)"

APP = """
import os
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    status: Mapped[str] = mapped_column(default="new")
    note: Mapped[str | None]
    api_token: Mapped[str | None]


class Stock(Base):
    __tablename__ = "stock"
    item: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]


engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///shop.db"))
maker = async_sessionmaker(engine, expire_on_commit=False)


async def get_db():
    async with maker() as session:
        yield session


app = FastAPI()


@app.get("/orders")
async def orders(db=Depends(get_db)):
    return [one.item for one in await db.scalars(select(Order).order_by(Order.id))]


@app.post("/orders/{item}", status_code=201)
async def order(item: str, db=Depends(get_db)):
    stock = await db.get(Stock, item)
    if stock is None:
        raise HTTPException(404)
    stock.amount -= 1
    db.add(Order(item=item, api_token="s3cret"))
    await db.commit()


@app.post("/pay/{number}")
async def pay(number: int, db=Depends(get_db)):
    order = await db.get(Order, number)
    order.status = "paid"
    await db.flush()


@app.delete("/orders/{number}")
async def cancel(number: int, db=Depends(get_db)):
    await db.delete(await db.get(Order, number))
    await db.commit()


@app.post("/old/{item}")
async def old(item: str):
    return RedirectResponse(f"/orders/{item}", 307)


@app.post("/breaks")
async def breaks(db=Depends(get_db)):
    db.add(Visit(path="/breaks"))
    await db.commit()
    raise LookupError("no such thing")
"""

SEED = """
from app import Stock


def seed(session):
    session.add_all([Stock(item="chair", amount=5), Stock(item="lamp", amount=2)])
"""

HOWS = ("copy", "undo")


def shop(example: Example, **files: str) -> Example:
    """Return the shop with these files of tests."""
    return example.with_files(app=APP, seed=SEED, **files)


def env_of(how: str) -> dict[str, str]:
    """Return the environment in which the shop's database is isolated in this way."""
    if how == "copy":
        return {}
    return {
        "ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"],
        "PYTEST_ADDOPTS": f"--arena-isolation={how}",
        "DATABASE_URL": "postgresql+asyncpg://me:s3cret@db.example.org/shop",
    }


def stories(run: Run) -> list[str]:
    """Return the story of each test that failed, in the order of the report."""
    parts = re.split(rf"^-+ {re.escape(TITLE)} -+$", run.output, flags=re.MULTILINE)[1:]
    return [re.split(r"^(?:-{4}|_{4}|={4})", part, flags=re.MULTILINE)[0].strip() for part in parts]
