"""What an app's role may write is journaled; the journal it can neither read nor change."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from pytest_arena._dialects._postgresql._control import Failed, open_control
from pytest_arena._dialects._postgresql_journal._capture import fitting_schema, install
from pytest_arena._values import Address
from tests.journal.capture_world import Journaled, database, journaled
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
def database_of_an_app() -> Iterator[Journaled]:
    """Tables that are not the app's, and the few rights that it has."""
    run(f"DROP ROLE IF EXISTS {APP}", f"CREATE ROLE {APP}")
    try:
        with journaled(SCHEMA) as world:
            yield world
    finally:
        run(f"DROP ROLE {APP}")


@pytest.fixture
def world(database_of_an_app: Journaled) -> Journaled:
    """It, with an empty journal."""
    database_of_an_app.forget()
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
def test_pitfall_055_what_a_role_may_do_is_journaled(world: Journaled, work: str) -> None:
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
def test_pitfall_055_the_journal_is_not_the_apps(world: Journaled, attack: str) -> None:
    """All that it can do is to add to it."""
    with (
        world.app(f"SET ROLE {APP}") as app,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        app.execute(attack.format(s=world.schema))


def test_pitfall_056_names_of_an_apps_own_do_not_get_into_the_triggers(world: Journaled) -> None:
    """Functions, operators and types of the same names come first in its search_path."""
    with world.app(
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
        world.forget()
        app.execute("INSERT INTO hidden VALUES (7)")
        app.execute("TRUNCATE gone")
        app.execute("CREATE TABLE more (a int)")
        assert set(world.written()) >= {('"public"."hidden"', "(7)")}
        assert "CREATE TABLE evil.more" in world.marks()
        app.execute("RESET search_path; DROP SCHEMA evil CASCADE")


def test_a_role_with_fewer_rights_has_it_in_a_plain_schema() -> None:
    """Without event triggers; whoever asks what has changed must look for himself."""
    [(version,)] = rows("SELECT current_setting('server_version_num')::int")
    if not isinstance(version, int) or version < 150000:
        pytest.skip("the right to one setting can be granted since PostgreSQL 15")
    run(
        f"DROP ROLE IF EXISTS {OWNER}",
        f"CREATE ROLE {OWNER} LOGIN BYPASSRLS",
        f"GRANT SET ON PARAMETER session_replication_role TO {OWNER}",
    )
    try:
        with database() as name:
            run(f"ALTER DATABASE {name} OWNER TO {OWNER}")
            at = address(name)
            own = Address("postgresql", at.host, at.port, OWNER, name, "")
            with closing(open_control(own)) as control:
                control.run("CREATE SCHEMA a; CREATE TABLE a.notes (a int)")
                assert install(control, fitting_schema(control)) == []
                world = Journaled(name, control)
                assert world.schema == "arena_journal"
                control.run("INSERT INTO a.notes VALUES (1); TRUNCATE a.notes")
                control.run("INSERT INTO a.notes VALUES (2); CREATE TABLE a.more (b int)")
                assert world.written() == {('"a"."notes"', "(2)"): 1}
                assert world.marks() == []
                assert control.rows("SELECT evtname FROM pg_event_trigger") == []
    finally:
        run(
            f"REVOKE SET ON PARAMETER session_replication_role FROM {OWNER}",
            f"DROP ROLE {OWNER}",
        )


def test_rows_that_the_role_may_not_see_are_fatal() -> None:
    """They could not be put back; and before that, a right is missing."""
    run(f"DROP ROLE IF EXISTS {OWNER}", f"CREATE ROLE {OWNER} LOGIN")
    try:
        with database() as name:
            run(f"ALTER DATABASE {name} OWNER TO {OWNER}")
            at = address(name)
            own = Address("postgresql", at.host, at.port, OWNER, name, "")
            with closing(open_control(own)) as control:
                control.run(
                    "CREATE SCHEMA a; CREATE TABLE a.notes (a int); "
                    "ALTER TABLE a.notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
                )
                with pytest.raises(Failed):
                    install(control, "arena_journal")
                run(f"GRANT SET ON PARAMETER session_replication_role TO {OWNER}")
                (found,) = install(control, "arena_journal")
                assert found.is_fatal
                assert "a.notes has row-level security" in found.reason
                assert "BYPASSRLS" in found.reason
            run(f"REVOKE SET ON PARAMETER session_replication_role FROM {OWNER}")
    finally:
        run(f"DROP ROLE {OWNER}")
