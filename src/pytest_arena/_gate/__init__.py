"""How is an unmodified app led into the test's database, and kept from any other?"""

from __future__ import annotations

from pytest_arena._gate._base import Aim, Asked, Resolver
from pytest_arena._gate._engines import (
    asked_by_engine,
    asked_by_url,
    described_url,
    engine_like,
    find_engines,
    oldest_first,
    sync_twin,
    when_gone,
)
from pytest_arena._gate._listeners import Checkout, Gate, close, install
from pytest_arena._gate._loops import adopt
from pytest_arena._gate._origin import user_line
from pytest_arena._gate._refuse import NOWHERE, after_session, unknown_connection, unknown_file

__all__ = [
    "NOWHERE",
    "Aim",
    "Asked",
    "Checkout",
    "Gate",
    "Resolver",
    "adopt",
    "after_session",
    "asked_by_engine",
    "asked_by_url",
    "close",
    "described_url",
    "engine_like",
    "find_engines",
    "install",
    "oldest_first",
    "sync_twin",
    "unknown_connection",
    "unknown_file",
    "user_line",
    "when_gone",
]
