"""A login that is no superuser may undo as well, without event triggers."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.journal._capture import install
from pytest_arena._postgresql.journal._journal_templates import why_no_undo
from pytest_arena._postgresql.journal._server import Restoration, ServerJournal
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena.errors import ServerError
from tests.journal.alterations import (
    BY_A_SUPERUSER,
    BY_A_SUPERUSER_TO_POSTGRESQL,
    BY_ITS_OWNER,
    SCHEMA,
)
from tests.journal.world import DONE, NOTHING, database, schema_of_journal
from tests.servers.postgresql import address, connect, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import psycopg

    Worlds = tuple[psycopg.Connection[tuple[object, ...]], ServerJournal]

ROLE, OTHER, FRESH = "arena_test_plain", "arena_test_other", "arena_test_fresh"
CHANGED = Restoration(was_changed=True, marks=("the schema was changed",))


@pytest.fixture(scope="module")
def role() -> Iterator[str]:
    """A login with what undo needs, and no more."""
    run(f"CREATE ROLE {ROLE} LOGIN BYPASSRLS")
    try:
        run(f"GRANT SET ON PARAMETER session_replication_role TO {ROLE}")
    except ControlFailure as error:  # it came with PostgreSQL 15
        run(f"DROP ROLE {ROLE}")
        pytest.skip(str(error))
    run(f"CREATE ROLE {OTHER}; GRANT {OTHER} TO {ROLE}")
    yield ROLE
    run(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}; DROP ROLE {OTHER}")


@pytest.fixture(scope="module")
def template(role: str) -> Iterator[str]:
    """An app of that role, and the journal that it has installed."""
    with _app_of(role) as name:
        assert not any(unfit.is_fatal for unfit in install(replace(address(name), user=role)))
        yield name


@contextmanager
def _app_of(role: str) -> Iterator[str]:
    """A database of the role's, with a schema that the role has made."""
    with database() as name:
        run(
            f"ALTER DATABASE {name} OWNER TO {role}; GRANT ALL ON SCHEMA public TO {role}",
            f"SET ROLE {role}; {SCHEMA}",
            f"GRANT CREATE ON SCHEMA app, public TO {OTHER}",
            database=name,
        )
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
    assert app.execute("SELECT id, text FROM app.notes").fetchall() == [(1, "one")]
    assert app.execute("SELECT nextval('app.held')").fetchall() == [(1,)]


SILENT = (
    "TRUNCATE app.notes RESTART IDENTITY CASCADE; TRUNCATE app.parts",
    "SELECT nextval('app.held')",
    "CREATE TEMP TABLE t (a serial PRIMARY KEY); COMMENT ON TABLE t IS 't'",
    "ANALYZE",
    "CREATE TABLE IF NOT EXISTS app.notes (b int)",
    "SELECT",
)
# In a session that has temporary objects of every kind.
SILENT_IN_A_TRANSACTION = (
    "INSERT INTO app.notes (text) VALUES ('two'); SELECT 1",
    "TRUNCATE app.notes RESTART IDENTITY CASCADE",
    "ANALYZE app.notes",
    "REINDEX TABLE app.notes",
    "CREATE TEMP TABLE t (a serial PRIMARY KEY, b text DEFAULT 'b' CHECK (b <> ''))",
    "CREATE TEMP TABLE t () INHERITS (app.parent)",
    "CREATE TEMP VIEW v AS SELECT * FROM app.notes; COMMENT ON VIEW v IS 'v'",
    "CREATE TEMP TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
    "CREATE TEMP TABLE t (a int) PARTITION BY LIST (a); CREATE TEMP TABLE u PARTITION OF t DEFAULT",
    "CREATE TYPE pg_temp.kind AS (a int); CREATE DOMAIN pg_temp.d AS int CHECK (VALUE > 0)",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
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
    "ALTER TABLE app.notes ALTER text SET STATISTICS 10",
    "ALTER TABLE app.loner DISABLE TRIGGER USER",
    "CREATE POLICY p ON app.notes USING (true)",
    "ALTER TYPE app.mood ADD VALUE 'bad'",
    "ALTER TABLE app.parts DETACH PARTITION app.part",
    "GRANT SELECT (text) ON app.notes TO PUBLIC",
    "ALTER PUBLICATION news SET (publish = 'insert')",
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


def _not_noticed(name: str, role: str, work: Iterable[str], *, as_role: str) -> list[str]:
    """Return the statements that leave no mark. Each one is rolled back."""
    schema = schema_of_journal(name)
    missed = []
    with connect(name) as app:
        for statement in work:
            text = statement.format(role=role, other=OTHER, database=name)
            with app.transaction(force_rollback=True):
                app.execute(f"SET LOCAL ROLE {as_role}")
                app.execute(text.encode())
                app.execute("RESET ROLE")
                marks = app.execute(f"SELECT marks FROM {schema}.look(1, 1)".encode()).fetchone()
            if marks == ([],):
                missed.append(statement)
    return missed


@pytest.mark.slow
def test_every_change_of_a_schema_is_noticed_without_event_triggers(template: str) -> None:
    """All catalogs are compared, but for what rows of an app change in them."""
    assert _not_noticed(template, ROLE, SILENT_IN_A_TRANSACTION, as_role=ROLE) == [
        *SILENT_IN_A_TRANSACTION
    ]
    assert _not_noticed(template, ROLE, BY_ITS_OWNER, as_role=ROLE) == []
    assert _not_noticed(template, ROLE, BY_A_SUPERUSER, as_role=address().user) == []


@pytest.mark.slow
def test_every_change_of_a_schema_is_noticed_by_event_triggers(role: str) -> None:
    """Event triggers fire for all commands but CLUSTER, which a comparison notices."""
    with _app_of(role) as name:
        assert install(address(name)) == []
        assert _not_noticed(name, role, BY_ITS_OWNER, as_role=role) == []
        by_others = (*BY_A_SUPERUSER, *BY_A_SUPERUSER_TO_POSTGRESQL)
        assert _not_noticed(name, role, by_others, as_role=address().user) == []


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


def test_a_database_with_large_objects_takes_clone(role: str) -> None:
    """Only a superuser may ask whether one was written to."""
    with database() as name:
        run(f"GRANT ALL ON DATABASE {name} TO {role}", database=name)
        run(f"SET ROLE {role}; SELECT lo_from_bytea(4242, 'old')", database=name)
        (gap,) = install(replace(address(name), user=role))
        assert gap.is_fatal
        assert "there are large objects" in gap.reason
        assert install(address(name)) == []


def test_a_dropped_sequence_is_noticed_pitfall_031(worlds: Worlds) -> None:
    """Its numbers cannot be read any more: the mark says why."""
    app, journal = worlds
    journal.enter(1)
    app.execute("DROP TABLE app.notes CASCADE")
    marks = ('a table or a sequence was dropped (relation "app.notes_id_seq" does not exist)',)
    assert journal.look(1).marks == marks
    assert journal.leave(1).marks == marks
    assert journal.enter(2) == marks


@pytest.fixture
def fresh() -> Iterator[ServerRegistry]:
    """A run of a login that may make databases, and no more."""
    run(f"CREATE ROLE {FRESH} LOGIN CREATEDB")
    try:
        with closing(ServerRegistry(replace(address(), user=FRESH))) as own:
            yield own
    finally:
        run(f"DROP ROLE {FRESH}")


def test_a_server_that_is_full_is_not_taken_for_a_lack_of_rights(fresh: ServerRegistry) -> None:
    """Nothing follows from it for the rest of the run."""
    run(f"ALTER ROLE {FRESH} CONNECTION LIMIT 1")
    with pytest.raises(ServerError, match="too many connections"):
        why_no_undo(fresh)
    run(f"ALTER ROLE {FRESH} CONNECTION LIMIT -1")
    assert why_no_undo(fresh).startswith(f"the role {FRESH} may not: permission denied")


def test_changes_are_told_without_event_triggers_pitfall_029(worlds: Worlds) -> None:
    """Those of the schema by looking at it, in the time between two looks; those of new tables."""
    app, journal = worlds
    journal.enter(1)

    def told(since: str = "") -> dict[str, tuple[object, ...]]:
        found = journal.rows_changed(level=1, is_top=True, since=since)
        return {one.table: one.added for one in found}

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
