"""A shop whose engine has the URL of the developer's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.example import CONFIG, Example

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL

    from tests.conformance.story_mysql_server import StoryMySQLServer

_APP = """
from fastapi import Depends, FastAPI
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

URL = {url!r}
engine = create_async_engine(URL, pool_pre_ping=True)
maker = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)


class Line(Base):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id", ondelete="CASCADE"))


async def get_db():
    async with maker() as session:
        yield session


app = FastAPI()


@app.get("/items")
async def items(db: AsyncSession = Depends(get_db)):
    return list(await db.scalars(select(Item.name).order_by(Item.id)))


@app.post("/items/{{name}}")
async def add(name: str, db: AsyncSession = Depends(get_db)):
    item = Item(name=name)
    db.add(item)
    await db.commit()
    return item.id


@app.post("/lost/{{name}}")
async def lost(name: str, db: AsyncSession = Depends(get_db)):
    db.add(Item(name=name))
    await db.flush()
"""
_SEED = """
from app import Item, Line


def seed(session):
    session.add(Item(id=1, name="seeded"))
    session.flush()
    session.add(Line(item_id=1))
"""


def shop(server: StoryMySQLServer, folder: Path, driver: str = "mysql+asyncmy") -> Example:
    """Return the project. Each of its tests is checked for what it leaves."""
    return shop_on(server.developers_url(driver), server.url("mysql"), folder)


def shop_on(apps: URL, runs: URL, folder: Path) -> Example:
    """Return the project with the URL of the app's engine, and that of the runs' server."""
    url = apps.render_as_string(hide_password=False)
    server = runs.render_as_string(hide_password=False)
    config = CONFIG.replace("[pytest]", f"[pytest]\narena_database = {server}")
    files = {"app.py": _APP.format(url=url), "seed.py": _SEED, "pytest.ini": config}
    return Example(folder / "project", files, options=("--arena-verify",))
