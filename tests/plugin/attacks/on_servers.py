"""Attacks on a developer's database on PostgreSQL. Each inserts its name into a table."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import psycopg
import psycopg2
import psycopg2.pool
import pytest
from attack import ATTACKS, attempt, redirected, refused
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

HOST, PORT = os.environ["PGHOST"], int(os.environ["PGPORT"])
USER, DEV = os.environ["PGUSER"], os.environ["PGDATABASE"]
PLACE = f"{USER}@{HOST}:{PORT}/{DEV}"
LIBPQ = f"host={HOST} port={PORT} user={USER} dbname={DEV}"
by_driver = redirected if os.environ.get("DRIVERS") == "redirect" else refused
INSERT = text("INSERT INTO dancers VALUES (:name)")


def add(engine, name):
    with engine.begin() as connection:  # here
        connection.execute(INSERT, {"name": name})
    engine.dispose()


def aadd(url, name, **options):
    async def main():
        engine = create_async_engine(url, **options)
        async with engine.begin() as connection:
            await connection.execute(INSERT, {"name": name})
        await engine.dispose()

    asyncio.run(main())


def connect():
    return psycopg.connect(LIBPQ)  # here


def put(connection, name):
    connection.cursor().execute("INSERT INTO dancers VALUES (%s)", (name,))
    connection.commit()
    connection.close()


def child(*arguments):
    subprocess.run([sys.executable, "server_child.py", *arguments], check=True)  # here


# Engines and URLs. `engine` is the app's on the database.


@redirected
def url_of_psycopg(name, engine):
    add(engine, name)


@redirected
def url_of_psycopg2(name, engine):
    add(create_engine(f"postgresql+psycopg2://{PLACE}"), name)


@redirected
def url_of_asyncpg(name, engine):
    aadd(f"postgresql+asyncpg://{PLACE}", name)


@redirected
def url_of_several_hosts(name, engine):
    hosts = f"host={HOST}:{PORT}&host=localhost:{PORT}"
    add(create_engine(f"postgresql+psycopg://{USER}@/{DEV}?{hosts}"), name)


@redirected
def host_in_arguments(name, engine):
    place = {"host": HOST, "port": PORT}
    add(create_engine(f"postgresql+psycopg://{USER}@db.invalid/{DEV}", connect_args=place), name)


@redirected
def dsn_in_arguments(name, engine):
    aadd("postgresql+asyncpg://", name, connect_args={"dsn": f"postgresql://{PLACE}"})


@redirected
def service(name, engine):
    add(create_engine("postgresql+psycopg://", connect_args={"service": "dev"}), name)


@redirected
def variables_of_libpq(name, engine):
    add(create_engine("postgresql+psycopg://"), name)


@redirected
def variables_of_asyncpg(name, engine):
    aadd("postgresql+asyncpg://", name)


# An engine whose connections the app opens.


@by_driver
def creator(name, engine):
    add(create_engine("postgresql+psycopg://", creator=connect), name)


@by_driver
def async_creator(name, engine):
    async def open_one():
        return await asyncpg.connect(f"postgresql://{PLACE}")  # here

    aadd("postgresql+asyncpg://", name, async_creator=open_one)


@refused
def factory(name, engine):
    class Mine(psycopg2.extensions.connection):
        def __init__(self, *_):
            super().__init__(LIBPQ)

    url = f"postgresql+psycopg2://{PLACE}"
    add(create_engine(url, connect_args={"connection_factory": Mine}), name)


@by_driver
def pool(name, engine):
    add(create_engine("postgresql+psycopg://", pool=QueuePool(connect)), name)


@by_driver
def listener_that_returns(name, engine):
    event.listen(engine, "do_connect", lambda *_: connect(), insert=True)
    add(engine, name)


@by_driver
def listener_that_rewrites(name, engine):
    def rewrite(dialect, entry, cargs, cparams):
        cargs[:] = [LIBPQ]
        cparams.clear()

    event.listen(engine, "do_connect", rewrite)
    add(engine, name)


@by_driver
def listener_that_swaps(name, engine):
    def swap(dbapi_connection, entry):
        entry.dbapi_connection = connect()

    event.listen(engine.pool, "connect", swap)
    add(engine, name)


@by_driver
def dialect(name, engine):
    arguments, options = engine.dialect.create_connect_args(engine.url)
    put(engine.dialect.connect(*arguments, **options), name)  # here


# The drivers.


@by_driver
def raw_psycopg(name, engine):
    put(connect(), name)


@by_driver
def raw_subclass(name, engine):
    class Mine(psycopg.Connection):
        pass

    put(Mine.connect(f"postgresql://{PLACE}"), name)  # here


@by_driver
def raw_variables(name, engine):
    put(psycopg.connect(), name)  # here


@by_driver
def raw_service(name, engine):
    put(psycopg.connect(service="dev"), name)  # here


@by_driver
def raw_psycopg2_pool(name, engine):
    put(psycopg2.pool.SimpleConnectionPool(1, 1, LIBPQ).getconn(), name)  # here


@by_driver
def raw_asyncpg(name, engine):
    async def main():
        connection = await asyncpg.connect(f"postgresql://{PLACE}")  # here
        await connection.execute("INSERT INTO dancers VALUES ($1)", name)
        await connection.close()

    asyncio.run(main())


@by_driver
def raw_asyncpg_pool(name, engine):
    async def main():
        async with asyncpg.create_pool(f"postgresql://{PLACE}", min_size=1) as pool:  # here
            await pool.execute("INSERT INTO dancers VALUES ($1)", name)

    asyncio.run(main())


@by_driver
def raw_async_psycopg(name, engine):
    async def main():
        async with await psycopg.AsyncConnection.connect(LIBPQ) as connection:  # here
            await connection.execute("INSERT INTO dancers VALUES (%s)", (name,))

    asyncio.run(main())


# Other processes.


@refused
def child_by_url(name, engine):
    child(name, f"postgres://{PLACE}")


@refused
def child_by_another_driver(name, engine):
    child(name, f"--url=postgresql+pg8000://{PLACE}")


@refused
def child_by_another_host(name, engine):
    child(name, f"postgresql://{USER}@localhost:{PORT}/{DEV}")


@redirected
def client_by_options(name, engine):
    psql = ["psql", f"-h{HOST}", f"-p{PORT}", f"-U{USER}", f"-d{DEV}"]
    subprocess.run([*psql, "-c", f"INSERT INTO dancers VALUES ('{name}')"], check=True)


@redirected
def client_by_a_service(name, engine):
    Path("add.sh").write_text(
        f"""echo "INSERT INTO dancers VALUES ('{name}')" | psql service=dev"""
    )
    subprocess.run(["sh", "add.sh"], check=True)


@refused
def child_by_the_name_of_the_database(name, engine):
    script = f"#!/bin/sh\nexec {sys.executable} server_child.py {name} postgres://{PLACE}\n"
    Path("psql").write_text(script)
    os.chmod("psql", 0o755)
    subprocess.run(["./psql", f"--dbname={DEV}"], check=True)  # here


ENGINES = {name: create_engine(f"postgresql+psycopg://{PLACE}") for name in ATTACKS}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name, request):
    attempt(name, request, name, ENGINES[name])
