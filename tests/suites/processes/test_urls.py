"""A Python program that reads the URL of the developer's database from a file or its code."""

import subprocess
import sys
from pathlib import Path

import pytest
from async_app import engine
from models import Order
from sqlalchemy import select, text

PRODUCT = engine.dialect.name
DRIVERS = {
    "sqlite": ["pysqlite", "aiosqlite"],
    "postgresql": ["asyncpg", "psycopg", "psycopg2"],
    "mysql": ["asyncmy", "aiomysql", "pymysql"],
}
is_server = PRODUCT != "sqlite"
INSERT = "INSERT INTO orders (item, status) VALUES ('{}', 'new')"
PARENT = "import subprocess, sys; subprocess.run(sys.argv[1:], env={}, check=True)"
SCRIPT = ["/bin/sh", "-c", 'PYTHONPATH=. exec "$0" -I "$@"']
drivers = pytest.mark.parametrize("driver", DRIVERS[PRODUCT])


def program(driver, database="shop", statement=INSERT, server="db.example.org"):
    place = f"me:s3cret@{server}/{database}" if is_server else f"/{database}.db"
    Path("program.env").write_text(f"{PRODUCT}+{driver}://{place} {statement.format(driver)}")
    return [sys.executable, "knows_its_url.py"]


@drivers
def test_a_process(arena, db_session, driver):
    process = arena.process(program(driver))
    assert process.wait() == 0, process.output
    assert db_session.scalars(select(Order.item)).all() == [driver]


@drivers
@pytest.mark.parametrize("env", [None, {}])
@pytest.mark.parametrize("parent", [[], [sys.executable, "-c", PARENT], SCRIPT])
def test_a_command(test_client, driver, env, parent):
    test_client.get("/orders")
    subprocess.run([*parent, *program(driver)], env=env, check=True)
    assert test_client.get("/orders").json() == [driver]


OTHER = ("other" if is_server else "old/other", INSERT)  # the file is older than the run
DROP = ("shop", "DROP DATABASE dev")


@drivers
@pytest.mark.parametrize("database, statement", [OTHER, DROP] if is_server else [OTHER])
def test_a_database_that_the_tests_do_not_use(arena, driver, database, statement):
    with arena.expect_refusal() as refused:
        process = arena.process(program(driver, database, statement))
        process.wait()
        assert process.status == 1
    assert type(refused.error).__name__.endswith("DatabaseError")


@pytest.mark.expect("UnknownDatabaseError", at="begin() as connection")
def test_a_program_whose_refusal_nobody_reads(test_client):
    subprocess.run(program(DRIVERS[PRODUCT][-1], *OTHER), check=False)


@pytest.mark.skipif(is_server, reason="a file")
@drivers
def test_it_attaches_no_file(arena, driver):
    process = arena.process(program(driver, "shop", "ATTACH 'dev.db' AS dev"))
    assert process.wait() == process.status == 1
    assert "too many attached" in process.output


LIMIT = {"postgresql": "current_setting('lock_timeout')", "mysql": "@@lock_wait_timeout"}


@pytest.mark.skipif(not is_server, reason="a server waits for locks without an end")
@drivers
def test_its_waits_for_locks_end(arena, db_session, driver):
    select_limit = f"SELECT {LIMIT[PRODUCT]}, 'new'"
    statement = f"INSERT INTO orders (item, status) {select_limit}"
    assert arena.process(program(driver, statement=statement)).wait() == 0
    limit = str(db_session.scalar(text(select_limit)))
    assert db_session.scalars(select(Order.item)).all() == [limit]
    assert 0 < int(limit.removesuffix("s")) < 60


@pytest.mark.skipif(not is_server, reason="a file has no host")
@drivers
def test_a_server_of_arena_allow_stays(arena, test_client, driver):
    test_client.get("/orders")
    process = arena.process(program(driver, server="127.0.0.1:1"))
    assert process.wait() == process.status == 1
    assert "UnknownDatabaseError" not in process.output
