"""Finds the unflushed objects of a session, and the connections of its transaction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Column, inspect
from sqlalchemy.orm import (
    ColumnProperty,
    InstanceState,
    PassiveFlag,
    RelationshipProperty,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session

    from pytest_arena._values import CodeLine


@dataclass(slots=True, eq=False, weakref_slot=True)
class PendingObjects:
    """The unflushed objects of a session at one time, as SQLAlchemy's states.

    A state does not keep its object alive.
    """

    session: int  # the session's number
    added: list[InstanceState[object]]
    changed: list[InstanceState[object]]
    deleted: list[InstanceState[object]]
    line: CodeLine | None = None  # the line that added the first of them
    is_given_up: bool = (
        False  # whether the app has closed the session or rolled it back
    )

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.deleted)

    def __str__(self) -> str:
        parts = [
            *_words("added", self.added),
            *_words("changed", self.changed),
            *_words("deleted", self.deleted),
        ]
        return ", ".join(parts)

    def note_line(self, line: CodeLine | None) -> None:
        """Note the line that added the first of them."""
        self.line = line

    def give_up(self) -> None:
        """Note that the app has closed the session or rolled it back."""
        self.is_given_up = True

    @property
    def are_written(self) -> bool:
        """Whether a flush has written any of the objects since."""
        return (
            any(state.key is not None for state in self.added)
            or any(not state.modified for state in self.changed)
            or any(state.was_deleted for state in self.deleted)
        )


def pending_objects(session: Session) -> PendingObjects:
    """Return the objects that a flush of this session would write now."""
    number = session.hash_key
    changed = [state for state in _states(session.dirty) if _is_changed(state, number)]
    return PendingObjects(
        number, _states(session.new), changed, _states(session.deleted)
    )


def connections_of(session: Session) -> list[Connection]:
    """Return the open connections of the session's transaction.

    SQLAlchemy has no public way to them. The owner of a connection may have closed it before the
    end of a session's transaction on it.
    """
    transaction = session.get_transaction()
    if transaction is None:
        return []
    entries = set(transaction._connections.values())  # noqa: SLF001 - as above
    return [connection for connection, *_ in entries if not connection.closed]


def is_of_arena(session: Session) -> bool:
    """Return whether pytest-arena has made a session: ``db_session``, ``arena.session()``."""
    return type(session).__module__.startswith(ARENA)


ARENA = "pytest_arena."
# By the number of a session: the line where a test or fixture first added an object. The commit or
# end of the session removes its entry. Sessions of requests and of pytest-arena have no entry.
ADDS_OF_TESTS: dict[int, CodeLine | None] = {}


def _states(instances: Iterable[object]) -> list[InstanceState[object]]:
    return [inspect(instance) for instance in instances]


def _is_changed(state: InstanceState[object], session: int) -> bool:
    """Return whether a flush would write an object that has a row.

    ``Session.is_modified`` also counts an object that refers to a new one outside of the session.
    """
    for name in list(state.committed_state):
        attribute = state.mapper.attrs.get(name)
        if attribute is None or not _is_written(attribute):
            continue
        history = state.get_history(name, PassiveFlag.PASSIVE_NO_INITIALIZE)
        values = [*history.added, *history.deleted]
        if isinstance(attribute, RelationshipProperty):
            # New objects are counted as added, so only objects with a row count here.
            values = [value for value in values if _is_stored_in(value, session)]
        if values:
            return True
    return False


def _is_written(attribute: object) -> bool:
    if isinstance(attribute, RelationshipProperty):
        return not attribute.viewonly
    return isinstance(attribute, ColumnProperty) and isinstance(
        attribute.columns[0], Column
    )


def _is_stored_in(value: object, session: int) -> bool:
    """Return whether a value is an object of this session that has a row."""
    state = inspect(value, raiseerr=False) if value is not None else None
    if not isinstance(state, InstanceState):
        return False
    return bool(state.session_id == session and state.key is not None)


def _words(verb: str, states: list[InstanceState[object]]) -> list[str]:
    """Return for each class a text such as ``added Order (2)``."""
    counts = Counter(state.class_.__name__ for state in states)
    words = []
    for name, count in counts.items():
        number = f" ({count:,})" if count > 1 else ""
        words.append(f"{verb} {name}{number}")
    return words
