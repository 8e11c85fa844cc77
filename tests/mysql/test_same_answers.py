"""The drivers report the same of each statement as on a database without the journal."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.mysql.shop import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

SCHEMA = """
CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) UNIQUE, n INT DEFAULT 0);
CREATE TABLE line (item_id INT, FOREIGN KEY (item_id) REFERENCES item (id) ON DELETE CASCADE);
CREATE TABLE number (id INT NOT NULL);
CREATE TABLE notes (id INT AUTO_INCREMENT PRIMARY KEY, words VARCHAR(5));
CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50));
CREATE TABLE logged (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50));
INSERT INTO item (name) VALUES ('seeded');
INSERT INTO line VALUES (1);
INSERT INTO number VALUES (40), (30);
DELIMITER //
CREATE TRIGGER writes_log AFTER INSERT ON logged FOR EACH ROW
    INSERT INTO log (name) VALUES (NEW.name)//
CREATE PROCEDURE adds(IN name VARCHAR(50), OUT id INT)
BEGIN
    INSERT INTO item (name) VALUES (name);
    SET id = LAST_INSERT_ID();
    SELECT id AS number;
    UPDATE item SET n = n + 1;
END//
CREATE FUNCTION next_number() RETURNS INT
BEGIN
    UPDATE number SET id = LAST_INSERT_ID(id + 1) LIMIT 1;
    RETURN LAST_INSERT_ID();
END//
DELIMITER ;
"""
STORY = """
import asyncio
import importlib
import inspect
import pytest
from sqlalchemy import make_url

DRIVERS = {drivers!r}
PLAIN = {{}}
STATEMENTS = [
    # Numbers that the app generates.
    "UPDATE number SET id = LAST_INSERT_ID(id + 1) LIMIT 1",
    "UPDATE number SET id = LAST_INSERT_ID(id + 1)",
    "UPDATE number SET id = last_insert_id ( id + 1 ) WHERE id > 40",
    "UPDATE number SET id = LAST_INSERT_ID(id) WHERE id > 40",
    "UPDATE number SET id = LAST_INSERT_ID(id + 1) WHERE id = 0",
    "UPDATE number SET id = LAST_INSERT_ID(id + 1) WHERE id = 0",
    "UPDATE number SET id = LAST_INSERT_ID() + 1 LIMIT 1",
    "UPDATE number, item SET number.id = LAST_INSERT_ID(number.id + 1) WHERE item.id = 1",
    "UPDATE item SET name = 'LAST_INSERT_ID(1)' WHERE id = 1",
    "/* next */ UPDATE number SET id = LAST_INSERT_ID(id + 1)",
    "SELECT next_number()",
    "SELECT LAST_INSERT_ID(77)",
    # Numbers of the server.
    "INSERT INTO item (name) VALUES ('a')",
    "INSERT INTO item (name) VALUES ('b'), ('c'), ('d')",
    "INSERT INTO item (id, name) VALUES (60, 'e')",
    "INSERT INTO item (id, name) VALUES (LAST_INSERT_ID(70), 'f')",
    "INSERT INTO item (id, name) VALUES (80, 'g'), (NULL, 'h')",
    "INSERT INTO item (name) SELECT CONCAT(name, '!') FROM item WHERE id < 4 ORDER BY id",
    "INSERT INTO item (name) SELECT name FROM item WHERE id = 0",
    "INSERT INTO item (name) VALUES ('i') RETURNING id, name",
    "INSERT INTO item (name) VALUES ('a') ON DUPLICATE KEY UPDATE n = n + 1",
    "INSERT INTO item (name) VALUES ('j') ON DUPLICATE KEY UPDATE n = n + 1",
    "INSERT INTO item (name) VALUES ('a') ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), n = 9",
    "INSERT INTO item (name) VALUES ('a'), ('k') ON DUPLICATE KEY UPDATE n = n + 1",
    "INSERT IGNORE INTO item (name) VALUES ('a'), ('l')",
    "INSERT IGNORE INTO item (name) VALUES ('a')",
    "INSERT INTO item (name) VALUES ('a')",
    "REPLACE INTO item (name) VALUES ('a')",
    "REPLACE INTO item (id, name) VALUES (1, 'first')",
    "INSERT INTO logged (name) VALUES ('a'), ('b')",
    "INSERT INTO number VALUES (1)",
    # Counts of rows.
    "UPDATE item SET n = 5 WHERE id < 5",
    "UPDATE item SET n = 5 WHERE id < 5",
    "SELECT SQL_CALC_FOUND_ROWS id FROM item ORDER BY id LIMIT 2",
    "DELETE FROM item WHERE id = 1",
    "DELETE FROM item WHERE id = 2 RETURNING name",
    "DELETE item, line FROM item LEFT JOIN line ON item.id = line.item_id WHERE item.id < 4",
    # Warnings.
    "INSERT IGNORE INTO notes (words) VALUES ('too long')",
    "UPDATE IGNORE notes SET words = 'too long'",
    "CALL adds('m', @id)",
    "SELECT @id",
    "TRUNCATE number",
    "INSERT INTO notes (words) VALUES ('z')",
    "INSERT INTO item (name) VALUES ('a') ON DUPLICATE KEY UPDATE n = n",
    "INSERT INTO item (name) VALUES ('a') ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)",
]
AFTER = ["SHOW WARNINGS", "SELECT ROW_COUNT()", "SELECT FOUND_ROWS()", "SELECT LAST_INSERT_ID()"]
MANY = "INSERT INTO item (name) VALUES (%s)"


async def value(answer):
    return await answer if inspect.isawaitable(answer) else answer


async def answer_of(connection, statement, values=None):
    cursor = await value(connection.cursor())
    answer = [statement]
    try:
        if values is None:
            answer.append(await value(cursor.execute(statement)))
        else:
            answer.append(await value(cursor.executemany(statement, values)))
        while True:
            answer.append(cursor.rowcount)
            if cursor.description:
                answer.append(tuple(await value(cursor.fetchall())))
            else:
                answer += [cursor.lastrowid, connection.insert_id()]
            if not await value(cursor.nextset()):
                break
    except Exception as error:
        answer.append(repr(error))
    await value(cursor.close())
    return answer


async def answers(driver, url, flag):
    place = make_url(url)
    words = dict(host=place.host, port=place.port, user=place.username)
    words["unix_socket"] = place.query.get("unix_socket")
    words = dict((key, value) for key, value in words.items() if value is not None)
    words["db"] = place.database
    words["password"] = place.password or ""
    connection = importlib.import_module(driver).connect(client_flag=flag, **words)
    connection = await value(connection)
    await value(connection.autocommit(True))
    for number, statement in enumerate(STATEMENTS):
        yield await answer_of(connection, statement)
        # One question after each, because the next one would change its answer. Some do so, too.
        if "LAST_INSERT_ID" not in statement.upper() and "CALL" not in statement:
            yield await answer_of(connection, AFTER[number % len(AFTER)])
        yield await answer_of(connection, "SELECT LAST_INSERT_ID()")
    for after in AFTER:
        yield await answer_of(connection, "UPDATE item SET n = n + 1 WHERE id < 70")
        yield await answer_of(connection, after)
    yield await answer_of(connection, MANY, [("n",), ("o",), ("p",)])
    yield await answer_of(connection, MANY + " ON DUPLICATE KEY UPDATE n = 7", [("n",), ("q",)])
    yield await answer_of(connection, "UPDATE item SET n = 8 WHERE name = %s", [("n",), ("o",)])
    many = "UPDATE number SET id = LAST_INSERT_ID(id + %s)"
    yield await answer_of(connection, "INSERT INTO number VALUES (1)")
    yield await answer_of(connection, many, [(1,), (2,)])
    await value(connection.close())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("driver, flag", DRIVERS)
@pytest.mark.parametrize("isolation", ["clone", pytest.param("", id="own")])
async def test_answers(arena, driver, flag, isolation):
    lines = [line async for line in answers(driver, arena.url, flag)]
    if isolation:
        PLAIN[driver, flag] = lines
        return
    others = PLAIN[driver, flag]
    assert len(lines) == len(others)
    for plain, line in zip(others, lines):
        assert line == plain
"""
MARK = """
import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "clone" in item.name:
            item.add_marker(pytest.mark.arena(isolation="clone"))
"""


@pytest.mark.slow
def test_answers(server: StoryMySQLServer, tmp_path: Path) -> None:
    """With each driver: ids, counts, warnings, and rows of procedures."""
    found_rows = 2  # count the rows that an UPDATE has found
    drivers = [("pymysql", 0), ("pymysql", found_rows), ("aiomysql", 0), ("asyncmy", found_rows)]
    if find_spec("MySQLdb") is not None:
        drivers.append(("MySQLdb", 0))
    story = STORY.format(drivers=drivers)
    example = shop(server, tmp_path).change("pytest.ini", "app:Base", "schema.sql")
    example = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    example = example.with_paths({"schema.sql": SCHEMA, "conftest.py": MARK})
    run = example.with_files(test_story=story).run("-q", "--arena-isolation=undo")
    run.expect(passed=2 * len(drivers))
