"""An app with global clients, as most apps have them."""

import os

import redis
import redis.asyncio
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ["DATABASE_URL"])
cache = redis.asyncio.from_url(os.environ["REDIS_URL"], decode_responses=True)
sync_cache = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
app = FastAPI()


class Base(DeclarativeBase): ...


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)


@app.post("/carts/{name}")
async def add(name: str):
    return await cache.rpush(f"cart:{name}", "chair")


@app.get("/carts")
async def carts():
    return sorted(await cache.keys())


@app.post("/visits")
def visit():
    return sync_cache.incr("visits")
