"""pytest-arena: end-to-end tests of web apps, every test in a database of its own.

The plugin registers itself with pytest; a test needs no import. What stands here is for type
annotations (:class:`Arena`) and for those who catch an error by its class.
"""

from __future__ import annotations

from pytest_arena._arena import Arena
from pytest_arena.errors import (
    ArenaError,
    ConfigError,
    IsolationError,
    LeakError,
    RefusedError,
    TemplateError,
)

__all__ = [
    "Arena",
    "ArenaError",
    "ConfigError",
    "IsolationError",
    "LeakError",
    "RefusedError",
    "TemplateError",
]
