"""What ``undo`` says where it could not do without another database, or could not do at all."""

from __future__ import annotations

from pytest_arena.errors import IsolationError

__all__ = ["RowsLost", "replaced", "rolled_back"]

_SHOWN = 3


def replaced(marks: tuple[str, ...]) -> str:
    """Return the line for the summary: what no journal can take back. ``{test}`` is filled in."""
    more = len(marks) - _SHOWN
    # A table comes with its indexes and sequences: it is what somebody has written down.
    first = sorted(marks, key=lambda mark: " TABLE " not in mark)
    shown = ", ".join(first[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return "undo: {test}: its database was replaced: " + shown


def rolled_back(names: tuple[str, ...]) -> str:
    """Return the line for the summary: whoever prepared them has forgotten them."""
    return "undo: {test} has left prepared transactions, rolled back: " + ", ".join(names)


class RowsLost(IsolationError):
    """What fixtures of a wider scope had written could not be carried into another database."""

    def __init__(self, error: Exception) -> None:
        reason = (str(error).splitlines() or ["no reason was given"])[0]
        super().__init__(
            "what wider fixtures have written is lost: the change journal cannot be read",
            why="the test's database had to be replaced, and these rows stood in its journal alone",
            cause=f"{reason}\n(a test that dropped the journal's schema, a server that crashed)",
            fix='@pytest.mark.arena(isolation="clone")   # for a test that drops schemas',
        )
