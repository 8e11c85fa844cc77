"""What does the journal of a database answer, level by level, and when does it say no?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.journal._capture import uninstall
from pytest_arena._postgresql.journal._server import Look, Restoration, ServerJournal
from tests.journal.world import DONE, NOTHING, World, journaled
from tests.servers.postgresql import address, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import TableRows

SCHEMA = """
CREATE TABLE dancers (id serial PRIMARY KEY, name text UNIQUE, born date);
CREATE TABLE steps (name text, beats int);
CREATE TABLE empty (id int PRIMARY KEY, a text);
CREATE SCHEMA audit;
CREATE TABLE audit.log (a int, b int, at timestamptz, PRIMARY KEY (b, a));
INSERT INTO dancers (name, born) VALUES ('Sand', '1980-01-02'), ('Dune', NULL);
INSERT INTO steps VALUES ('toprock', 4), ('toprock', 4), ('six', 6);
"""
CRASHED = "the server was restarted, and has lost its journal"


@pytest.fixture(scope="module")
def template() -> Iterator[str]:
    """A database with some rows, and its journal."""
    with journaled(SCHEMA) as world:
        world.close()
        yield world.name


@pytest.fixture
def world(template: str) -> Iterator[World]:
    """A copy of it."""
    with journaled(template=template) as world:
        yield world


# Levels


def test_levels_are_left_to_where_they_were_entered(world: World) -> None:
    """Three deep, inner ones again and again, whatever was done in them."""
    journal, states = world.journal, []
    for level in range(1, 4):
        assert journal.enter(level) == ()
        states.append(world.state())
        world.run(f"INSERT INTO dancers (name) VALUES ('level {level}')")
        world.run("UPDATE dancers SET born = '2000-01-01'", "INSERT INTO steps VALUES ('six', 6)")
        world.run(f"INSERT INTO empty VALUES ({level})", "DELETE FROM steps WHERE beats = 4")
    for level in (3, 2):
        for _ in range(3):
            assert journal.leave(level) == DONE
            assert world.state() == states[level - 1]
            assert journal.enter(level) == ()
            world.run("DELETE FROM empty", "INSERT INTO empty VALUES (9)")
            world.run("TRUNCATE dancers RESTART IDENTITY", "INSERT INTO steps VALUES ('six', 6)")
        assert journal.leave(level) == DONE
        assert world.state() == states[level - 1]
    assert journal.leave(1) == DONE
    assert world.state() == states[0]


def test_a_table_that_was_empty_at_first_keeps_what_a_level_below_wrote(world: World) -> None:
    """It may be emptied whole only at a level that began with it empty."""
    journal = world.journal
    world.run("INSERT INTO empty VALUES (1)")
    for _ in range(2):
        journal.enter(1)
        world.run("INSERT INTO empty VALUES (2)")
        assert journal.leave(1) == DONE
        assert world.rows("SELECT id FROM empty") == [(1,)]
    journal.enter(1)
    world.run("DELETE FROM empty")
    journal.enter(2)
    world.run("INSERT INTO empty VALUES (3)")
    assert journal.leave(2) == DONE
    assert world.rows("SELECT id FROM empty") == []
    assert journal.leave(1) == DONE
    assert world.rows("SELECT id FROM empty") == [(1,)]


def test_levels_may_be_passed_over(world: World) -> None:
    """Where nobody wrote, nobody has to say so."""
    journal = world.journal
    world.run("INSERT INTO dancers (name) VALUES ('zero')")
    journal.enter(1)
    one = world.state()
    world.run("INSERT INTO dancers (name) VALUES ('two')")
    two = world.state()
    journal.enter(3)
    world.run("INSERT INTO dancers (name) VALUES ('three')")
    assert journal.leave(3) == DONE
    assert world.state() == two
    world.run("INSERT INTO dancers (name) VALUES ('again in two')")
    two = world.state()
    assert journal.enter(3) == ()
    assert journal.enter(3) == ()
    world.run("INSERT INTO dancers (name) VALUES ('three once more')")
    assert journal.leave(3) == DONE
    assert world.state() == two
    assert journal.leave(2) == DONE
    assert world.state() == one
    world.run("INSERT INTO dancers (name) VALUES ('two, not entered')")
    assert journal.leave(2) == DONE
    assert world.state() == one


def test_what_is_said_twice_is_done_once(world: World) -> None:
    """A connection may be lost before the answer arrives."""
    journal = world.journal
    world.run("INSERT INTO dancers (name) VALUES ('zero')")
    zero = world.state()
    for _ in range(2):
        assert journal.enter(1) == ()
    world.run("INSERT INTO dancers (name) VALUES ('one')")
    one = world.state()
    journal.enter(2)
    world.run("INSERT INTO dancers (name) VALUES ('two')")
    two = world.state()
    for _ in range(2):
        journal.forget(2)
    assert world.state() == two
    assert journal.leave(1) == DONE
    assert world.state() == zero != one
    assert journal.leave(1) == NOTHING
    assert world.state() == zero


def test_a_level_that_is_forgotten_belongs_to_the_one_below(world: World) -> None:
    """That happens while a fixture's transaction is open."""
    journal, before = world.journal, world.state()
    journal.enter(1)
    world.run("INSERT INTO empty VALUES (1)")
    journal.enter(2)
    world.run("INSERT INTO empty VALUES (2)", "INSERT INTO dancers (name) VALUES ('two')")
    journal.enter(3)
    world.run("UPDATE dancers SET name = 'three' WHERE id = 3")
    with world.another("BEGIN", "INSERT INTO empty VALUES (4)") as other:
        journal.forget(3)
        journal.forget(2)
        other.execute("COMMIT")
    assert {table.table for table in journal.rows_changed(level=1)} == {"dancers", "empty"}
    assert journal.leave(1) == DONE
    assert world.state() == before


def test_what_is_open_when_a_level_is_entered_belongs_to_it_pitfall_043(world: World) -> None:
    """What it wrote before was not to be seen then."""
    with world.another("BEGIN", "INSERT INTO steps VALUES ('open', 1)") as other:
        world.run("INSERT INTO steps VALUES ('committed', 1)")
        before = world.state()
        assert world.journal.enter(1) == ()
        other.execute("INSERT INTO steps VALUES ('later', 1)")
        other.execute("COMMIT")
    assert len(world.rows("SELECT FROM steps")) == 6
    assert world.journal.leave(1) == DONE
    assert world.state() == before


# Who writes


def test_an_open_transaction_is_named_and_nothing_is_undone_pitfall_044(world: World) -> None:
    """It is for others to end it."""
    world.run("INSERT INTO steps VALUES ('committed', 1)")
    with world.another("BEGIN", "UPDATE dancers SET name = 'open' WHERE id = 1") as other:
        pid = other.info.backend_pid
        with pytest.raises(ControlFailure, match=f"backend {pid}") as failed:
            world.journal.leave(1)
        assert failed.value.sqlstate == "55P03"
        assert world.journal.look(1).writers == {pid}
        assert len(world.rows("SELECT FROM steps")) == 4
        other.execute("ROLLBACK")
    assert world.journal.look(1).writers == frozenset()
    assert world.journal.leave(1) == DONE


def test_an_open_change_of_the_schema_is_named_pitfall_044(world: World) -> None:
    """It is not committed, so there is no mark that could be read."""
    with world.another("BEGIN", "CREATE TABLE more (a int)") as other:
        pid = other.info.backend_pid
        with pytest.raises(ControlFailure, match=f"backend {pid}") as failed:
            world.journal.leave(1)
        assert failed.value.sqlstate == "55P03"
        assert world.journal.look(1).writers == {pid}


def test_an_open_reader_disturbs_nothing_pitfall_044(world: World) -> None:
    """A pool's connection may be inside a transaction that has only read."""
    with world.another("BEGIN ISOLATION LEVEL REPEATABLE READ", "TABLE dancers") as other:
        world.run("DELETE FROM dancers")
        assert world.journal.look(1).writers == frozenset()
        assert world.journal.leave(1) == DONE
        assert len(other.execute("TABLE dancers").fetchall()) == 2


@pytest.mark.slow
def test_a_lock_on_a_row_is_waited_for_half_a_second_pitfall_044(world: World) -> None:
    """Then it is given up whole, and the session is named."""
    world.run("UPDATE dancers SET name = 'changed' WHERE id = 1")
    with world.another("BEGIN", "SELECT * FROM dancers WHERE id = 1 FOR UPDATE") as other:
        with pytest.raises(ControlFailure, match=f"backend {other.info.backend_pid}") as failed:
            world.journal.leave(1)
        assert failed.value.sqlstate == "55P03"
        assert world.rows("SELECT name FROM dancers WHERE id = 1") == [("changed",)]
    assert world.journal.leave(1) == DONE


def test_a_prepared_transaction_is_named_pitfall_058(world: World) -> None:
    """It belongs to no session, and holds its locks all the same."""
    with world.another("BEGIN", "DELETE FROM steps") as other:
        try:
            other.execute("PREPARE TRANSACTION 'the second phase'")
        except psycopg.Error as error:
            pytest.skip(str(error))
    try:
        with pytest.raises(
            ControlFailure, match="a prepared transaction: the second phase"
        ) as failed:
            world.journal.leave(1)
        assert failed.value.sqlstate == "55P03"
        assert world.journal.look(1).prepared == ("the second phase",)
    finally:
        world.run("ROLLBACK PREPARED 'the second phase'")
    assert world.journal.leave(1) == NOTHING


def test_an_advisory_lock_is_no_change_pitfall_058(world: World) -> None:
    """Nor does the session that holds it count as a writer."""
    world.run("SELECT pg_advisory_lock(7)")
    assert world.journal.look(1) == Look()


def test_writers_side_by_side_pitfall_043(world: World) -> None:
    """Journal order is not commit order."""
    before = world.state()
    with world.another("BEGIN") as one, world.another("BEGIN") as other:
        for number in range(20):
            one.execute(f"INSERT INTO dancers (name) VALUES ('one {number}')")
            other.execute(f"INSERT INTO steps VALUES ('other', {number})")
            other.execute("UPDATE dancers SET born = now() WHERE id = 2")
        other.execute("COMMIT")
        one.execute("DELETE FROM dancers WHERE id = 2")
        one.execute("COMMIT")
    assert world.journal.leave(1) == DONE
    assert world.state() == before


# Marks

DDL = {
    "u29_a_table": "CREATE TABLE more (a int)",
    "u30_a_column": "ALTER TABLE dancers ADD COLUMN a int",
    "u31_no_table": "DROP TABLE steps",
    "u31_no_sequence": "DROP TABLE dancers",
    "u31_another_name": "ALTER TABLE steps RENAME TO moves",
    "u32_no_trigger": "ALTER TABLE steps DISABLE TRIGGER USER",
    "u34_a_function": "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "u56_a_schema": "CREATE SCHEMA tenant",
}


@pytest.mark.parametrize("ddl", DDL.values(), ids=DDL)
def test_a_changed_schema_is_a_mark_and_nothing_is_done(world: World, ddl: str) -> None:
    """Each method says so, and what can be told is told all the same."""
    world.run("INSERT INTO empty VALUES (1)", ddl)
    after = world.state()
    marks = world.journal.enter(2)
    assert marks
    assert world.journal.look(1).marks == marks
    assert world.journal.look(1).is_changed
    assert world.journal.leave(1) == Restoration(was_changed=True, marks=marks)
    assert world.state() == after
    assert [table.added for table in _changes_of(world, "empty")] == [((1, None),)]
    assert world.journal.archive(1) == []


def test_installed_anew_a_changed_schema_is_where_it_begins_pitfall_030(world: World) -> None:
    """As a wide fixture wants it that makes tables."""
    world.journal.enter(1)
    world.run(
        "CREATE TABLE more (id serial PRIMARY KEY)", "INSERT INTO dancers (name) VALUES ('a')"
    )
    world.run("ALTER TABLE steps ADD more int", "DROP TABLE empty", "SELECT nextval('more_id_seq')")
    assert world.journal.install() == []
    assert not world.journal.look().is_changed
    before = world.state()
    assert world.journal.enter(2) == ()
    world.run("INSERT INTO more DEFAULT VALUES", "UPDATE steps SET more = 1", "DELETE FROM dancers")
    assert world.journal.leave(2) == DONE
    assert world.state() == before


UNSEEN = ("event triggers, large objects or the index of a CLUSTER were changed",)


def test_large_objects_pitfall_058(world: World) -> None:
    """They are noticed by their number; each level has its own."""
    world.run("SELECT lo_create(4242)")
    assert world.journal.leave(1).marks == UNSEEN
    assert world.journal.look(1).marks == UNSEEN
    world.journal.enter(2)
    world.run("SELECT lo_create(4243), lo_unlink(4243)")
    assert world.journal.leave(2) == NOTHING
    world.run("SELECT lo_unlink(4242)")
    assert world.journal.leave(2).marks == UNSEEN
    with pytest.raises(ControlFailure, match="large objects") as failed:
        world.journal.archive(2)
    assert failed.value.sqlstate == "0A000"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "SELECT lo_put(4242, 0, 'new')",
        "SELECT lo_put(4242, 5000, 'new')",
        "SELECT lo_unlink(4242), lo_from_bytea(4242, 'old')",
        "GRANT SELECT ON LARGE OBJECT 4242 TO PUBLIC",
        "COMMENT ON LARGE OBJECT 4242 IS 'new'",
    ],
)
def test_what_is_written_to_a_large_object_pitfall_058(change: str) -> None:
    """Its pages have versions, as all rows have."""
    with journaled("SELECT lo_from_bytea(4242, 'old')") as world:
        world.journal.enter(1)
        assert world.rows("SELECT lo_get(4242)") == [(b"old",)]
        assert world.journal.leave(1) == NOTHING
        world.journal.enter(1)
        world.run(change)
        assert world.journal.leave(1).marks, change


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "CLUSTER dancers USING dancers_pkey",
        "CREATE EVENT TRIGGER another ON ddl_command_start EXECUTE FUNCTION noted()",
        "ALTER EVENT TRIGGER one DISABLE",
        "DROP EVENT TRIGGER one",
    ],
)
def test_a_change_that_no_event_trigger_sees_pitfall_029(change: str) -> None:
    """A new event trigger would change the schema in all later tests."""
    noted = "CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
    one = "CREATE EVENT TRIGGER one ON ddl_command_start EXECUTE FUNCTION noted();"
    with journaled(SCHEMA + noted + one) as world:
        world.journal.enter(1)
        assert world.journal.leave(1) == NOTHING
        world.journal.enter(1)
        world.run(change)
        marks = UNSEEN
        assert world.journal.leave(1) == Restoration(was_changed=True, marks=marks)


def test_settings_of_the_database_pitfall_058(world: World) -> None:
    """Each new connection would have them."""
    world.run(f"ALTER DATABASE {world.name} SET work_mem = '7MB'")
    assert world.journal.leave(1).marks == ("settings of the database were changed",)
    world.run(f"ALTER DATABASE {world.name} RESET work_mem")
    assert world.journal.leave(1) == NOTHING


def test_a_server_that_has_crashed_pitfall_063(world: World) -> None:
    """What it does to unlogged tables then."""
    world.run("INSERT INTO steps VALUES ('lost', 1)")
    tables = "pg_arena.state, pg_arena.j, pg_arena.jold, pg_arena.filled, pg_arena.ddl"
    world.run(f"TRUNCATE {tables}")
    assert world.journal.enter(2) == (CRASHED,)
    assert world.journal.leave(1) == Restoration(was_changed=True, marks=(CRASHED,))
    assert world.journal.look(1).marks == (CRASHED,)
    with pytest.raises(ControlFailure, match=CRASHED):
        world.journal.archive(1)


def test_a_change_past_the_triggers_is_a_mark(world: World) -> None:
    """A row that should go is not there."""
    world.run("INSERT INTO dancers (name) VALUES ('seen')")
    with world.another("SET arena.undo = 1") as other:
        other.execute("DELETE FROM dancers WHERE name = 'seen'")
    after = world.state()
    assert world.journal.leave(1).marks == (
        "the journal contradicts table public.dancers: changed past its triggers",
    )
    assert world.state() == after


def test_a_change_past_the_triggers_of_a_table_without_a_key_is_a_mark(world: World) -> None:
    """There are fewer rows than should go."""
    world.run("INSERT INTO steps SELECT 'seen', 1 FROM generate_series(1, 3)")
    with world.another("SET arena.undo = 1") as other:
        other.execute("DELETE FROM steps WHERE ctid = (SELECT max(ctid) FROM steps)")
    after = world.state()
    assert world.journal.leave(1).marks == (
        "the journal contradicts table public.steps: changed past its triggers",
    )
    assert world.state() == after


def test_a_row_that_came_twice_with_one_key_is_a_mark(world: World) -> None:
    """Such a journal is wrong, whatever its reason."""
    world.run("INSERT INTO dancers (name) VALUES ('once')")
    world.run("INSERT INTO pg_arena.j SELECT * FROM pg_arena.j")
    assert world.journal.leave(1).marks == (
        "the journal contradicts table public.dancers: changed past its triggers",
    )


def test_an_error_undoes_nothing_and_is_a_mark(world: World) -> None:
    """A row may have become one that a CHECK of today refuses."""
    world.journal.close()
    run(
        "CREATE FUNCTION late() RETURNS bool LANGUAGE sql AS "
        "$$ SELECT current_setting('late.hour', true) IS NOT DISTINCT FROM '1' $$",
        "SET late.hour = 1; ALTER TABLE audit.log ADD CHECK (late());"
        "INSERT INTO audit.log VALUES (1, 2, now())",
        database=world.name,
    )
    world.journal = ServerJournal(address(world.name))
    world.journal.install()
    world.run("INSERT INTO empty VALUES (1)", "DELETE FROM audit.log")
    [mark] = world.journal.leave(1).marks
    assert "violates check constraint" in mark
    assert world.rows("SELECT id FROM empty") == [(1,)]
    assert world.rows("SELECT FROM audit.log") == []
    assert world.journal.look(1).is_changed


@pytest.mark.slow
def test_it_is_not_taken_out_while_somebody_works(world: World) -> None:
    """Nor is anybody waited for, for ever."""
    with world.another("BEGIN", "UPDATE dancers SET name = name || '!'") as other:
        with pytest.raises(ControlFailure) as failed:
            uninstall(address(world.name))
        assert failed.value.sqlstate == "55P03"
        other.execute("COMMIT")
    assert world.journal.leave(1) == DONE


def test_a_journal_that_is_gone_is_a_mark(world: World) -> None:
    """It may be put back."""
    uninstall(address(world.name))
    assert world.journal.leave(1).marks
    assert world.journal.enter(1)
    assert world.rows("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []
    uninstall(address(world.name))
    world.journal.close()
    world.journal = ServerJournal(address(world.name))
    assert world.journal.enter(1)
    assert world.journal.install() == []
    assert world.journal.enter(1) == ()
    world.run("DELETE FROM steps")
    assert world.journal.leave(1) == DONE


# Changes


def _changes_of(world: World, table: str, level: int = 1) -> list[TableRows]:
    found = world.journal.rows_changed(level=level, is_top=True)
    return [change for change in found if change.table == table]


def test_changes_are_net_and_have_the_types_of_their_columns(world: World) -> None:
    """In the order of the tables' names, the default schema's first."""
    world.run(
        "UPDATE dancers SET born = '1999-12-31' WHERE id = 2", "DELETE FROM steps WHERE beats = 6"
    )
    world.run(
        "INSERT INTO dancers (name) VALUES ('gone again')", "DELETE FROM dancers WHERE id = 3"
    )
    world.run("INSERT INTO audit.log VALUES (1, 2, '2026-01-01 00:00+00')")
    world.run("INSERT INTO steps VALUES ('new', 1), ('new', 1)")
    [dancers] = world.rows("SELECT * FROM dancers WHERE id = 2")
    [log] = world.rows("SELECT * FROM audit.log")
    names = ("id", "name", "born")
    found = world.journal.rows_changed(level=1, is_top=True)
    assert [(one.table, one.columns, one.key, one.removed, one.added) for one in found] == [
        ("dancers", names, ("id",), ((2, "Dune", None),), (dancers,)),
        ("steps", ("name", "beats"), (), (("six", 6),), (("new", 1), ("new", 1))),
        ("audit.log", ("a", "b", "at"), ("b", "a"), (), (log,)),
    ]


def test_changes_between_two_moments(world: World) -> None:
    """What is committed in between counts, whenever it was written."""
    journal = world.journal
    with world.another("BEGIN", "INSERT INTO empty VALUES (1)") as other:
        world.run("INSERT INTO empty VALUES (2)")
        first = journal.moment()
        other.execute("COMMIT")
        world.run("DELETE FROM empty WHERE id = 2", "INSERT INTO empty VALUES (3)")
        second = journal.moment()
        world.run("DELETE FROM empty")

    def seen(since: str = "", until: str = "") -> list[tuple[set[object], set[object]]]:
        found = journal.rows_changed(level=1, since=since, until=until, is_top=True)
        return [({row[0] for row in one.removed}, {row[0] for row in one.added}) for one in found]

    assert seen(until=first) == [(set(), {2})]
    assert seen(first, second) == [({2}, {1, 3})]
    assert seen(second) == [({1, 3}, set())]
    assert seen(until=second) == [(set(), {1, 3})]
    assert seen() == []


def test_changes_of_a_level_below_are_its_own(world: World) -> None:
    """The top one has what it wrote before an inner level, too."""
    journal = world.journal
    world.run("INSERT INTO empty VALUES (0)")
    journal.enter(1)
    world.run("INSERT INTO empty VALUES (1)")
    journal.enter(2)
    moment = journal.moment()
    world.run("INSERT INTO empty VALUES (2)")
    seen = [journal.rows_changed(level=level)[0].added for level in (0, 1)]
    assert seen == [((0, None),), ((1, None),)]
    assert journal.rows_changed(level=2, is_top=True)[0].added == ((2, None),)
    journal.leave(2)
    world.run("INSERT INTO empty VALUES (3)")
    assert len(journal.rows_changed(level=1, is_top=True)[0].added) == 2
    assert journal.rows_changed(level=1, is_top=True, since=moment)[0].added == ((3, None),)
    assert journal.rows_changed(level=3) == []


def test_a_limit_says_how_many_rows_it_has_cut_off(world: World) -> None:
    """Of each table by itself."""
    world.run("INSERT INTO empty SELECT g FROM generate_series(1, 50) g", "DELETE FROM steps")
    found = world.journal.rows_changed(level=1, is_top=True, limit=2)
    assert [(len(one.removed), len(one.added), one.more) for one in found] == [
        (0, 2, 48),
        (2, 0, 1),
    ]
    [none, _] = world.journal.rows_changed(level=1, is_top=True, limit=0)
    assert (none.removed, none.added, none.more) == ((), (), 50)


@pytest.mark.parametrize(
    "ddl, table",
    [
        ("ALTER TABLE steps DROP beats", "steps"),
        ("ALTER TABLE steps DROP beats, ADD more int", "steps"),
        ("ALTER TABLE steps ALTER name TYPE int USING 1", "steps"),
        ("DROP TABLE steps", "a table that was dropped ("),
    ],
)
def test_rows_of_another_shape_are_given_as_text_pitfall_031(
    world: World, ddl: str, table: str
) -> None:
    """Better than nothing: the change of the schema is told elsewhere."""
    world.run("INSERT INTO steps VALUES ('a, b', 1)", ddl)
    [found, _] = world.journal.rows_changed(level=1, is_top=True)
    assert found.table.startswith(table)
    assert (found.columns, found.added) == (("row",), (('("a, b",1)',),))


GONE = """
CREATE FUNCTION gone() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('arena.undo', true) = '1' THEN RAISE SQLSTATE '{code}'; END IF;
    RETURN true;
END $$;
CREATE DOMAIN lost AS text CHECK (gone());
CREATE TABLE parcels (a lost)
"""


@pytest.mark.parametrize("code", ["57P01", "08006"])
def test_a_server_that_goes_away_is_no_other_shape(code: str) -> None:
    """Else whoever asked for rows would be given their text, and would not know why."""
    with journaled(GONE.format(code=code)) as world:
        world.run("INSERT INTO parcels VALUES ('a')")
        with pytest.raises(ControlFailure) as caught:
            world.journal.rows_changed(level=1, is_top=True)
        assert caught.value.sqlstate == code


def test_rows_of_a_table_of_another_name_have_its_new_one_pitfall_031(world: World) -> None:
    """Their shape is the same."""
    world.run("INSERT INTO steps VALUES ('a', 1)", "ALTER TABLE steps RENAME TO moves")
    [found, _] = world.journal.rows_changed(level=1, is_top=True)
    assert (found.table, found.added) == ("moves", (("a", 1),))


def test_rows_of_before_have_no_value_of_a_new_column_pitfall_030(world: World) -> None:
    """They are still the rows that they were, to be compared with what they are."""
    world.run("""INSERT INTO steps VALUES ('"a", (b\\)', 1), (NULL, NULL)""")
    world.run("ALTER TABLE steps ADD more int, ADD most text", "DELETE FROM steps WHERE beats = 6")
    [steps, schema] = world.journal.rows_changed(level=1, is_top=True)
    assert steps.columns == ("name", "beats", "more", "most")
    assert steps.removed == (("six", 6, None, None),)
    assert set(steps.added) == {('"a", (b\\)', 1, None, None), (None, None, None, None)}
    assert (schema.table, schema.added) == ("the schema", (("ALTER TABLE public.steps",),))


def test_a_table_that_has_lost_a_column_before_is_told_as_any_other() -> None:
    """A migration may have dropped it: all images are of the table as it is."""
    with journaled(f"{SCHEMA}; ALTER TABLE steps DROP name;") as world:
        world.run("INSERT INTO steps VALUES (7)", "ALTER TABLE steps ADD more int")
        [steps, schema] = world.journal.rows_changed(level=1, is_top=True)
        assert (steps.columns, steps.added) == (("beats", "more"), ((7, None),))
        assert schema.added == (("ALTER TABLE public.steps",),)
        world.run("ALTER TABLE steps DROP beats")
        assert world.journal.rows_changed(level=1, is_top=True)[1].added == schema.added


def test_marks_are_changes_too_pitfall_029(world: World) -> None:
    """In the time in which they were made."""
    world.run("CREATE TABLE more (a int)", "INSERT INTO more VALUES (1)")
    moment = world.journal.moment()
    assert world.journal.rows_changed(level=1, is_top=True, since=moment) == []
    world.run("DROP TABLE more", "CREATE SCHEMA tenant")
    dropped, made = ("DROP TABLE public.more",), ("CREATE SCHEMA tenant",)
    [since] = world.journal.rows_changed(level=1, is_top=True, since=moment)
    assert (since.table, since.columns, since.key) == ("the schema", ("changed",), ())
    assert (since.removed, since.added) == ((), (dropped, made))
    [until] = world.journal.rows_changed(level=1, is_top=True, until=moment)
    assert (until.table, until.added) == ("the schema", (("CREATE TABLE public.more",),))
    cut = world.journal.rows_changed(level=1, is_top=True, limit=1)
    assert [(len(one.added), one.more) for one in cut] == [(1, 2)]
    assert world.journal.rows_changed(level=1) == []


# From one database to another


def test_what_levels_below_wrote_is_carried_into_another_copy(template: str) -> None:
    """To the letter, and to be taken back level by level there."""
    with journaled(template=template) as one:
        one.run("INSERT INTO empty VALUES (1), (2)", "DELETE FROM steps WHERE beats = 4")
        one.journal.enter(1)
        first = one.state()
        one.run("UPDATE dancers SET name = 'it''s \\ one' WHERE id = 1", "DELETE FROM empty")
        one.run("INSERT INTO steps VALUES ('six', 6)", "SELECT setval('dancers_id_seq', 9, false)")
        one.journal.enter(2)
        second = one.state()
        one.run("DELETE FROM dancers", "INSERT INTO empty VALUES (7)", "DROP TABLE steps")
        assert one.journal.enter(3)
        archived = one.journal.archive(2)
        one.close()
        for level, state in ((2, second), (1, first)):
            _carried(template, archived, level, [first, second][:level], state)


def _carried(
    template: str,
    archived: list[tuple[object, ...]],
    level: int,
    states: list[dict[str, object]],
    state: object,
) -> None:
    """Go to a level in a fresh copy, work there, and leave one level after the other."""
    with journaled(template=template) as copy:
        begun = copy.state()
        copy.journal.restore(archived, level)
        assert copy.state() == state
        assert not copy.journal.look(level).is_changed
        copy.run("INSERT INTO dancers (name) VALUES ('more')", "DELETE FROM steps")
        copy.run("INSERT INTO empty VALUES (8)")
        for at in range(level, 0, -1):
            assert copy.journal.leave(at).marks == ()
            assert copy.state() == states[at - 1]
        assert copy.journal.leave(0) == DONE
        assert copy.state() == begun


def test_settings_of_a_copy_are_its_own_pitfall_088() -> None:
    """They are not copied, and say nothing of a test."""
    with journaled(SCHEMA) as template:
        run(f"ALTER DATABASE {template.name} SET work_mem = '7MB'")
        template.journal.install()
        template.close()
        with journaled(template=template.name) as copy:
            assert copy.journal.leave(1) == NOTHING


# Whose connection


def test_the_shell_does_not_decide_how_rows_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Libpq lets it, or an image would be another text than the trigger's."""
    monkeypatch.setenv("PGTZ", "Asia/Kolkata")
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    times = "CREATE TABLE times (at timestamptz); INSERT INTO times VALUES (now())"
    with journaled(SCHEMA, times) as world:
        world.run("INSERT INTO times VALUES (now())", "INSERT INTO audit.log VALUES (1, 1, now())")
        assert world.journal.leave(1) == DONE


def test_a_database_may_have_its_own_defaults() -> None:
    """They are for the app; none of them may stop an undo, or change a row that it restores."""
    lists = "CREATE TABLE lists (a text[]); INSERT INTO lists VALUES (ARRAY['a', NULL])"
    with journaled(SCHEMA, lists) as world:
        before = world.state()
        world.journal.close()
        run(
            *(
                f"ALTER DATABASE {world.name} SET {setting}"
                for setting in (
                    "default_transaction_isolation = 'serializable'",
                    "default_transaction_read_only = on",
                    "statement_timeout = '1ms'",
                    "idle_in_transaction_session_timeout = '1ms'",
                    "search_path = audit",
                    "DateStyle = 'German'",
                    "array_nulls = off",
                )
            )
        )
        world.journal = ServerJournal(address(world.name))
        world.run("DELETE FROM dancers", "INSERT INTO audit.log VALUES (1, 1, now())")
        world.run("DELETE FROM lists")
        assert world.journal.leave(1).marks == ("settings of the database were changed",)
        run(f"ALTER DATABASE {world.name} RESET ALL")
        assert world.journal.leave(1) == DONE
        assert world.state() == before
