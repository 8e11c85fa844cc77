"""pytest-arena: end-to-end tests of web apps, every test in a database of its own.

The plugin registers itself with pytest; a test needs no import. What stands here is for type
annotations (:class:`Arena`, :class:`Changes`, :class:`Scenario`), for what a block is expected to
change, and for those who catch an error by its class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._changes import Change, Changes
from pytest_arena._expect import deleted, inserted, updated
from pytest_arena.errors import (
    ArenaError,
    ConfigError,
    IsolationError,
    LeakError,
    RefusedError,
    TemplateError,
)

if TYPE_CHECKING:
    from pytest_arena._run._facade import Arena
    from pytest_arena.scenarios._blocks import Scenario

__all__ = [
    "Arena",
    "ArenaError",
    "Change",
    "Changes",
    "ConfigError",
    "IsolationError",
    "LeakError",
    "RefusedError",
    "Scenario",
    "TemplateError",
    "deleted",
    "inserted",
    "updated",
]


def __getattr__(name: str) -> object:
    # Imported when it is asked for: the command `arena` comes by here, and needs no SQLAlchemy.
    if name == "Arena":
        from pytest_arena._run._facade import Arena  # noqa: PLC0415 - as said

        return Arena
    if name == "Scenario":
        from pytest_arena.scenarios._blocks import Scenario  # noqa: PLC0415 - as said

        return Scenario
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
