"""The hooks that arena calls: for state outside of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena._run import Level

__all__ = ["pytest_arena_enter", "pytest_arena_leave"]


def pytest_arena_enter(level: Level) -> None:
    """Called when a level begins: a test's, or a wider fixture's.

    ``level.name`` is the test's or the fixture's, ``level.is_test`` tells them apart. What is in
    the process's memory (a rate limiter, a cache) or in another service is brought back here, or
    in `pytest_arena_leave`.

    Example::

        def pytest_arena_enter(level):
            limiter.reset()
    """


def pytest_arena_leave(level: Level) -> None:
    """Called when a level ends, before the databases are brought back.

    A failure of this hook fails the test; the databases are brought back all the same.
    """
