"""A login that is no superuser may undo as well, without event triggers."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._dialects._postgresql._control import Failed, open_control
from pytest_arena._dialects._postgresql_journal._capture import fitting_schema, install
from pytest_arena._journal import Left, ServerJournal, lacking
from pytest_arena._own import OwnDatabases
from pytest_arena.errors import ServerError
from tests.journal.capture_world import database
from tests.journal.undo_world import DONE, NOTHING
from tests.servers.postgresql import address, own_registry, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._dialects._postgresql._control import Control

ROLE, FRESH = "arena_test_plain", "arena_test_fresh"
CHANGED = Left(was_changed=True, marks=("the schema was changed",))
SCHEMA = """
CREATE SCHEMA app;
CREATE TABLE app.notes (id serial PRIMARY KEY, text text NOT NULL);
CREATE TABLE app.parts (a int) PARTITION BY LIST (a);
CREATE TABLE app.part PARTITION OF app.parts DEFAULT;
CREATE SEQUENCE app.held CACHE 5;
CREATE TYPE app.mood AS ENUM ('good');
CREATE FUNCTION app.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
INSERT INTO app.notes (text) VALUES ('one');
"""


@pytest.fixture(scope="module")
def role() -> Iterator[str]:
    """A login with what undo needs, and no more."""
    run(f"CREATE ROLE {ROLE} LOGIN BYPASSRLS")
    try:
        run(f"GRANT SET ON PARAMETER session_replication_role TO {ROLE}")
    except Failed as error:  # it came with PostgreSQL 15
        run(f"DROP ROLE {ROLE}")
        pytest.skip(str(error))
    yield ROLE
    run(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture
def worlds(role: str) -> Iterator[tuple[Control, ServerJournal]]:
    """An app of that role, and the journal that it has installed."""
    with database() as name:
        run(f"GRANT ALL ON DATABASE {name} TO {role}")
        to = replace(address(name), user=role)
        with closing(open_control(to)) as app:
            app.run(SCHEMA)
            assert not any(one.is_fatal for one in install(app, fitting_schema(app)))
            with closing(ServerJournal(to)) as journal:
                yield app, journal


def test_pitfall_092_rows_and_sequences_are_taken_back(
    worlds: tuple[Control, ServerJournal],
) -> None:
    """As for anybody else."""
    app, journal = worlds
    journal.enter(1)
    app.run("INSERT INTO app.notes (text) VALUES ('two'); DELETE FROM app.notes WHERE id = 1")
    app.run("INSERT INTO app.parts VALUES (1); SELECT nextval('app.held')")
    assert journal.leave(1) == DONE
    assert app.rows("TABLE app.notes") == [(1, "one")]
    assert app.rows("SELECT nextval('app.held')") == [(1,)]


@pytest.mark.parametrize(
    "work",
    [
        "TRUNCATE app.notes RESTART IDENTITY; TRUNCATE app.parts",
        "SELECT nextval('app.held')",
        "CREATE TEMP TABLE t (a serial PRIMARY KEY); COMMENT ON TABLE t IS 't'",
        "ANALYZE",
        "CREATE TABLE IF NOT EXISTS app.notes (b int)",
        "SELECT",
    ],
)
def test_pitfall_030_what_changes_no_schema_is_none(
    worlds: tuple[Control, ServerJournal], work: str
) -> None:
    """Though some of it writes to the catalog."""
    app, journal = worlds
    assert journal.enter(1) == ()
    app.run(work)
    assert journal.leave(1).marks == ()
    assert journal.leave(1) == NOTHING


@pytest.mark.parametrize(
    "ddl",
    [
        "CREATE TABLE app.more (a int)",
        "ALTER TABLE app.notes ADD a int",
        "ALTER TABLE app.notes ALTER text DROP NOT NULL",
        "ALTER TABLE app.notes ALTER text SET DEFAULT 'a'",
        "ALTER TABLE app.notes ADD CHECK (id > 0)",
        "ALTER TABLE app.notes DISABLE TRIGGER USER",
        "ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE app.notes RENAME TO other",
        "CREATE INDEX ON app.notes (text)",
        "CREATE POLICY p ON app.notes USING (true)",
        "CREATE TRIGGER t AFTER INSERT ON app.notes FOR EACH ROW EXECUTE FUNCTION app.noted()",
        "CREATE VIEW app.v AS SELECT 1",
        (
            "CREATE OR REPLACE FUNCTION app.noted() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RETURN NEW; END'"
        ),
        "ALTER TYPE app.mood ADD VALUE 'bad'",
        "ALTER SEQUENCE app.held INCREMENT 3",
        "ALTER TABLE app.parts DETACH PARTITION app.part",
        "COMMENT ON TABLE app.notes IS 'x'",
        "GRANT SELECT ON app.notes TO PUBLIC",
        "GRANT SELECT (text) ON app.notes TO PUBLIC",
        "CREATE SCHEMA more",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    ],
)
def test_pitfall_030_a_changed_schema_is_noticed(
    worlds: tuple[Control, ServerJournal], ddl: str
) -> None:
    """By the catalog itself."""
    app, journal = worlds
    journal.enter(1)
    app.run(f"INSERT INTO app.notes (text) VALUES ('two'); {ddl}")
    assert journal.look(1).marks == CHANGED.marks
    assert journal.enter(2) == CHANGED.marks
    assert journal.leave(1) == CHANGED
    assert not journal.recover()


def test_pitfall_031_a_dropped_sequence_is_noticed(worlds: tuple[Control, ServerJournal]) -> None:
    """There is nothing to be read of it any more."""
    app, journal = worlds
    journal.enter(1)
    app.run("DROP TABLE app.notes")
    assert journal.look(1).marks
    assert journal.leave(1).marks
    assert journal.enter(2)


@pytest.fixture
def fresh() -> Iterator[OwnDatabases]:
    """A run of a login that may make databases, and no more."""
    run(f"CREATE ROLE {FRESH} LOGIN CREATEDB")
    try:
        with own_registry() as registry:
            own = OwnDatabases(replace(address(), user=FRESH), registry=registry)
            with closing(own):
                yield own
    finally:
        run(f"DROP ROLE {FRESH}")


def test_a_server_that_is_full_is_not_taken_for_a_lack_of_rights(fresh: OwnDatabases) -> None:
    """Nothing follows from it for the rest of the run."""
    run(f"ALTER ROLE {FRESH} CONNECTION LIMIT 1")
    with pytest.raises(ServerError, match="too many connections"):
        lacking(fresh)
    run(f"ALTER ROLE {FRESH} CONNECTION LIMIT -1")
    assert lacking(fresh).startswith(f"the role {FRESH} may not: permission denied")


def test_pitfall_029_changes_are_told_without_event_triggers(
    worlds: tuple[Control, ServerJournal],
) -> None:
    """Those of the schema by looking at it, in the time between two looks; those of new tables."""
    app, journal = worlds
    journal.enter(1)

    def told(since: str = "") -> dict[str, tuple[object, ...]]:
        found = journal.rows_changed(level=1, is_top=True, since=since)
        return {one.table: one.come for one in found}

    assert told() == {}
    app.run("CREATE TABLE app.more (a int); INSERT INTO app.more VALUES (1)")
    schema = {"the schema": (("the schema was changed",),)}
    assert told() == {"app.more": ((1,),), **schema}
    journal.note_schema(1)
    moment = journal.moment()
    app.run("INSERT INTO app.more VALUES (2)")
    assert told(moment) == {"app.more": ((2,),)}
    journal.note_schema(1)
    moment = journal.moment()
    app.run("DROP TABLE app.more")
    assert told(moment) == schema
    assert journal.leave(1) == CHANGED
