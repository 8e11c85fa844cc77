"""A login that is no superuser may undo as well, without event triggers."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.journal._capture import install
from pytest_arena._postgresql.journal._journal_templates import lacking
from pytest_arena._postgresql.journal._server import Restoration, ServerJournal
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena.errors import ServerError
from tests.journal.world import DONE, NOTHING, database, schema_of_journal
from tests.servers.postgresql import address, connect, own_registry, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    Worlds = tuple[psycopg.Connection[tuple[object, ...]], ServerJournal]

ROLE, FRESH = "arena_test_plain", "arena_test_fresh"
CHANGED = Restoration(was_changed=True, marks=("the schema was changed",))
SCHEMA = """
CREATE SCHEMA app;
CREATE TABLE app.notes (id serial PRIMARY KEY, text text NOT NULL);
CREATE TABLE app.parts (a int) PARTITION BY LIST (a);
CREATE TABLE app.part PARTITION OF app.parts DEFAULT;
CREATE SEQUENCE app.held CACHE 5;
CREATE TYPE app.mood AS ENUM ('good');
CREATE FUNCTION app.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
INSERT INTO app.notes (text) VALUES ('one');
CREATE MATERIALIZED VIEW app.titles AS SELECT text FROM app.notes;
CREATE TEXT SEARCH CONFIGURATION app.words (COPY = pg_catalog.simple);
CREATE PUBLICATION news;
"""


@pytest.fixture(scope="module")
def role() -> Iterator[str]:
    """A login with what undo needs, and no more."""
    run(f"CREATE ROLE {ROLE} LOGIN BYPASSRLS")
    try:
        run(f"GRANT SET ON PARAMETER session_replication_role TO {ROLE}")
    except ControlFailure as error:  # it came with PostgreSQL 15
        run(f"DROP ROLE {ROLE}")
        pytest.skip(str(error))
    yield ROLE
    run(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture(scope="module")
def template(role: str) -> Iterator[str]:
    """An app of that role, and the journal that it has installed."""
    with database() as name:
        run(f"GRANT ALL ON DATABASE {name} TO {role}")
        run(f"SET ROLE {role}; {SCHEMA}", database=name)
        assert not any(unfit.is_fatal for unfit in install(replace(address(name), user=role)))
        yield name


@pytest.fixture
def worlds(role: str, template: str) -> Iterator[Worlds]:
    """A copy of it."""
    with database(template=template) as name:
        run(f"GRANT ALL ON DATABASE {name} TO {role}")
        with (
            closing(ServerJournal(replace(address(name), user=role))) as journal,
            connect(name) as app,
        ):
            app.execute(f"SET ROLE {role}")
            yield app, journal


def test_rows_and_sequences_are_taken_back_pitfall_092(worlds: Worlds) -> None:
    """As for anybody else."""
    app, journal = worlds
    journal.enter(1)
    app.execute("INSERT INTO app.notes (text) VALUES ('two'); DELETE FROM app.notes WHERE id = 1")
    app.execute("INSERT INTO app.parts VALUES (1); SELECT nextval('app.held')")
    assert journal.leave(1) == DONE
    assert app.execute("TABLE app.notes").fetchall() == [(1, "one")]
    assert app.execute("SELECT nextval('app.held')").fetchall() == [(1,)]


SILENT = (
    "TRUNCATE app.notes RESTART IDENTITY; TRUNCATE app.parts",
    "SELECT nextval('app.held')",
    "CREATE TEMP TABLE t (a serial PRIMARY KEY); COMMENT ON TABLE t IS 't'",
    "ANALYZE",
    "CREATE TABLE IF NOT EXISTS app.notes (b int)",
    "SELECT",
)


def test_what_changes_no_schema_is_none_pitfall_030(worlds: Worlds) -> None:
    """Though some of it writes to the catalog."""
    app, journal = worlds
    for work in SILENT:
        assert journal.enter(1) == (), work
        app.execute(work)
        assert journal.leave(1).marks == (), work
        assert journal.leave(1) == NOTHING, work


DDL = (
    "CREATE TABLE app.more (a int)",
    "ALTER TABLE app.notes ADD a int",
    "ALTER TABLE app.notes ALTER text DROP NOT NULL",
    "ALTER TABLE app.notes ALTER text SET DEFAULT 'a'",
    "ALTER TABLE app.notes ADD CHECK (id > 0)",
    "ALTER TABLE app.notes DISABLE TRIGGER USER",
    "ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY",
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
    "ALTER TABLE app.parts RENAME TO other",
    "REFRESH MATERIALIZED VIEW app.titles",
    "CREATE PUBLICATION other FOR TABLE app.notes",
    "ALTER PUBLICATION news ADD TABLE app.notes",
    "ALTER PUBLICATION news SET (publish = 'insert')",
    'CREATE COLLATION app.c FROM "C"',
    "CREATE CONVERSION app.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE TEXT SEARCH CONFIGURATION app.more (COPY = app.words)",
    "ALTER TEXT SEARCH CONFIGURATION app.words DROP MAPPING FOR email",
    "CREATE TEXT SEARCH DICTIONARY app.plain (TEMPLATE = pg_catalog.simple)",
    "CREATE AGGREGATE app.total(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE DOMAIN app.positive AS int CHECK (VALUE > 0)",
)


@pytest.mark.slow
def test_a_changed_schema_is_noticed_pitfall_030(worlds: Worlds) -> None:
    """By the catalog itself; installed anew, the journal begins with what stands."""
    app, journal = worlds
    for ddl in DDL:
        assert journal.enter(1) == (), ddl
        app.execute(f"INSERT INTO app.notes (text) VALUES ('two'); {ddl}")
        assert journal.look(1).marks == CHANGED.marks, ddl
        assert journal.enter(2) == CHANGED.marks, ddl
        assert journal.leave(1) == CHANGED, ddl
        assert not any(unfit.is_fatal for unfit in journal.install()), ddl


def test_a_view_that_can_be_refreshed_in_place_takes_clone(role: str) -> None:
    """The catalog does not change when it is refreshed CONCURRENTLY; with event triggers it may."""
    script = (
        "CREATE TABLE notes (id int PRIMARY KEY); "
        "CREATE MATERIALIZED VIEW ids AS SELECT id FROM notes; CREATE UNIQUE INDEX ON ids (id)"
    )
    with database() as name:
        run(
            f"GRANT ALL ON DATABASE {name} TO {role}; GRANT ALL ON SCHEMA public TO {role}",
            database=name,
        )
        run(f"SET ROLE {role}; {script}", database=name)
        (gap,) = install(replace(address(name), user=role))
        assert gap.is_fatal
        assert "public.ids can be refreshed CONCURRENTLY" in gap.reason
        assert schema_of_journal(name) == ""
        assert install(address(name)) == []


def test_a_dropped_sequence_is_noticed_pitfall_031(worlds: Worlds) -> None:
    """There is nothing to be read of it any more."""
    app, journal = worlds
    journal.enter(1)
    app.execute("DROP TABLE app.notes CASCADE")
    assert journal.look(1).marks
    assert journal.leave(1).marks
    assert journal.enter(2)


@pytest.fixture
def fresh() -> Iterator[ServerRegistry]:
    """A run of a login that may make databases, and no more."""
    run(f"CREATE ROLE {FRESH} LOGIN CREATEDB")
    try:
        with own_registry() as registry:
            own = ServerRegistry(replace(address(), user=FRESH), registry=registry)
            with closing(own):
                yield own
    finally:
        run(f"DROP ROLE {FRESH}")


def test_a_server_that_is_full_is_not_taken_for_a_lack_of_rights(fresh: ServerRegistry) -> None:
    """Nothing follows from it for the rest of the run."""
    run(f"ALTER ROLE {FRESH} CONNECTION LIMIT 1")
    with pytest.raises(ServerError, match="too many connections"):
        lacking(fresh)
    run(f"ALTER ROLE {FRESH} CONNECTION LIMIT -1")
    assert lacking(fresh).startswith(f"the role {FRESH} may not: permission denied")


def test_changes_are_told_without_event_triggers_pitfall_029(worlds: Worlds) -> None:
    """Those of the schema by looking at it, in the time between two looks; those of new tables."""
    app, journal = worlds
    journal.enter(1)

    def told(since: str = "") -> dict[str, tuple[object, ...]]:
        found = journal.rows_changed(level=1, is_top=True, since=since)
        return {one.table: one.come for one in found}

    assert told() == {}
    app.execute("CREATE TABLE app.more (a int); INSERT INTO app.more VALUES (1)")
    schema = {"the schema": (("the schema was changed",),)}
    assert told() == {"app.more": ((1,),), **schema}
    journal.note_schema(1)
    moment = journal.moment()
    app.execute("INSERT INTO app.more VALUES (2)")
    assert told(moment) == {"app.more": ((2,),)}
    journal.note_schema(1)
    moment = journal.moment()
    app.execute("DROP TABLE app.more")
    assert told(moment) == schema
    assert journal.leave(1) == CHANGED
