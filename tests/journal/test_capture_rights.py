"""What an app's role may write is journaled; the journal it can neither read nor change."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.journal._capture import install
from tests.journal.world import World, database, journaled
from tests.servers.postgresql import address, rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator

APP, OWNER = "arena_rights_app", "arena_rights_owner"
SCHEMA = f"""
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC;
CREATE TABLE notes (id int PRIMARY KEY, body text, secret text DEFAULT 's');
CREATE TABLE gone (a int);
CREATE TABLE hidden (a int);
CREATE TABLE children (id int REFERENCES notes ON DELETE CASCADE);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
ALTER TABLE hidden FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON hidden USING (a > 0);
INSERT INTO notes VALUES (1, 'x'), (2, 'y');
INSERT INTO gone VALUES (1), (2);
INSERT INTO hidden VALUES (1), (-1);
INSERT INTO children VALUES (1), (1);
GRANT INSERT, DELETE, SELECT (id), UPDATE (body) ON notes TO {APP};
GRANT TRUNCATE ON gone, hidden TO {APP};
GRANT SELECT, INSERT, UPDATE, DELETE ON hidden TO {APP};
CREATE SCHEMA theirs AUTHORIZATION {APP};
"""


@pytest.fixture(scope="module")
def database_of_an_app() -> Iterator[World]:
    """Tables that are not the app's, and the few rights that it has."""
    run(f"DROP ROLE IF EXISTS {APP}", f"CREATE ROLE {APP}")
    try:
        with journaled(SCHEMA) as world:
            yield world
    finally:
        run(f"DROP ROLE {APP}")


@pytest.fixture
def world(database_of_an_app: World) -> World:
    """It, with an empty journal."""
    database_of_an_app.empty()
    return database_of_an_app


@pytest.mark.parametrize(
    "work",
    [
        "INSERT INTO notes VALUES (3, 'new', 'told')",
        "UPDATE notes SET body = 'changed' WHERE id = 1",
        "DELETE FROM notes WHERE id = 1",
        "TRUNCATE gone",
        "UPDATE hidden SET a = a + 1",
        "TRUNCATE hidden",
        "INSERT INTO notes (id) VALUES (1) ON CONFLICT DO NOTHING; DELETE FROM notes",
    ],
)
def test_what_a_role_may_do_is_journaled_pitfall_055(world: World, work: str) -> None:
    """Also of columns and rows that it may not read."""
    before = world.standing()
    with world.rolled_back(f"SET LOCAL ROLE {APP}; {work}; RESET ROLE"):
        assert world.written() == world.changed(before) != {}


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM {s}.j",
        "DELETE FROM {s}.j",
        "UPDATE {s}.j SET op = 1",
        "TRUNCATE {s}.j",
        "SELECT * FROM {s}.jold",
        "INSERT INTO {s}.jold VALUES (0, 1, 1, '')",
        "DELETE FROM {s}.ddl",
        "SELECT * FROM {s}.tables",
        "CREATE TABLE {s}.mine (a int)",
        'DROP TRIGGER "!arena_i" ON notes',
        'ALTER TABLE notes DISABLE TRIGGER "!arena_i"',
        "SELECT {s}.leave(1)",
    ],
)
def test_the_journal_is_not_the_apps_pitfall_055(world: World, attack: str) -> None:
    """All that it can do is to add to it."""
    with (
        world.another(f"SET ROLE {APP}") as app,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        app.execute(attack.format(s=world.schema))


def test_names_of_an_apps_own_do_not_get_into_the_triggers_pitfall_056(world: World) -> None:
    """Functions, operators and types of the same names come first in its search_path."""
    with world.another(
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.current_setting(text, bool) RETURNS text LANGUAGE sql AS "
        "$$ SELECT '1' $$",
        "CREATE FUNCTION evil.pg_current_xact_id() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
        "CREATE FUNCTION evil.equal(text, text) RETURNS bool LANGUAGE sql AS $$ SELECT true $$",
        "CREATE OPERATOR evil.= (FUNCTION = evil.equal, LEFTARG = text, RIGHTARG = text)",
        "CREATE DOMAIN evil.text AS pg_catalog.text CHECK (false)",
        "CREATE TABLE evil.j (rel oid)",
        "SET search_path = evil, public, pg_catalog",
    ) as app:
        world.empty()
        app.execute("INSERT INTO hidden VALUES (7)")
        app.execute("TRUNCATE gone")
        app.execute("CREATE TABLE more (a int)")
        assert set(world.written()) >= {('"public"."hidden"', "(7)")}
        assert "CREATE TABLE evil.more" in world.marks()
        app.execute("RESET search_path; DROP SCHEMA evil CASCADE")


@contextmanager
def database_of(*rights: str) -> Iterator[str]:
    """A database that a role without many rights owns; the right to one setting comes later."""
    run(f"DROP ROLE IF EXISTS {OWNER}", f"CREATE ROLE {OWNER} LOGIN {' '.join(rights)}")
    try:
        with database() as name:
            run(f"ALTER DATABASE {name} OWNER TO {OWNER}")
            run(f"SET ROLE {OWNER}; CREATE SCHEMA a; CREATE TABLE a.notes (a int)", database=name)
            yield name
    finally:
        run(f"DROP OWNED BY {OWNER}; DROP ROLE {OWNER}")


REPLICA = f"GRANT SET ON PARAMETER session_replication_role TO {OWNER}"
NEW_ENOUGH = "SELECT WHERE current_setting('server_version_num')::int >= 150000"


@pytest.mark.slow
def test_a_role_with_fewer_rights_has_it_in_a_plain_schema() -> None:
    """Without event triggers; whoever asks what has changed must look for himself."""
    if not rows(NEW_ENOUGH):
        pytest.skip("the right to one setting can be granted since PostgreSQL 15")
    with database_of("BYPASSRLS") as name:
        run(REPLICA)
        for turn in ("new", "anew"):
            assert install(replace(address(name), user=OWNER)) == []
            world = World(name)
            assert world.schema == "arena_journal"
            before = world.standing()
            world.run("INSERT INTO a.notes VALUES (1)", "TRUNCATE a.notes")
            world.run(f"INSERT INTO a.notes VALUES ({len(turn)})", f"CREATE TABLE a.{turn} (b int)")
            assert world.written() == world.changed(before) != {}
            assert world.marks() == []
            assert world.rows("SELECT evtname FROM pg_event_trigger") == []
            world.close()
            run(f"ALTER TABLE a.{turn} OWNER TO {OWNER}", database=name)


def test_rows_that_the_role_may_not_see_are_fatal() -> None:
    """They could not be put back; and before that, a right is missing."""
    if not rows(NEW_ENOUGH):
        pytest.skip("the right to one setting can be granted since PostgreSQL 15")
    with database_of() as name:
        hidden = "ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        run(f"ALTER TABLE a.notes {hidden}", database=name)
        own = replace(address(name), user=OWNER)
        with pytest.raises(ControlFailure):
            install(own)
        run(REPLICA)
        (found,) = install(own)
        assert found.is_fatal
        assert "a.notes has row-level security" in found.reason
        assert "BYPASSRLS" in found.reason
