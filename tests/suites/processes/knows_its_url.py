"""A Python program that reads a file with the URL of the developer's database, and a statement."""

import asyncio
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

url, statement = Path("program.env").read_text().split(maxsplit=1)


async def run():
    async with create_async_engine(url, poolclass=NullPool).begin() as connection:
        await connection.execute(text(statement))


if create_engine(url).dialect.is_async:
    asyncio.run(run())
else:
    with create_engine(url).begin() as connection:
        connection.execute(text(statement))
