"""What did the user ask for? Read once, frozen."""

from __future__ import annotations

from pytest_arena._config._options import (
    FLAGS,
    ISOLATIONS,
    KEEPS,
    OPTIONS,
    SWITCHES,
    Flag,
    Option,
)
from pytest_arena._config._read import (
    Config,
    OptionValue,
    check_choice,
    check_names,
    load_config,
)

__all__ = [
    "FLAGS",
    "ISOLATIONS",
    "KEEPS",
    "OPTIONS",
    "SWITCHES",
    "Config",
    "Flag",
    "Option",
    "OptionValue",
    "check_choice",
    "check_names",
    "load_config",
]
