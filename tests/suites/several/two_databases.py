"""An app with two databases, a replica, and builders that use the app's engines."""

import asyncio
import datetime as dt
from pathlib import Path

from sqlalchemy import create_engine, insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class ShopBase(DeclarativeBase):
    pass


class AnalyticsBase(DeclarativeBase):
    pass


class Order(ShopBase):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Visit(AnalyticsBase):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[dt.date] = mapped_column(default=dt.date(2026, 3, 31))


shop = create_engine("sqlite:///shop.db")
analytics = create_async_engine("sqlite+aiosqlite:///analytics.db")
analytics_sync = create_engine(f"sqlite:///{Path('analytics.db').absolute()}")
replica = create_engine("sqlite:///file:./shop.db?mode=ro&uri=true")


async def seed_shop(session):
    session.add(Order(id=1))

    def work():
        with shop.begin() as connection:
            connection.execute(insert(Order).values(id=2))

    await session.commit()
    await asyncio.to_thread(work)


async def seed_analytics(session):
    session.add(Visit(id=1))


def new_session():
    return Session(binds={ShopBase: shop, AnalyticsBase: analytics_sync})
