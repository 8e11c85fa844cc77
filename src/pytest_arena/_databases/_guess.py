"""Which product will the app's engine ask for, as long as there is no engine?"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config._load import is_library

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["guessed_product"]

_URL = re.compile(r"\b(sqlite|postgresql)(?:\+\w+)?://|\b(postgres)://")


def guessed_product(known: Collection[str]) -> str:
    """Return the only product that URLs in the app's code name; "" if there is none or several.

    An app that makes its engine when it starts up has no engine before its first client. What
    stands in the modules that are loaded is read, settings and default values among it. Costs
    some milliseconds, once.
    """
    found = {_product(match) for text in _sources() for match in _URL.finditer(text)}
    likely = found & set(known)
    return likely.pop() if len(likely) == 1 else ""


def _product(match: re.Match[str]) -> str:
    return match[1] or "postgresql"


def _sources() -> Iterator[str]:
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and not is_library(file):
            try:
                yield Path(file).read_text(encoding="utf-8", errors="replace")
            except OSError:  # in a zip, or gone
                continue
