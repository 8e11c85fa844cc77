"""What did the user ask for? Read once, frozen."""

from __future__ import annotations

from pytest_arena._config._options import FLAGS, OPTIONS, Option
from pytest_arena._config._read import MARKERS, Config, load_config, marker_values

__all__ = [
    "FLAGS",
    "MARKERS",
    "OPTIONS",
    "Config",
    "Option",
    "load_config",
    "marker_values",
]
