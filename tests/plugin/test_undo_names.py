"""Apps whose indexes call functions that only their own sessions answer as they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import PrivateServer, on_postgresql, private_server
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example

SERVER = URL.render_as_string(hide_password=False)

SCHEMA = """
CREATE SCHEMA extensions;
CREATE FUNCTION extensions.unaccent(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = PATH', current_database()); END $$;
SET search_path = public, extensions;
CREATE TABLE dancers (id serial PRIMARY KEY, name text NOT NULL);
CREATE FUNCTION f_unaccent(text) RETURNS text IMMUTABLE BODY;
CREATE INDEX dancers_by_name ON dancers (f_unaccent(name));
INSERT INTO dancers (name) VALUES ('Sand');
"""
BODIES = {
    "sql": "LANGUAGE sql AS 'SELECT unaccent($1)'",
    "plpgsql": "LANGUAGE plpgsql STRICT AS 'BEGIN RETURN unaccent($1); END'",
}
TESTS = """
import pytest
from sqlalchemy import text
from app import Dancer


LEFT = {"DELETE FROM dancers": 0, "ALTER TABLE dancers ADD more int": 3}


@pytest.fixture(scope="module")
def wide(arena):
    with arena.test_client() as client:
        assert client.post("/dancers/Wide").status_code == 201


@pytest.mark.parametrize("turn", range(2))
@pytest.mark.parametrize("work", LEFT)
async def test_each(client, arena, wide, db_session, work, turn):
    assert arena.isolation == EXPECTED
    assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
    assert (await client.post("/dancers/Dune")).status_code == 201
    await db_session.execute(text(work))
    await db_session.commit()
    assert await db_session.scalar(text("SELECT count(*) FROM dancers")) == LEFT[work]
    await db_session.commit()
    assert "dancers" in arena.changes().tables
"""
OF_ROLE = """DO $$ BEGIN EXECUTE format('ALTER ROLE me IN DATABASE %I SET search_path = '
    '"$user", public, extensions', current_database()); END $$;"""
ORDINARY, LED = (
    '/shop"))',
    '/shop"), connect_args={"server_settings": {"search_path": "public, extensions"}})',
)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here."""
    with private_server() as found:
        yield found


def project(example: Example, body: str, path: str, expected: str) -> Example:
    """The example's app with such an index."""
    schema = SCHEMA.replace("BODY", BODIES[body]).replace("PATH", path)
    app = on_postgresql(example, test_it=TESTS.replace("EXPECTED", repr(expected)))
    options = "arena_schema = app:Base\narena_seed = seed:seed", "arena_schema = schema.sql"
    return app.with_paths({"schema.sql": schema}).change("pytest.ini", *options)


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("isolation", ["undo", "clone"])
def test_the_databases_path_leads_there_pitfall_056(
    example: Example, server: PrivateServer, isolation: str, body: str
) -> None:
    """Rows of a wider fixture come back, in place and into another database."""
    app = project(example, body, "public, extensions", isolation)
    run = app.run(f"--arena-isolation={isolation}", env=server.env).expect(passed=4)
    run.never_says("isolated by clone")
    server.check_clean(run.output)


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
def test_only_the_apps_engine_leads_there_pitfall_056(
    example: Example, server: PrivateServer, body: str
) -> None:
    """No journal could take these rows back: that is known before the first test."""
    app = project(example, body, "public", "clone").change("app.py", ORDINARY, LED)
    # Nor can arena itself read a table whose index calls a function of SQL's.
    told = '    assert "dancers" in arena.changes().tables\n'
    app = app.change("test_it.py", told, "" if body == "sql" else told)
    run = app.run(env=server.env).expect(passed=4)
    run.says("tests are isolated by clone, since public.f_unaccent, called by an index")
    assert run.output.count("isolated by clone") == 1
    server.check_clean(run.output)


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
def test_the_roles_path_leads_there_pitfall_056(example: Example, body: str) -> None:
    """The app works as a role of its own, and arena's connections find what that finds."""
    app = project(example, body, "public", "undo")
    app = app.change("schema.sql", "\nSET search_path", f"\n{OF_ROLE}\nSET search_path")
    with private_server() as server:
        run = app.run(env=server.env).expect(passed=4)
        run.never_says("isolated by clone", "not verified")
        server.check_clean(run.output)


BY_DAY = """
SET TimeZone = 'Asia/Tokyo';
CREATE TABLE dancers (id serial PRIMARY KEY, name text NOT NULL, at timestamptz);
CREATE FUNCTION day_of(timestamptz) RETURNS date LANGUAGE sql IMMUTABLE AS 'SELECT $1::date';
CREATE INDEX dancers_by_day ON dancers (day_of(at));
INSERT INTO dancers (name, at) VALUES ('Sand', '2026-01-01 23:30+00');
"""
FINDS_BY_DAY = """
import pytest
from sqlalchemy import text
from app import engine


@pytest.mark.parametrize("turn", range(2))
async def test_each(arena, turn):
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL TimeZone = 'Asia/Tokyo'"))
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        by_day = text("SELECT name FROM dancers WHERE day_of(at) = '2026-01-02'")
        assert (await connection.scalars(by_day)).all() == ["Sand"]
        await connection.execute(text("DELETE FROM dancers"))
    assert arena.isolation == "clone"
"""


@pytest.mark.slow
def test_an_index_by_the_sessions_time_zone_takes_clone(example: Example) -> None:
    """Put back by another session, the row would be in the index under another day."""
    app = on_postgresql(example, test_it=FINDS_BY_DAY).with_paths({"schema.sql": BY_DAY})
    options = "arena_schema = app:Base\narena_seed = seed:seed", "arena_schema = schema.sql"
    app = app.change("pytest.ini", *options)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\narena_database = {SERVER}")
    run = app.run().expect(passed=2)
    run.says(
        "tests are isolated by clone, since public.dancers_by_day stores values of the function "
        "public.day_of"
    )
