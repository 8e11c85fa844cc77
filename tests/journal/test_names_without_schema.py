"""Functions behind indexes, checks and generated columns that name things without their schema.

As `f_unaccent` does it, which half of the web recommends: it calls `unaccent` by its bare name.
"""

from __future__ import annotations

from contextlib import closing

import pytest

from pytest_arena._postgresql._content import content
from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._rows import read_rows
from pytest_arena._postgresql.journal._capture import install
from pytest_arena._product._read_rows import compared
from pytest_arena._values import TableRows
from tests.journal.world import DONE, database, journaled, schema_of_journal
from tests.servers.postgresql import address, rows, run

BODIES = {
    "sql": "LANGUAGE sql IMMUTABLE AS 'SELECT bare($1)'",
    "plpgsql": "LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN RETURN bare($1); END'",
    "parallel": "LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS 'SELECT bare($1) LIMIT 1'",
}
# PostgreSQL unfolds a function in SQL; it calls one in PL/pgSQL, on every version.
EACH_BODY = pytest.mark.parametrize(
    "body",
    [
        pytest.param("sql", marks=pytest.mark.slow),
        "plpgsql",
        pytest.param("parallel", marks=pytest.mark.slow),
    ],
)
# `bare` is the one that is found without its schema, as `unaccent` is.
BARE = (
    "CREATE SCHEMA IF NOT EXISTS {where}",
    "CREATE FUNCTION {where}.bare(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'",
)
AT = (
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = {}', current_database()); "
    "END $$"
)
USES = {
    "an index": "CREATE TABLE people (id serial PRIMARY KEY, name text); "
    "CREATE INDEX i ON people (called(name))",
    "a predicate": "CREATE TABLE people (id serial PRIMARY KEY, name text); "
    "CREATE UNIQUE INDEX i ON people (id) WHERE called(name) <> 'none'",
    "a generated column": "CREATE TABLE people (id serial PRIMARY KEY, name text, "
    "plain text GENERATED ALWAYS AS (called(name)) STORED)",
    "a check": "CREATE TABLE people (id serial PRIMARY KEY, name text CHECK (called(name) <> 'x'))",
    "a domain": "CREATE DOMAIN called_name AS text CHECK (called(VALUE) <> 'x'); "
    "CREATE TABLE people (id serial PRIMARY KEY, name called_name)",
    "no key": "CREATE TABLE people (id serial, name text); CREATE INDEX i ON people (called(name))",
    "a trigger": "CREATE TABLE people (id serial PRIMARY KEY, name text); "
    "CREATE TABLE log (name text); "
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN INSERT INTO log VALUES (called(NEW.name)); RETURN NEW; END $$; "
    "CREATE TRIGGER t AFTER INSERT OR UPDATE ON people FOR EACH ROW EXECUTE FUNCTION note()",
    "a partition": "CREATE TABLE people (id serial, name text) PARTITION BY LIST (called(name)); "
    "CREATE TABLE sand PARTITION OF people FOR VALUES IN ('sand'); "
    "CREATE TABLE rest PARTITION OF people DEFAULT",
}
STANDS = "INSERT INTO people (name) VALUES ('Sand'), ('Dune')"
WORK = (
    "INSERT INTO people (name) VALUES ('New')",
    "UPDATE people SET name = 'Other' WHERE id = 1",
    "DELETE FROM people WHERE id = 2",
    "TRUNCATE people",
    "INSERT INTO people (name) VALUES ('Newer')",
)
# What a journal cannot call: the path that leads to `bare` is the app's own alone.
ELSEWHERE = {use: used for use, used in USES.items() if use != "a trigger"} | {
    "names": "CREATE TABLE people (id serial, name text, kind regclass DEFAULT 'people'); "
    "CREATE INDEX i ON people (called(name))"
}
CALLED = "CREATE FUNCTION called(text) RETURNS text {}"
Schema = tuple[str, ...]


def may_be_indexed(body: str) -> bool:
    """Whether the app itself can make an index with it.

    From PostgreSQL 17 on an index is made under a path of the server's, on which an SQL function
    is unfolded at once: its release notes, "safe search_path during maintenance operations".
    """
    newer = rows("SELECT WHERE current_setting('server_version_num')::int >= 170000")
    return body == "plpgsql" or not newer


def schema(used: str, body: str, where: str) -> list[str]:
    """Write one; where it is not `public`, the database's own path leads there."""
    path = f"public, {where}"
    bare = (part.format(where=where) for part in BARE)
    called = f"CREATE FUNCTION called(text) RETURNS text {BODIES[body]}"
    return [*bare, AT.format(path), f"SET search_path = {path}", called, used, STANDS]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["extensions", pytest.param("public", marks=pytest.mark.slow)])
@EACH_BODY
@pytest.mark.parametrize("use", USES)
def test_they_are_called_as_the_app_calls_them(use: str, body: str, where: str) -> None:
    """When rows are taken back and told, when a journal is made, when a table is emptied."""
    index = ["CREATE INDEX j ON new (called(name))"] if may_be_indexed(body) else []
    if "INDEX" in USES[use] and not index:
        pytest.skip("this PostgreSQL makes no such index")
    with journaled(*schema(USES[use], body, where)) as world:
        before = world.state()
        for _ in range(2):
            world.run(*WORK)
            told = world.journal.rows_changed(level=1, is_top=True)
            assert [table.columns[:2] for table in told if table.table == "people"] == [
                ("id", "name")
            ]
            assert world.journal.leave(1) == DONE
            assert world.state() == before
        with world.another("TRUNCATE people"):  # a session that has not looked at its index yet
            assert world.journal.leave(1) == DONE
        world.run("UPDATE people SET name = 'Wide' WHERE id = 1")
        world.journal.enter(1)
        world.run(
            "CREATE TABLE new (name text)",
            *index,
            "INSERT INTO new VALUES ('a')",
        )
        told = world.journal.rows_changed(level=1, is_top=True)
        assert TableRows("new", ("name",), (), (), (("a",),)) in told
        assert world.journal.leave(1).marks
        assert not any("could not be locked" in mark for mark in world.marks())


@EACH_BODY
@pytest.mark.parametrize("use", ELSEWHERE)
def test_what_cannot_be_called_is_known_when_the_journal_is_made(use: str, body: str) -> None:
    """Where a session's own path alone leads there, and where images need to be without any."""
    if "INDEX" in ELSEWHERE[use] and not may_be_indexed(body):
        pytest.skip("this PostgreSQL makes no such index")
    has_names = use == "names"
    with database(*schema(ELSEWHERE[use], body, "public" if has_names else "extensions")) as name:
        if not has_names:
            run(f"ALTER DATABASE {name} RESET ALL")
        [gap] = install(address(name))
        assert gap.is_fatal
        assert gap.reason.startswith("public.called, called by an index"), gap
        assert "bare(text) does not exist" in gap.reason
        assert schema_of_journal(name) == ""


# What would be taken for PostgreSQL's own, by a better match or by an earlier place in the path.
EVIL = (
    "CREATE SCHEMA evil",
    *(
        f"CREATE AGGREGATE evil.{name}({kind}) (SFUNC = {way}, STYPE = {kind})"
        for name, kind, way in (("array_agg", "int8", "int8larger"), ("sum", "int8", "int8larger"))
    ),
    "CREATE FUNCTION evil.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION evil.cardinality(text[]) RETURNS int LANGUAGE sql AS 'SELECT 7'",
    "CREATE FUNCTION evil.generate_series(int, int8) RETURNS SETOF int8 LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION evil.hashtextextended(text, int) RETURNS int8 LANGUAGE sql AS 'SELECT 0'",
    "CREATE FUNCTION evil.equal(varchar, varchar) RETURNS bool LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = varchar, RIGHTARG = varchar)",
    "CREATE DOMAIN evil.text AS pg_catalog.text CHECK (false)",
    AT.format("evil, public, pg_catalog"),
)


def test_names_of_an_apps_own_do_not_get_into_the_journal_pitfall_056() -> None:
    """The journal's functions have the app's path while they take rows back."""
    tables = (
        "CREATE TABLE people (name varchar PRIMARY KEY); INSERT INTO people VALUES ('a'), ('b')",
        "CREATE TABLE pairs (a varchar, b varchar, PRIMARY KEY (a, b))",
        "INSERT INTO pairs VALUES ('a', 'b')",
        "CREATE TABLE bare (name varchar NOT NULL); INSERT INTO bare VALUES ('a'), ('a'), ('b')",
    )
    with journaled(*tables, *EVIL) as world:
        world.witness.execute("SET search_path = public")
        before = world.state()
        for table in ("people", "pairs", "bare"):
            world.run(f"DELETE FROM {table}")
        world.run("INSERT INTO people VALUES ('c'), ('b')", "INSERT INTO bare VALUES ('c'), ('c')")
        assert world.journal.leave(1) == DONE
        assert world.state() == before
        with closing(open_control(address(world.name))) as control:
            rows, digests = read_rows(control), content(control)
            world.witness.execute("DELETE FROM bare WHERE name = 'b'")
            world.witness.execute("INSERT INTO bare VALUES ('z')")
            [told] = compared(rows, read_rows(control, unlike=rows))
            assert (told.removed, told.added) == ((("b",),), (("z",),))
            assert content(control)["table bare"] != digests["table bare"]
