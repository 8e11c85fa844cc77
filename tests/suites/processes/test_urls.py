"""A Python program that reads the URL of the developer's database from a file or its code."""

import subprocess
import sys
from pathlib import Path

import pytest
from async_app import engine
from models import Order
from sqlalchemy import select

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


def program(driver, database="shop", statement=INSERT):
    place = f"me:s3cret@db.example.org/{database}" if is_server else f"/{database}.db"
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


ATTACH = ("shop", "ATTACH 'dev.db' AS dev", "too many attached data")
OTHERS = [("other", INSERT, "UnknownData"), ("shop", "DROP DATABASE dev", "ProductionData")]


@drivers
@pytest.mark.parametrize("database, statement, error", OTHERS if is_server else [ATTACH])
def test_a_database_that_the_tests_do_not_use(arena, driver, database, statement, error):
    process = arena.process(program(driver, database, statement))
    process.wait()
    assert process.status == 1
    assert f"{error}base" in process.output
