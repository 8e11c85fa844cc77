"""An app with dancers, and hooks that tests fill."""

import os
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///dev.db"))
maker = async_sessionmaker(engine)


async def get_db():
    async with maker() as session:
        yield session


app = FastAPI()


@app.get("/dancers")
async def dancers(db=Depends(get_db)):
    return [dancer.name for dancer in await db.scalars(select(Dancer).order_by(Dancer.id))]


@app.post("/dancers/{name}", status_code=201)
async def add(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.commit()
    return name


HOOKS = {}


@app.get("/none")
async def none():
    return []


@app.get("/page")
async def page():
    return {"dancers": [], "all": ["Sand"]}


@app.post("/rename/{dancer_id}/{name}")
async def rename(dancer_id: int, name: str, db=Depends(get_db)):
    dancer = await db.get(Dancer, dancer_id)
    dancer.name = name
    await db.commit()
    HOOKS.get("renamed", str)()
