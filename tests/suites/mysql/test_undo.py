"""Written tables are restored in place, a changed schema by a copy."""

import subprocess
import sys

import pytest
from async_app import app, engine
from models import Order
from pytest_arena import inserted, updated
from sqlalchemy import text
from test_raw import arguments

NAMES = []


@pytest.fixture
async def same_content(run):
    """Check rows and numbers, and note the database of the test."""
    assert await run("SELECT item, amount FROM stock") == [("chair", 5), ("lamp", 2)]
    await run("INSERT INTO orders (item, status) VALUES ('vase', 'new')")
    assert await run("SELECT id FROM orders") == [(1,)]
    NAMES.extend(name for (name,) in await run("SELECT DATABASE()"))


@pytest.mark.parametrize(
    "write",
    [
        "DELETE FROM stock",
        "TRUNCATE stock",
        "REPLACE INTO stock VALUES ('lamp', 9), ('sofa', 1)",
        "INSERT INTO stock VALUES ('lamp', 9) ON DUPLICATE KEY UPDATE amount = 3",
        "UPDATE stock SET item = 'LAMP' WHERE item = 'lamp'",
        "UPDATE stock s JOIN orders o ON o.id = 1 SET s.amount = 0, o.item = 'x'",
    ],
)
async def test_rows_in_place(same_content, run, write):
    await run(write)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE stock ADD COLUMN late INT",
        "ALTER TABLE visits AUTO_INCREMENT = 90",
        "CREATE TABLE late (id INT) ENGINE = MyISAM",
        "DROP TABLE visits",
    ],
)
async def test_the_schema_by_a_copy(same_content, run, change):
    await run("DELETE FROM stock", change)


@pytest.mark.arena(isolation="clone")
async def test_rows_by_a_clone(same_content, run):
    await run("DELETE FROM stock")


async def test_the_databases(same_content):
    assert len({*NAMES[:7]}) == 1
    assert len({*NAMES[6:]}) == 6


@pytest.fixture(scope="module", params=["MyISAM", "InnoDB"])
def late(request, arena):
    """A table that exists above the template, once with an engine without transactions."""
    with arena.session() as session:
        session.add(Order(item="wide"))
        session.connection().exec_driver_sql(f"CREATE TABLE late (id INT) ENGINE={request.param}")
        session.connection().exec_driver_sql("INSERT INTO late VALUES (1)")
        session.commit()


@pytest.fixture(scope="module")
def shelves(arena):
    """Rows whose foreign keys delete or update rows in two levels of other tables."""
    child = "CREATE TABLE {0} (id INT PRIMARY KEY, {1}_id INT NOT NULL, FOREIGN KEY ({1}_id) "
    child += "REFERENCES {1} (id) ON {2} CASCADE)"
    with arena.session() as session:
        for statement in (
            "CREATE TABLE shelf (id INT PRIMARY KEY)",
            child.format("box", "shelf", "DELETE"),
            child.format("toy", "box", "DELETE"),
            child.format("label", "shelf", "UPDATE"),
            "INSERT INTO shelf VALUES (1), (2)",
            "INSERT INTO box VALUES (1, 1)",
            "INSERT INTO toy VALUES (1, 1)",
            "INSERT INTO label VALUES (1, 2)",
        ):
            session.connection().exec_driver_sql(statement)
        session.commit()


async def test_rows_that_a_cascade_changes(shelves, run, turn):
    for table in ("box", "toy"):
        assert await run(f"SELECT id FROM {table}") == [(1,)]
    assert await run("SELECT shelf_id FROM label") == [(2,)]
    await run("DELETE FROM shelf WHERE id = 1", "UPDATE shelf SET id = 3")
    assert await run("SELECT id FROM toy") == []
    assert await run("SELECT shelf_id FROM label") == [(3,)]


async def test_above_a_table_of_a_wide_fixture(late, client, run, turn):
    assert await run("SELECT id FROM late") == [(1,)]
    assert (await client.get("/orders")).json() == ["wide"]
    await run("INSERT INTO late VALUES (2)", "DELETE FROM orders")


async def test_changes_between_requests(arena, client, run):
    await client.post("/orders/chair")
    with arena.expect_changes(orders=inserted(1), stock=updated(1)):
        await client.post("/orders/lamp")
    await run("ALTER TABLE visits ADD COLUMN late INT")
    assert len(arena.changes().inserted["orders"]) == 2


@pytest.mark.expect("IsolationError", at="with arena.expect_changes")
async def test_a_table_that_changes_between_requests(arena, client, run):
    await client.post("/orders/chair")
    with arena.expect_changes(orders=inserted(1)):
        await client.post("/orders/lamp")
        await run("ALTER TABLE orders ADD COLUMN late INT")


@app.post("/staged")
async def staged():
    async with engine.connect() as connection:
        for statement in ("DELETE FROM stock", "TRUNCATE visits", "SELECT 1"):
            await connection.exec_driver_sql(statement)


async def test_a_statement_that_commits_loses_no_write(client, run):
    await client.post("/staged")
    assert await run("SELECT * FROM stock") == []


LEFT = []


@pytest.mark.expect("A602", at="INSERT INTO")
async def test_a_temporary_table_ends_no_transaction():
    LEFT.append(await engine.connect())
    await LEFT[0].execute(text("INSERT INTO orders (item, status) VALUES ('vase', 'new')"))
    await LEFT[0].execute(text("CREATE TEMPORARY TABLE early (id INT)"))


def test_the_schema_by_another_program(arena):  # Last: from now on all tables count as written
    login = arguments(arena.url)
    change = "CREATE TABLE early (id INT)"
    code = f"import pymysql; pymysql.connect(**{login!r}).cursor().execute({change!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_it_is_undone(run):
    assert await run("SHOW TABLES LIKE 'early'") == []
