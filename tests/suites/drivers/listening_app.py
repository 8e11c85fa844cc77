"""The shop, whose engine sets up each connection in a `connect` listener."""

from async_app import create_app, engine, maker
from sqlalchemy import event

__all__ = ["app", "engine", "maker"]
DRIVER = engine.dialect.driver


async def register_asyncpg(connection):
    await connection.set_type_codec(
        "point", schema="pg_catalog", encoder=str, decoder=lambda text: ["point", text]
    )


async def register_psycopg(connection):
    from psycopg.adapt import Loader
    from psycopg.types import TypeInfo

    class PointLoader(Loader):
        def load(self, data):
            return ["point", bytes(data).decode()]

    info = await TypeInfo.fetch(connection, "point")
    info.register(connection)
    connection.adapters.register_loader(info.oid, PointLoader)


async def register_aiosqlite(connection):
    await connection.create_function("shout", 1, str.upper)


REGISTER = {
    "asyncpg": register_asyncpg,
    "psycopg": register_psycopg,
    "aiosqlite": register_aiosqlite,
}


@event.listens_for(engine.sync_engine, "connect")
def connected(dbapi_connection, _):
    dbapi_connection.run_async(REGISTER[DRIVER])
    cursor = dbapi_connection.cursor()
    if DRIVER == "aiosqlite":
        cursor.execute("PRAGMA foreign_keys = ON")
    else:
        # As SQLAlchemy's documentation writes it: a rollback would undo the setting.
        dbapi_connection.autocommit = True
        cursor.execute("SET search_path TO public, information_schema")
        dbapi_connection.autocommit = False
    cursor.close()


app = create_app()
