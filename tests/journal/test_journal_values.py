"""What does the journal make of texts and of values that Python does not have?"""

from __future__ import annotations

from tests.journal.world import DONE, NOTHING, journaled


def test_levels_and_changes() -> None:
    """Texts and arrays of the journal's are read alike."""
    table = (
        "CREATE TABLE notes (id serial PRIMARY KEY, a text); INSERT INTO notes (a) VALUES ('%s')"
    )
    with journaled(table) as world:
        before = world.state()
        assert world.journal.enter(1) == ()
        world.run("INSERT INTO notes (a) VALUES ('''\\ %')", "DELETE FROM notes WHERE id = 1")
        [notes] = world.journal.rows_changed(level=1, is_top=True)
        assert (notes.removed, notes.added) == (((1, "%s"),), ((2, "'\\ %"),))
        assert world.journal.look(1).is_changed
        world.journal.enter(2)
        archived = world.journal.archive(2)
        world.run("CREATE TABLE more (a int)")
        assert world.journal.look(2).marks == world.journal.leave(2).marks != ()
        world.run("DROP TABLE more")
        assert world.journal.install() == []
        after = world.state()
        world.run("DELETE FROM notes")
        assert world.journal.leave(1) == DONE
        assert world.state() == after
        assert world.journal.leave(1) == NOTHING
        world.run("DELETE FROM notes", "INSERT INTO notes VALUES (1, '%s')")
        world.run("ALTER SEQUENCE notes_id_seq RESTART", "SELECT nextval('notes_id_seq')")
        assert world.state() == before
        assert world.journal.install() == []
        world.journal.restore(archived, 2)
        assert world.state() == after


def test_values_that_python_does_not_have_are_texts() -> None:
    """A report must not fail on them."""
    with journaled("CREATE TABLE days (id int PRIMARY KEY, d date, at timestamptz)") as world:
        world.run("INSERT INTO days VALUES (1, '0044-03-15 BC', '20000-01-01 00:00+00')")
        [days] = world.journal.rows_changed(level=1, is_top=True)
        assert (days.key, days.columns) == (("id",), ("id", "d", "at"))
        assert str(days.added[0][1]) == "0044-03-15 BC"
        assert world.journal.leave(1) == DONE
