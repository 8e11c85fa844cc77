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

    def __init__(self, isolation: Isolation, database: str, ledger: Ledger) -> None:
        self._isolation = isolation
        self._database = database
        self._ledger = ledger
        # The content at the start of each level, None if it could not be read.
        self._before: list[Content | None] = []
        self._error: IsolationError | None = None
        isolation.call_after_leave(self._check)

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
        if self._error is not None:
            raise self._error
        changed = self._isolation.leave()
        del self._before[self._isolation.depth :]
        return changed

    def leave_by_force(self) -> None:
        """Restore the content by force, and compare it.

        Raises:
            IsolationError: the isolation failed, or there is or was a difference.
        """
        position = self._isolation.depth - 1
        before = None
        # A level whose start was interrupted has no entry.
        if position < len(self._before):
            before = self._before[position]
        del self._before[position:]
        self._isolation.leave_by_force()
        self._compare_with(before, "also after pytest-arena replaced the database")
        error = self._error
        self._error = None
        if error is not None:
            raise error

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep the present content."""
        self._isolation.forget(is_undone=is_undone)
        self._before.pop()

    def is_clean(self) -> bool:
        """Return whether the level has no change, by the isolation and by the content.

        If only the content shows a change, ``leave`` raises the error.
        """
        if not self._isolation.is_clean():
            return False
        outcome = "and the isolation reported no change"
        return self._compare_with(self._before[-1], outcome) is None

    def _check(self) -> None:
        """Compare the contents while the level can still be left by force."""
        error = self._compare_with(
            self._before[-1], "pytest-arena repaired it before the next test"
        )
        if error is not None:
            raise error

    def _compare_with(
        self, before: Content | None, outcome: str
    ) -> IsolationError | None:
        """Read the content, and keep an error for `leave` if it differs from ``before``."""
        different = _different(before, self._read())
        if not different:
            return None
        name = self._isolation.name
        self._error = IsolationError(
            f"{self._database} is not as it was before ({outcome}): {_shown(different)}",
            why="the next test would have started with the changes of this test",
            cause=f"the isolation {name!r} missed the change, or a thread or another process "
            "wrote during the comparison",
            fix=_FIXES.get(name, _REPORT),
        )
        return self._error

    def _read(self) -> Content | None:
        started = _process.seconds()
        content = _read_or_note(
            self._isolation,
            f"{self._database}: not every level was verified",
            self._ledger,
        )
        if content is not None:
            self._ledger.has_verified(_process.seconds() - started)
        return content


def first_content(
    isolation: Isolation, database: str, ledger: Ledger
) -> Content | None:
    """Read a database before its first level, for ``differences_at_the_end``.

    Return None if the reading fails, or takes longer than 2 seconds. The ledger notes both.
    """
    started = _process.seconds()
    missing = database + _NOT_COMPARED
    content = _read_or_note(isolation, missing, ledger)
    if _process.seconds() - started > _LONGEST:
        ledger.note(f"{missing}: reading it takes longer than 2 seconds")
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
                f"{database.name} is not as it was before the first test: {_shown(different)}. "
                "A restore missed the change, or another program wrote. "
                "Run pytest --arena-verify: it fails the test that left the change"
            )


_LONGEST = 2.0  # seconds
_NOT_COMPARED = (
    ": the states before the first and after the last test were not compared"
)
_REPORT = "please report it, with the output of pytest --arena-verify"
_FIXES = {"undo": f"pytest --arena-isolation=clone   # and {_REPORT}"}
_MOST = 6


def _different(before: Content | None, after: Content | None) -> list[str]:
    """Describe each difference, definitions last. Return [] if one of the contents is unknown."""
    if before is None or after is None:
        return []
    different = []
    for name in sorted({*before, *after}):
        old = before.get(name)
        new = after.get(name)
        if old != new:
            different.append(_difference(name, old, new))
    return sorted(different, key=lambda text: text.startswith("definition"))


def _shown(different: list[str]) -> str:
    shown = ", ".join(different[:_MOST])
    hidden = len(different) - _MOST
    if hidden > 0:
        shown += f" and {hidden} more"
    return shown


def _difference(name: str, before: str | None, after: str | None) -> str:
    if before is None:
        return f"{name} (is new)"
    if after is None:
        return f"{name} (was removed)"
    rows_before = _number_of_rows(before)
    rows_after = _number_of_rows(after)
    if rows_before == rows_after:
        return name
    return f"{name} ({rows_after}, and had {rows_before})"


def _number_of_rows(digest: str) -> str:
    number, comma, _ = digest.partition(" rows, ")
    if not comma:
        return ""
    return f"{number} rows"
