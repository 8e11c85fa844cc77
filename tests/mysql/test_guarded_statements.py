"""Statements that reach beyond the test's database are refused, and nothing else is."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql.drivers._reach import (
    alters_session,
    created_or_dropped_database,
    may_write,
    reaches_beyond,
)
from pytest_arena._mysql.drivers._records import refused_beyond
from tests.mysql.shop import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

OURS = "arena_live_0123456789abcdef"
SERVER = {"shop", "2024shop", "mysql", "information_schema", OURS}
BEYOND = [
    "DELETE FROM shop.item",
    "UPDATE `shop`.`item` SET a = 1",
    "UPDATE t, shop.u SET t.a = 1",
    "SELECT a.id, shop.t.id FROM a, shop.t",
    "INSERT INTO shop . item VALUES (1)",
    "REPLACE INTO shop.item VALUES (1)",
    "TRUNCATE shop.item",
    "DROP TABLE IF EXISTS shop.item",
    "CREATE TABLE t LIKE shop.t",
    "RENAME TABLE a TO shop.a",
    "LOAD DATA LOCAL INFILE 'x' INTO TABLE shop.item",
    "CALL shop.empty_it()",
    "SELECT shop.empty_it()",
    "DELETE FROM mysql.user",
    "USE shop",
    "/*!50000 DROP DATABASE shop */",
    "SELECT 1; DROP SCHEMA shop",
    "CREATE DATABASE shop",
    "ALTER DATABASE shop CHARACTER SET utf8mb4",
    "SET GLOBAL max_connections = 3",
    "SET @@global.max_connections = 3",
    "SET PERSIST max_connections = 3",
    "SET @x = 'a,b', GLOBAL max_connections = 3",
    "SET SESSION sort_buffer_size = 200000, /* all */ global wait_timeout = 3",
    "BEGIN NOT ATOMIC SET GLOBAL wait_timeout = 3; END",
    "SET DEFAULT ROLE NONE FOR me",
    "DROP USER me",
    "GRANT ALL ON *.* TO me",
    "GRANT ALL ON shop.* TO me",
    "REVOKE SELECT (a), INSERT ON `shop`.`item` FROM me",
    "GRANT EXECUTE ON PROCEDURE shop.p TO me",
    "FLUSH TABLES",
    "SHUTDOWN",
    "SELECT 1 INTO OUTFILE '/tmp/x'",
    # A name of another database is refused in each place.
    "EXECUTE IMMEDIATE 'SELECT * FROM shop.item'",
    "EXECUTE IMMEDIATE CONCAT('DELETE FROM ', 'shop', '.item')",
    "EXECUTE IMMEDIATE 'EXECUTE IMMEDIATE ''DELETE FROM shop.item'' '",
    "PREPARE s FROM 'DELETE FROM shop.item WHERE a = ''x'' '",
    "PREPARE s FROM 'DROP DATABASE shop'",
    "SELECT * FROM t a JOIN u b ON a.id = b.id, shop.item",
    "SELECT * FROM t STRAIGHT_JOIN shop.item",
    "SELECT * FROM (t, shop.item j)",
    "SELECT * FROM t AS i USE INDEX (PRIMARY), shop.item j",
    "SELECT * FROM`shop`.item",
    "SELECT * FROM(shop.item)",
    "SELECT * FROM {OJ shop.item LEFT OUTER JOIN t ON 1}",
    "SELECT TRIM('x' FROM (SELECT a FROM shop.item))",
    "HANDLER shop.item OPEN AS h",
    "SHOW TABLES FROM shop",
    "SHOW COLUMNS FROM t FROM shop",
    "SHOW INDEX FROM t IN `shop`",
    "SHOW CREATE TABLE shop.item",
    "CREATE INDEX i ON shop.item (name)",
    "DROP INDEX i ON shop.item",
    "GRANT SELECT ON shop.* TO root@localhost",
    "GRANT SELECT ON `sho%`.* TO me",
    "LOCK TABLES t READ, shop.item WRITE",
    "UPDATE t i JOIN u l ON 1, shop.item x SET x.name = 'a'",
    "DROP TABLE IF EXISTS nope, shop.item",
    "DROP TABLE t, shop.item",
    "RENAME TABLE t TO u, shop.item TO shop.items",
    "INSERT HIGH_PRIORITY shop.item (name) VALUES ('a')",
    "SET STATEMENT max_statement_time=100 FOR DELETE FROM shop.item",
    "SET STATEMENT max_statement_time=100 FOR DROP DATABASE shop",
    "SET STATEMENT max_statement_time=(SELECT a FROM shop.item) FOR DROP DATABASE shop",
    "DELETE FROM shop/**/./**/item",
    "DELETE FROM /*! shop.item */",
    "DELETE FROM Shop.item",
    "DELETE FROM 2024shop.item",
    'DELETE FROM "shop"."item"',
    "CREATE PROCEDURE p() BEGIN DELETE FROM shop.item; END",
    "CREATE VIEW v AS SELECT * FROM t CROSS JOIN shop.item",
    # `shop` is not the name of a table here, or the place is that of a database.
    "DELETE FROM shop.item WHERE shop = 1",
    "INSERT INTO shop.item (a, shop) VALUES (1, 2)",
    "INSERT INTO shop.item (a) VALUES (1) ON DUPLICATE KEY UPDATE shop = 2",
    "SELECT a, shop FROM t, shop.item",
    "SELECT a shop, REPLACE(a, 'x', 'y'), shop FROM t, shop.item",
    "SELECT a AS shop FROM t, shop.item",
    "SELECT * FROM t JOIN u ON shop = 1 AND (shop = 2), shop.item",
    "SELECT * FROM shop JOIN shop.item ON shop.id = item.id",
    "UPDATE shop, t SET t.a = shop.empty_it()",
]
INSIDE = [
    "SELECT a.b, c.d FROM a, c WHERE a.x = c.y",
    "SELECT a.b FROM a JOIN c ON a.x = c.y ORDER BY a.b, c.d",
    "INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE t.a = t.a",
    "SELECT EXTRACT(YEAR FROM t.made), TRIM(BOTH 'x' FROM t.a) FROM t",
    "SELECT REPLACE(t.a, 'x', 'y'), t.b LIKE t.c FROM t AS t, u",
    "SELECT 'DROP DATABASE x; USE y', 'it''s FROM a.b' FROM t",
    "SELECT 1 -- DROP DATABASE x",
    "SELECT * FROM information_schema.tables",
    "SELECT user FROM mysql.user",
    f"DESCRIBE `{OURS}`.`t`",
    f"SHOW FULL TABLES FROM `{OURS}`",
    "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW SET NEW.a = OLD.b",
    "SELECT 1.5, 2.5 FROM t, u",
    "SET SESSION sql_mode = ''",
    "SET @x = (SELECT global FROM t WHERE a = 1)",
    "UPDATE t SET global = 1",
    "SET NAMES utf8mb4",
    f"GRANT SELECT ON `{OURS}`.* TO me",
    "GRANT SELECT ON item TO me",
    "GRANT SELECT ON `arena\\_live\\_0123456789abcdef`.* TO me@'h.example.org'",
    "SELECT EXTRACT(YEAR FROM shop.made) FROM shop",
    "INSERT INTO t (a) VALUES (1) AS shop ON DUPLICATE KEY UPDATE a = shop.a",
    "PREPARE s FROM 'SELECT shop.a FROM shop'",
    'SELECT "shop.item" FROM t',
    "SELECT 1.5e3, a.b FROM a -- shop.item",
    "SHOW COLUMNS FROM shop",
    "SHOW INDEX FROM shop",
    # The app's table or alias has the name of a database.
    "SELECT shop.id FROM shop WHERE shop.id = 1",
    "SELECT shop.id, a.id FROM a, shop WHERE a.id = shop.id",
    "SELECT a.id FROM a JOIN shop ON a.id = shop.id JOIN b ON b.id = shop.id, c",
    "SELECT shop.id FROM a JOIN b ON a.id = b.id, shop WHERE shop.id = 1",
    "SELECT shop.id FROM item AS shop",
    "SELECT shop.id FROM item shop, a",
    "SELECT `shop`.id FROM (SELECT 1 AS id) AS shop",
    "SELECT `shop`.id FROM (SELECT id FROM a WHERE a.b IN (1, 2)) `shop`, b",
    "SELECT shop.id FROM (a, shop) LEFT JOIN (b, c) ON b.id = shop.id",
    "WITH shop AS (SELECT 1 AS id) SELECT shop.id FROM shop",
    "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM shop WHERE shop.a = t.a)",
    "UPDATE shop SET shop.a = 1 WHERE shop.id = 1",
    "UPDATE IGNORE t, shop SET shop.a = 1",
    "DELETE shop FROM item AS shop WHERE shop.a = 1",
    "DELETE FROM shop USING item AS shop JOIN a ON a.id = shop.id",
    "INSERT INTO shop (a) VALUES (1) ON DUPLICATE KEY UPDATE shop.a = shop.a + 1",
    "CREATE TABLE shop (a INT, CHECK (shop.a > 0))",
    "LOCK TABLES shop READ, item AS shop2 WRITE",
]


@pytest.mark.parametrize("statement", BEYOND)
def test_beyond(statement: str) -> None:
    """They would change another database, or the server."""
    assert reaches_beyond(statement, OURS, SERVER.__contains__)


@pytest.mark.parametrize("statement", INSIDE)
def test_inside(statement: str) -> None:
    """They stay in the test's database."""
    assert reaches_beyond(statement, OURS, SERVER.__contains__) == ""


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM t FOR UPDATE",
        "SHOW TABLES",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "(SELECT 1) UNION (SELECT 2)",
        "/* hint */ SELECT 1",
        "SET autocommit = 0",
        "SET STATEMENT max_statement_time=100, sort_buffer_size=9999 FOR SELECT * FROM t",
        "ROLLBACK TO SAVEPOINT a",
        "EXPLAIN SELECT 1",
    ],
)
def test_reads(statement: str) -> None:
    """A level that has sent these alone is left without a copy."""
    assert not may_write(statement, ())


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES ('SELECT')",
        "WITH a AS (SELECT 1) DELETE FROM t",
        "SELECT 1; DELETE FROM t",
        "/*! DELETE FROM t */",
        "CALL f()",
        "EXECUTE s",
        "CREATE TABLE t (a INT)",
        "HANDLER t OPEN",
        "SET STATEMENT max_statement_time=100 FOR DELETE FROM t",
        "SET STATEMENT max_statement_time=(SELECT 100) FOR DELETE FROM t",
        "ANALYZE UPDATE t SET a = 1",
        "SELECT writes_it(1)",
    ],
)
def test_may_write(statement: str) -> None:
    """All other statements may write, and a SELECT of a function of the database."""
    assert may_write(statement, ("age", "writes_it"))


def test_a_name_inside_another_word() -> None:
    """The table `packages` is no call of a function `age`."""
    assert not may_write("SELECT page FROM packages", ("age",))
    assert may_write("SELECT `Age`(born) FROM packages", ("age",))


def test_sessions_and_databases() -> None:
    """What changes a session, and which database a fixture makes."""
    assert alters_session("SET time_zone = '+09:00'")
    assert alters_session("SELECT @a := 1")
    assert alters_session("CREATE TEMPORARY TABLE t (a INT)")
    assert not alters_session("SET TRANSACTION READ ONLY")
    assert not alters_session("SELECT 'SET x = 1'")
    assert created_or_dropped_database("CREATE DATABASE IF NOT EXISTS `shop-test`") == "shop-test"
    assert created_or_dropped_database("DROP TABLE shop") == ""


def test_the_next_step_for_a_database_of_another_run() -> None:
    """Alembic reads all databases if it compares with ``include_schemas=True``."""
    assert "include_name" in refused_beyond(f"a name in the database {OURS}").fix
    assert "include_name" not in refused_beyond("a name in the database shop").fix


STORY = """
import importlib
import pytest
from app import engine
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from app import URL


async def test_refused(arena):
    async with engine.connect() as connection:
        for statement in {statements!r}:
            with arena.expect_refusal() as refused:
                await connection.execute(text(statement))
            assert "beyond the test's database" in str(refused.error)
            assert "test_story.py:" in refused.error.cause


async def test_a_table_with_the_name_of_another_database():
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE {name} (id INT)"))
        await connection.execute(text("INSERT INTO {name} (id) VALUES (7)"))
        for statement in {own!r}:
            rows = await connection.execute(text(statement))
            assert list(rows) == [(7,)], statement


async def test_a_statement_in_a_variable(arena):
    async with engine.connect() as connection:
        await connection.execute(text("SET @beyond = 'DELETE FROM {name}.dancers'"))
        await connection.execute(text("SET @inside = CONCAT('SELECT ', 7)"))
        with arena.expect_refusal() as refused:
            await connection.execute(text("PREPARE s FROM @beyond"))
        assert "a name in the database {name}" in str(refused.error)
        await connection.execute(text("PREPARE s FROM @inside"))
        assert list(await connection.execute(text("EXECUTE s"))) == [(7,)]


def test_the_first_statement_of_a_connection(arena):
    url = URL.replace("asyncmy", "pymysql")
    other = create_engine(url, connect_args=dict(init_command="USE {name}"))
    with arena.expect_refusal():
        other.connect()


@pytest.mark.parametrize("driver", {drivers!r})
def test_a_raw_connection(arena, driver):
    url = make_url(arena.url)
    words = dict(host=url.host, port=url.port, user=url.username, password=url.password or "")
    words["unix_socket"] = url.query.get("unix_socket")
    words = dict((key, value) for key, value in words.items() if value is not None)
    connection = importlib.import_module(driver).connect(database=url.database, **words)
    for statement in {statements!r}:
        cursor = connection.cursor()
        with arena.expect_refusal():
            cursor.execute(statement)
        cursor.close()
    with connection.cursor() as cursor:
        cursor.execute("SET @beyond = 'DROP DATABASE {name}'")
        with arena.expect_refusal():
            cursor.execute("PREPARE s FROM @beyond")
        cursor.execute("SET @inside = 'SELECT 7'")
        cursor.execute("PREPARE s FROM @inside")
        cursor.execute("EXECUTE s")
        assert cursor.fetchall() == ((7,),)
    connection.close()
"""


def test_an_engine_and_drivers(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The refusal names the line. The statement is not sent, and the app's tables are reached."""
    name = server.developers_arguments["database"]
    statements = [
        f"DELETE FROM {name}.dancers",
        f"DROP DATABASE {name}",
        f"USE {name}",
        f"INSERT INTO {name}.dancers SELECT 7, 'x', 1",
        f"SELECT * FROM item JOIN line ON item.id = line.id, {name}.dancers",
        f"DROP TABLE IF EXISTS nope, {name}.dancers",
        f"PREPARE s FROM 'DELETE FROM {name}.dancers'",
        f"SHOW TABLES FROM {name}",
    ]
    own = [
        f"SELECT {name}.id FROM item, {name}",
        f"SELECT {name}.id FROM (SELECT 7 AS id) AS {name}",
    ]
    drivers = ["pymysql"]
    if find_spec("MySQLdb") is not None:
        drivers.append("MySQLdb")
    story = STORY.format(statements=statements, own=own, name=name, drivers=drivers)
    run = shop(server, tmp_path).with_files(test_story=story).run("-q")
    run.expect(passed=4 + len(drivers))


FIXTURE = """
import pytest
from sqlalchemy import create_engine, text


@pytest.fixture(scope="session", autouse=True)
def database():
    engine = create_engine({url!r}, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS shop_test"))
        connection.execute(text("CREATE DATABASE shop_test CHARACTER SET = 'utf8mb4'"))
    yield
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE shop_test"))


async def test_it(client):
    assert (await client.get("/items")).json() == ["seeded"]
"""


def test_a_fixture_that_makes_a_test_database(server: StoryMySQLServer, tmp_path: Path) -> None:
    """Its statements are answered and not sent."""
    url = server.developers_url("mysql+pymysql").set(database="")
    story = FIXTURE.format(url=url.render_as_string(hide_password=False))
    run = shop(server, tmp_path).with_files(test_story=story).run("-q")
    run.expect(passed=1).says("a fixture creates or drops a test database")
