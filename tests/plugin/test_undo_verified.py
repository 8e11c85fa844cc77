"""`--arena-verify` reads the whole database after each test: what undo forgets is seen there."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.journal.random_history import Schema
from tests.journal.test_capture_rows import MERGED, MERGES
from tests.journal.world import database, knows_xml
from tests.plugin.private_server import on_postgresql, private_server
from tests.plugin.test_undo_rights import Roles
from tests.servers.postgresql import URL, connect, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.example import Example

pytestmark = pytest.mark.slow
SERVER = URL.render_as_string(hide_password=False)
TESTS_OF_A_SEED = 40
# Statements that fail are part of it: some of an app's do.
TESTS = """
import json
from contextlib import suppress
from pathlib import Path
import pytest
from sqlalchemy.exc import DBAPIError
from app import engine

WIDE, *WORK = json.loads(Path(__file__).with_name("work.json").read_text())


async def do(statements):
    for statement in statements:
        with suppress(DBAPIError):
            async with engine.begin() as connection:
                await connection.exec_driver_sql("SET LOCAL TimeZone = 'Asia/Tokyo'")
                await connection.exec_driver_sql(statement)


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        for statement in WIDE:
            with suppress(DBAPIError), session.begin_nested():
                session.connection().exec_driver_sql(statement)
        session.commit()


@pytest.mark.parametrize("statements", WORK, ids=range(len(WORK)))
async def test_some_work(wide, statements):
    await do(statements)
"""
PARTITIONS = (
    "INSERT INTO {t} VALUES (4, 'eu', 'new'), (5, 'us', 'new')",
    "UPDATE {t} SET region = CASE region WHEN 'eu' THEN 'us' ELSE 'eu' END",
    "UPDATE {t}_eu SET a = a + 10",
    "WITH gone AS (DELETE FROM {t}_eu RETURNING *) INSERT INTO {t} SELECT a, 'us', b FROM gone",
    "DELETE FROM {t} WHERE region = 'us'",
    "TRUNCATE {t}_rest",
    *(
        f"MERGE INTO {{t}} t USING (VALUES (7), (1), (8), (2)) AS v (a) ON v.a = t.a {actions}"
        for actions in MERGES.values()
    ),
)
OBJECTS = """
CREATE MATERIALIZED VIEW names AS SELECT b FROM kept;
"""
OF_OBJECTS = (
    "INSERT INTO kept VALUES (9, 'eu', 'new'); REFRESH MATERIALIZED VIEW names",
    "CREATE PUBLICATION news",
    "CREATE PUBLICATION news FOR TABLE loose",
)
DAYS = """
SET TimeZone = 'Asia/Tokyo';
CREATE TABLE visits (id int PRIMARY KEY, at timestamptz);
CREATE FUNCTION day_of(timestamptz) RETURNS date LANGUAGE sql IMMUTABLE AS 'SELECT $1::date';
ALTER TABLE visits ADD day date GENERATED ALWAYS AS (day_of(at)) STORED;
INSERT INTO visits VALUES (1, '2026-01-01 23:30+00');
"""
OF_DAYS = ("UPDATE visits SET id = 2", "DELETE FROM visits", "TRUNCATE visits")


def project(example: Example, schema: str, work: Sequence[Sequence[str]]) -> Example:
    """An app on such a schema; what a wide fixture does comes first, then a test for each."""
    app = on_postgresql(example, test_it=TESTS)
    app = app.with_paths({"schema.sql": schema, "work.json": json.dumps(work)})
    return app.change(
        "pytest.ini",
        "arena_schema = app:Base\narena_seed = seed:seed",
        "arena_schema = schema.sql",
    )


def expect_nothing_left(app: Example, number: int, *words: str) -> None:
    """Each test leaves the database as it was, as the database itself says."""
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {SERVER}")
    app.run("--arena-verify", *words).expect(passed=number).says("verified ")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_histories(example: Example, seed: int) -> None:
    """Schemas and statements by chance, of which partitions and MERGE are a part."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeatable
    schema = Schema(chance, knows_xml=knows_xml())
    made = []
    with database() as name, connect(name) as connection:
        for statement in schema.statements:
            if "{role}" not in statement:
                with suppress(psycopg.Error):
                    connection.execute(statement.encode())
                    made.append(statement)
    work = [[schema.statement() for _ in range(4)] for _ in range(1 + TESTS_OF_A_SEED)]
    app = project(example, ";\n".join(made) + ";", work)
    expect_nothing_left(app, TESTS_OF_A_SEED, "--arena-isolation=undo")


def partitions_and_objects(example: Example) -> tuple[Example, int]:
    """Return a project, and how many tests it has."""
    if not rows("SELECT WHERE current_setting('server_version_num')::int >= 150000"):
        pytest.skip("MERGE came with PostgreSQL 15")
    work = [[statement.format(t=table)] for table in ("kept", "loose") for statement in PARTITIONS]
    work += [statement.split("; ") for statement in OF_OBJECTS]
    return project(example, MERGED + OBJECTS, [work[0], *work]), len(work)


def test_work_across_partitions(example: Example) -> None:
    """Each kind of statement that moves rows between them; the schema's objects."""
    app, number = partitions_and_objects(example)
    expect_nothing_left(app, number, "--arena-isolation=undo")


def test_work_across_partitions_by_a_role_without_event_triggers(example: Example) -> None:
    """The same, where a change of the schema is noticed by comparing catalogs."""
    app, number = partitions_and_objects(example)
    with private_server() as server:
        roles = Roles(example, server)
        roles.project = app
        run = roles.run(
            "replica", "undo", "--arena-verify", "--arena-isolation=undo", test_it=TESTS
        )
        run.expect(passed=number).says("verified ")


def test_values_that_depend_on_the_time_zone(example: Example) -> None:
    """Whatever isolation is taken, the stored value stays."""
    work = [[statement] for statement in OF_DAYS]
    app = project(example, DAYS, [["INSERT INTO visits VALUES (3, '2026-01-01 22:00+00')"], *work])
    expect_nothing_left(app, len(OF_DAYS))
