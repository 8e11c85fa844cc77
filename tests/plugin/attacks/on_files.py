"""Attacks on a developer's SQLite files. Each adds a table to the file ``<name>.db``."""

import _sqlite3
import asyncio
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import aiosqlite
import pytest
from changing import truncate
from attack import ATTACKS, attempt, in_thread, prevented, redirected, refused
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

TABLE = "CREATE TABLE IF NOT EXISTS attacks (a)"


def add(engine):
    with engine.begin() as connection:  # here
        connection.execute(text(TABLE))


async def aadd(engine):
    async with engine.begin() as connection:
        await connection.execute(text(TABLE))
    await engine.dispose()


def open_file(file):
    return sqlite3.connect(file)  # here


def write(raw):
    raw.execute(TABLE)
    raw.commit()
    raw.close()


def attach(raw, statement, values=()):
    raw.execute(statement, values)
    raw.execute("CREATE TABLE x.attacks (a)")
    raw.commit()
    raw.close()


def child(*arguments):
    subprocess.run([sys.executable, "child.py", *arguments], check=True)  # here


# Engines and URLs. `engine` is the app's on the file.


@redirected
def relative(file, engine):
    add(engine)


@redirected
def percent(file, engine):
    add(create_engine("sqlite:///file:%70ercent%2Edb?uri=true&mode=rw"))


@redirected
def another_folder(file, engine):
    with chdir(".."):
        add(create_engine(f"sqlite:///project/{file}"))


@redirected
def raw_connection(file, engine):
    write(engine.raw_connection())


@redirected
def async_engine(file, engine):
    asyncio.run(aadd(create_async_engine(f"sqlite+aiosqlite:///{file}")))


@redirected
def thread_with_an_engine(file, engine):
    in_thread(lambda: add(engine))


@redirected
def factory(file, engine):
    class Mine(sqlite3.Connection):
        pass

    add(create_engine(engine.url, connect_args={"factory": Mine}))


@redirected
def fork(file, engine):
    if (pid := os.fork()) == 0:
        try:
            add(engine)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


# An engine whose connections the app opens.


@refused
def creator(file, engine):
    add(create_engine("sqlite://", creator=lambda: open_file(file)))


@refused
def async_creator(file, engine):
    async def connect():
        return await aiosqlite.connect(file)  # here

    asyncio.run(aadd(create_async_engine("sqlite+aiosqlite://", async_creator=connect)))


@refused
def pool(file, engine):
    add(create_engine("sqlite://", pool=QueuePool(lambda: open_file(file))))


@refused
def bare_pool(file, engine):
    write(QueuePool(lambda: open_file(file)).connect())


@refused
def dialect(file, engine):
    arguments, options = engine.dialect.create_connect_args(engine.url)
    write(engine.dialect.connect(*arguments, **options))  # here


@refused
def listener_that_returns(file, engine):
    event.listen(engine, "do_connect", lambda *_: open_file(file), insert=True)
    add(engine)


@refused
def listener_that_rewrites(file, engine):
    def rewrite(dialect, entry, cargs, cparams):
        cargs[:] = [file]

    event.listen(engine, "do_connect", rewrite)
    add(engine)


@refused
def listener_that_swaps(file, engine):
    def swap(dbapi_connection, entry):
        entry.dbapi_connection = open_file(file)

    event.listen(engine.pool, "connect", swap)
    add(engine)


# The driver.


@refused
def raw(file, engine):
    write(open_file(file))


@refused
def raw_bytes(file, engine):
    write(open_file(os.fsencode(file)))


@refused
def raw_uri(file, engine):
    write(sqlite3.connect(f"file:{file}?mode=memory&mode=rwc", uri=True))  # here


@refused
def raw_link(file, engine):
    Path("raw_link").symlink_to(file)
    write(open_file("raw_link"))


@refused
def raw_c_module(file, engine):
    write(_sqlite3.connect(file))  # here


@refused
def raw_class(file, engine):
    write(sqlite3.Connection(file))  # here


@refused
def raw_async(file, engine):
    async def main():
        async with aiosqlite.connect(file) as connection:  # here
            await connection.execute(TABLE)
            await connection.commit()

    asyncio.run(main())


@refused
def backup(file, engine):
    with sqlite3.connect(":memory:") as source:
        source.execute(TABLE)
    source.backup(open_file(file))


@prevented
def attach_text(file, engine):
    attach(sqlite3.connect(":memory:"), f"-- a\n/* b */ aTTach/*;*/'{file}'as x")


@prevented
def attach_bound(file, engine):
    attach(sqlite3.connect(":memory:", factory=sqlite3.Connection), "ATTACH ? AS x", (file,))


@prevented
def attach_by_an_engine(file, engine):
    with create_engine("sqlite://").begin() as connection:
        connection.exec_driver_sql("ATTACH ? AS x", (file,))
        connection.exec_driver_sql("CREATE TABLE x.attacks (a)")


# The file, by its path.


@refused
def removed(file, engine):
    os.remove(file)  # here


@refused
def removed_in_a_folder(file, engine):
    os.remove(file, dir_fd=os.open(".", os.O_RDONLY))  # here


@refused
def renamed(file, engine):
    os.rename(file, "renamed")  # here


@refused
def replaced(file, engine):
    shutil.copy("child.py", "new")
    os.replace("new", file)  # here


@refused
def overwritten(file, engine):
    shutil.copy("child.py", file)  # here


@refused
def truncated(file, engine):
    os.truncate(file, 0)  # here


@refused
def overwritten_by_a_link(file, engine):
    Path("a_link").symlink_to(file)
    shutil.copy("child.py", "a_link")  # here


# Other processes.


@refused
def child_that_removes(file, engine):
    subprocess.run([sys.executable, "changing.py", *file.split(".")], check=False)


@refused
def spawn_that_truncates(file, engine):
    process = multiprocessing.get_context("spawn").Process(target=truncate, args=(file,))
    process.start()
    process.join()


@refused
def child_by_name(file, engine):
    child(file)


@refused
def child_by_option(file, engine):
    child("--file", f"--file={Path(file).absolute()}")


@refused
def child_by_url(file, engine):
    child("-", f"sqlite+aiosqlite:///{file}")


@refused
def child_by_code(file, engine):
    code = f"import sqlite3; sqlite3.connect('{file}').execute({TABLE!r})"
    subprocess.run([sys.executable, "-c", code], check=True)  # here


@refused
def child_in_a_folder(file, engine):
    folder = Path("folder")
    folder.mkdir()
    subprocess.run([sys.executable, "../child.py", f"../{file}"], check=True, cwd=folder)  # here


@refused
def child_of_the_system(file, engine):
    os.system(f"{sys.executable} child.py {file}")  # here


@refused
def child_of_a_spawn(file, engine):
    pid = os.posix_spawn(sys.executable, [sys.executable, "child.py", file], os.environ)  # here
    os.waitpid(pid, 0)


NEW = {"child_by_name"}  # its engine is created in the test, and has not connected
ENGINES = {name: create_engine(f"sqlite:///{name}.db") for name in ATTACKS.keys() - NEW}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name, request):
    engine = ENGINES.get(name) or create_engine(f"sqlite:///{name}.db")
    attempt(name, request, f"{name}.db", engine)
