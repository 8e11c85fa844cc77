"""Apps with more than one async engine."""

import os

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .shop import MAKERS, METADATA, URL, Item, app, green_and_red, maker, save

READ_ONLY = {"server_settings": {"default_transaction_read_only": "on"}}
readers = async_sessionmaker(create_async_engine(URL, connect_args=READ_ONLY))
reports = async_sessionmaker(create_async_engine(os.environ["REPORTS_URL"]))


class Reports(DeclarativeBase):
    pass


class Sale(Reports):
    __tablename__ = "sales"
    item: Mapped[str] = mapped_column(primary_key=True)


MAKERS += [readers, reports]
METADATA["REPORTS_URL"] = Reports.metadata


@app.post("/sales/{name}")
async def sell(name: str):
    async with maker.begin() as session, reports.begin() as statistics:
        session.add(Item(name=name))
        statistics.add(Sale(item=name))


@app.get("/sales")
async def sales():
    async with reports() as session:
        return list(await session.scalars(select(Sale.item)))


async def test_two_databases(client):
    """An order in one, its statistics in another."""
    await client.post("/sales/tea")
    assert (await client.get("/sales")).json() == ["tea"]


@app.post("/count/{writes}")
async def count(writes: bool):
    async with readers() as session:
        if writes:
            session.add(Item(name="count"))
            await session.commit()
        return await session.scalar(select(func.count(Item.id)))


@green_and_red("writes", good=False, bad=True, error="DBAPIError")
async def test_read_replica(client, db_session, writes):
    """An engine for reads. Bug: an endpoint writes by it."""
    await save(db_session, Item(name="tea"))
    assert (await client.post(f"/count/{writes}")).json() == 1 + writes
