"""An app whose models and sessions are SQLModel's."""

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession


class Order(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    item: str


def seed(session):
    assert session.exec(select(Order)).all() == []


engine = create_async_engine("sqlite+aiosqlite:///shop.db")
app = FastAPI()


async def get_db():
    async with AsyncSession(engine) as session:
        yield session


@app.get("/orders")
async def orders(db=Depends(get_db)):
    return [order.item for order in await db.exec(select(Order))]


@app.post("/orders/{number}/{item}")
async def rename(number: int, item: str, db=Depends(get_db)):
    (await db.get(Order, number)).item = item
    await db.commit()
