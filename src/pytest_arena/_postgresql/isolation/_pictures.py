"""What does a level stand on, and how is a database made of it that stands as the level did?"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import Failed
from pytest_arena._postgresql.isolation import _undo_messages as messages
from pytest_arena._postgresql.isolation._stock import Stock
from pytest_arena._postgresql.journal._server import ServerJournal
from pytest_arena._postgresql.journal._templates import journaled

if TYPE_CHECKING:
    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena.errors import IsolationError

__all__ = ["Archive", "Picture", "Pictures"]


@dataclass(eq=False, frozen=True, slots=True)
class Picture:
    """A database with an empty journal that nobody connects to, and what is made of it ahead."""

    name: str
    stock: Stock


@dataclass(frozen=True, slots=True)
class Archive:
    """What levels had written, as a journal gave it, or why it could not."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    loss: IsolationError | None = None


class Pictures:
    """The templates of one isolation, and the databases that it has frozen as they stood."""

    def __init__(self, own: ServerRegistry) -> None:
        self._own = own
        self._templates: dict[str | None, Picture] = {}
        self._frozen: list[Picture] = []

    def template(self, content: str | None, *, is_journaled: bool = False) -> Picture:
        """Return the picture of a template, or of none, with a journal in it."""
        if content not in self._templates:
            name = content if is_journaled and content else journaled(self._own, content)
            self._templates[content] = Picture(name, Stock(self._own, name))
        return self._templates[content]

    def frozen(self, name: str) -> Picture:
        """Return the picture that a database has become, which is dropped when it is not used."""
        self._frozen.append(Picture(name, Stock(self._own, name)))
        return self._frozen[-1]

    def first_copy(self, source: str) -> tuple[str, ServerJournal]:
        """Return a copy that nobody has made ahead, and its journal.

        Raises:
            ArenaError: no copy can be made.
        """
        return self._ready(self._own.create("live", template=source), 0, [])

    def copy(
        self, picture: Picture, number: int, rows: list[tuple[Any, ...]]
    ) -> tuple[str, ServerJournal]:
        """Return the next copy, as a level stood that had such an archive below it.

        Raises:
            RowsLost: what was archived does not fit it.
            ArenaError: no copy can be made.
        """
        return self._ready(picture.stock.take(), number, rows)

    def _ready(
        self, name: str, number: int, rows: list[tuple[Any, ...]]
    ) -> tuple[str, ServerJournal]:
        """Connect before anybody else: the journal remembers by that where sequences begin."""
        journal = None
        try:
            with self._own.saying("a copy cannot be connected to"):
                journal = ServerJournal(self._own.address_of(name))
                if journal.look().marks:  # the server has crashed, and with it the picture's own
                    journal.install()
                _fill(journal, number, rows)
        except BaseException:
            if journal is not None:
                journal.close()
            self._own.drop_later(name)
            raise
        return name, journal

    def taken_over(self, template: Picture) -> tuple[str, ServerJournal] | None:
        """Return what a run that was killed has left of a template, if it is as good as new."""
        name, journal = self._own.take_over(template.name), None
        if name is None:
            return None
        with suppress(Failed):
            journal = ServerJournal(self._own.address_of(name))
            if journal.recover():
                return name, journal
        if journal is not None:
            journal.close()
        self._own.drop_later(name)
        return None

    def drop_unused(self, used: set[Picture]) -> None:
        """Drop what was frozen and is no level's any more."""
        for picture in [picture for picture in self._frozen if picture not in used]:
            self._frozen.remove(picture)
            picture.stock.discard()
            self._own.drop_later(picture.name)

    def close(self) -> None:
        """Drop all that was made here."""
        self.drop_unused(set())
        for picture in self._templates.values():
            picture.stock.discard()


def _fill(journal: ServerJournal, number: int, rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    try:
        journal.restore(rows, number)
    except Failed as error:
        raise messages.RowsLost(error) from error
