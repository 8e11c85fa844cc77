"""As `alembic init -t async` writes it: `asyncio.run`, and `fileConfig`, which disables loggers."""

import asyncio
from logging.config import fileConfig

import team_app
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

fileConfig(context.config.config_file_name)


def run(connection):
    context.configure(connection=connection, target_metadata=team_app.Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine(team_app.engine.url)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(main())
