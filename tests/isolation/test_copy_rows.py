"""``copy`` says which rows have gone and come; whoever has the database open notices nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_arena._product import Held
from pytest_arena._sqlite._copy import Copy
from pytest_arena.errors import IsolationError
from tests.isolation.conformance import MANY, new_world
from tests.isolation.test_copy import MODES
from tests.isolation.test_random_work import ON_SQLITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._values import TableRows
    from tests.isolation.conformance import World

Net = dict[str, tuple[list[Any], list[Any]]]


@pytest.fixture(name="world", params=MODES)
def _world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = new_world(Copy, tmp_path, request.param)
    yield world
    world.close()


def net(found: list[TableRows]) -> Net:
    """What has gone and come by table, in order."""
    return {
        rows.table: (sorted(rows.removed, key=repr), sorted(rows.added, key=repr)) for rows in found
    }


def since_start(world: World, **options: Any) -> Net:
    """What the top level has changed until now."""
    return net(world.isolation.rows_changed(**options))


def schema(*changes: str) -> Net:
    """The rows that show these changes of the schema."""
    return {"the schema": ([], [(change,) for change in changes])}


CHANGES: dict[str, tuple[str, Net]] = {
    "nothing": ("SELECT 1", {}),
    "insert": (
        "INSERT INTO dancers (name) VALUES ('Grain')",
        {"dancers": ([], [(3, "Grain", None)])},
    ),
    "update": (
        "UPDATE dancers SET style = 'windmill' WHERE id = 2",
        {"dancers": ([(2, "Dune", "power")], [(2, "Dune", "windmill")])},
    ),
    "without rowid": (
        "UPDATE scores SET points = 1; INSERT INTO scores VALUES ('y', 2, NULL)",
        {"scores": ([("x", 1, 9.5)], [("x", 1, 1.0), ("y", 2, None)])},
    ),
    "equal rows": ("DELETE FROM plain WHERE rowid = 1", {"plain": ([(1,)], [])}),
    "one more of them": ("INSERT INTO plain VALUES (1)", {"plain": ([], [(1,)])}),
    "only their places": ("UPDATE plain SET rowid = rowid + 10", {}),
    "virtual": (
        "INSERT INTO notes VALUES ('sand'); UPDATE places SET x1 = 9",
        {"notes": ([], [("sand",)]), "places": ([(1, 0.0, 5.0)], [(1, 0.0, 9.0)])},
    ),
    "types": ("UPDATE plain SET a = 1.0", {"plain": ([(1,), (1,), (None,)], [(1.0,)] * 3)}),
    "new table": (
        "CREATE TABLE more (a PRIMARY KEY, b); INSERT INTO more VALUES (1, x'00')",
        {"more": ([], [(1, b"\x00")]), **schema("CREATE TABLE more")},
    ),
    "dropped table": (
        "DROP TABLE scores",
        {"scores": ([("x", 1, 9.5)], []), **schema("DROP TABLE scores")},
    ),
    "new column": ("ALTER TABLE plain ADD COLUMN b", schema("ALTER TABLE plain")),
    "new index, view, trigger": (
        """CREATE INDEX one ON plain (a); CREATE VIEW two AS SELECT 1; DROP INDEX by_style;
        CREATE TRIGGER three AFTER DELETE ON plain BEGIN SELECT 1; END;
        CREATE VIRTUAL TABLE four USING fts5(text)""",
        schema(
            "CREATE INDEX one",
            "CREATE TABLE four",
            "CREATE TRIGGER three",
            "CREATE VIEW two",
            "DROP INDEX by_style",
        ),
    ),
    "new column with a value": (
        "ALTER TABLE scores ADD COLUMN b DEFAULT 'new'",
        {
            "scores": ([("x", 1, 9.5, None)], [("x", 1, 9.5, "new")]),
            **schema("ALTER TABLE scores"),
        },
    ),
    "dropped column": (
        "ALTER TABLE scores DROP COLUMN points",
        {
            "scores": ([("x", 1, 9.5)], [("x", 1, None)]),
            **schema("ALTER TABLE scores"),
        },
    ),
    "done and undone": ("INSERT INTO plain VALUES (9); DELETE FROM plain WHERE a = 9", {}),
    "rolled back": ("BEGIN; INSERT INTO plain VALUES (9); ROLLBACK", {}),
    "only the file": ("VACUUM; REINDEX; ANALYZE", {}),
    "not committed": ("BEGIN; INSERT INTO plain VALUES (9)", {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_level_has_changed(change: str, world: World) -> None:
    """Whole rows, net, by table; sequences and what SQLite keeps for itself are none."""
    script, expected = CHANGES[change]
    kept = world.connect()
    world.isolation.enter()
    kept.executescript(script)
    got = since_start(world)
    assert repr(got) == repr(expected)  # 1 == 1.0, and they are not the same
    assert since_start(world, since=world.isolation.moment(exact=True)) == {}


def test_columns_and_keys_are_named(world: World) -> None:
    """The primary key as it is declared, and none where there is none."""
    kept = world.connect()
    world.isolation.enter()
    kept.executescript("DELETE FROM dancers; DELETE FROM scores; DELETE FROM plain")
    found = {rows.table: (rows.columns, rows.key) for rows in world.isolation.rows_changed()}
    assert found == {
        "dancers": (("id", "name", "style"), ("id",)),
        "scores": (("judge", "round", "points"), ("judge", "round")),
        "plain": (("a",), ()),
    }


ODD = """
CREATE TABLE "or ""der" ("a b" TEXT COLLATE NOCASE PRIMARY KEY, "select" INT,
    twice INT AS ("select" * 2), kept INT AS ("select" + 1) STORED) WITHOUT ROWID;
CREATE TABLE hidden (rowid, oid, _rowid_);
CREATE TABLE shadow_like (a); CREATE TABLE notes_of (a);
INSERT INTO "or ""der" ("a b", "select") VALUES ('x', 1);
INSERT INTO hidden VALUES (1, 1, 1), (1, 1, 1);
"""


def test_odd_names_generated_columns_and_collations(world: World) -> None:
    """A text that the table's collation finds equal is another text."""
    kept = world.connect()
    kept.executescript(ODD)
    world.isolation.enter()
    kept.executescript(
        """UPDATE "or ""der" SET "a b" = 'X'; INSERT INTO hidden VALUES (1, 1, 1);
        INSERT INTO notes_of VALUES (1); INSERT INTO plain VALUES (CAST(x'ff61' AS TEXT))"""
    )
    assert since_start(world) == {
        'or "der': ([("x", 1)], [("X", 1)]),
        "hidden": ([], [(1, 1, 1)]),
        "notes_of": ([], [(1,)]),
        "plain": ([], [("\\xffa",)]),
    }


def test_functions_of_the_app_are_not_needed(world: World) -> None:
    """Its connections have them, ours have not: what they make is left out, and nothing else."""
    kept = world.connect()
    kept.create_function("shout", 1, str.upper, deterministic=True)
    kept.execute("CREATE TABLE loud (id INTEGER PRIMARY KEY, a, b AS (shout(a)))")
    world.isolation.enter()
    kept.execute("INSERT INTO loud (a) VALUES ('x')")
    assert since_start(world) == {"loud": ([], [(1, "x")])}


def test_an_extension_of_the_app_is_not_needed(world: World) -> None:
    """Its virtual tables are left out; what it keeps them in is seen."""
    kept = world.connect()
    kept.executescript(
        """CREATE TABLE vectors_rows (a); PRAGMA writable_schema = ON;
        INSERT INTO sqlite_master
        VALUES ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING vec0(a)');
        PRAGMA writable_schema = RESET"""
    )
    world.isolation.enter()
    kept.execute("INSERT INTO vectors_rows VALUES (1)")
    assert since_start(world) == {"vectors_rows": ([], [(1,)])}


def test_moments_tell_one_request_from_the_next(world: World) -> None:
    """Each is what was committed then; where nothing was, it is the same object."""
    kept, other = world.connect(), world.connect()
    world.isolation.enter()
    start = world.isolation.moment()
    kept.execute("INSERT INTO plain VALUES (5)")
    first = world.isolation.moment()
    other.execute("SELECT * FROM plain").fetchall()
    assert world.isolation.moment() is first
    other.execute("BEGIN")
    other.execute("INSERT INTO plain VALUES (6)")
    assert world.isolation.moment() is first
    other.execute("COMMIT")
    second = world.isolation.moment()
    kept.execute("DELETE FROM plain WHERE a = 5")
    changed = world.isolation.rows_changed
    assert net(changed(start, first)) == {"plain": ([], [(5,)])}
    assert net(changed(first, second)) == {"plain": ([], [(6,)])}
    assert net(changed(second)) == {"plain": ([(5,)], [])}
    assert net(changed(None, second)) == {"plain": ([], [(5,), (6,)])}
    assert net(changed()) == {"plain": ([], [(6,)])}
    assert changed(first, first) == []


def test_a_moment_outlives_the_levels_above_it(world: World) -> None:
    """Their pictures are removed; what it was made of is kept as long as it is."""
    kept = world.connect()
    world.isolation.enter()
    kept.execute("INSERT INTO plain VALUES (5)")
    world.isolation.enter()
    of_the_picture = world.isolation.moment()
    kept.execute("INSERT INTO plain VALUES (6)")
    world.isolation.leave()
    kept.execute("INSERT INTO plain VALUES (7)")
    world.isolation.enter()
    world.isolation.leave()
    assert net(world.isolation.rows_changed(of_the_picture)) == {"plain": ([], [(7,)])}


def test_an_undone_change_is_none_of_the_next_moment(world: World) -> None:
    """A restore need not move the number by which SQLite tells that somebody has committed."""
    kept = world.connect()
    for value in range(3):
        world.isolation.enter()
        start = world.isolation.moment()
        kept.execute("INSERT INTO plain VALUES (?)", [value])
        assert net(world.isolation.rows_changed(start, world.isolation.moment())) == {
            "plain": ([], [(value,)])
        }
        world.isolation.leave()


def test_levels_below_by_their_depth(world: World) -> None:
    """What each wrote itself, the one before all levels as well."""
    kept = world.connect()
    for value in (5, 6, 7):
        kept.execute("INSERT INTO plain VALUES (?)", [value])
        world.isolation.enter()
    kept.execute("INSERT INTO plain VALUES (8)")
    for depth, value in enumerate((8, 7, 6, 5)):
        assert since_start(world, depth=depth) == {"plain": ([], [(value,)])}
    world.isolation.leave()
    assert since_start(world) == {"plain": ([], [(7,)])}
    world.isolation.forget()
    assert since_start(world) == {"plain": ([], [(6,), (7,)])}


@pytest.mark.parametrize("world", ["delete"], indirect=True)
def test_what_the_marker_gives_is_no_change(world: World) -> None:
    """seed=False: the level begins with what stands after its content was replaced."""
    kept = world.connect()
    world.isolation.enter()
    world.isolation.replace(None)
    assert since_start(world) == {}
    kept.executescript("CREATE TABLE new (a); INSERT INTO new VALUES (1)")
    world.isolation.enter()
    kept.execute("INSERT INTO new VALUES (2)")
    world.isolation.leave()
    assert since_start(world) == {"new": ([], [(1,)]), **schema("CREATE TABLE new")}
    world.isolation.leave()
    assert since_start(world) == {}


@pytest.mark.slow
def test_large_databases_are_told_by_their_log_or_when_asked_exactly(world: World) -> None:
    """A moment is cheap, or None; ``exact`` has one at any size."""
    kept = world.connect()
    kept.execute(f"INSERT INTO plain {MANY} SELECT printf('%1000d', i) FROM n")
    world.isolation.enter()
    kept.execute("INSERT INTO plain VALUES (5)")
    assert (world.isolation.moment() is None) == (not world.has_wal)
    exact = world.isolation.moment(exact=True)
    kept.execute("INSERT INTO plain VALUES (6)")
    assert net(world.isolation.rows_changed(exact)) == {"plain": ([], [(6,)])}
    assert since_start(world) == {"plain": ([], [(5,), (6,)])}


@pytest.mark.slow
def test_a_limit_keeps_what_belongs_together(world: World) -> None:
    """Both sides of an updated row, and the number of those that were cut off."""
    kept = world.connect()
    kept.execute(f"INSERT INTO dancers (name) {MANY} SELECT i FROM n")
    world.isolation.enter()
    kept.execute("UPDATE dancers SET style = 'new'")
    kept.execute("DELETE FROM plain")
    dancers, plain = world.isolation.rows_changed(limit=5)
    assert [row[0] for row in dancers.removed] == [row[0] for row in dancers.added]
    assert (len(dancers.removed), dancers.more) == (2, 2 * 3002 - 4)
    assert (len(plain.removed), plain.added, plain.more) == (3, (), 0)
    assert [rows.more for rows in world.isolation.rows_changed(limit=1)] == [2 * 3002, 2]


def _exact(world: World) -> tuple[Callable[[], object], ...]:
    return world.isolation.rows_changed, lambda: world.isolation.moment(exact=True)


def test_a_writer_in_the_middle_of_a_commit(world: World) -> None:
    """A moment that is not exact is none then; for any other it is waited, and not for long."""
    world.isolation.enter()
    kept = world.connect()
    kept.execute("BEGIN EXCLUSIVE")
    if world.has_wal:
        assert world.isolation.moment() is not None  # readers go on
        return
    assert world.isolation.moment() is None
    for ask in _exact(world):
        with pytest.raises(IsolationError, match="locked"):
            ask()
    over = threading.Timer(0.02, kept.execute, ["COMMIT"])
    over.start()
    assert world.isolation.moment(exact=True) is not None
    over.join()


def test_a_file_that_is_gone(world: World) -> None:
    """It is no database without rows."""
    world.isolation.enter()
    world.live.unlink()
    assert world.isolation.moment() is None
    for ask in _exact(world):
        with pytest.raises(IsolationError, match="deleted or replaced"):
            ask()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """It is said as whatever SQLite cannot read."""
    with closing(new_world(Copy, tmp_path, "delete")) as world:
        world.isolation.enter()
        world.disconnect()
        world.live.write_bytes(b"no database at all" * 100)
        with pytest.raises(IsolationError, match="not a database"):
            world.isolation.rows_changed()


QUIET = [step for step in ON_SQLITE if step != "PRAGMA locking_mode = EXCLUSIVE"]
STEPS = st.lists(
    st.one_of(
        st.sampled_from(("enter", "leave", "moment", "moment", "compare")),
        st.tuples(st.integers(0, 2), st.sampled_from(QUIET)),
    ),
    max_size=40,
)
SHOWN = ("dancers", "scores", "plain", "notes", "places", "extra")


class Comparing:
    """Random work with moments in between, each of which is also remembered by its rows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hands = [world.connect() for _ in range(3)]
        self.starts = [self.rows()]
        self.moments: list[tuple[Any, Any]] = []

    def rows(self) -> dict[str, Counter[Any]]:
        """All rows that a new connection sees."""
        with closing(sqlite3.connect(self.world.live)) as fresh:
            return {name: rows for name in SHOWN if (rows := _rows_of(fresh, name))}

    def do(self, step: Any) -> None:
        """Take one step; what SQLite refuses is not done."""
        if isinstance(step, tuple):
            self.work(*step)
            return
        with suppress(Held, sqlite3.OperationalError):
            getattr(self, step)()

    def work(self, number: int, statement: str) -> None:
        """One connection does something."""
        if statement == "(reconnect)":
            self.hands[number].close()
            self.hands[number] = self.world.connect()
            return
        with suppress(sqlite3.Error):
            self.hands[number].execute(statement).fetchall()

    def enter(self) -> None:
        """One level more."""
        self.world.isolation.enter()
        self.starts.append(self.rows())

    def leave(self) -> None:
        """Back to where the level began, if there is one."""
        if len(self.starts) > 1:
            self.world.isolation.leave()
            assert self.rows() == self.starts.pop()
            self.moments.clear()

    def moment(self) -> None:
        """Remember one."""
        found = self.world.isolation.moment()
        if found is not None:
            self.moments.append((found, self.rows()))

    def compare(self) -> None:
        """Each moment with now, and the level with its start."""
        now = self.rows()
        for moment, rows in [*self.moments, (None, self.starts[-1])]:
            found = self.world.isolation.rows_changed(moment)
            assert difference(found) == _difference(rows, now)


def _rows_of(connection: sqlite3.Connection, name: str) -> Counter[Any]:
    try:
        found = connection.execute(f'SELECT * FROM "{name}"')
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return Counter()
    # Nothing in a new column is as good as none.
    return Counter(tuple(map(repr, row[:1] if name == "plain" else row)) for row in found)


def difference(found: list[TableRows]) -> Any:
    """What has gone and come, as the oracle has it."""
    cut = {
        rows.table: tuple(
            Counter(tuple(map(repr, row[:1] if rows.table == "plain" else row)) for row in side)
            for side in (rows.removed, rows.added)
        )
        for rows in found
        if rows.table != "the schema"
    }
    return {name: sides for name, sides in cut.items() if any(sides)}


def _difference(before: dict[str, Counter[Any]], after: dict[str, Counter[Any]]) -> Any:
    names = {*before, *after}
    empty: Counter[Any] = Counter()
    sides = {
        name: (
            before.get(name, empty) - after.get(name, empty),
            after.get(name, empty) - before.get(name, empty),
        )
        for name in names
    }
    return {name: found for name, found in sides.items() if any(found)}


def assert_told(mode: str, steps: list[Any]) -> None:
    """Take steps, and check that all changes since each moment are shown."""
    with TemporaryDirectory() as folder:
        world = new_world(Copy, Path(folder), mode)
        try:
            comparing = Comparing(world)
            for step in ["enter", *steps, "compare"]:
                comparing.do(step)
        finally:
            world.close()


@pytest.fixture(name="mode", scope="module", params=MODES)
def _mode(request: pytest.FixtureRequest) -> Any:
    return request.param


@given(steps=STEPS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_work_is_told(mode: str, steps: list[Any]) -> None:
    """A little of it each time; what was told disturbs no later leave."""
    assert_told(mode, steps)


@pytest.mark.slow
@given(steps=STEPS)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_much_random_work_is_told(mode: str, steps: list[Any]) -> None:
    """More of it."""
    assert_told(mode, steps)
