"""Compares a database before and after a level, and before and after the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena import _process
from pytest_arena._product import Held, Isolation
from pytest_arena.errors import ArenaError, IsolationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._ledger import Ledger
    from pytest_arena._product import Database

Content = dict[str, str]


class Verified:
    """Wraps an isolation, and compares the whole database before and after each level.

    The comparison does not rely on records of the isolation. After a difference pytest-arena
    restores the database by force, and raises an IsolationError that names the difference. If
    another connection holds a lock, the ledger notes that the level was not verified.

    Cost: two reads of all rows and definitions for each level.
    """

    def __init__(self, isolation: Isolation, name: str, ledger: Ledger) -> None:
        self._isolation = isolation
        self._name = name
        self._ledger = ledger
        # The content at the start of each level, None if it could not be read.
        self._before: list[Content | None] = []
        self._error: IsolationError | None = None  # of the level to leave by force

    def __getattr__(self, name: str) -> Any:
        return getattr(self._isolation, name)

    def enter(self) -> None:
        """Enter a level, and read its content."""
        self._isolation.enter()
        # Remove entries of interrupted levels.
        del self._before[self._isolation.depth - 1 :]
        self._before.append(self._read())

    def leave(self) -> bool:
        """Restore the content, and compare it. Return whether there was a change.

        Raises:
            Held: a connection holds a lock.
            IsolationError: the isolation failed, or there is a difference. The level still exists.
        """
        changed = self._isolation.restore()
        self._error = self._compared_with(self._before[-1])
        if self._error is not None:
            raise self._error  # the caller leaves the level by force
        self._isolation.leave()
        self._before.pop()
        return changed

    def leave_by_force(self) -> None:
        """Restore the content by force, and compare it.

        Raises:
            IsolationError: the isolation failed, or there is or was a difference.
        """
        position = self._isolation.depth - 1
        # A level whose start was interrupted has no entry.
        [before] = self._before[position:] or [None]
        del self._before[position:]
        self._isolation.leave_by_force()
        error = self._error or self._compared_with(before)
        self._error = None
        if error is not None:
            raise error

    def forget(self) -> None:
        """Drop the top level, and keep the present content."""
        self._isolation.forget()
        self._before.pop()

    def is_clean(self) -> bool:
        """Return whether the level has no change, by the isolation and by the content."""
        return self._isolation.is_clean() and not _different(
            self._before[-1], self._read()
        )

    def _compared_with(self, before: Content | None) -> IsolationError | None:
        """Read the content. Return an error if it differs from ``before``."""
        different = _different(before, self._read())
        if not different:
            return None
        return IsolationError(
            f"{self._name} is not as it was before: {different}",
            why="the next test would have started with the changes of this test",
            cause=f"the isolation {self._isolation.name!r} missed the change, or a thread or "
            "another process wrote during the comparison",
            fix="please report it, with the output of pytest --arena-verify",
        )

    def _read(self) -> Content | None:
        started = _process.seconds()
        missing = f"{self._name}: not every level was verified"
        content = _read_or_note(self._isolation, missing, self._ledger)
        if content is not None:
            self._ledger.verified += 1
            self._ledger.verified_seconds += _process.seconds() - started
        return content


_LONGEST = 2.0  # seconds
_NOT_COMPARED = (
    ": the states before the first and after the last test were not compared"
)


def first_content(isolation: Isolation, name: str, ledger: Ledger) -> Content | None:
    """Read a database before its first level, for ``differences_at_the_end``.

    Return None if the reading fails, or takes longer than 2 seconds. The ledger notes both.
    """
    started = _process.seconds()
    note_start = name + _NOT_COMPARED
    content = _read_or_note(isolation, note_start, ledger)
    if _process.seconds() - started > _LONGEST:
        ledger.note(f"{note_start}: reading it takes longer than 2 seconds")
        return None
    return content


def _read_or_note(isolation: Isolation, missing: str, ledger: Ledger) -> Content | None:
    try:
        return dict(isolation.content())
    except (Held, ArenaError) as error:
        ledger.note(f"{missing}: {error.args[0]}")
        return None


def differences_at_the_end(
    first_contents: Mapping[Database, Content | None], ledger: Ledger
) -> Iterator[str]:
    """Yield a line for each database whose content after the last test differs from the first one.

    Cost: one read of all rows and definitions of each database.
    """
    for database, before in first_contents.items():
        isolation = database.isolation
        if before is None or isolation is None or isolation.depth:
            continue
        after = _read_or_note(isolation, database.name + _NOT_COMPARED, ledger)
        different = _different(before, after)
        if different:
            yield (
                f"{database.name} is not as it was before the first test: {different}. "
                "A restore missed the change, or another program wrote. "
                "Run pytest --arena-verify: it fails the test that left the change"
            )


_MOST = 6


def _different(before: Content | None, after: Content | None) -> str:
    """Name what differs, "" if nothing does, or one of the contents is unknown."""
    if before is None or after is None:
        return ""
    different = []
    for name in sorted({*before, *after}, key=lambda name: (name[:3] == "def", name)):
        old = before.get(name)
        new = after.get(name)
        if old != new:
            different.append(name + _described(old, new))
    shown = ", ".join(different[:_MOST])
    hidden = len(different) - _MOST
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def _described(before: str | None, after: str | None) -> str:
    if before is None:
        return " (is new)"
    if after is None:
        return " (was removed)"
    old, is_table, _ = before.partition(" rows, ")
    new, _, _ = after.partition(" rows, ")
    return f" ({new} rows, and had {old} rows)" if is_table and new != old else ""
