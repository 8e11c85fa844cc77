"""``undo`` keeps what the seam promises, in place; and where it cannot, in another database."""

from __future__ import annotations

import os
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pytest_arena._postgresql.isolation import ServerIsolation
from pytest_arena._product import Held
from pytest_arena._product._control_lines import Reconnecting
from pytest_arena.errors import IsolationError
from tests.isolation.server_world import CountedUsage, ServerWorld
from tests.isolation.test_on_server import wait_until
from tests.parameters import slow_except
from tests.servers.postgresql import connect, rows, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql.registry import ServerRegistry

COUNT = "SELECT count(*) FROM plain"
SCHEMAS = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '%arena%'"


@pytest.fixture
def world(own: ServerRegistry, template: str) -> Iterator[ServerWorld]:
    """A database of the test's own, dropped at its end."""
    world = ServerWorld.of(own, template, "undo")
    yield world
    world.close()


# In place


def test_the_database_and_its_connections_stay(world: ServerWorld) -> None:
    """Connections are kept from test to test, which is what makes it quick."""
    hand = world.connect()
    before, pid = hand.dump(), hand.raw.info.backend_pid
    live, generation = world.isolation.address, world.isolation.generation
    for _ in range(3):
        world.isolation.enter()
        hand.executescript("DELETE FROM dancers; TRUNCATE plain; SELECT nextval('tickets')")
        assert world.isolation.leave()
        assert hand.dump() == before
    assert hand.raw.info.backend_pid == pid
    assert (world.isolation.address, world.isolation.generation) == (live, generation)


def test_a_level_that_was_only_read_is_clean(world: ServerWorld) -> None:
    """However much others write on the same server."""
    hand = world.connect()
    world.isolation.enter()
    hand.executescript("BEGIN; SELECT * FROM plain; ROLLBACK; SELECT * FROM dancers")
    run("SELECT pg_current_xact_id()")
    assert world.isolation.is_untouched()
    assert world.isolation.is_clean()
    assert not world.isolation.leave()


def test_a_level_that_nobody_touched_costs_nothing_pitfall_066(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No round trip: neither in the level, nor in one around it, nor to tell what was changed."""
    world.isolation.enter()
    moment = world.isolation.moment()
    monkeypatch.setattr(Reconnecting, "call", lambda *_: pytest.fail("the server was asked"))
    for _ in range(3):
        world.isolation.enter()
        assert world.isolation.is_clean()
        assert world.isolation.is_untouched()
        assert world.isolation.moment() == moment
        assert not world.isolation.leave()
    world.isolation.enter()
    world.isolation.forget()


def test_an_idle_reader_is_in_nobodys_way_pitfall_044_067(world: ServerWorld) -> None:
    """It is seen, and the level can be left all the same."""
    hand, reader, before = world.connect(), world.connect(), world.dump()
    world.isolation.enter()
    reader.executescript("BEGIN; SELECT * FROM scores")
    assert not world.isolation.is_free()
    hand.execute("DELETE FROM plain")
    assert world.isolation.leave()
    reader.rollback()
    assert world.isolation.is_free()
    assert hand.dump() == before


def test_a_statement_that_is_under_way_holds_the_level_pitfall_044(
    world: ServerWorld,
) -> None:
    """Its rows are journaled at its end: it would commit them to the level below."""
    hand, other, keeper = world.connect(), world.connect(), world.connect()
    before, pid = hand.dump(), other.raw.info.backend_pid
    world.isolation.enter()
    keeper.execute("SELECT pg_advisory_lock(9)")
    late = "INSERT INTO plain SELECT 4 FROM (SELECT pg_advisory_xact_lock(9)) waits"
    thread = threading.Thread(target=lambda: other.execute(late))
    thread.start()
    wait_until(lambda: world.isolation.writers() == {pid})
    with pytest.raises(Held, match=str(pid)):
        world.isolation.leave()
    keeper.execute("SELECT pg_advisory_unlock(9)")
    thread.join()
    assert world.isolation.leave()
    assert hand.dump() == before


def test_a_level_whose_sequences_alone_have_moved_is_untouched_pitfall_057(
    world: ServerWorld,
) -> None:
    """They move in a wide fixture's transaction, too, which goes on over its tests."""
    hand = world.connect()
    world.isolation.enter()
    hand.executescript("BEGIN; INSERT INTO dancers (name) VALUES ('x'); ROLLBACK")
    assert world.isolation.is_untouched()
    assert not world.isolation.is_clean()
    assert world.isolation.leave()


def test_prepared_transactions_pitfall_058_067(world: ServerWorld) -> None:
    """No session holds one: it is rolled back, and the database stays."""
    hand = world.connect()
    before, live = hand.dump(), world.isolation.address
    world.isolation.enter()
    hand.executescript("BEGIN; INSERT INTO plain VALUES (3); PREPARE TRANSACTION 'left'")
    hand.execute("INSERT INTO plain VALUES (4)")
    assert not world.isolation.is_clean()
    assert world.isolation.leave()
    assert rows("SELECT gid FROM pg_prepared_xacts WHERE gid = 'left'") == []
    assert hand.dump() == before
    assert world.isolation.address == live
    assert world.told[-1].endswith("rolled back: left")


def test_a_lock_of_a_session_is_no_change_pitfall_131(world: ServerWorld) -> None:
    """The app may keep it during all tests. The gate gives up a connection that has it."""
    hand = world.connect()
    world.isolation.enter()
    hand.execute("SELECT pg_advisory_lock(7)")
    assert world.isolation.is_clean()
    assert world.isolation.is_untouched()


def test_sequences_above_a_wide_fixture_that_has_moved_them_pitfall_057(
    own: ServerRegistry, template: str
) -> None:
    """Also where a level is entered again at once, with nobody having used the database between."""
    with sparing(own, template) as (undo, insert):
        undo.enter()
        assert insert() == 3
        for _ in range(3):
            undo.enter()
            assert [insert(), insert()] == [4, 5]
            undo.enter()
            assert insert() == 6
            assert undo.leave()
            assert insert() == 6
            assert undo.leave()
        assert undo.leave()
        undo.enter()
        assert insert() == 3


@contextmanager
def sparing(
    own: ServerRegistry, template: str
) -> Iterator[tuple[ServerIsolation, Callable[[], object]]]:
    """An isolation that is not used but by what inserts a row, and returns its number."""
    uses = [0]
    undo = ServerIsolation(own, template, "undo", uses=CountedUsage(lambda: uses[0]), note=print)

    def insert() -> object:
        uses[0] += 1
        [(number,)] = rows(
            "INSERT INTO dancers (name) VALUES (random()) RETURNING id", undo.live.address.database
        )
        return number

    try:
        yield undo, insert
    finally:
        undo.close()


def test_a_forgotten_level_is_not_forgotten_about(own: ServerRegistry, template: str) -> None:
    """Nobody has used the database since: what was written before that is the level's below."""
    with sparing(own, template) as (undo, insert):
        undo.enter()
        undo.enter()
        assert insert() == 3
        undo.enter()
        assert not undo.leave()
        assert not undo.is_clean()
        assert not undo.is_untouched()
        undo.forget()
        assert not undo.is_clean()
        assert undo.leave()
        undo.enter()
        assert insert() == 3


def test_rows_and_moments(world: ServerWorld) -> None:
    """What was changed by whom: in this level, since a moment, between two, in those below."""
    hand = world.connect()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (10)")
    world.isolation.enter()
    start = world.isolation.moment()
    hand.execute("INSERT INTO plain VALUES (11)")
    middle = world.isolation.moment()
    assert start != middle == world.isolation.moment(exact=True)
    hand.execute("DELETE FROM plain WHERE a = 10")
    assert changed(world) == ({10}, {11})
    assert changed(world, start, middle) == (set(), {11})
    assert changed(world, middle) == ({10}, set())
    assert changed(world, depth=1) == (set(), {10})
    assert changed(world, depth=2) == (set(), set())
    assert world.isolation.rows_changed(depth=3) == []
    world.isolation.leave()
    assert changed(world) == (set(), {10})


def changed(world: ServerWorld, *moments: object, depth: int = 0) -> tuple[set[Any], set[Any]]:
    """What has gone from ``plain``, and what has come."""
    found = world.isolation.rows_changed(*moments, depth=depth)
    assert {one.table for one in found} <= {"plain"}
    removed = {value for one in found for (value, *_) in one.removed}
    return removed, {value for one in found for (value, *_) in one.added}


def test_content_tells_databases_apart(world: ServerWorld) -> None:
    """It is the same again after a level, and another one inside of it."""
    hand = world.connect()
    before = world.isolation.content()
    world.isolation.enter()
    hand.execute("DELETE FROM plain")
    assert world.isolation.content() != before
    world.isolation.leave()
    assert world.isolation.content() == before


def test_two_at_once(own: ServerRegistry, template: str, world: ServerWorld) -> None:
    """An app with two databases: each has its own levels."""
    other = ServerWorld.of(own, template, "undo")
    try:
        hands = world.connect(), other.connect()
        before = [hand.dump() for hand in hands]
        for one in (world, other):
            one.isolation.enter()
        hands[0].execute("DELETE FROM dancers")
        hands[1].execute("DROP TABLE scores")
        assert other.isolation.leave()
        assert hands[1].dump() == before[1]
        assert world.isolation.leave()
        assert [hand.dump() for hand in hands] == before
    finally:
        other.close()


# What no journal can take back

DDL = {
    "CREATE TABLE public.notes": "CREATE TABLE notes (a int); INSERT INTO notes VALUES (1)",
    "ALTER TABLE public.dancers": "ALTER TABLE dancers ADD COLUMN age int",
    "DROP TABLE public.scores": "DROP TABLE scores",
    "ALTER TABLE public.fancy": "ALTER TABLE plain RENAME TO fancy; INSERT INTO fancy VALUES (1)",
}


@pytest.mark.parametrize(
    "depth",
    [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "mark", slow_except(DDL, "CREATE TABLE public.notes", "ALTER TABLE public.dancers")
)
def test_ddl_in_a_test_pitfall_029_030_031(world: ServerWorld, depth: int, mark: str) -> None:
    """Another database takes its place, and has what the levels below had written."""
    hand, states = world.connect(), []
    for number in range(depth):
        states.append(hand.dump())
        world.isolation.enter()
        hand.executescript(
            f"INSERT INTO plain VALUES ({number}); INSERT INTO dancers (name) VALUES ('{number}');"
            f"DELETE FROM scores WHERE round = {number}; SELECT nextval('tickets')"
        )
    live = world.isolation.address
    hand.executescript(DDL[mark])
    assert world.isolation.leave()
    assert hand.dump() == states.pop()
    assert world.isolation.address != live
    while states:
        hand.execute("INSERT INTO many (a) VALUES ('x')")
        assert world.isolation.leave()
        assert hand.dump() == states.pop()
    [line] = [line for line in world.told if "replaced" in line]
    assert line.startswith("undo: {test}: its database was replaced: ")
    assert mark in line


def test_the_line_names_three_at_most_pitfall_029(world: ServerWorld) -> None:
    """It is one line of a summary."""
    hand = world.connect()
    world.isolation.enter()
    hand.executescript("; ".join(f"CREATE TABLE t{number} (a int)" for number in range(5)))
    world.isolation.leave()
    assert world.told[-1].count("CREATE TABLE") == 3
    assert world.told[-1].endswith(" and 2 more")


@pytest.mark.slow
def test_ddl_in_a_wide_level(world: ServerWorld) -> None:
    """It is there for each test, which writes to it and is undone in place; then it is gone."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (7)")
    outer = hand.dump()
    world.isolation.enter()
    hand.executescript(
        "CREATE TABLE notes (id serial PRIMARY KEY, a int); INSERT INTO notes (a) VALUES (1);"
        "ALTER TABLE dancers ADD COLUMN age int; INSERT INTO plain VALUES (8)"
    )
    wide = hand.dump()
    addresses = set()
    for _ in range(3):
        world.isolation.enter()
        addresses.add(world.isolation.address)
        hand.executescript("INSERT INTO notes (a) VALUES (2); UPDATE dancers SET age = 3")
        assert world.isolation.leave()
        assert hand.dump() == wide
    assert len(addresses) == 1
    assert changed_tables(world, depth=1) == {"plain"}
    assert changed_tables(world, depth=0) == {"notes", "plain", "the schema"}
    hand.execute("INSERT INTO notes (a) VALUES (3)")
    assert changed_tables(world, depth=0) == {"plain", "the schema", "notes"}
    wide = hand.dump()
    world.isolation.enter()
    hand.execute("DROP TABLE notes")
    assert world.isolation.leave()
    assert hand.dump() == wide
    assert world.isolation.leave()
    assert hand.dump() == outer
    world.isolation.enter()
    hand.execute("CREATE TABLE again (a int)")
    assert world.isolation.leave()
    assert hand.dump() == outer
    assert world.isolation.leave()
    assert hand.dump() == before


def changed_tables(world: ServerWorld, *, depth: int) -> set[str]:
    """The tables that a level has written to."""
    return {one.table for one in world.isolation.rows_changed(depth=depth)}


@pytest.mark.slow
def test_large_objects_of_a_wide_fixture_pitfall_058(world: ServerWorld) -> None:
    """They have no entries in the journal, and are there again in another database."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    hand.executescript("INSERT INTO plain VALUES (7); SELECT lo_from_bytea(77, 'wide')")
    wide = hand.dump()
    for script in ("SELECT lo_unlink(77)", "CREATE TABLE notes (a int)", "DELETE FROM plain"):
        world.isolation.enter()
        hand.execute(script)
        assert world.isolation.leave()
        assert hand.dump() == wide
    assert world.isolation.leave()
    assert hand.dump() == before


@pytest.mark.slow
def test_an_app_that_makes_its_tables_at_import(own: ServerRegistry) -> None:
    """One copy for all of it; each test is undone in place after that."""
    world = ServerWorld.of(own, None, "undo")
    try:
        hand = world.connect()
        hand.executescript("CREATE TABLE notes (a int); INSERT INTO notes VALUES (1)")
        before = hand.dump()
        addresses = set()
        for _ in range(3):
            world.isolation.enter()
            addresses.add(world.isolation.address)
            hand.execute("INSERT INTO notes VALUES (2)")
            assert world.isolation.leave()
            assert hand.dump() == before
        assert len(addresses) == 1
        world.isolation.enter()
        hand.execute("DROP TABLE notes")
        assert world.isolation.leave()
        assert hand.dump() == before
    finally:
        world.close()


# Each needs a copy, as the journal cannot restore it.
UNFIT = {
    "(its trigger never is always enabled)": (
        "CREATE TABLE guarded (a int)",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER never BEFORE DELETE ON guarded FOR EACH ROW EXECUTE FUNCTION no()",
        "ALTER TABLE guarded ENABLE ALWAYS TRIGGER never",
    ),
    "(a column is of type xml)": ("CREATE TABLE guarded (a int, b xml)",),
}


@pytest.mark.parametrize("reason", UNFIT)
def test_a_table_that_the_journal_cannot_restore(own: ServerRegistry, reason: str) -> None:
    """A write to it is a mark, and a copy restores the level. Other tables are undone in place."""
    name = own.create("building")
    run(*UNFIT[reason], "CREATE TABLE plain (a int)", database=name)
    own.freeze(name)
    with closing(ServerWorld.of(own, name, "undo")) as world:
        hand = world.connect()
        before, live = hand.dump(), world.isolation.address
        world.isolation.enter()
        hand.execute("INSERT INTO plain VALUES (1)")
        assert world.isolation.leave()
        assert world.isolation.address == live
        world.isolation.enter()
        hand.execute("INSERT INTO guarded VALUES (1)")
        assert world.isolation.leave()
        assert hand.dump() == before
        assert world.isolation.address != live
        assert world.told[-1].endswith(f"INSERT public.guarded {reason}")
    own.drop(name)


ODD = """
CREATE TABLE policed (id int PRIMARY KEY, owner text); INSERT INTO policed VALUES (1, 'a');
ALTER TABLE policed ENABLE ROW LEVEL SECURITY; ALTER TABLE policed FORCE ROW LEVEL SECURITY;
CREATE POLICY only_a ON policed USING (owner = 'a');
CREATE TABLE ruled (a int); INSERT INTO ruled VALUES (1); CREATE TABLE ruled_log (a int);
CREATE RULE log AS ON INSERT TO ruled DO ALSO INSERT INTO ruled_log VALUES (NEW.a);
CREATE RULE never AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE TABLE named (id int GENERATED ALWAYS AS IDENTITY, "select" text, "a b" int[], d date);
CREATE TABLE keyless (a int, b text); INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, NULL);
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON DELETE CASCADE);
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2)
"""
ODD_WORK = """
INSERT INTO policed VALUES (2, 'b'); UPDATE policed SET owner = 'c' WHERE id = 1;
INSERT INTO ruled VALUES (2); UPDATE ruled SET a = 5; DELETE FROM ruled;
INSERT INTO named ("select", "a b", d) VALUES ('x', '{1,NULL}', '0044-03-15 BC');
DELETE FROM keyless WHERE ctid = '(0,1)'; INSERT INTO keyless VALUES (2, NULL);
DELETE FROM tree WHERE id = 1
"""


def test_policies_rules_and_tables_without_a_key(own: ServerRegistry) -> None:
    """All are undone in place."""
    name = own.create("building")
    run(*ODD.split(";"), database=name)
    own.freeze(name)
    with closing(ServerWorld.of(own, name, "undo")) as world:
        hand = world.connect()
        before, live = hand.dump(), world.isolation.address
        for _ in range(2):
            world.isolation.enter()
            hand.executescript(ODD_WORK)
            assert world.isolation.leave()
            assert hand.dump() == before
        assert world.isolation.address == live
    own.drop(name)


def test_a_journal_that_contradicts_the_rows(world: ServerWorld) -> None:
    """A copy restores the level, and a line says why."""
    hand = world.connect()
    before, live = hand.dump(), world.isolation.address
    world.isolation.enter()
    hand.execute("INSERT INTO dancers (name) VALUES ('x')")
    with closing(connect(live.database)) as past:
        past.execute("SET arena.undo = 1")  # as in the journal's connection
        past.execute("DELETE FROM dancers WHERE name = 'x'")
    assert world.isolation.leave()
    assert hand.dump() == before
    assert world.isolation.address != live
    assert world.told[-1].endswith("the journal contradicts the rows of dancers")


def test_a_sequence_whose_values_a_session_has_cached(world: ServerWorld) -> None:
    """The session discards them, so that a test does not continue with another test's values."""
    hand = world.connect()
    numbers = []
    for _ in range(2):
        world.isolation.enter()
        [(number,)] = hand.execute("SELECT nextval('tickets')").fetchall()
        numbers.append(number)
        world.isolation.leave()
    assert numbers[0] == numbers[1]


@pytest.mark.slow
def test_eight_connections_write_at_once(world: ServerWorld) -> None:
    """Each level is restored, whatever the order of their commits."""
    hands = [world.connect() for _ in range(8)]
    before = hands[0].dump()

    def work(connection: psycopg.Connection[object], number: int) -> None:
        for turn in range(20):
            with suppress(psycopg.errors.DeadlockDetected), connection.transaction():
                connection.execute("INSERT INTO plain VALUES (%s)", [number])
                connection.execute("UPDATE dancers SET style = style || %s", [turn])
                connection.execute("DELETE FROM plain WHERE a = %s", [(number + 1) % 8])

    for _ in range(3):
        world.isolation.enter()
        threads = [
            threading.Thread(target=work, args=[hand.raw, number])
            for number, hand in enumerate(hands)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert world.isolation.leave()
        assert hands[0].dump() == before


# What a test may do to the journal


def test_a_dropped_journal(world: ServerWorld) -> None:
    """Where no wider fixture has written, a fresh copy is all that is needed."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    [(schema,)] = hand.execute(SCHEMAS).fetchall()
    hand.executescript(f"DELETE FROM plain; DROP SCHEMA {schema} CASCADE; DELETE FROM dancers")
    assert world.isolation.leave()
    assert hand.dump() == before
    assert "was replaced" in world.told[-1]


def test_a_dropped_journal_with_a_wide_fixtures_rows(world: ServerWorld) -> None:
    """They are lost, which is said; whoever comes next has a whole template."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (7)")
    world.isolation.enter()
    [(schema,)] = hand.execute(SCHEMAS).fetchall()
    hand.execute(f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises(IsolationError, match="rows that wider fixtures wrote are lost"):
        world.isolation.leave()
    with pytest.raises(IsolationError, match="are lost"):
        world.isolation.leave_by_force()
    assert hand.dump() == before
    hand.execute("DELETE FROM plain")
    world.isolation.leave()
    assert hand.dump() == before


@pytest.mark.slow
def test_a_dropped_journal_above_a_changed_schema(world: ServerWorld) -> None:
    """What wide fixtures wrote before it was changed is in the copy: nothing is lost."""
    hand = world.connect()
    states = [hand.dump()]
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (7)")
    states.append(hand.dump())
    world.isolation.enter()
    hand.execute("CREATE TABLE notes (a int)")
    wide = hand.execute(COUNT).fetchone()
    world.isolation.enter()
    [(schema,)] = hand.execute(SCHEMAS).fetchall()
    hand.executescript(f"DROP SCHEMA {schema} CASCADE; DELETE FROM plain; DROP TABLE notes")
    assert world.isolation.leave()
    assert hand.execute(COUNT).fetchone() == wide
    while states:
        assert world.isolation.leave()
        assert hand.dump() == states.pop()


@pytest.mark.parametrize("is_written", [False, True])
def test_all_connections_ended_by_a_test(world: ServerWorld, *, is_written: bool) -> None:
    """The journal's own is made once more; its journal is still whole."""
    hand = world.connect()
    before, live = hand.dump(), world.isolation.address
    world.isolation.enter()
    if is_written:
        hand.execute("DELETE FROM plain")
    run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{live.database}'")
    generation = world.isolation.generation
    world.uses.number += 1
    assert world.isolation.leave() is is_written
    assert world.isolation.generation > generation  # the app's are gone, too
    assert hand.dump() == before
    assert world.isolation.address == live


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own_pitfall_078(world: ServerWorld) -> None:
    """It enters and leaves, and its end is not its parent's."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (7)")
    child = os.fork()
    if not child:
        os._exit(0 if is_undone_by_a_child(world) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert changed(world) == (set(), {7})
    assert world.isolation.leave()
    assert hand.dump() == before


def is_undone_by_a_child(world: ServerWorld) -> bool:
    """Work on one's own connections; the parent's are not to be touched."""
    world.isolation.enter()
    with closing(connect(world.isolation.address.database)) as mine:
        world.uses.number += 1
        mine.execute("DELETE FROM plain")
        is_left = world.isolation.leave()
        return is_left and mine.execute(COUNT).fetchone() == (4,)


def test_disabled_triggers_pitfall_032(world: ServerWorld) -> None:
    """What is written past the journal is gone with the database."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    hand.executescript("ALTER TABLE plain DISABLE TRIGGER ALL; DELETE FROM plain")
    assert world.isolation.leave()
    assert hand.dump() == before


@pytest.mark.slow
def test_a_server_that_has_crashed(world: ServerWorld) -> None:
    """Unlogged tables are empty then, the journal's too: the next test has a whole template."""
    hand = world.connect()
    world.isolation.enter()
    hand.executescript("SET synchronous_commit = on; INSERT INTO dancers (name) VALUES ('x')")
    crash(hand.raw.info.backend_pid)
    world.disconnect()
    assert world.isolation.leave()
    for _ in range(2):
        world.isolation.enter()
        hand = world.connect()
        assert hand.execute("SELECT count(*) FROM dancers").fetchone() == (2,)
        hand.execute("DELETE FROM dancers")
        assert world.isolation.leave()
    assert hand.execute("SELECT count(*) FROM dancers").fetchone() == (2,)


def crash(pid: int) -> None:
    """Kill a backend: the server ends all others and starts anew."""
    with closing(connect("postgres")) as other, pytest.raises(psycopg.OperationalError):
        other.execute(f"COPY (SELECT 1) TO PROGRAM 'kill -9 {pid}; sleep 30'")
    wait_until(is_up)


def is_up() -> bool:
    """Whether the server lets anybody in."""
    with suppress(psycopg.OperationalError), closing(connect("postgres")):
        return True
    return False


# Another content, and what is kept


@pytest.mark.slow
def test_another_content_above_a_wide_fixtures_rows(world: ServerWorld) -> None:
    """They are whole again behind it, and what was changed is counted from the new content."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (7)")
    wide = hand.dump()
    world.isolation.enter()
    world.isolation.replace(None)
    assert world.isolation.rows_changed() == []
    hand.execute("CREATE TABLE other (a int)")
    inner = hand.dump()
    world.isolation.enter()
    hand.execute("INSERT INTO other VALUES (1)")
    assert world.isolation.leave()
    assert hand.dump() == inner
    world.isolation.replace(world.template)
    assert hand.dump() == before
    assert world.isolation.leave()
    assert hand.dump() == wide
    assert world.isolation.leave()
    assert hand.dump() == before


@pytest.mark.slow
@pytest.mark.parametrize("is_used", [False, True])
def test_what_is_kept_has_no_journal(world: ServerWorld, *, is_used: bool) -> None:
    """Whoever looks at it may write to it as to the app's own."""
    hand, reader = world.connect(), world.connect()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (77)")
    if is_used:
        reader.executescript("BEGIN; SELECT * FROM plain")
    name = world.isolation.save("for a look")
    assert world.isolation.leave()
    assert hand.execute(COUNT).fetchone() == (3,)
    with closing(connect(name)) as kept:
        assert kept.execute(SCHEMAS).fetchall() == []
        triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
        assert kept.execute(triggers).fetchone() == (0,)
        assert kept.execute(COUNT).fetchone() == (4,)
        kept.execute("DELETE FROM plain")


@pytest.mark.slow
def test_forgotten_levels_above_a_changed_schema(world: ServerWorld) -> None:
    """What was changed in them belongs to the level below, however it can be taken back."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (7)")
    wide = hand.dump()
    world.isolation.enter()
    world.isolation.enter()
    hand.execute("CREATE TABLE notes (a int)")
    world.isolation.enter()
    hand.execute("INSERT INTO notes VALUES (1)")
    world.isolation.forget()
    world.isolation.forget()
    assert not world.isolation.is_clean()
    assert world.isolation.leave()
    assert hand.dump() == wide
    assert world.isolation.leave()
    assert hand.dump() == before


def test_a_check_that_fails_has_the_database_replaced(world: ServerWorld) -> None:
    """Whatever the journal says: it is not asked again."""
    hand = world.connect()
    before = hand.dump()
    world.isolation.enter()
    run("SET session_replication_role = replica", database=world.isolation.address.database)
    with closing(connect(world.isolation.address.database)) as past:
        past.execute("SET arena.undo = 1")  # as the journal's own connection is set
        past.execute("DELETE FROM plain")
    hand.execute("SELECT 1")

    def check() -> None:
        raise IsolationError("not as it was", why="", cause="", fix="")

    world.isolation.call_after_leave(check)
    live = world.isolation.address
    with pytest.raises(IsolationError, match="not as it was"):
        world.isolation.leave()
    world.isolation.leave_by_force()
    assert world.isolation.address != live
    assert hand.dump() == before


@pytest.mark.slow
def test_copies_are_made_ahead_only_once_one_was_needed(own: ServerRegistry, template: str) -> None:
    """None as long as the journal will do; none is left at the end."""
    assert own.rest()
    before = lives(own)
    world = ServerWorld.of(own, template, "undo")
    hand = world.connect()
    for _ in range(3):
        world.isolation.enter()
        hand.execute("DELETE FROM plain")
        world.isolation.leave()
    assert own.rest()
    assert lives(own) == before + 1
    world.isolation.enter()
    hand.execute("DROP TABLE plain")
    world.isolation.leave()
    assert own.rest()
    assert lives(own) == before + 2
    world.isolation.enter()
    hand.execute("CREATE TABLE notes (a int)")
    world.isolation.enter()  # a picture of its own
    world.isolation.leave()
    world.isolation.leave()
    assert own.rest()
    assert lives(own) == before + 2
    world.close()
    assert own.rest()
    assert lives(own) == before


def lives(own: ServerRegistry) -> int:
    """How many databases are there for tests."""
    return sum(one.kind == "live" for one in own.listed())


def test_the_journal_is_installed_once_for_all_runs(own: ServerRegistry, template: str) -> None:
    """Its template is found by the next one who needs it."""

    def templates() -> set[str]:
        return {one.name for one in own.listed() if one.kind == "template"}

    first = ServerWorld.of(own, template, "undo")
    there = templates()
    second = ServerWorld.of(own, template, "undo")
    assert templates() == there
    for world in (first, second):
        world.close()
