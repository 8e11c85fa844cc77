"""A database with a journal, apps at work in it, and somebody who takes back what they did."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_arena._dialects._postgresql._content import content
from pytest_arena._dialects._postgresql._control import open_control
from pytest_arena._dialects._postgresql_journal._capture import fitting_schema, install
from pytest_arena._journal import Left, ServerJournal
from tests.journal.capture_world import database
from tests.servers.postgresql import address, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

__all__ = ["DONE", "NOTHING", "UndoWorld", "undoing"]

DONE = Left(was_changed=True)
NOTHING = Left(was_changed=False)


class UndoWorld:
    """Levels of one database, and an app that is always connected."""

    def __init__(self, name: str, app: psycopg.Connection[Any]) -> None:
        self.name, self.app = name, app
        self.journal = ServerJournal(address(name))
        self._reader = open_control(address(name))

    def run(self, *statements: str) -> None:
        """Have the app do something, and commit it."""
        for statement in statements:
            self.app.execute(statement)

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Have the app ask something."""
        return self.app.execute(question).fetchall()

    @contextmanager
    def another(self, *statements: str) -> Iterator[psycopg.Connection[Any]]:
        """Connect once more."""
        with connect(self.name) as connection:
            for statement in statements:
                connection.execute(statement)
            yield connection

    def content(self) -> dict[str, str]:
        """Digests of all that stands, by another way than the journal's."""
        return content(self._reader)

    def inside(self, question: str) -> list[tuple[Any, ...]]:
        """Look into the journal's own schema, `{s}`."""
        return self.journal._control.rows(question.format(s=self.journal._schema))

    def close(self) -> None:
        """Give all back."""
        self.journal.close()
        self._reader.close()
        self.app.close()


@contextmanager
def undoing(*statements: str, template: str = "") -> Iterator[UndoWorld]:
    """A database with these in it, with a journal: a template has it already."""
    with ExitStack() as stack:
        name = stack.enter_context(database(*statements, template=template))
        if not template:
            with closing(open_control(address(name))) as control:
                found = install(control, fitting_schema(control))
                assert not any(one.is_fatal for one in found), found
        world = UndoWorld(name, connect(name))
        stack.callback(world.close)
        yield world
