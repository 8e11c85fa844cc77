"""``clone`` says which rows have gone and come, though a database has no history."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._rows import read_digests, read_rows
from pytest_arena._product._read_rows import ReadContent, compared
from pytest_arena.errors import IsolationError
from tests.isolation.server_world import ServerWorld
from tests.isolation.test_copy_rows import net
from tests.servers.postgresql import (
    address,
    names_on_server,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import ServerRegistry

World = ServerWorld


@pytest.fixture(name="world")
def _world(own: ServerRegistry, template: str) -> Iterator[World]:
    world = ServerWorld.of(own, template, "clone")
    yield world
    world.close()


def changed(world: World, *moments: object, **options: Any) -> Any:
    """What has gone and come by table."""
    return net(world.isolation.rows_changed(*moments, **options))


def test_what_a_level_has_changed(world: World) -> None:
    """Whole rows by table, those without a key as multisets; a sequence alone is no row."""
    hand = world.connect()
    world.isolation.enter()
    assert changed(world) == {}
    hand.executescript(
        """INSERT INTO dancers (name) VALUES ('Grain');
        UPDATE dancers SET style = 'windmill' WHERE id = 2; DELETE FROM scores;
        DELETE FROM plain WHERE ctid = (SELECT min(ctid) FROM plain); INSERT INTO plain VALUES (7);
        UPDATE plain SET a = a; TRUNCATE unlogged; SELECT nextval('tickets')"""
    )
    hand.executescript("INSERT INTO many (a) VALUES ('x'); DELETE FROM many")
    assert changed(world) == {
        "dancers": (
            [(2, "Dune", "power")],
            [(2, "Dune", "windmill"), (3, "Grain", None)],
        ),
        "plain": ([(1,)], [(7,)]),
        "scores": ([("x", 1, 9.5)], []),
        "unlogged": ([(1,)], []),
    }
    found = {rows.table: (rows.columns, rows.key) for rows in world.isolation.rows_changed()}
    assert found["dancers"] == (("id", "name", "style"), ("id",))
    assert found["scores"] == (("judge", "round", "points"), ("judge", "round"))
    assert found["plain"] == (("a",), ())
    assert world.isolation.leave()
    world.isolation.enter()
    assert changed(world) == {}


def test_what_was_not_committed_is_none(world: World) -> None:
    """Nor is what was rolled back; a transaction that is open goes on."""
    hand = world.connect()
    world.isolation.enter()
    hand.executescript("BEGIN; INSERT INTO plain VALUES (4)")
    assert changed(world) == {}
    hand.execute("COMMIT")
    assert changed(world) == {"plain": ([], [(4,)])}
    hand.executescript("BEGIN; DELETE FROM plain; ROLLBACK")
    assert changed(world) == {"plain": ([], [(4,)])}


def test_schema_changes_are_rows_too(world: World) -> None:
    """Of a table that was made or dropped, or has other columns: None where there is none."""
    hand = world.connect()
    world.isolation.enter()
    hand.executescript(
        """CREATE TABLE new (a int PRIMARY KEY); INSERT INTO new VALUES (1); DROP TABLE unlogged;
        ALTER TABLE plain ADD COLUMN b int; UPDATE plain SET b = 2 WHERE a IS NULL;
        ALTER TABLE scores DROP COLUMN points"""
    )
    assert changed(world) == {
        "new": ([], [(1,)]),
        "plain": ([(None, None)], [(None, 2)]),
        "scores": ([("x", 1, 9.5)], [("x", 1, None)]),
        "unlogged": ([(1,)], []),
    }


KINDS = """
CREATE SCHEMA audit; CREATE TABLE audit."Lo g" ("a ""b" jsonb, t int[]);
CREATE TABLE parts (id int, day date) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_high (day date, id int);
ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (10) TO (20);
CREATE TABLE rights (acl aclitem);
CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
CREATE TABLE made (a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE none (); CREATE TABLE exact (f float8, n numeric, d timestamp);
CREATE MATERIALIZED VIEW seen AS SELECT 1 AS a; CREATE TEMP TABLE mine (a int);
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w;
CREATE TABLE mixed (id int) PARTITION BY LIST (id);
CREATE TABLE mixed_here PARTITION OF mixed FOR VALUES IN (1);
CREATE FOREIGN TABLE mixed_far PARTITION OF mixed FOR VALUES IN (2) SERVER far
"""
ROWS = """
INSERT INTO audit."Lo g" VALUES ('{"a": 1}', '{1,2}'); INSERT INTO parts VALUES (1), (11);
UPDATE parts SET id = 12 WHERE id = 1; INSERT INTO child VALUES (1, 2);
INSERT INTO rights VALUES ('=r/postgres');
INSERT INTO made VALUES (2); INSERT INTO none DEFAULT VALUES; INSERT INTO none DEFAULT VALUES;
INSERT INTO exact VALUES (0.1::float8 + 0.2::float8, 1.10, '2026-01-01');
INSERT INTO mixed VALUES (1)
"""


@pytest.mark.slow
def test_all_kinds_of_tables_and_values(world: World) -> None:
    """Partitions by their root, a child by itself, foreign rows not at all."""
    hand = world.connect()
    hand.executescript(KINDS)
    world.isolation.enter()
    hand.executescript(ROWS)
    assert changed(world) == {
        "audit.Lo g": ([], [({"a": 1}, [1, 2])]),
        "child": ([], [(1, 2)]),
        "exact": (
            [],
            [(0.30000000000000004, Decimal("1.10"), dt.datetime(2026, 1, 1))],  # noqa: DTZ001 - it has none
        ),
        "made": ([], [(2, 4)]),
        "mixed": ([], [(1,)]),
        "none": ([], [(), ()]),
        "parts": ([], [(11, None), (12, None)]),
        "rights": ([], [("=r/postgres",)]),
    }
    hand.executescript("UPDATE exact SET f = 0.3, n = 1.1, d = '20000-01-01'")
    [(old, new)] = [sides for name, sides in changed(world).items() if name == "exact"]
    assert (old, new) == ([], [("0.3", "1.1", "20000-01-01 00:00:00")])  # Python has no such date


@pytest.mark.slow
def test_levels_below_by_their_depth(world: World) -> None:
    """What each wrote itself, the one before all levels as well."""
    hand = world.connect()
    for value in (5, 6, 7):
        hand.execute("INSERT INTO plain VALUES (?)", [value])
        world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (8)")
    for depth, value in enumerate((8, 7, 6, 5)):
        assert changed(world, depth=depth) == {"plain": ([], [(value,)])}
    world.isolation.leave()
    assert changed(world) == {"plain": ([], [(7,)])}
    assert changed(world, depth=1) == {"plain": ([], [(6,)])}
    world.isolation.forget()
    assert changed(world) == {"plain": ([], [(6,), (7,)])}


@pytest.mark.slow
def test_what_the_marker_gives_is_no_change(world: World) -> None:
    """seed=False: the level begins with what stands after its content was replaced."""
    hand = world.connect()
    world.isolation.enter()
    world.isolation.replace(None)
    assert changed(world) == {}
    hand.executescript("CREATE TABLE new (a int); INSERT INTO new VALUES (1)")
    world.isolation.enter()
    hand.execute("INSERT INTO new VALUES (2)")
    world.isolation.leave()
    assert changed(world) == {"new": ([], [(1,)])}
    world.isolation.leave()
    assert changed(world) == {}


def test_moments_only_for_whoever_reads_all(world: World) -> None:
    """They cost a reading of the database: nobody gets one unasked."""
    hand = world.connect()
    world.isolation.enter()
    start = world.isolation.moment()
    hand.execute("INSERT INTO plain VALUES (5)")
    first = world.isolation.moment(exact=True)
    hand.execute("DELETE FROM plain WHERE a = 5")
    hand.execute("INSERT INTO plain VALUES (6)")
    assert changed(world, start, first) == {"plain": ([], [(5,)])}
    assert changed(world, first) == {"plain": ([(5,)], [(6,)])}
    assert changed(world, None, first) == {"plain": ([], [(5,)])}
    assert changed(world, start) == {"plain": ([], [(6,)])}


@pytest.mark.slow
def test_a_limit_keeps_what_belongs_together(world: World) -> None:
    """Both sides of an updated row, and the number of those that were cut off."""
    hand = world.connect()
    hand.execute("INSERT INTO dancers (name) SELECT i FROM generate_series(1, 3000) i")
    world.isolation.enter()
    hand.execute("UPDATE dancers SET style = 'new'")
    [dancers] = world.isolation.rows_changed(limit=5)
    assert {row[0] for row in dancers.removed} == {row[0] for row in dancers.added}
    assert (len(dancers.removed), dancers.more) == (2, 2 * 3002 - 4)


@pytest.mark.slow
def test_a_lock_is_not_waited_for(world: World) -> None:
    """A report that hangs is worse than none."""
    hand = world.connect()
    world.isolation.enter()
    hand.executescript("BEGIN; LOCK TABLE plain")
    with pytest.raises(IsolationError):
        world.isolation.rows_changed()
    hand.execute("COMMIT")
    assert changed(world) == {}


def test_whoever_looks_leaves_nothing_and_moves_nothing(world: World, own: ServerRegistry) -> None:
    """No connection of the app's is ended, and no copy stays; a look that was ended is opened."""
    own.rest()
    others = names_on_server(beginning="arena_live") - {world.isolation.address.database}
    hand = world.connect()
    world.isolation.enter()
    hand.execute("INSERT INTO plain VALUES (5)")
    assert changed(world)
    run = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
    hand.execute(run + "AND datname = current_database()")
    assert changed(world) == {"plain": ([], [(5,)])}
    assert world.isolation.leave()
    world.close()
    own.rest()
    assert names_on_server(beginning="arena_live") == others


def test_functions_of_an_apps_own_do_not_get_into_what_is_compared_pitfall_056(
    own: ServerRegistry,
) -> None:
    """Of the same names, and first in the search path of its database."""
    name = own.create("building")
    run("CREATE TABLE plain (a int)", "INSERT INTO plain VALUES (1)", database=name)
    run(
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine.hashtextextended(text, int) RETURNS int8 LANGUAGE sql AS 'SELECT 0'",
        f"ALTER DATABASE {name} SET search_path = mine, pg_catalog, public",
        database=name,
    )
    with closing(open_control(address(name))) as control:
        before = read_rows(control)
        control.run("UPDATE plain SET a = 2")
        after = read_rows(control, unlike=before)
    assert net(compared(before, after)) == {"plain": ([(1,)], [(2,)])}
    own.drop_later(name)


def test_rows_and_values_are_read_as_psycopg_has_them(world: World) -> None:
    """Digests tell rows apart. A value that Python does not have is a text."""
    hand = world.connect()
    hand.executescript(KINDS)
    database = address(world.isolation.address.database)
    with closing(open_control(database)) as control:
        before = read_rows(control)
        hand.executescript(ROWS)
        hand.execute("UPDATE dancers SET style = 'new' WHERE id = 1")
        after = read_rows(control, unlike=before)
        assert read_digests(control) == ReadContent(after.digests)
        hand.execute("UPDATE exact SET d = '20000-01-01'")
        later = read_rows(control, unlike=after)
    found = net(compared(before, after))
    assert found["dancers"] == ([(1, "Sand", "toprock")], [(1, "Sand", "new")])
    assert found["parts"] == ([], [(11, None), (12, None)])
    assert found["rights"] == ([], [("=r/postgres",)])
    assert found["exact"][1][0][1] == Decimal("1.10")
    assert net(compared(before, later))["exact"][1][0][2] == "20000-01-01 00:00:00"
