"""What no journal of rows can take back leaves a mark; nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.journal.world import World, journaled

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = """
CREATE TABLE notes (id serial PRIMARY KEY, body text);
CREATE TABLE parts (a int) PARTITION BY LIST (a);
CREATE TABLE part PARTITION OF parts DEFAULT;
CREATE TABLE other (a int);
CREATE TABLE pairs (a int, b int);
CREATE VIEW shown AS SELECT * FROM notes;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM notes;
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE mood AS ENUM ('well');
CREATE SEQUENCE tickets;
"""
# Pitfall: what an app does, and a line that has to be among the marks.
MARKED = {
    "u29_create": ("CREATE TABLE more (a int)", "CREATE TABLE public.more"),
    "u29_create_as": ("CREATE TABLE more AS SELECT 1 AS a", "CREATE TABLE AS public.more"),
    "u29_select_into": ("SELECT 1 AS a INTO more", "SELECT INTO public.more"),
    "u30_add_column": ("ALTER TABLE notes ADD COLUMN x int", "ALTER TABLE public.notes"),
    "u30_change_type": ("ALTER TABLE other ALTER a TYPE text", "ALTER TABLE public.other"),
    "u31_drop": ("DROP TABLE other", "DROP TABLE public.other"),
    "u31_drop_schema": ("CREATE SCHEMA s; DROP SCHEMA s", "DROP SCHEMA s"),
    "u31_rename": ("ALTER TABLE other RENAME TO others", "ALTER TABLE public.others"),
    "u32_disable": ("ALTER TABLE notes DISABLE TRIGGER USER", "ALTER TABLE public.notes"),
    "u33_replica": (
        "SET session_replication_role = replica; DROP TABLE other",
        "DROP TABLE public.other",
    ),
    "u34_function": (
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "CREATE FUNCTION public.f()",
    ),
    "u34_view": ("CREATE OR REPLACE VIEW shown AS SELECT * FROM notes", "CREATE VIEW public.shown"),
    "u34_policy": ("CREATE POLICY p ON notes", "CREATE POLICY p on public.notes"),
    "u34_comment": ("COMMENT ON TABLE notes IS 'x'", "COMMENT public.notes"),
    "u34_grant": ("GRANT SELECT ON notes TO PUBLIC", "GRANT on a table"),
    "u34_revoke": ("REVOKE SELECT ON notes FROM PUBLIC", "REVOKE on a table"),
    "u34_enum": ("ALTER TYPE mood ADD VALUE 'ill'", "ALTER TYPE public.mood"),
    "u50_detach": ("ALTER TABLE parts DETACH PARTITION part", "ALTER TABLE public.parts"),
    "u50_attach": (
        "ALTER TABLE parts ATTACH PARTITION other FOR VALUES IN (1)",
        "ALTER TABLE public.parts",
    ),
    "u53_refresh": (
        "REFRESH MATERIALIZED VIEW counted",
        "REFRESH MATERIALIZED VIEW public.counted",
    ),
    "u56_schema": ("CREATE SCHEMA tenant", "CREATE SCHEMA tenant"),
    "u57_sequence": ("ALTER SEQUENCE tickets INCREMENT 5", "ALTER SEQUENCE public.tickets"),
    "u34_default_rights": (
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES on tables",
    ),
    "u34_rights_of_all": (
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",
        "GRANT on a table",
    ),
    "u34_operators": (
        "CREATE OPERATOR === (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int)",
        "CREATE OPERATOR public.===(integer,integer)",
    ),
    "u34_cast": ("CREATE CAST (int AS mood) WITH INOUT", "CREATE CAST (integer AS public.mood)"),
    "u34_statistics": ("CREATE STATISTICS s ON a, b FROM pairs", "CREATE STATISTICS public.s"),
    "u34_search": (
        (
            "CREATE TEXT SEARCH CONFIGURATION c (COPY = simple); "
            "ALTER TEXT SEARCH CONFIGURATION c DROP MAPPING FOR word"
        ),
        "ALTER TEXT SEARCH CONFIGURATION public.c",
    ),
    "u34_publication": ("CREATE PUBLICATION p FOR TABLE notes", "CREATE PUBLICATION p"),
    "u58_extension": ("CREATE EXTENSION citext", "CREATE EXTENSION citext"),
    "index": ("CREATE INDEX by_body ON notes (body)", "CREATE INDEX public.by_body"),
}
SILENT = {
    "rows": "INSERT INTO notes (body) VALUES ('x'); TRUNCATE notes, parts",
    "nothing_new": "CREATE TABLE IF NOT EXISTS notes (a int); DROP TABLE IF EXISTS missing; "
    "CREATE INDEX IF NOT EXISTS notes_pkey ON notes (id); CREATE SCHEMA IF NOT EXISTS public; "
    "CREATE SEQUENCE IF NOT EXISTS tickets; CREATE EXTENSION IF NOT EXISTS plpgsql",
    "u30_no_new_column": "ALTER TABLE notes ADD COLUMN IF NOT EXISTS body text; "
    "ALTER TABLE notes DROP COLUMN IF EXISTS missing; "
    "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'well'",
    "rolled_back": "BEGIN; DROP TABLE parts; CREATE TABLE more (a int); ROLLBACK",
    "u54_temporary": "CREATE TEMP TABLE mine (id serial PRIMARY KEY, body text); "
    "CREATE INDEX ON mine (body); ALTER TABLE mine ADD x int DEFAULT 1; ALTER TABLE mine DROP x; "
    "COMMENT ON COLUMN mine.body IS 'x'; CREATE TEMP VIEW seen AS SELECT * FROM mine; "
    "CREATE TEMP TABLE brief ON COMMIT DROP AS SELECT 1; DROP VIEW seen; DROP TABLE mine",
    "u54_temporary_and_its_own": "CREATE TEMP TABLE mine (id int); CREATE POLICY p ON mine; "
    "CREATE TRIGGER t BEFORE UPDATE ON mine FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger(); "
    "CREATE RULE r AS ON INSERT TO mine DO NOTHING; "
    "DROP POLICY p ON mine; DROP TRIGGER t ON mine; DROP RULE r ON mine; DROP TABLE mine",
    "u54_temporary_function": "CREATE FUNCTION pg_temp.g() RETURNS int LANGUAGE sql AS "
    "'SELECT 1'; DROP FUNCTION pg_temp.g()",
    "maintenance": "ANALYZE notes; REINDEX TABLE notes; VACUUM notes; "
    "BEGIN; LOCK notes; COMMIT; CLUSTER notes USING notes_pkey; SELECT 1",
    "prepared": "PREPARE p AS SELECT 1; SET search_path = ''; DISCARD ALL",
}


@pytest.fixture(scope="module")
def database() -> Iterator[World]:
    """One for all: what is done in a transaction is rolled back."""
    with journaled(SCHEMA) as database:
        yield database


@pytest.fixture
def world(database: World) -> World:
    """It, without marks."""
    database.empty()
    return database


@pytest.mark.parametrize("work, mark", MARKED.values(), ids=MARKED.keys())
def test_a_change_of_the_schema_is_marked(world: World, work: str, mark: str) -> None:
    """With a line that says what, and of which object."""
    with world.rolled_back(work):
        assert mark in world.marks()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_truncate_that_others_may_overtake_is_marked_pitfall_049(
    world: World, isolation: str
) -> None:
    """Its copy is of the snapshot, what goes is what is there."""
    with world.another(f"SET default_transaction_isolation = '{isolation}'", "TRUNCATE parts"):
        assert world.marks() == ["TRUNCATE public.part in a transaction that keeps its snapshot"]


def test_what_cannot_be_done_in_a_transaction_is_marked(world: World) -> None:
    """A VACUUM beside it is not."""
    with world.another("CREATE INDEX CONCURRENTLY by_a ON other (a)", "VACUUM notes"):
        assert "CREATE INDEX public.by_a" in world.marks()


@pytest.mark.parametrize("name", SILENT)
def test_all_else_is_not(world: World, name: str) -> None:
    """Neither what changes nothing, nor what is gone with the connection."""
    if name == "u30_no_new_column" and world.rows("SHOW wal_level") != [("minimal",)]:
        pytest.skip("to lock a table is to write, for the sake of standby servers")
    work = SILENT[name]
    with world.another(*work.split("; ")):
        assert world.marks() == []


def test_an_app_without_rights_leaves_marks_too(world: World) -> None:
    """It may not write them itself."""
    with world.another("SET ROLE pg_monitor", "CREATE TEMP TABLE mine (a int)") as app:
        assert world.marks() == []
        app.execute("RESET ROLE; GRANT CREATE ON SCHEMA public TO pg_monitor; SET ROLE pg_monitor")
        world.empty()
        app.execute("CREATE TABLE theirs (a int)")
        assert world.marks() == ["CREATE TABLE public.theirs"]
        app.execute("DROP TABLE theirs")


def test_what_arena_does_itself_is_not_marked(world: World) -> None:
    """Nor journaled."""
    with world.another("SET arena.undo = 1", "CREATE TABLE ours (a int)", "DROP TABLE ours") as app:
        app.execute("INSERT INTO notes (body) VALUES ('ours')")
        app.execute("TRUNCATE notes")
    assert world.marks() == []
    assert world.written() == {}
