"""Stories of what MySQL and MariaDB can store: views, cascades, generated columns."""

from __future__ import annotations

__all__ = ["MORE_SEED", "STORED"]

MORE_SEED = """
    for statement in SERVER.split(";;"):
        session.execute(text(statement))


from sqlalchemy import text

SERVER = '''
CREATE TABLE moves (name VARCHAR(50), beats INT) ENGINE = InnoDB;;
INSERT INTO moves VALUES ('windmill', 1), ('windmill', 1), ('flare', NULL);;
CREATE TABLE tours (
    year INT NOT NULL, place VARCHAR(50) NOT NULL, label VARCHAR(80) AS (CONCAT(place, ' ', year)),
    bits BIT(4), seen TIMESTAMP NULL, share FLOAT, photo BLOB, PRIMARY KEY (year, place));;
INSERT INTO tours (year, place, bits, seen, share, photo)
    VALUES (1990, 'Hannover', b'1010', '2020-05-05 05:05:05', 0.1, x'00ff'),
           (0, '', NULL, NULL, -0.0, '');;
CREATE TABLE parents (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20));;
CREATE TABLE children (
    id INT AUTO_INCREMENT PRIMARY KEY, parent_id INT,
    FOREIGN KEY (parent_id) REFERENCES parents (id) ON DELETE CASCADE);;
INSERT INTO parents VALUES (1, 'zero'), (5, 'five');;
UPDATE parents SET id = 0 WHERE id = 1;;
INSERT INTO children (parent_id) VALUES (0), (5);;
CREATE VIEW aloud AS SELECT name FROM moves;;
CREATE VIEW a_louder AS SELECT name FROM aloud WHERE name <> ''
'''
"""

STORED = """
import pytest
from hand import add, fixture, lacks, living, run, standing
# runner

WRITES = [
    "TRUNCATE scores",
    "INSERT INTO tours (year, place) VALUES (2020, 'Rome')",
    "UPDATE tours SET year = year + 10",
    "DELETE FROM tours WHERE year > 1950",
    "INSERT INTO moves VALUES ('windmill', 1)",
    "DELETE FROM moves LIMIT 1",
    "REPLACE INTO parents VALUES (5, 'six')",
    "DELETE FROM parents WHERE id = 5",
    "INSERT INTO dancers (id, name, style, version) VALUES (1, 'x', '', 1) "
    "ON DUPLICATE KEY UPDATE style = 'both'",
    "INSERT INTO parents (name) VALUES ('gone'); DELETE FROM parents WHERE name = 'gone'",
]
CHANGES = [
    "ALTER TABLE parents AUTO_INCREMENT = 90",
    "INSERT INTO moves VALUES ('late', 1); ALTER TABLE moves ADD COLUMN late int DEFAULT 5",
    "CREATE FUNCTION twice() RETURNS INT NO SQL RETURN 2",
    "DROP VIEW a_louder; CREATE OR REPLACE VIEW aloud AS SELECT 1 AS name",
]


@pytest.mark.parametrize("write", WRITES)
async def test_p2_what_a_server_stores(backend, write):
    await run(*write.split("; "))


@lacks("ddl")
@pytest.mark.parametrize("change", CHANGES)
async def test_p2_what_a_server_is_told_of_its_schema(backend, change):
    await run(*change.split("; "))


@fixture("module")
async def tour(arena, backend):
    await add("wide tour")
    await run("INSERT INTO tours (year, place) VALUES (2030, 'Oslo')",
              "DELETE FROM moves WHERE beats IS NULL")
    with living("tour", arena) as name:
        yield name


@fixture("module")
async def stage(arena, backend):
    await run("CREATE TABLE stages (place VARCHAR(50))", "INSERT INTO stages VALUES ('here')")
    await add("wide stage")
    with living("stage", arena) as name:
        yield name


@pytest.mark.parametrize("write", ["DELETE FROM moves", "UPDATE tours SET year = year + 1",
                                   "SELECT 1"])
async def test_p6_on_a_wide_fixtures_rows(tour, write):
    await run(write)
    await add("mine")


@lacks("ddl")
@pytest.mark.parametrize("turn", [1, 2])
async def test_p6_a_schema_changed_on_a_wide_fixtures_rows(tour, turn):
    await run("ALTER TABLE tours ADD COLUMN late int", "DELETE FROM moves")
    assert "wide tour" in standing()


@lacks("ddl")
@pytest.mark.parametrize("turn", [1, 2])
async def test_p6_on_a_wide_fixtures_schema(stage, turn):
    await run("INSERT INTO stages VALUES ('there')", "DELETE FROM stages WHERE place = 'here'")
    await add("mine")


@lacks("ddl")
async def test_p6_both(tour, stage):
    await run("DROP TABLE stages", "DELETE FROM tours")
    assert {"wide tour", "wide stage"} <= {*standing()}
"""
