"""How is an unmodified app led into the test's database, and kept from any other?"""

from __future__ import annotations

from pytest_arena._gate._engines import (
    asked_by_engine,
    asked_by_url,
    before_each_execution,
    described_url,
    engine_like,
    sync_twin,
)
from pytest_arena._gate._gate_notes import after_session, unknown_connection
from pytest_arena._gate._listeners import Gate, close, engines_in_use, find_engines, install
from pytest_arena._gate._loops import adopt
from pytest_arena._gate._registry import Checkout, Part, Registry
from pytest_arena._gate._writes import Doings, LostWrite, watch_statements

__all__ = [
    "Checkout",
    "Doings",
    "Gate",
    "LostWrite",
    "Part",
    "Registry",
    "adopt",
    "after_session",
    "asked_by_engine",
    "asked_by_url",
    "before_each_execution",
    "close",
    "described_url",
    "engine_like",
    "engines_in_use",
    "find_engines",
    "install",
    "sync_twin",
    "unknown_connection",
    "watch_statements",
]
