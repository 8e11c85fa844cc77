"""A program that reads a file with the URL of the developer's database, and an item."""

import asyncio
from pathlib import Path

from models import Order
from sqlalchemy import create_engine, insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

url, item = Path("program.env").read_text().split()
statement = insert(Order).values(item=item, status="new")


async def add():
    async with create_async_engine(url, poolclass=NullPool).begin() as connection:
        await connection.execute(statement)


if create_engine(url).dialect.is_async:
    asyncio.run(add())
else:
    with create_engine(url).begin() as connection:
        connection.execute(statement)
