"""What did the user ask for? Read once, frozen."""

from __future__ import annotations

from pytest_arena._config._options import ISOLATIONS, KEEPS, OPTIONS, SWITCHES, Option
from pytest_arena._config._read import (
    Config,
    OptionValue,
    check_choice,
    check_names,
    load_config,
)

__all__ = [
    "ISOLATIONS",
    "KEEPS",
    "OPTIONS",
    "SWITCHES",
    "Config",
    "Option",
    "OptionValue",
    "check_choice",
    "check_names",
    "load_config",
]
