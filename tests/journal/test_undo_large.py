"""What is too large for one piece of memory is taken back in parts, as exactly."""

from __future__ import annotations

import pytest

from tests.journal.world import DONE, NOTHING, World, journaled, tamper

SCHEMA = """
CREATE TABLE kept (id serial PRIMARY KEY, a int UNIQUE, b text);
CREATE TABLE bare (a int NOT NULL, b text);
CREATE TABLE parts (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE part_0 PARTITION OF parts FOR VALUES IN (0);
CREATE TABLE part_1 PARTITION OF parts DEFAULT;
CREATE TABLE empty (id int PRIMARY KEY, b text);
INSERT INTO kept (a, b) SELECT g, 'kept ' || g FROM generate_series(1, {rows}) g;
INSERT INTO bare SELECT g % 100, 'bare ' || g / 3 FROM generate_series(1, {rows}) g;
INSERT INTO parts SELECT g, g % 3 FROM generate_series(1, {rows}) g;
"""
WORK = (
    "UPDATE kept SET a = -a, b = 'changed'",
    "DELETE FROM kept WHERE id % 7 = 0",
    "INSERT INTO kept (a, b) SELECT g, 'new' FROM generate_series(1, {rows}) g",
    "DELETE FROM bare WHERE a % 2 = 0",
    "INSERT INTO bare SELECT 1, 'bare 0' FROM generate_series(1, {rows})",
    "UPDATE parts SET part = 3 - part",
    "INSERT INTO empty SELECT g, 'e' FROM generate_series(1, {rows}) g",
    "TRUNCATE part_0",
)


def in_small_parts(name: str) -> None:
    """What is large is so with some hundred rows."""
    assert tamper(name, r"size > \d+", "size > 8192", of="^leave$")
    assert tamper(name, r"/ \d+ \+", "/ 70 +", of="^apply_large$")
    assert tamper(name, r"LIMIT \d+\) m\) = \d+", "LIMIT 500) m) = 500", of="^clear$")


@pytest.mark.parametrize("rows", [300, pytest.param(50_000, marks=pytest.mark.slow)])
def test_a_journal_in_parts_pitfall_064(rows: int) -> None:
    """Where a part ends in the midst of a table, its deletes still go before its inserts.

    The large one takes the time that it takes to write half a million entries twice.
    """
    with journaled(SCHEMA.format(rows=rows)) as template:
        template.close()
        if rows < 1000:
            in_small_parts(template.name)
        with journaled(template=template.name) as world:
            archived, states = _levels(world, rows)
        with journaled(template=template.name) as copy:
            assert copy.state() == states[0]
            copy.journal.restore(archived, 2)
            assert copy.state() == states[1]
            assert copy.journal.leave(1) == DONE
            assert copy.state() == states[0]


def _levels(world: World, rows: int) -> tuple[list[tuple[object, ...]], list[dict[str, object]]]:
    states = [world.state()]
    world.journal.enter(1)
    world.run(*(work.format(rows=rows) for work in WORK))
    states.append(world.state())
    world.journal.enter(2)
    archived = world.journal.archive(2)
    world.run("DELETE FROM empty", "DELETE FROM bare", "UPDATE kept SET b = 'again'")
    assert world.journal.leave(2) == DONE
    assert world.state() == states[1]
    assert world.journal.leave(1) == DONE
    assert world.state() == states[0]
    assert world.journal.leave(1) == NOTHING
    assert world.inside("SELECT rel FROM {s}.j UNION ALL SELECT rel FROM {s}.jold") == []
    return archived, states


@pytest.mark.slow
def test_rows_of_megabytes_pitfall_064() -> None:
    """No part is larger than a value may be, however few its rows are."""
    with journaled(
        "CREATE TABLE images (id int PRIMARY KEY, data bytea)",
        "CREATE TABLE bare (data text)",
        "INSERT INTO images SELECT g, repeat('ab', 300000 * g)::bytea FROM generate_series(1, 4) g",
    ) as world:
        small = "OVER w / 3000000)::int4"
        assert tamper(world.name, r"OVER w / \d+\)::int4", small, of="^apply_large$")
        before = world.state()
        world.run("UPDATE images SET data = data || '1'", "DELETE FROM images WHERE id = 2")
        world.run("INSERT INTO bare SELECT repeat('x', 1000000) FROM generate_series(1, 3)")
        assert world.journal.leave(1) == DONE
        assert world.state() == before


@pytest.mark.slow
def test_the_journal_stays_small_pitfall_061() -> None:
    """Dead entries are given back, now and then."""
    with journaled("CREATE TABLE notes (id serial PRIMARY KEY, a text)") as world:
        sizes = []
        for _ in range(60):
            world.journal.enter(1)
            world.run("INSERT INTO notes (a) SELECT 'note' FROM generate_series(1, 100)")
            world.journal.enter(2)
            world.run("DELETE FROM notes WHERE id % 2 = 0")
            assert world.journal.leave(2) == DONE
            assert world.journal.leave(1) == DONE
            sizes += world.inside("SELECT {s}.size()")
        assert max(sizes) < (600_000,)
