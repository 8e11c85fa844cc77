"""Links that expire after a day, by the clock of Python and by that of the database."""

import datetime as dt
import os

from fastapi import FastAPI, HTTPException
from sqlalchemy import Computed, DateTime, Float, Numeric, func, literal, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ["DATABASE_URL"])
maker = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


class Base(DeclarativeBase): ...


def now():
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


class Reset(Base):
    __tablename__ = "resets"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(DateTime, unique=True, default=now)
    by_database: Mapped[dt.datetime] = mapped_column(DateTime, server_default=func.now())
    changed: Mapped[dt.datetime | None] = mapped_column(DateTime, onupdate=now)
    day: Mapped[dt.date] = mapped_column(default=lambda: dt.date(2026, 3, 31))
    seconds: Mapped[int] = mapped_column(default=1_000_000)
    exact: Mapped[float] = mapped_column(
        Numeric(12, 2).with_variant(Float, "sqlite"), default=1_000_000
    )
    same_day: Mapped[dt.date] = mapped_column(Computed("day"))


@app.post("/resets", status_code=201)
async def ask():
    async with maker.begin() as session:
        reset = Reset()
        session.add(reset)
    return reset.id


@app.post("/resets/{number}")
async def use(number: int):
    async with maker() as session:
        if (await session.get_one(Reset, number)).at < now() - dt.timedelta(days=1):
            raise HTTPException(410)


@app.get("/recent")
async def recent():
    async with maker() as session:
        present = await session.scalar(select(func.now()))
        if isinstance(present, str):
            present = dt.datetime.fromisoformat(present)
        since = present.replace(tzinfo=None) - dt.timedelta(days=1)
        rows = await session.scalars(select(Reset.id).where(Reset.by_database > literal(since)))
        return len(rows.all())
