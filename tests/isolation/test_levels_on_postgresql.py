"""What only PostgreSQL has: a journal that some changes pass by, sessions."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._product import Held, Manifest
from pytest_arena._product._server_control import Control
from pytest_arena.errors import ArenaError, IsolationError
from tests.isolation.world_postgresql import PostgreSQLWorld, filled
from tests.servers.postgresql import connect, rows, run
from tests.servers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.isolation.makers import Makers

SCHEMAS = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '%arena%'"


@pytest.fixture(params=["undo", "clone"])
def world(makers: Makers, request: pytest.FixtureRequest) -> Iterator[PostgreSQLWorld]:
    """A database with each isolation."""
    with makers.world(f"{request.param} on postgresql") as world:
        assert isinstance(world, PostgreSQLWorld)
        yield world


only_undo = pytest.mark.parametrize("world", ["undo"], indirect=True)
only_clone = pytest.mark.parametrize("world", ["clone"], indirect=True)


@only_undo
def test_the_database_and_its_connections_stay(world: PostgreSQLWorld) -> None:
    """Also if the session has cached values of a sequence. ``clone`` replaces it for one value."""
    hand = world.connect()
    pid = hand.raw.info.backend_pid
    live = world.isolation.address
    numbers = []
    for _ in range(3):
        world.isolation.enter()
        numbers += hand.rows("SELECT nextval('tickets')")
        hand.run("DELETE FROM dancers; TRUNCATE plain; DELETE FROM unlogged")
        assert world.isolation.leave()
    assert len({*numbers}) == 1
    assert hand.raw.info.backend_pid == pid
    assert world.isolation.address == live
    world.isolation.enter("clone")
    hand.rows("SELECT nextval('tickets')")
    assert world.isolation.leave()


def test_a_level_that_nobody_used_costs_nothing(
    world: PostgreSQLWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a round trip."""
    world.isolation.enter()
    monkeypatch.setattr(Control, "rows", lambda *_: pytest.fail("the server was asked"))
    for _ in range(2):
        world.isolation.enter()
        assert world.isolation.is_clean()
        assert world.isolation.moment()
        assert not world.isolation.leave()


_BACK = "DROP TABLE notes"
_AGAIN = "DROP TABLE unlogged; CREATE UNLOGGED TABLE unlogged (a int)"


@only_undo
@pytest.mark.parametrize(
    "end, is_kept",
    [
        (_BACK, True),
        (f"{_BACK}; CREATE TABLE other (a int)", False),
        (f"{_BACK}; {_AGAIN}", False),
        (f"{_BACK}; ALTER TABLE dancers ADD age int; ALTER TABLE dancers DROP age", False),
        (f"{_BACK}; ALTER TABLE old RENAME TO x; ALTER TABLE x RENAME TO old", False),
    ],
)
def test_a_test_that_creates_tables_and_drops_them_keeps_its_database(
    world: PostgreSQLWorld, end: str, *, is_kept: bool
) -> None:
    """The rows of other tables are undone. Any other change of the schema needs a copy."""
    world.connect().run("CREATE TABLE old (a int); CREATE TABLE gone (a int); DROP TABLE gone")
    for _ in range(2):
        hand = world.connect()
        before = hand.content()
        world.isolation.enter()
        live = world.isolation.address
        hand.run("CREATE TABLE notes (id serial PRIMARY KEY, a int UNIQUE)")
        hand.run("INSERT INTO notes (a) VALUES (1), (2); TRUNCATE notes; DELETE FROM dancers")
        hand.run(f"INSERT INTO notes (a) VALUES (3); {end}")
        assert world.isolation.leave()
        assert world.connect().content() == before
        assert (world.isolation.address == live) is is_kept


@only_undo
def test_a_truncate_of_rows_that_its_snapshot_does_not_show(world: PostgreSQLWorld) -> None:
    """The journal cannot have them."""
    old, hand = world.connect(), world.connect()
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM plain")
    hand.execute("INSERT INTO plain VALUES (5)")
    before = hand.content()
    world.isolation.enter()
    old.run("TRUNCATE plain; COMMIT")
    assert world.isolation.leave()
    assert world.connect().content() == before


@only_undo
def test_a_running_statement_holds_the_level(world: PostgreSQLWorld) -> None:
    """Its rows are journaled at its end. It would commit them into the level below."""
    other, keeper = world.connect(), world.connect()
    before = world.content()
    pid = other.raw.info.backend_pid
    world.isolation.enter()
    keeper.execute("SELECT pg_advisory_lock(9)")
    late = "INSERT INTO plain SELECT 4 FROM (SELECT pg_advisory_xact_lock(9)) waits"
    thread = threading.Thread(target=other.execute, args=[late])
    thread.start()
    until(lambda: world.isolation.writers() == {pid}, "the statement runs")
    with pytest.raises(Held):
        world.isolation.leave()
    keeper.execute("SELECT pg_advisory_unlock(9)")
    thread.join()
    assert world.isolation.leave()
    assert world.content() == before


@only_undo
def test_a_session_is_ended(world: PostgreSQLWorld) -> None:
    """Its transaction then holds the level no longer. A wide level can go on with its own."""
    writer = world.connect()
    writer.run("BEGIN; INSERT INTO plain VALUES (4)")
    pid = writer.raw.info.backend_pid
    world.isolation.enter()
    assert world.isolation.writers() == {pid}
    world.isolation.end(pid, world.isolation.live.name)
    until(lambda: not world.isolation.writers(), "the session ends")
    world.isolation.leave()


@only_undo
def test_a_schema_that_a_wide_fixture_changes(world: PostgreSQLWorld) -> None:
    """The database is copied once. Each test is then undone in place."""
    hand = world.connect()
    before = world.content()
    world.isolation.enter()
    hand.run("CREATE TABLE notes (id serial PRIMARY KEY, a int); ALTER TABLE dancers ADD age int")
    wide = world.content()
    addresses = set()
    for _ in range(3):
        world.isolation.enter()
        addresses.add(world.isolation.address)
        hand.run("INSERT INTO notes (a) VALUES (2); UPDATE dancers SET age = 3")
        assert world.isolation.leave()
        assert world.content() == wide
    assert len(addresses) == 1
    assert world.isolation.leave()
    assert world.content() == before


@only_undo
def test_rows_of_two_connections_stay_in_the_order_of_their_inserts(world: PostgreSQLWorld) -> None:
    """However many tests have written into the table. Neither it nor the journal grows."""
    first, second = world.connect(), world.connect()
    for last in [900, *[10] * 200]:
        world.isolation.enter()
        first.execute("INSERT INTO plain VALUES (6)")
        second.execute(f"INSERT INTO plain SELECT generate_series(7, {last})")
        assert first.rows("SELECT a FROM plain WHERE a > 5") == [(a,) for a in range(6, last + 1)]
        assert world.isolation.leave()
    pages = "SELECT (pg_relation_size('pg_arena.j') + pg_relation_size('plain')) / 8192"
    assert first.rows(pages)[0][0] <= 3


@only_undo
def test_a_large_test_beside_a_reader_with_an_open_transaction(world: PostgreSQLWorld) -> None:
    """The reader delays no restore."""
    reader = world.connect()
    reader.execute("BEGIN")
    reader.execute("SELECT a FROM plain")
    world.isolation.enter()
    world.connect().execute("INSERT INTO plain SELECT generate_series(7, 900)")
    start = time.monotonic()
    assert world.isolation.leave()
    assert time.monotonic() - start < 4


SPECIAL = """
CREATE TABLE policed (id int PRIMARY KEY, owner text); INSERT INTO policed VALUES (1, 'a');
ALTER TABLE policed ENABLE ROW LEVEL SECURITY; ALTER TABLE policed FORCE ROW LEVEL SECURITY;
CREATE POLICY only_a ON policed USING (owner = 'a');
CREATE TABLE ruled (a int); INSERT INTO ruled VALUES (1); CREATE TABLE ruled_log (a int);
CREATE RULE log AS ON INSERT TO ruled DO ALSO INSERT INTO ruled_log VALUES (NEW.a);
CREATE RULE never AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON DELETE CASCADE);
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2)
"""
WORK = (
    "INSERT INTO policed VALUES (2, 'b'); UPDATE policed SET owner = 'c' WHERE id = 1; "
    "INSERT INTO ruled VALUES (2); UPDATE ruled SET a = 5; DELETE FROM ruled; "
    "DELETE FROM tree WHERE id = 1"
)


def test_policies_rules_and_cascades(makers: Makers) -> None:
    """All are undone in place."""
    template = filled(makers.postgresql, None, *SPECIAL.split(";"))
    with closing(PostgreSQLWorld(makers.postgresql, template, "undo")) as world:
        hand = world.connect()
        before, live = world.content(), world.isolation.address
        world.isolation.enter()
        hand.run(WORK)
        assert world.isolation.leave()
        assert world.content() == before
        assert world.isolation.address == live


@only_undo
def test_a_journal_that_contradicts_the_rows(world: PostgreSQLWorld) -> None:
    """A copy restores the level, and a line says why."""
    hand = world.connect()
    before = world.content()
    world.isolation.enter()
    hand.execute("INSERT INTO dancers (name) VALUES ('x')")
    with closing(connect(world.isolation.address.database)) as past:
        past.execute("SET arena.undo = 1")  # as in the journal's connection
        past.execute("DELETE FROM dancers WHERE name = 'x'")
    assert world.isolation.leave()
    assert world.content() == before
    assert "the journal contradicts the rows of dancers" in world.lines[-1]


@only_undo
def test_a_journal_that_a_test_drops(world: PostgreSQLWorld) -> None:
    """An error names the rows of a wide fixture that are lost. The next test has the template's."""
    before = world.content()
    world.isolation.enter()
    world.connect().execute("INSERT INTO plain VALUES (7)")
    world.isolation.enter()
    world.connect().execute("DROP SCHEMA pg_arena CASCADE")
    with pytest.raises(ArenaError):
        world.isolation.leave()
    with pytest.raises(IsolationError, match="rows that wide fixtures wrote are lost"):
        world.isolation.leave_by_force()
    world.isolation.enter()
    assert world.content() == before


def test_a_test_that_ends_all_connections(world: PostgreSQLWorld) -> None:
    """pytest-arena connects again. The app's connections are stale."""
    hand = world.connect()
    before = world.content()
    world.isolation.enter()
    hand.execute("DELETE FROM plain")
    name = world.isolation.address.database
    generation = world.isolation.generation
    run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert world.isolation.leave()
    assert world.isolation.generation > generation
    assert world.content() == before


@pytest.mark.parametrize("later", ["CREATE TABLE other ()", "SELECT 1"])  # the first one freezes
def test_a_database_is_kept_for_inspection(world: PostgreSQLWorld, later: str) -> None:
    """A copy at once. The live database itself if a client is inside a transaction."""
    hand, reader = world.connect(), world.connect()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (77)")
    now = world.isolation.save("first")
    reader.run("BEGIN; SELECT 1")
    then = world.isolation.save("second")
    hand.run(later)
    world.isolation.enter()
    world.isolation.leave()
    assert world.isolation.leave()
    for name in (now, then):
        assert rows("SELECT count(*) FROM plain WHERE a = 77", name) == [(1,)]
        assert rows(SCHEMAS, name) == []
    assert hand.rows("SELECT count(*) FROM plain WHERE a = 77") == [(0,)]
    kept = {one.name: one.thing().title for one in world.own.listed() if one.kind == "kept"}
    assert kept.items() >= {now: "first", then: "second"}.items()


@only_clone
def test_moments_of_a_clone_are_all_rows(world: PostgreSQLWorld) -> None:
    """So there is one only if it is asked for."""
    hand = world.connect()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (5)")
    assert world.isolation.moment() is None
    first = world.isolation.moment(exact=True)
    hand.run("DELETE FROM plain WHERE a = 5; INSERT INTO plain VALUES (6)")
    [changed] = world.isolation.rows_changed(first)
    assert (changed.removed, changed.added) == (((5,),), ((6,),))


def test_the_journal_is_installed_once_for_each_build(makers: Makers) -> None:
    """The next run finds its template. After `--arena-rebuild` there is another one."""
    own = makers.postgresql
    counts = []
    for number in (1, 2):
        name = own.create("building")
        run(f"CREATE TABLE built_{number} ()", database=name)
        built = SimpleNamespace(address=own.address_of(name))
        template = own.finish(built, "built twice", Manifest(number))
        for _ in range(2):
            world = PostgreSQLWorld(own, template, "undo")
            assert world.connect().rows(f"SELECT FROM built_{number}") == []
            world.close()
            counts.append(sum(one.kind == "template" for one in own.listed()))
    assert counts[0] == counts[1]
