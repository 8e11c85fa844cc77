"""A journal comes into any database, keeps up with its schema, and goes without a trace."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, inspect

from pytest_arena._dialects._postgresql._control import Failed, open_control
from pytest_arena._dialects._postgresql_journal._capture import fitting_schema, install, uninstall
from pytest_arena._dialects._postgresql_journal._tables import (
    canonical,
    find_schema,
    read_sequences,
    read_tables,
)
from tests.journal.capture_world import Journaled, database, journaled
from tests.servers.postgresql import address, connect, rows, run

if TYPE_CHECKING:
    from pytest_arena._dialects._postgresql._control import Control

SCHEMA = """
CREATE TABLE notes (id serial PRIMARY KEY, body text);
CREATE TABLE parts (a int, b text) PARTITION BY LIST (a);
CREATE TABLE part PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE top (a int);
CREATE TABLE low (b int) INHERITS (top);
INSERT INTO notes (body) VALUES ('x');
"""
# All that is in a database beside its rows.
EVERYTHING = """
SELECT 'class ' || n.nspname || '.' || relname FROM pg_class c JOIN pg_namespace n
    ON n.oid = relnamespace
UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc
UNION ALL SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass FROM pg_trigger
UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace
UNION ALL SELECT 'type ' || oid::regtype FROM pg_type
"""


def names(control: Control) -> set[str]:
    """All names in a database; tables of long values are named by number."""
    found = {str(name) for (name,) in control.rows(EVERYTHING)}
    return {name for name in found if "pg_toast" not in name}


def again(world: Journaled) -> None:
    """Install it once more, as after a change of the schema."""
    with closing(open_control(address(world.name))) as control:
        assert install(control, world.schema) == []


def test_it_comes_and_goes_without_a_trace() -> None:
    """Nothing is left of it but the rows that it saw; to take it out twice is no fault."""
    with database(SCHEMA) as name, closing(open_control(address(name))) as control:
        before = names(control)
        assert install(control, fitting_schema(control)) == []
        assert names(control) > before
        control.run(uninstall(find_schema(control)))
        assert names(control) == before
        assert control.rows("SELECT body FROM notes") == [("x",)]
        control.run(uninstall("pg_arena"))


def test_reflection_and_alembic_do_not_see_it() -> None:
    """What an app compares its models with is what it was."""
    with journaled(SCHEMA) as world:
        at = address(world.name)
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: connect(world.name), poolclass=None
        )
        assert at.database == world.name
        with engine.connect() as connection:
            assert inspect(connection).get_schema_names() == ["information_schema", "public"]
        engine.dispose()


def test_once_more_changes_nothing_and_is_empty_again() -> None:
    """No trigger is made anew; what stands then is level 0."""
    with journaled(SCHEMA) as world:
        functions = "SELECT oid, prosrc FROM pg_proc WHERE prosrc ~ 'arena' ORDER BY 1"
        triggers = "SELECT oid, tgname, tgenabled FROM pg_trigger ORDER BY 1"
        before = world.control.rows(functions), world.control.rows(triggers)
        with world.app(
            "INSERT INTO notes (body) VALUES ('y')", "CREATE SEQUENCE s", "DROP SEQUENCE s"
        ):
            again(world)
        assert (world.control.rows(functions), world.control.rows(triggers)) == before
        assert world.written() == {}
        assert world.marks() == []


@pytest.mark.parametrize(
    "change, work",
    [
        ("CREATE TABLE more (a int)", "INSERT INTO more VALUES (1)"),
        ("ALTER TABLE parts DETACH PARTITION part", "INSERT INTO part VALUES (5)"),
        ("CREATE TABLE rest PARTITION OF parts DEFAULT", "INSERT INTO rest VALUES (5, 'x')"),
        (
            (
                "CREATE TABLE odd (b text, a int); "
                "ALTER TABLE parts ATTACH PARTITION odd FOR VALUES IN (9)"
            ),
            "INSERT INTO odd VALUES ('x', 9)",
        ),
        ("ALTER TABLE low NO INHERIT top", "INSERT INTO low VALUES (1, 2)"),
        (
            "CREATE TABLE lone (a int); ALTER TABLE lone INHERIT top",
            "INSERT INTO lone VALUES (1); UPDATE top SET a = 2",
        ),
        ("ALTER TABLE notes DISABLE TRIGGER ALL", "INSERT INTO notes (body) VALUES ('y')"),
        (
            "ALTER TABLE notes ENABLE TRIGGER ALL",
            "SET session_replication_role = replica; DELETE FROM notes",
        ),
        ('DROP TRIGGER "!arena_t" ON notes', "TRUNCATE notes"),
        ("ALTER TABLE notes RENAME TO books", "UPDATE books SET body = 'z'"),
        (
            "ALTER TABLE notes RENAME body TO page; ALTER TABLE notes ADD json json",
            "UPDATE notes SET page = 'z', json = '[]'",
        ),
        ("CREATE SCHEMA s; ALTER TABLE notes SET SCHEMA s", "TRUNCATE s.notes"),
        ("DROP TABLE low, part", "INSERT INTO top VALUES (1)"),
    ],
)
def test_it_keeps_up_with_the_schema(change: str, work: str) -> None:
    """After each change of it, rows are written down as before."""
    with journaled(SCHEMA) as world:
        with world.app(change):
            assert world.marks() != []
            again(world)
        before = world.standing()
        with world.app(work):
            assert world.written() == world.changed(before) != {}


def test_nothing_is_left_of_tables_that_are_gone() -> None:
    """Neither functions nor names."""
    with journaled(SCHEMA) as world:
        with world.app("DROP TABLE notes, parts, top CASCADE"):
            again(world)
        found = world.control.rows(
            "SELECT proname::text FROM pg_proc WHERE proname ~ '^[iudt][0-9]+$'"
        )
        assert found == []
        assert read_tables(world.control) == []
        assert read_sequences(world.control) == []


def test_an_empty_database_has_one_too() -> None:
    """An app may make its tables later."""
    with journaled() as world, world.app("CREATE TABLE notes (a int)"):
        assert world.marks() == ["CREATE TABLE public.notes"]


def test_the_plain_schema_does_as_well() -> None:
    """It is not taken for the app's, either."""
    with journaled(SCHEMA, schema="arena_journal") as world:
        assert world.schema == "arena_journal"
        with world.app("TRUNCATE notes"):
            assert list(world.written()) == [('"public"."notes"', "(1,x)")]
        again(world)
        assert not [one for one in read_tables(world.control) if one.schema == "arena_journal"]


def test_an_apps_own_event_triggers_do_not_stand_in_the_way() -> None:
    """What it forbids itself, it forbids afterwards too."""
    forbid = (
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'no changes here'; END $$; "
        "CREATE EVENT TRIGGER forbid ON ddl_command_start EXECUTE FUNCTION forbid()"
    )
    with journaled(SCHEMA, forbid) as world, pytest.raises(Exception, match="no changes here"):
        world.control.run("CREATE TABLE more (a int)")


def test_somebody_who_holds_a_table_is_not_waited_for_endlessly() -> None:
    """Nothing is half done then."""
    with database(SCHEMA) as name, connect(name) as app:
        app.execute("BEGIN; UPDATE notes SET body = 'held'")
        with closing(open_control(address(name))) as control:
            control.run("SET statement_timeout = '20s'")
            with pytest.raises(Failed) as refused:
                install(control, "pg_arena")
        assert refused.value.sqlstate == "55P03"
        app.execute("ROLLBACK")
        assert app.execute(
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'pg_arena'"
        ).fetchone() == (0,)


def test_all_settings_that_an_image_depends_on_are_told() -> None:
    """As they were when the triggers were written, whatever the database has now."""
    with database() as name:
        run(f"ALTER DATABASE {name} SET TimeZone = 'Asia/Kolkata'")
        with closing(open_control(address(name))) as control:
            before = canonical(control)
            install(control, "pg_arena")
            control.run(f"ALTER DATABASE {name} SET TimeZone = 'UTC'")
        with closing(open_control(address(name))) as control:
            assert canonical(control) == before
    assert before["TimeZone"] == "Asia/Kolkata"
    assert before["DateStyle"] == "ISO, MDY"


def test_a_key_is_one_that_finds_each_row() -> None:
    """Without NULLs, complete, and not only of some rows."""
    tables = """
    CREATE TABLE a_primary (a int, b int, PRIMARY KEY (b, a));
    CREATE TABLE b_unique (a int NOT NULL UNIQUE, b int);
    CREATE TABLE c_nullable (a int UNIQUE);
    CREATE TABLE d_partial (a int NOT NULL);
    CREATE UNIQUE INDEX ON d_partial (a) WHERE a > 0;
    CREATE TABLE e_expression (a text NOT NULL);
    CREATE UNIQUE INDEX ON e_expression (lower(a));
    CREATE TABLE f_deferred (a int NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE g_included (a int NOT NULL, b text);
    CREATE UNIQUE INDEX ON g_included (a) INCLUDE (b);
    CREATE TABLE h_excluded (a int4range NOT NULL, EXCLUDE USING gist (a WITH &&));
    CREATE TABLE i_enum (a oid NOT NULL UNIQUE, b int UNIQUE NOT NULL);
    """
    with database(tables) as name, closing(open_control(address(name))) as control:
        keys = {table.name[0]: table.key for table in read_tables(control)}
    found = {name: key for name, key in keys.items() if key}
    assert found == {"a": ("b", "a"), "b": ("a",), "f": ("a",), "g": ("a",), "i": ("a",)}


def test_which_columns_are_equal_only_if_their_text_is() -> None:
    """1.0 and 1.00 are equal, 'a' and 'A' may be."""
    table = """
    CREATE TABLE t (a int, b text, c text COLLATE loose, d numeric, e float8, f timestamptz,
        g char(3), h json, i interval, j uuid, k int[])
    """
    loose = "(provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    if not rows("SELECT FROM pg_collation WHERE collname = 'de-x-icu'"):
        loose, table = "(locale = 'C')", table.replace("c text COLLATE loose", "c bytea[]")
    with (
        database(f"CREATE COLLATION loose {loose}", table) as name,
        closing(open_control(address(name))) as control,
    ):
        (found,) = read_tables(control)
    assert [column.name for column in found.columns if column.is_plain] == ["a", "b", "f", "j"]
