"""A test may rename or drop a column of a partitioned or inherited table, and write to it then."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import open_control
from tests.plugin.private_server import on_postgresql, private_server
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from tests.example import Example

SCHEMA = """
CREATE TABLE parts (id int, region text, amount int) PARTITION BY LIST (region);
CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
CREATE TABLE parts_us PARTITION OF parts FOR VALUES IN ('us');
INSERT INTO parts VALUES (1, 'eu', 1);
CREATE TABLE mixed (id int, region text, amount int) PARTITION BY LIST (region);
CREATE TABLE mixed_eu (amount int, id int, region text);
ALTER TABLE mixed ATTACH PARTITION mixed_eu FOR VALUES IN ('eu');
CREATE TABLE mixed_us PARTITION OF mixed FOR VALUES IN ('us');
CREATE TABLE texts (id int, page xml, title text);
INSERT INTO texts VALUES (1, NULL, 'a');
CREATE TABLE parent (id int, name text);
CREATE TABLE child (more text) INHERITS (parent);
INSERT INTO child VALUES (1, 'Sand', 'x');
"""
TESTS = """
import pytest
from app import engine
from sqlalchemy import text

WORK = {
    "renamed in partitions": "ALTER TABLE parts RENAME COLUMN amount TO quantity; "
    "INSERT INTO parts VALUES (2, 'eu', 5); UPDATE parts SET region = 'us'; TRUNCATE parts",
    "dropped in partitions": "ALTER TABLE parts DROP COLUMN amount; "
    "INSERT INTO parts VALUES (2, 'eu'); UPDATE parts SET region = 'us'; DELETE FROM parts",
    "renamed in partitions of another order": "ALTER TABLE mixed RENAME COLUMN amount TO quantity; "
    "INSERT INTO mixed VALUES (2, 'eu', 5); UPDATE mixed SET region = 'us'; TRUNCATE mixed",
    "dropped in partitions of another order": "ALTER TABLE mixed DROP COLUMN amount; "
    "INSERT INTO mixed VALUES (2, 'eu'); UPDATE mixed SET region = 'us'; DELETE FROM mixed",
    "renamed beside xml": "ALTER TABLE texts RENAME COLUMN title TO name; "
    "INSERT INTO texts VALUES (2, NULL, 'b'); UPDATE texts SET name = 'q'; DELETE FROM texts",
    "dropped beside xml": "ALTER TABLE texts DROP COLUMN page; "
    "INSERT INTO texts VALUES (2, 'b'); UPDATE texts SET title = 'q'; TRUNCATE texts",
    "renamed in a parent": "ALTER TABLE parent RENAME COLUMN name TO called; "
    "INSERT INTO parent VALUES (2, 'Dune'); UPDATE parent SET called = 'q'; DELETE FROM parent",
    "dropped in a child": "ALTER TABLE child DROP COLUMN more; "
    "INSERT INTO child VALUES (2, 'Dune'); UPDATE parent SET id = id + 5",
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
async def test_it(work, arena):
    assert arena.isolation == "undo"
    async with engine.begin() as connection:
        rows = await connection.execute(text("SELECT * FROM parts"))
        assert rows.all() == [(1, "eu", 1)]
        rows = await connection.execute(text("SELECT name, more FROM child"))
        assert rows.all() == [("Sand", "x")]
        for statement in work.split("; "):
            await connection.execute(text(statement))
    assert "the schema" in arena.changes().tables
"""


def _project(example: Example) -> Example:
    project = on_postgresql(example, test_it=TESTS).with_paths({"schema.sql": SCHEMA})
    options = "arena_schema = app:Base\narena_seed = seed:seed\n"
    return project.change("pytest.ini", options, "arena_schema = schema.sql\n")


@pytest.mark.slow
def test_the_rows_of_renamed_columns_are_journaled(example: Example) -> None:
    """As for a plain table: the database is replaced after the test."""
    run = _project(example).run(env={"ARENA_DATABASE": URL.render_as_string(hide_password=False)})
    run.expect(passed=8).says("its database was replaced: ALTER TABLE public.parts")


@pytest.mark.slow
def test_they_are_journaled_without_event_triggers(example: Example) -> None:
    """Only a superuser may create them."""
    with private_server() as server:
        project = _project(example)
        project.run("-k", "child", env=server.env).expect(passed=1)
        with closing(open_control(server.address())) as control:
            control.run("CREATE ROLE few LOGIN CREATEDB")
            control.run("GRANT SET ON PARAMETER session_replication_role TO few")
        url = server.url.replace("postgres@", "few@")
        run = project.run(env={**server.env, "ARENA_DATABASE": url}).expect(passed=8)
        run.says("isolation undo", "its database was replaced")
