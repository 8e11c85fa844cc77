"""The tables of the shop, which the three apps share."""

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(String(50))
    status: Mapped[str] = mapped_column(String(50), default="new")
    note: Mapped[str | None] = mapped_column(String(50))
    api_token: Mapped[str | None] = mapped_column(String(50))


class Stock(Base):
    __tablename__ = "stock"
    item: Mapped[str] = mapped_column(String(50), primary_key=True)
    amount: Mapped[int]


class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(String(50))


def seed(session):
    session.add_all([Stock(item="chair", amount=5), Stock(item="lamp", amount=2)])


def sync_url(url):
    """Return the URL with a sync driver of the same product."""
    for driver, sync in (("+aiosqlite", ""), ("asyncpg", "psycopg"), ("asyncmy", "pymysql")):
        url = url.replace(driver, sync)
    return url
