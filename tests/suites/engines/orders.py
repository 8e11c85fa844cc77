"""An engine on the developer's file, and two steps with any engine."""

from models import Order
from sqlalchemy import create_engine, select

__all__ = ["aadd", "add", "aitems", "engine", "items"]
engine = create_engine("sqlite:///shop.db")
ITEMS = select(Order.item).order_by(Order.item)


def items(engine):
    with engine.connect() as connection:
        return connection.scalars(ITEMS).all()


def add(engine, item):
    with engine.begin() as connection:
        connection.execute(Order.__table__.insert().values(item=item, status="new"))


async def aitems(engine):
    async with engine.connect() as connection:
        return (await connection.scalars(ITEMS)).all()


async def aadd(engine, item):
    async with engine.begin() as connection:
        await connection.execute(Order.__table__.insert().values(item=item, status="new"))
