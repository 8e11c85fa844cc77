"""A journal comes into any database, keeps up with its schema, and goes without a trace."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, inspect

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.journal._capture import install, uninstall
from tests.journal.world import DONE, database, journaled, schema_of_journal
from tests.servers.postgresql import address, connect, rows

SCHEMA = """
CREATE TABLE notes (id serial PRIMARY KEY, body text);
CREATE TABLE parts (a int, b text) PARTITION BY LIST (a);
CREATE TABLE part PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE top (a int);
CREATE TABLE low (b int) INHERITS (top);
INSERT INTO notes (body) VALUES ('x');
"""
# All that is in a database beside its rows; tables of long values are named by number.
EVERYTHING = """
SELECT 'class ' || n.nspname || '.' || relname FROM pg_class c JOIN pg_namespace n
    ON n.oid = relnamespace WHERE n.nspname <> 'pg_toast'
UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc
UNION ALL SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass FROM pg_trigger
UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace
UNION ALL SELECT 'type ' || oid::regtype FROM pg_type WHERE typnamespace <> 'pg_toast'::regnamespace
"""


def test_it_comes_and_goes_without_a_trace() -> None:
    """Nothing is left of it but the rows that it saw; to take it out twice is no fault."""
    with database(SCHEMA) as name:
        before = set(rows(EVERYTHING, name))
        assert install(address(name)) == []
        assert set(rows(EVERYTHING, name)) > before
        for _ in range(2):
            uninstall(address(name))
            assert set(rows(EVERYTHING, name)) == before
        assert rows("SELECT body FROM notes", name) == [("x",)]


def test_reflection_and_alembic_do_not_see_it() -> None:
    """What an app compares its models with is what it was."""
    with journaled(SCHEMA) as world:
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: connect(world.name), poolclass=None
        )
        with engine.connect() as connection:
            assert inspect(connection).get_schema_names() == ["information_schema", "public"]
        engine.dispose()


def test_once_more_changes_nothing_and_is_empty_again() -> None:
    """No trigger is made anew; what stands then is level 0."""
    with journaled(SCHEMA) as world:
        functions = "SELECT oid, prosrc FROM pg_proc WHERE prosrc ~ 'arena' ORDER BY 1"
        triggers = "SELECT oid, tgname, tgenabled FROM pg_trigger ORDER BY 1"
        before = world.rows(functions), world.rows(triggers)
        world.run("INSERT INTO notes (body) VALUES ('y')", "CREATE SEQUENCE s", "DROP SEQUENCE s")
        assert install(address(world.name)) == []
        assert (world.rows(functions), world.rows(triggers)) == before
        assert world.written() == {}
        assert world.marks() == []


CHANGES = {
    "CREATE TABLE more (a int)": "INSERT INTO more VALUES (1)",
    "CREATE TABLE rest PARTITION OF parts DEFAULT": "INSERT INTO rest VALUES (5, 'x')",
    "CREATE TABLE odd (b text, a int); ALTER TABLE parts ATTACH PARTITION odd FOR VALUES IN (9)": (
        "INSERT INTO odd VALUES ('x', 9)"
    ),
    "ALTER TABLE parts DETACH PARTITION part": "INSERT INTO part VALUES (5)",
    "CREATE TABLE lone (a int); ALTER TABLE lone INHERIT top": (
        "INSERT INTO lone VALUES (1); UPDATE top SET a = 2"
    ),
    "ALTER TABLE low NO INHERIT top": "INSERT INTO low VALUES (1, 2)",
    "ALTER TABLE notes DISABLE TRIGGER ALL": "INSERT INTO notes (body) VALUES ('y')",
    "ALTER TABLE notes ENABLE TRIGGER ALL": (
        "SET session_replication_role = replica; DELETE FROM notes WHERE id = 1; RESET ALL"
    ),
    'DROP TRIGGER "!arena_t" ON notes': "TRUNCATE notes; INSERT INTO notes (body) VALUES ('z')",
    "ALTER TABLE notes RENAME body TO page; ALTER TABLE notes ADD json json": (
        "UPDATE notes SET page = 'z', json = '[]'"
    ),
    "ALTER TABLE notes RENAME TO books": "UPDATE books SET page = 'zz'",
    "CREATE SCHEMA s; ALTER TABLE books SET SCHEMA s": "TRUNCATE s.books",
    "DROP TABLE low, part": "INSERT INTO top VALUES (1)",
}


@pytest.mark.slow
def test_it_keeps_up_with_the_schema() -> None:
    """After each change of it, rows are written down as before."""
    with journaled(SCHEMA) as world:
        for change, work in CHANGES.items():
            world.run(change)
            assert world.marks() != [], change
            assert install(address(world.name)) == []
            before = world.standing()
            world.run(work)
            assert world.written() == world.changed(before) != {}, change
        world.run("DROP TABLE s.books, parts, top, rest, more CASCADE")
        assert install(address(world.name)) == []
        functions = "SELECT proname FROM pg_proc WHERE proname ~ '^[iudt][0-9]+$'"
        assert world.rows(functions) == []


@pytest.mark.slow
def test_an_empty_database_has_one_too() -> None:
    """An app may make its tables later."""
    with journaled() as world:
        world.run("CREATE TABLE notes (a int)")
        assert world.marks() == ["CREATE TABLE public.notes"]


def test_an_apps_own_event_triggers_do_not_stand_in_the_way() -> None:
    """What it forbids itself, it forbids afterwards too."""
    forbid = (
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'no changes here'; END $$; "
        "CREATE EVENT TRIGGER forbid ON ddl_command_start EXECUTE FUNCTION forbid()"
    )
    with journaled(SCHEMA, forbid) as world, pytest.raises(Exception, match="no changes here"):
        world.run("CREATE TABLE more (a int)")


@pytest.mark.slow
def test_somebody_who_holds_a_table_is_not_waited_for_endlessly() -> None:
    """Nothing is half done then."""
    with database(SCHEMA) as name, connect(name) as app:
        app.execute("BEGIN; UPDATE notes SET body = 'held'")
        with pytest.raises(ControlFailure) as refused:
            install(address(name))
        assert refused.value.sqlstate == "55P03"
        app.execute("ROLLBACK")
        assert schema_of_journal(name) == ""


KEYS = """
CREATE TABLE a_primary (a int, b int, c int, PRIMARY KEY (b, a));
CREATE TABLE b_unique (a int NOT NULL UNIQUE, b int);
CREATE TABLE c_nullable (a int UNIQUE, b int);
CREATE TABLE d_partial (a int NOT NULL, b int);
CREATE UNIQUE INDEX ON d_partial (a) WHERE a > 5;
CREATE TABLE e_expression (a text NOT NULL, b int);
CREATE UNIQUE INDEX ON e_expression (lower(a || b));
CREATE TABLE f_deferred (a int NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED, b int);
CREATE TABLE g_included (a int NOT NULL, b int);
CREATE UNIQUE INDEX ON g_included (a) INCLUDE (b);
CREATE TABLE h_excluded (a int4range NOT NULL, b int, EXCLUDE USING gist (a WITH &&) WHERE (b > 5));
CREATE TABLE i_several (a oid NOT NULL UNIQUE, b int UNIQUE NOT NULL);
INSERT INTO a_primary VALUES (1, 1, 1), (1, 2, 2);
INSERT INTO b_unique VALUES (1, 1), (2, 2);
INSERT INTO c_nullable VALUES (1, 1), (NULL, 2), (NULL, 3);
INSERT INTO d_partial VALUES (1, 1), (1, 2), (7, 3);
INSERT INTO e_expression VALUES ('a', 1), ('a', 2), ('A', 3);
INSERT INTO f_deferred VALUES (1, 1), (2, 2);
INSERT INTO g_included VALUES (1, 1), (2, 2);
INSERT INTO h_excluded VALUES ('[1,5)', 1), ('[1,5)', 2);
INSERT INTO i_several VALUES (1, 1), (2, 2);
"""


def test_a_key_is_one_that_finds_each_row() -> None:
    """Without NULLs, complete, and not only of some rows: else other rows would go as well."""
    tables = [line.split()[2] for line in KEYS.splitlines() if line.startswith("CREATE TABLE")]
    with journaled(KEYS) as world:
        before = world.state()
        for work in ("UPDATE {} SET b = b + 3 WHERE b = 2", "DELETE FROM {} WHERE b = 2"):
            world.run(*(work.format(table) for table in tables))
            assert world.journal.leave(1) == DONE
            assert world.state() == before
