"""Public: what tests of the plugin, and of one's own variants, are made of."""

from __future__ import annotations

from pytest_arena.testing._conformance import ORDERS, Conformance, Trial, promises_hold
from pytest_arena.testing._example import APP, CONFIG, Example, Run, fastapi_example
from pytest_arena.testing._setting import CAPABILITIES, Setting
from pytest_arena.testing._verdict import Broken, Verdict

__all__ = [
    "APP",
    "CAPABILITIES",
    "CONFIG",
    "ORDERS",
    "Broken",
    "Conformance",
    "Example",
    "Run",
    "Setting",
    "Trial",
    "Verdict",
    "fastapi_example",
    "promises_hold",
]
