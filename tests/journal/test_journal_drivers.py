"""The journal's connection is the same, whichever driver makes it."""

from __future__ import annotations

from contextlib import closing

import pytest

from pytest_arena._dialects._postgresql import _control as _postgresql_control
from pytest_arena._dialects._postgresql._control import Failed, open_control
from tests.journal.undo_world import DONE, NOTHING, undoing
from tests.servers.postgresql import address

KINDS = dict(_postgresql_control._KINDS)


@pytest.fixture(params=KINDS, autouse=True)
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of them alone."""
    pytest.importorskip(request.param)
    only = ((request.param, KINDS[request.param]),)
    monkeypatch.setattr(_postgresql_control, "_KINDS", only)
    return str(request.param)


@pytest.mark.parametrize("value", ["", "two words", "it's \\ \t'quoted'", "a=b -c c", "Größe"])
def test_settings_hold_as_they_are_given(value: str) -> None:
    """From the first moment on, whatever is in them."""
    with closing(open_control(address(), {"arena.word": value, "lock_timeout": "7s"})) as control:
        found = "SELECT current_setting('arena.word'), current_setting('lock_timeout')"
        assert control.rows(found) == [(value, "7s")]
        assert control.rows("SHOW standard_conforming_strings") == [("on",)]


def test_a_setting_that_the_server_refuses_is_a_failure() -> None:
    """It is not left out."""
    with pytest.raises(Failed, match="work_mem"):
        open_control(address(), {"work_mem": "much"})


def test_levels_and_changes() -> None:
    """Texts and arrays of the journal's are read alike."""
    table = (
        "CREATE TABLE notes (id serial PRIMARY KEY, a text); INSERT INTO notes (a) VALUES ('%s')"
    )
    with undoing(table) as world:
        before = world.content()
        assert world.journal.enter(1) == ()
        world.run("INSERT INTO notes (a) VALUES ('''\\ %')", "DELETE FROM notes WHERE id = 1")
        [notes] = world.journal.rows_changed(level=1, is_top=True)
        assert (notes.gone, notes.come) == (((1, "%s"),), ((2, "'\\ %"),))
        assert world.journal.look(1).is_changed
        world.journal.enter(2)
        archived = world.journal.archive(2)
        world.run("CREATE TABLE more (a int)")
        assert world.journal.look(2).marks == world.journal.leave(2).marks != ()
        world.run("DROP TABLE more")
        assert world.journal.install() == []
        after = world.content()
        world.run("DELETE FROM notes")
        assert world.journal.leave(1) == DONE
        assert world.content() == after
        assert world.journal.leave(1) == NOTHING
        world.run("DELETE FROM notes", "INSERT INTO notes VALUES (1, '%s')")
        world.run("ALTER SEQUENCE notes_id_seq RESTART", "SELECT nextval('notes_id_seq')")
        assert world.content() == before
        assert world.journal.install() == []
        world.journal.restore(archived, 2)
        assert world.content() == after


def test_values_that_python_does_not_have_are_texts() -> None:
    """A report must not fail on them."""
    with undoing("CREATE TABLE days (id int PRIMARY KEY, d date, at timestamptz)") as world:
        world.run("INSERT INTO days VALUES (1, '0044-03-15 BC', '20000-01-01 00:00+00')")
        [days] = world.journal.rows_changed(level=1, is_top=True)
        assert (days.key, days.columns) == (("id",), ("id", "d", "at"))
        assert str(days.come[0][1]) == "0044-03-15 BC"
        assert world.journal.leave(1) == DONE
