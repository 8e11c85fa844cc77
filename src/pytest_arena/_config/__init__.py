"""What did the user ask for? Read once, frozen."""

from __future__ import annotations

from pytest_arena._config._options import FLAGS, OPTIONS, SWITCHES, Option
from pytest_arena._config._read import (
    MARKER,
    SCENARIO_MARKER,
    Config,
    check_names,
    load_config,
    marker_values,
)

__all__ = [
    "FLAGS",
    "MARKER",
    "OPTIONS",
    "SCENARIO_MARKER",
    "SWITCHES",
    "Config",
    "Option",
    "check_names",
    "load_config",
    "marker_values",
]
