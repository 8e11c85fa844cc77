"""Is each database after a level what it was before it, as can be read in the database itself?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena import _process
from pytest_arena._product import Held, Isolation
from pytest_arena.errors import ArenaError, IsolationError

if TYPE_CHECKING:
    from pytest_arena._ledger import Ledger

_Content = dict[str, str]


class Verified:
    """An isolation whose database is read whole, before each level and after it.

    What is compared comes from the database itself, and not from what the isolation knows of it. A
    difference raises an IsolationError that names what is different; before that, the database is
    brought back by force, so that the next level starts as it should. Where the database could
    not be read, because somebody held a lock on it, that is noted for the summary.

    Cost: two readings of all rows and definitions for each level; see ``content`` of the dialects.
    """

    def __init__(self, isolation: Isolation, database: str, ledger: Ledger) -> None:
        self._isolation, self._database, self._ledger = isolation, database, ledger
        self._before: list[
            _Content | None
        ] = []  # by level; None where it could not be read
        self._found: IsolationError | None = None
        isolation.check = self._check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._isolation, name)

    def enter(self) -> None:
        """Open a level, and read what it begins with."""
        self._isolation.enter()
        # Whoever was broken off may have left one too many.
        self._before[self._isolation.depth - 1 :] = [self._read()]

    def leave(self) -> bool:
        """Go back, and compare.

        Raises:
            Held: as the isolation does.
            IsolationError: likewise, or there is a difference; the level is still there.
        """
        if self._found is not None:
            raise self._found
        changed = self._isolation.leave()
        del self._before[self._isolation.depth :]
        return changed

    def leave_by_force(self) -> None:
        """Go back by the isolation's last resort, and compare.

        Raises:
            IsolationError: likewise, or there was a difference before, or is one now.
        """
        number = self._isolation.depth - 1
        # One that was broken off at its start was not read.
        before = self._before[number] if number < len(self._before) else None
        del self._before[number:]
        self._isolation.leave_by_force()
        if different := _different(before, self._read()):
            self._found = self._error(
                different, "also where it was put in its place anew"
            )
        found, self._found = self._found, None
        if found is not None:
            raise found

    def forget(self, *, is_undone: bool = False) -> None:
        """Drop the top level, and keep what stands."""
        self._isolation.forget(is_undone=is_undone)
        self._before.pop()

    def is_clean(self) -> bool:
        """Whether nothing was changed, as the isolation says and as can be seen.

        One that only says so is told of when the level is left.
        """
        if not self._isolation.is_clean():
            return False
        different = _different(self._before[-1], self._read())
        if different:
            self._found = self._error(different, "and the level was called clean")
        return not different

    def _check(self) -> None:
        """Compare, while the level can still be left by force."""
        if different := _different(self._before[-1], self._read()):
            self._found = self._error(
                different, "which was put right before the next test"
            )
            raise self._found

    def _read(self) -> _Content | None:
        started = _process.seconds()
        try:
            found = dict(self._isolation.content())
        except (Held, ArenaError) as error:
            self._ledger.note(
                f"{self._database}: not verified each time: {error.args[0]}"
            )
            return None
        self._ledger.has_verified(_process.seconds() - started)
        return found

    def _error(self, different: list[str], outcome: str) -> IsolationError:
        name, more = self._isolation.name, len(different) - _MOST
        shown = ", ".join(different[:_MOST]) + f" and {more} more" * (more > 0)
        return IsolationError(
            f"{self._database} is not as it was before ({outcome}): {shown}",
            why="the next test would have started on what this one left",
            cause=f"the isolation {name!r} missed it, or somebody wrote while it was verified: a "
            "thread, another process",
            fix=_FIXES.get(name, _REPORT),
        )


_REPORT = "please report it, with the output of pytest --arena-verify"
_FIXES = {"undo": f"pytest --arena-isolation=clone   # and {_REPORT}"}
_MOST = 6


def _different(before: _Content | None, after: _Content | None) -> list[str]:
    """Return in words what is different, nothing where it is not known."""
    if before is None or after is None or before == after:
        return []
    names = sorted(
        {*before, *after}, key=lambda name: (name.startswith("definition"), name)
    )
    changed = [name for name in names if before.get(name) != after.get(name)]
    return [_difference(name, before.get(name), after.get(name)) for name in changed]


def _difference(name: str, before: str | None, after: str | None) -> str:
    if before is None:
        return f"{name} (was not there)"
    if after is None:
        return f"{name} (is gone)"
    # What a person can read of a digest of rows is their number.
    was, now = (
        text[: text.find(" rows, ") + 5] if " rows, " in text else ""
        for text in (before, after)
    )
    return f"{name} ({now}, and had {was})" if was != now else name
