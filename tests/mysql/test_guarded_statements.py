"""Statements that reach beyond the test's database are refused, and nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql.drivers._reach import (
    alters_session,
    made_or_dropped,
    may_write,
    reaches_beyond,
)
from tests.mysql.shop import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

OURS = "arena_live_0123456789abcdef"
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
    "DROP USER me",
    "GRANT ALL ON *.* TO me",
    "GRANT ALL ON shop.* TO me",
    "REVOKE SELECT (a), INSERT ON `shop`.`item` FROM me",
    "GRANT EXECUTE ON PROCEDURE shop.p TO me",
    "FLUSH TABLES",
    "SHUTDOWN",
    "SELECT 1 INTO OUTFILE '/tmp/x'",
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
    "SET NAMES utf8mb4",
    f"GRANT SELECT ON `{OURS}`.* TO me",
    "GRANT SELECT ON item TO me",
    "GRANT SELECT ON `arena\\_live\\_0123456789abcdef`.* TO me@'h.example.org'",
    "CREATE USER me",
]


@pytest.mark.parametrize("statement", BEYOND)
def test_beyond(statement: str) -> None:
    """They would change another database, or the server."""
    assert reaches_beyond(statement, OURS)


@pytest.mark.parametrize("statement", INSIDE)
def test_inside(statement: str) -> None:
    """They stay in the test's database."""
    assert reaches_beyond(statement, OURS) == ""


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM t FOR UPDATE",
        "SHOW TABLES",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "(SELECT 1) UNION (SELECT 2)",
        "/* hint */ SELECT 1",
        "SET autocommit = 0",
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
        "ANALYZE UPDATE t SET a = 1",
        "SELECT writes_it(1)",
    ],
)
def test_may_write(statement: str) -> None:
    """All other statements may write, and a SELECT of a function of the database."""
    assert may_write(statement, ("writes_it",))


def test_sessions_and_databases() -> None:
    """What changes a session, and which database a fixture makes."""
    assert alters_session("SET time_zone = '+09:00'")
    assert alters_session("SELECT @a := 1")
    assert alters_session("CREATE TEMPORARY TABLE t (a INT)")
    assert not alters_session("SET TRANSACTION READ ONLY")
    assert not alters_session("SELECT 'SET x = 1'")
    assert made_or_dropped("CREATE DATABASE IF NOT EXISTS `shop-test`") == "shop-test"
    assert made_or_dropped("DROP TABLE shop") == ""


STORY = """
import pytest
from app import engine
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from app import URL


async def test_refused(arena):
    async with engine.connect() as connection:
        for statement in {statements!r}:
            with arena.expect_refusal() as refused:
                await connection.execute(text(statement))
            assert "beyond the test's database" in str(refused.error)
            assert "test_story.py:" in refused.error.cause
"""


def test_an_engine(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The refusal names the line, and the statement is not sent."""
    name = server.developers_arguments["database"]
    statements = [
        f"DELETE FROM {name}.dancers",
        f"DROP DATABASE {name}",
        f"USE {name}",
        f"INSERT INTO {name}.dancers SELECT 7, 'x', 1",
    ]
    story = STORY.format(statements=statements)
    shop(server, tmp_path).with_files(test_story=story).run("-q").expect(passed=1)


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
    run.expect(passed=1).says("a fixture makes or drops a test database")


CLIENT = """
import subprocess
import pytest


@pytest.mark.parametrize("words", [
    ["mysql", {name!r}, "-e", "DELETE FROM dancers"],
    ["mysql", "-h127.0.0.1", "-uroot", "--database={name}", "-eDELETE FROM dancers"],
    ["mysqldump", "-h", "127.0.0.1", "-u", "root", {name!r}],
])
def test_it(arena, words):
    with arena.expect_refusal():
        subprocess.run(words, check=False)
"""


def test_client_programs(server: StoryMySQLServer, tmp_path: Path) -> None:
    """A program that would connect to the developer's database is not started."""
    name = server.developers_arguments["database"]
    story = CLIENT.format(name=name)
    shop(server, tmp_path).with_files(test_story=story).run("-q").expect(passed=3)
