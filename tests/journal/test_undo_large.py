"""What is too large for one piece of memory is taken back in parts, as exactly."""

from __future__ import annotations

import pytest

from pytest_arena._dialects._postgresql_journal import _functions as _postgresql_undo
from tests.journal.undo_world import DONE, NOTHING, UndoWorld, undoing

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


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large is so with some hundred rows."""
    monkeypatch.setattr(_postgresql_undo, "_LARGE", 8192)
    monkeypatch.setattr(_postgresql_undo, "_PART_ROWS", 70)
    monkeypatch.setattr(_postgresql_undo, "_MANY", 500)


@pytest.mark.usefixtures("in_small_parts")
def test_pitfall_064_a_journal_in_parts() -> None:
    """Where a part ends in the midst of a table, its deletes still go before its inserts."""
    _undo_and_redo(rows=300)


@pytest.mark.slow
def test_pitfall_064_a_journal_of_half_a_million_entries() -> None:
    """And in the time that it takes to write so many rows twice."""
    _undo_and_redo(rows=50_000)


def _undo_and_redo(rows: int) -> None:
    with undoing(SCHEMA.format(rows=rows)) as template:
        template.close()
        with undoing(template=template.name) as world:
            archived, states = _levels(world, rows)
        with undoing(template=template.name) as copy:
            assert copy.content() == states[0]
            copy.journal.restore(archived, 2)
            assert copy.content() == states[1]
            assert copy.journal.leave(1) == DONE
            assert copy.content() == states[0]
            copy.journal.restore(archived, 2)
            assert copy.journal.recover()
            assert copy.content() == states[0]


def _levels(world: UndoWorld, rows: int) -> tuple[list[tuple[object, ...]], list[dict[str, str]]]:
    states = [world.content()]
    world.journal.enter(1)
    world.run(*(work.format(rows=rows) for work in WORK))
    states.append(world.content())
    world.journal.enter(2)
    archived = world.journal.archive(2)
    world.run("DELETE FROM empty", "DELETE FROM bare", "UPDATE kept SET b = 'again'")
    assert world.journal.leave(2) == DONE
    assert world.content() == states[1]
    assert world.journal.leave(1) == DONE
    assert world.content() == states[0]
    assert world.journal.leave(1) == NOTHING
    assert (
        world.inside("SELECT * FROM {s}.j UNION ALL SELECT 0, 0, 0::text::xid8, '' FROM {s}.jold")
        == []
    )
    return archived, states


def test_pitfall_064_rows_of_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part is larger than a value may be, however few its rows are."""
    monkeypatch.setattr(_postgresql_undo, "_PART_BYTES", 3_000_000)
    with undoing(
        "CREATE TABLE images (id int PRIMARY KEY, data bytea)",
        "CREATE TABLE bare (data text)",
        "INSERT INTO images SELECT g, repeat('ab', 300000 * g)::bytea FROM generate_series(1, 4) g",
    ) as world:
        before = world.content()
        world.run("UPDATE images SET data = data || '1'", "DELETE FROM images WHERE id = 2")
        world.run("INSERT INTO bare SELECT repeat('x', 1000000) FROM generate_series(1, 3)")
        assert world.journal.leave(1) == DONE
        assert world.content() == before


def test_pitfall_061_the_journal_stays_small() -> None:
    """Dead entries are given back, now and then."""
    with undoing("CREATE TABLE notes (id serial PRIMARY KEY, a text)") as world:
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
