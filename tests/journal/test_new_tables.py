"""Tables that are made above a level's start: their rows are told like those of all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.journal._server import ServerJournal
from tests.journal.world import World, journaled
from tests.servers.postgresql import address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import TableRows

    Rows = set[tuple[object, ...]]

SCHEMA = """
CREATE TABLE steps (name text, beats int);
CREATE TABLE log (day int, what text) PARTITION BY LIST (day);
CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1);
CREATE TABLE parents (a int PRIMARY KEY);
INSERT INTO steps VALUES ('one', 1), ('two', 2);
INSERT INTO log VALUES (1, 'first');
"""


@pytest.fixture
def world() -> Iterator[World]:
    """A test's level, in a database with tables of each kind."""
    with journaled(SCHEMA) as found:
        found.journal.enter(1)
        yield found


def _changed(world: World, since: str = "", until: str = "") -> dict[str, TableRows]:
    found = world.journal.rows_changed(level=1, is_top=True, since=since, until=until)
    return {one.table: one for one in found}


def _told(world: World, since: str = "", until: str = "") -> dict[str, tuple[Rows, Rows]]:
    """Without the schema's marks: what has gone and come."""
    found = _changed(world, since, until)
    return {
        table: (set(one.removed), set(one.added))
        for table, one in found.items()
        if table != "the schema"
    }


def test_rows_of_a_new_table_are_told_from_its_first_on_pitfall_029(world: World) -> None:
    """Also those of before anybody asked: what stands in a new table has come."""
    world.run("CREATE TABLE item (id serial PRIMARY KEY, name text)")
    world.run("INSERT INTO item (name) VALUES ('lifespan'), ('old')")
    made = world.journal.moment()
    world.run("INSERT INTO item (name) VALUES ('request')", "DELETE FROM item WHERE name = 'old'")
    world.run("UPDATE item SET name = 'LIFESPAN' WHERE id = 1")
    after = world.journal.moment()
    world.run("TRUNCATE item")
    assert _told(world, until=made) == {"item": (set(), {(1, "lifespan"), (2, "old")})}
    assert _told(world, made, after) == {
        "item": ({(1, "lifespan"), (2, "old")}, {(1, "LIFESPAN"), (3, "request")})
    }
    assert _told(world, after) == {"item": ({(1, "LIFESPAN"), (3, "request")}, set())}
    assert _told(world) == {}
    [item] = [one for name, one in _changed(world, made, after).items() if name == "item"]
    assert (item.columns, item.key) == (("id", "name"), ("id",))


def test_a_table_that_is_made_and_filled_after_a_moment_pitfall_029(world: World) -> None:
    """As in one request; also made as a copy of another."""
    before = world.journal.moment()
    world.run("CREATE TABLE item (a int)", "INSERT INTO item VALUES (1), (1)")
    world.run("CREATE TABLE copied AS SELECT * FROM steps")
    found = _changed(world, before)
    assert found["item"].added == ((1,), (1,))
    assert set(found["copied"].added) == {("one", 1), ("two", 2)}
    assert ("CREATE TABLE public.item",) in found["the schema"].added


def test_a_level_with_new_tables_is_replaced_as_ever(world: World) -> None:
    """And where a wide fixture has made them, they are undone as all others from then on."""
    world.run("CREATE TABLE item (a int)")
    world.journal.moment()
    world.run("INSERT INTO item VALUES (1)")
    assert world.journal.leave(1).marks == ("CREATE TABLE public.item",)
    assert world.journal.enter(2) == ("CREATE TABLE public.item",)
    assert world.journal.install() == []
    world.journal.enter(1)
    before = world.state()
    world.run("INSERT INTO item VALUES (2)")
    assert _told(world) == {"item": (set(), {(2,)})}
    assert world.journal.leave(1).marks == ()
    assert world.state() == before


def test_a_new_table_that_is_gone_again_has_no_rows(world: World) -> None:
    """None of them has come, and nobody could say what they were called."""
    world.run("CREATE TABLE item (a int)")
    world.journal.moment()
    world.run("INSERT INTO item VALUES (1)", "DROP TABLE item")
    assert list(_changed(world)) == ["the schema"]


def test_new_partitions_pitfall_050(world: World) -> None:
    """Of a table that was there, rows that went through it are known; of a new one, all."""
    world.run("CREATE TABLE log_2 PARTITION OF log FOR VALUES IN (2)")
    world.run("INSERT INTO log VALUES (2, 'through')")
    world.run("CREATE TABLE days (day int) PARTITION BY LIST (day)")
    world.run("CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1)")
    world.run("INSERT INTO days VALUES (1)")
    made = world.journal.moment()
    world.run("INSERT INTO log_2 VALUES (2, 'direct')")
    world.run("CREATE TABLE days_2 PARTITION OF days FOR VALUES IN (2)")
    world.run("INSERT INTO days_1 VALUES (1)", "INSERT INTO days VALUES (2)")
    assert _told(world, made) == {"log": (set(), {(2, "direct")}), "days": (set(), {(1,), (2,)})}
    days = _changed(world)["days"]
    assert sorted(days.added) == [(1,), (1,), (2,)]
    assert _told(world)["log"] == (set(), {(2, "through"), (2, "direct")})


def test_a_new_child_of_a_table_pitfall_051(world: World) -> None:
    """Its rows are told once, whichever of the two a statement names."""
    world.run("CREATE TABLE children (b int) INHERITS (parents)")
    world.run("INSERT INTO parents VALUES (1)", "INSERT INTO children VALUES (2, 2)")
    made = world.journal.moment()
    world.run("UPDATE parents SET a = a + 10")
    told = {"parents": ({(1,)}, {(11,)}), "children": ({(2, 2)}, {(12, 2)})}
    assert _told(world, made) == told


def test_a_table_without_its_triggers_is_not_taken_for_a_new_one(world: World) -> None:
    """What stood in it at the level's start has not come."""
    world.run('DROP TRIGGER "!arena_i" ON steps', 'DROP TRIGGER "!arena_u" ON steps')
    world.run('DROP TRIGGER "!arena_d" ON steps', 'DROP TRIGGER "!arena_t" ON steps')
    assert _told(world) == {}


@pytest.mark.slow
def test_a_new_table_that_somebody_writes_to_pitfall_044(world: World) -> None:
    """It waits for nobody, says that it does not know all, and knows it the next time."""
    world.run("CREATE TABLE item (a int)")
    before = world.journal.moment()
    world.run("DROP TABLE item", "CREATE TABLE item (a int)")
    missing = ("some rows of public.item are not listed, because it could not be locked",)
    with world.another("BEGIN", "INSERT INTO item VALUES (1)") as other:
        assert missing in _changed(world, before)["the schema"].added
        during = world.journal.moment()
        other.execute("COMMIT")
    found = _changed(world, during)
    assert found["item"].added == ((1,),)
    assert found["the schema"].added == (missing,)
    known = world.journal.moment()
    world.run("INSERT INTO item VALUES (2)")
    assert list(_changed(world, known)) == ["item"]


def test_rows_of_new_tables_are_told_whatever_the_shell_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are read under the settings that they were written under."""
    with journaled(SCHEMA) as world:
        monkeypatch.setenv("PGTZ", "Asia/Tokyo")
        world.journal.close()
        world.journal = ServerJournal(address(world.name))
        world.journal.enter(1)
        world.run("CREATE TABLE item (at timestamptz)")
        world.run("INSERT INTO item VALUES ('2026-01-01 12:00+00')")
        made = world.journal.moment()
        world.run("DELETE FROM item")
        assert _told(world) == {}
        assert len(_told(world, made)["item"][0]) == 1
